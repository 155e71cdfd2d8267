//! Trace context in headers: W3C `traceparent` and `tracestate`, B3 in many headers and in one.
//!
//! What does not parse is treated as absent: a caller's header must not break its request.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::SpanContext;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static B3: HeaderName = HeaderName::from_static("b3");
static B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
static B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
static B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Longest `tracestate` that is passed on, bytes (W3C asks for at least 512).
const MAX_TRACESTATE: usize = 4096;

/// Which headers are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// OpenTelemetry's.
    #[default]
    W3c,
    /// Zipkin's `USE_B3`: reads `b3` or `x-b3-*`, writes `x-b3-*`.
    B3,
    /// Zipkin's `USE_B3_WITH_W3C_PROPAGATION`: reads B3, else W3C; writes both.
    B3WithW3c,
}

/// What a request brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Incoming {
    /// The caller's span.
    pub parent: Option<SpanContext>,
    /// The caller's decision, when it made one; B3 may send it without ids.
    pub sampled: Option<bool>,
}

/// Reads the context.
pub fn extract(style: Style, headers: &HeaderMap) -> Incoming {
    match style {
        Style::W3c => w3c(headers),
        Style::B3 => b3(headers),
        Style::B3WithW3c => match b3(headers) {
            Incoming {
                parent: None,
                sampled: None,
            } => w3c(headers),
            found => found,
        },
    }
}

/// Writes the context of our span, replacing what was there.
pub fn inject(style: Style, context: &SpanContext, headers: &mut HeaderMap) {
    if matches!(style, Style::W3c | Style::B3WithW3c) {
        let text = format!(
            "00-{:032x}-{:016x}-{:02x}",
            context.trace_id,
            context.span_id,
            u8::from(context.sampled)
        );
        set(headers, &TRACEPARENT, &text);
        match &context.trace_state {
            Some(state) => set(headers, &TRACESTATE, state),
            None => drop(headers.remove(&TRACESTATE)),
        }
    }
    if matches!(style, Style::B3 | Style::B3WithW3c) {
        headers.remove(&B3);
        set(headers, &B3_TRACE, &context.trace_id_hex().to_string());
        set(headers, &B3_SPAN, &context.span_id_hex().to_string());
        match context.parent_id {
            Some(parent) => set(headers, &B3_PARENT, &format!("{parent:016x}")),
            None => drop(headers.remove(&B3_PARENT)),
        }
        set(
            headers,
            &B3_SAMPLED,
            if context.sampled { "1" } else { "0" },
        );
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name.clone(), value);
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn w3c(headers: &HeaderMap) -> Incoming {
    let parent = text(headers, &TRACEPARENT)
        .and_then(traceparent)
        .map(|mut parent| {
            let states = headers
                .get_all(&TRACESTATE)
                .iter()
                .filter_map(|value| value.to_str().ok());
            let joined = states
                .filter(|state| !state.trim().is_empty())
                .collect::<Vec<_>>()
                .join(",");
            parent.trace_state =
                (!joined.is_empty() && joined.len() <= MAX_TRACESTATE).then(|| joined.into());
            parent
        });
    Incoming {
        sampled: parent.as_ref().map(|parent| parent.sampled),
        parent,
    }
}

/// `VERSION-TRACE-SPAN-FLAGS`; version 00 has nothing more, later ones may (W3C Trace Context 3.2).
fn traceparent(value: &str) -> Option<SpanContext> {
    let mut parts = value.trim().split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let version_number = hex(version, 2)?;
    if version_number == 0xff || (version_number == 0 && parts.next().is_some()) {
        return None;
    }
    Some(SpanContext {
        trace_id: hex(trace, 32).filter(|id| *id != 0)?,
        span_id: u64::try_from(hex(span, 16)?).ok().filter(|id| *id != 0)?,
        parent_id: None,
        sampled: hex(flags, 2)? & 1 == 1,
        trace_state: None,
    })
}

/// Exactly `digits` lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if valid {
        u128::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

/// A B3 id: 16 or (traces) 32 digits, either case.
fn b3_id(text: &str) -> Option<u128> {
    let text = text.trim();
    let valid = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if valid {
        u128::from_str_radix(text, 16).ok().filter(|id| *id != 0)
    } else {
        None
    }
}

fn b3(headers: &HeaderMap) -> Incoming {
    if let Some(single) = text(headers, &B3).and_then(b3_single) {
        return single;
    }
    let sampled = match (text(headers, &B3_FLAGS), text(headers, &B3_SAMPLED)) {
        (Some("1"), _) | (_, Some("1" | "true")) => Some(true),
        (_, Some("0" | "false")) => Some(false),
        _ => None,
    };
    let id = |name: &HeaderName| text(headers, name).and_then(b3_id);
    let ids = id(&B3_TRACE).zip(id(&B3_SPAN).and_then(|id| u64::try_from(id).ok()));
    let parent = ids.map(|(trace_id, span_id)| SpanContext {
        trace_id,
        span_id,
        parent_id: id(&B3_PARENT).and_then(|id| u64::try_from(id).ok()),
        sampled: sampled.unwrap_or(false),
        trace_state: None,
    });
    Incoming { parent, sampled }
}

/// `TRACE-SPAN[-STATE[-PARENT]]` or `STATE` alone.
fn b3_single(value: &str) -> Option<Incoming> {
    let state = |text: &str| match text {
        "1" | "d" => Some(true),
        "0" => Some(false),
        _ => None,
    };
    let parts: Vec<&str> = value.trim().split('-').collect();
    let (trace, span, rest) = match parts.as_slice() {
        [alone] => {
            return state(alone).map(|sampled| Incoming {
                parent: None,
                sampled: Some(sampled),
            });
        }
        [trace, span, rest @ ..] if rest.len() <= 2 => (trace, span, rest),
        _ => return None,
    };
    let sampled = match rest.first() {
        Some(text) => Some(state(text)?),
        None => None,
    };
    let parent_id = match rest.get(1) {
        Some(text) => Some(u64::try_from(b3_id(text)?).ok()?),
        None => None,
    };
    let parent = SpanContext {
        trace_id: b3_id(trace)?,
        span_id: u64::try_from(b3_id(span)?).ok()?,
        parent_id,
        sampled: sampled.unwrap_or(false),
        trace_state: None,
    };
    Some(Incoming {
        parent: Some(parent),
        sampled,
    })
}
