//! Envoy's response flags: why a response is what it is, as a set of bits.
//!
//! Names are those of Envoy's `%RESPONSE_FLAGS%` documentation. The text has the flags in the order
//! in which they were set, as Envoy's.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of response flags that remembers which was set first. Text: short names joined by commas,
/// `-` when empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct ResponseFlags {
    bits: u32,
    /// Numbers of the flags, one more than the bit's, the first in the lowest [`NUMBER_BITS`]. More
    /// flags than have room (no request has that many) are in `bits` only.
    order: u64,
}

/// For one flag's number in the order.
const NUMBER_BITS: u32 = 5;
/// Flags whose order is remembered.
const REMEMBERED: u32 = u64::BITS / NUMBER_BITS;

macro_rules! flags {
    ($($bit:literal $constant:ident $short:literal $long:literal;)*) => {
        impl ResponseFlags {
            $(#[doc = concat!("`", $short, "`, ", $long, ".")] pub const $constant: Self = Self { bits: 1 << $bit, order: $bit + 1 };)*

            /// Every flag with its short and long name, in Envoy's order.
            pub const ALL: &'static [(Self, &'static str, &'static str)] = &[$((Self::$constant, $short, $long)),*];
        }
    };
}

flags! {
    0 FAILED_LOCAL_HEALTH_CHECK "LH" "FailedLocalHealthCheck";
    1 NO_HEALTHY_UPSTREAM "UH" "NoHealthyUpstream";
    2 UPSTREAM_REQUEST_TIMEOUT "UT" "UpstreamRequestTimeout";
    3 LOCAL_RESET "LR" "LocalReset";
    4 UPSTREAM_REMOTE_RESET "UR" "UpstreamRemoteReset";
    5 UPSTREAM_CONNECTION_FAILURE "UF" "UpstreamConnectionFailure";
    6 UPSTREAM_CONNECTION_TERMINATION "UC" "UpstreamConnectionTermination";
    7 UPSTREAM_OVERFLOW "UO" "UpstreamOverflow";
    8 NO_ROUTE_FOUND "NR" "NoRouteFound";
    9 DELAY_INJECTED "DI" "DelayInjected";
    10 FAULT_INJECTED "FI" "FaultInjected";
    11 RATE_LIMITED "RL" "RateLimited";
    12 UNAUTHORIZED_EXTERNAL_SERVICE "UAEX" "UnauthorizedExternalService";
    13 RATE_LIMIT_SERVICE_ERROR "RLSE" "RateLimitServiceError";
    14 DOWNSTREAM_CONNECTION_TERMINATION "DC" "DownstreamConnectionTermination";
    15 UPSTREAM_RETRY_LIMIT_EXCEEDED "URX" "UpstreamRetryLimitExceeded";
    16 STREAM_IDLE_TIMEOUT "SI" "StreamIdleTimeout";
    17 INVALID_ENVOY_REQUEST_HEADERS "IH" "InvalidEnvoyRequestHeaders";
    18 DOWNSTREAM_PROTOCOL_ERROR "DPE" "DownstreamProtocolError";
    19 UPSTREAM_MAX_STREAM_DURATION_REACHED "UMSDR" "UpstreamMaxStreamDurationReached";
    20 RESPONSE_FROM_CACHE_FILTER "RFCF" "ResponseFromCacheFilter";
    21 NO_FILTER_CONFIG_FOUND "NFCF" "NoFilterConfigFound";
    22 DURATION_TIMEOUT "DT" "DurationTimeout";
    23 UPSTREAM_PROTOCOL_ERROR "UPE" "UpstreamProtocolError";
    24 NO_CLUSTER_FOUND "NC" "NoClusterFound";
    25 OVERLOAD_MANAGER "OM" "OverloadManagerTerminated";
    26 DNS_RESOLUTION_FAILED "DF" "DnsResolutionFailed";
    27 DROP_OVERLOAD "DO" "DropOverload";
    28 DOWNSTREAM_REMOTE_RESET "DR" "DownstreamRemoteReset";
    29 UNCONDITIONAL_DROP_OVERLOAD "UDO" "UnconditionalDropOverload";
}

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self { bits: 0, order: 0 };

    /// The bits, bit 0 = `LH`, in the order of [`ResponseFlags::ALL`].
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }

    /// Whether any flag of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.bits & other.bits != 0
    }

    /// Sets the flags of `other`; those that are new come last.
    pub fn insert(&mut self, other: Self) {
        for number in other.numbers() {
            let bit = 1 << (number - 1);
            if self.bits & bit == 0 {
                let place = self.bits.count_ones();
                if place < REMEMBERED {
                    self.order |= u64::from(number) << (place * NUMBER_BITS);
                }
                self.bits |= bit;
            }
        }
    }

    /// Numbers of the flags: those whose order is remembered, then the rest by bit.
    fn numbers(self) -> impl Iterator<Item = u32> {
        const MASK: u64 = (1 << NUMBER_BITS) - 1;
        let remembered = move |place| ((self.order >> (place * NUMBER_BITS)) & MASK) as u32;
        let in_order = (0..REMEMBERED)
            .map(remembered)
            .take_while(|number| *number != 0);
        let forgotten = in_order
            .clone()
            .fold(self.bits, |left, number| left & !(1 << (number - 1)));
        in_order.chain((1..=u32::BITS).filter(move |number| forgotten & (1 << (number - 1)) != 0))
    }

    /// The flag with this short name.
    pub fn from_short(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, short, _)| *short == name)
            .map(|(flag, _, _)| *flag)
    }

    /// The long names, as `%RESPONSE_FLAGS_LONG%` prints them.
    pub fn long(self) -> impl fmt::Display {
        Text {
            flags: self,
            long: true,
        }
    }
}

impl BitOr for ResponseFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        let mut both = self;
        both.insert(other);
        both
    }
}

impl BitOrAssign for ResponseFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.insert(other);
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text {
            flags: *self,
            long: false,
        }
        .fmt(formatter)
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ResponseFlags({self})")
    }
}

struct Text {
    flags: ResponseFlags,
    long: bool,
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.flags.is_empty() {
            return formatter.write_str("-");
        }
        let mut separator = "";
        for number in self.flags.numbers() {
            if let Some((_, short, long)) = ResponseFlags::ALL.get(number as usize - 1) {
                formatter.write_str(separator)?;
                formatter.write_str(if self.long { long } else { short })?;
                separator = ",";
            }
        }
        Ok(())
    }
}
