//! `x-request-id`: a random UUID whose version digit tells later hops why the request is traced.
//!
//! Position 14 of the text is `4` in a fresh id, `9` sampled, `a` forced by a service
//! (`x-envoy-force-trace`), `b` forced by the client (`x-client-trace-id`), as in Envoy's UUID
//! request id extension. The first eight digits are the number that sampling compares, so that all
//! hops with equal settings decide alike.

use stdx::Rng;

const LENGTH: usize = 36;
const REASON_AT: usize = 14;

/// Why a request is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    NotTraceable,
    Sampling,
    ServiceForced,
    ClientForced,
}

impl Reason {
    /// Whether a span is made.
    pub fn is_traced(self) -> bool {
        self != Self::NotTraceable
    }

    fn digit(self) -> u8 {
        match self {
            Self::NotTraceable => b'4',
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }
}

/// What the request id has to do with tracing (`UuidRequestIdConfig`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestIdPolicy {
    /// Write the reason into the id.
    pub pack_trace_reason: bool,
    /// Take the id's number for the decision; without it every request counts as sampled here and
    /// the tracer decides.
    pub use_for_sampling: bool,
}

impl Default for RequestIdPolicy {
    fn default() -> Self {
        Self {
            pack_trace_reason: true,
            use_for_sampling: true,
        }
    }
}

/// Sampling percentages, 0 to 100 with two decimals of effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    pub client: f64,
    pub random: f64,
    pub overall: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            client: 100.0,
            random: 100.0,
            overall: 100.0,
        }
    }
}

/// What of a request decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct SamplingInput<'a> {
    /// `x-request-id`, already made when it was absent.
    pub request_id: &'a [u8],
    /// `x-client-trace-id` is present.
    pub client_trace_id: bool,
    /// `x-envoy-force-trace` is present (it is removed from external requests before).
    pub force_trace: bool,
}

impl Sampling {
    /// The decision and, when it must change, the new request id.
    pub fn decide(
        &self,
        policy: RequestIdPolicy,
        input: SamplingInput<'_>,
        rng: &impl Rng,
    ) -> (Reason, Option<String>) {
        if !policy.use_for_sampling {
            return (Reason::Sampling, None);
        }
        let Some(number) = request_id_number(input.request_id) else {
            return (Reason::NotTraceable, None);
        };
        let before = reason_of(input.request_id).unwrap_or(Reason::NotTraceable);
        let mut reason = before;
        if reason == Reason::NotTraceable {
            if input.client_trace_id && admits(self.client, rng.u64()) {
                reason = Reason::ClientForced;
            } else if input.force_trace {
                reason = Reason::ServiceForced;
            } else if admits(self.random, number) {
                reason = Reason::Sampling;
            }
        }
        if reason != Reason::NotTraceable && !admits(self.overall, number) {
            reason = Reason::NotTraceable;
        }
        let changed = policy.pack_trace_reason && reason != before;
        (
            reason,
            if changed {
                with_reason(input.request_id, reason)
            } else {
                None
            },
        )
    }
}

/// Envoy compares in ten-thousandths.
fn admits(percent: f64, number: u64) -> bool {
    number % 10_000 < (percent.clamp(0.0, 100.0) * 100.0) as u64
}

/// A fresh id: a version 4 UUID.
pub fn new_request_id(rng: &impl Rng) -> String {
    uuid_of(rng.u128())
}

/// A version 4 UUID of these random bits.
pub(crate) fn uuid_of(bits: u128) -> String {
    let bits = (bits & !(0xf << 76)) | (4 << 76);
    let bits = (bits & !(0b11 << 62)) | (0b10 << 62);
    let digits = format!("{bits:032x}");
    let mut id = String::with_capacity(LENGTH);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            id.push('-');
        }
        id.push(digit);
    }
    id
}

/// The reason that an id carries; `None` when it is no UUID.
pub fn reason_of(id: &[u8]) -> Option<Reason> {
    if id.len() != LENGTH {
        return None;
    }
    Some(match id.get(REASON_AT)? {
        b'9' => Reason::Sampling,
        b'a' => Reason::ServiceForced,
        b'b' => Reason::ClientForced,
        _ => Reason::NotTraceable,
    })
}

/// The id with another reason; `None` when it is no UUID.
pub fn with_reason(id: &[u8], reason: Reason) -> Option<String> {
    let mut bytes = id.to_vec();
    if bytes.len() != LENGTH {
        return None;
    }
    *bytes.get_mut(REASON_AT)? = reason.digit();
    String::from_utf8(bytes).ok()
}

/// The number that sampling compares; `None` when it is no UUID.
pub fn request_id_number(id: &[u8]) -> Option<u64> {
    if id.len() < LENGTH {
        return None;
    }
    let digits = std::str::from_utf8(id.get(..8)?).ok()?;
    // `from_str_radix` would take a sign.
    if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        u64::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}
