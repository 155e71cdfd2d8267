//! Envoy's response flags: why a response is what it is, as a set of bits.
//!
//! Names and order are those of Envoy's `%RESPONSE_FLAGS%` documentation. The text has the order in which Envoy notes them: those that something
//! else follows come first.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of response flags. Text: short names joined by commas (a delay and exhausted retries before what came of them), `-` when empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct ResponseFlags(u32);

macro_rules! flags {
    ($($bit:literal $constant:ident $short:literal $long:literal;)*) => {
        impl ResponseFlags {
            $(#[doc = concat!("`", $short, "`, ", $long, ".")] pub const $constant: Self = Self(1 << $bit);)*

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
    pub const NONE: Self = Self(0);

    /// The bits, bit 0 = `LH`, in the order of [`ResponseFlags::ALL`].
    pub const fn bits(self) -> u32 {
        self.0 & !LATE_URX
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets the flags of `other`.
    pub fn insert(&mut self, other: Self) {
        let urx = Self::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        if other.contains(urx) && !self.contains(urx) && self.0 & !EARLY.0 != 0 {
            self.0 |= LATE_URX;
        }
        self.0 |= other.0;
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
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ResponseFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
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

/// Says that `URX` was noted after what came of the last attempt, as a TCP proxy does.
const LATE_URX: u32 = 1 << 31;

/// Noted before the request ends.
const EARLY: ResponseFlags =
    ResponseFlags(ResponseFlags::DELAY_INJECTED.0 | ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED.0);

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
        let late_urx = self.flags.0 & LATE_URX != 0;
        let urx = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        let is_early = |flag: &ResponseFlags| EARLY.contains(*flag) && !(late_urx && *flag == urx);
        let early = ResponseFlags::ALL
            .iter()
            .filter(|(flag, ..)| is_early(flag));
        let late = ResponseFlags::ALL
            .iter()
            .filter(|(flag, ..)| !is_early(flag));
        for (flag, short, long) in early.chain(late) {
            if self.flags.contains(*flag) {
                formatter.write_str(separator)?;
                formatter.write_str(if self.long { long } else { short })?;
                separator = ",";
            }
        }
        Ok(())
    }
}
