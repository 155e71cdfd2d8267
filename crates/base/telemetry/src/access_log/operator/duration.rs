//! Times between two moments of a request.

use std::time::Duration;

use crate::Error;
use crate::record::{Kind, Record};

/// A moment of a request, for `%COMMON_DURATION()%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Point {
    ConnectionStart,
    ConnectionEnd,
    DownstreamStart,
    DownstreamRequestEnd,
    DownstreamResponseStart,
    DownstreamResponseEnd,
    UpstreamConnectStart,
    UpstreamConnectEnd,
    UpstreamHandshakeEnd,
    UpstreamRequestStart,
    UpstreamRequestEnd,
    UpstreamResponseStart,
    UpstreamBodyStart,
    UpstreamResponseEnd,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Point {
    fn parse(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "DS_CX_BEG" => Self::ConnectionStart,
            "DS_CX_END" => Self::ConnectionEnd,
            "DS_RX_BEG" => Self::DownstreamStart,
            "DS_RX_END" => Self::DownstreamRequestEnd,
            "DS_TX_BEG" => Self::DownstreamResponseStart,
            "DS_TX_END" => Self::DownstreamResponseEnd,
            "US_CX_BEG" => Self::UpstreamConnectStart,
            "US_CX_END" => Self::UpstreamConnectEnd,
            "US_HS_END" => Self::UpstreamHandshakeEnd,
            "US_TX_BEG" => Self::UpstreamRequestStart,
            "US_TX_END" => Self::UpstreamRequestEnd,
            "US_RX_BEG" => Self::UpstreamResponseStart,
            "US_RX_BODY_BEG" => Self::UpstreamBodyStart,
            "US_RX_END" => Self::UpstreamResponseEnd,
            _ => {
                return Err(Error::Format(format!(
                    "`%COMMON_DURATION%`: unknown time point `{name}`"
                )));
            }
        })
    }

    /// The time between two points; `None` when one did not happen or they are the other way round.
    pub(super) fn between(from: Self, to: Self, record: &Record) -> Option<Duration> {
        let timings = &record.timings;
        match (from, to) {
            // Of a reused connection too, which is older than the request.
            (Self::UpstreamConnectStart, Self::UpstreamConnectEnd) => timings.upstream_connect,
            (Self::UpstreamConnectEnd, Self::UpstreamHandshakeEnd) => timings.upstream_handshake,
            (Self::UpstreamConnectStart, Self::UpstreamHandshakeEnd) => {
                Some(timings.upstream_connect? + timings.upstream_handshake?)
            }
            (from, to) => to.offset(record)?.checked_sub(from.offset(record)?),
        }
    }

    fn offset(self, record: &Record) -> Option<Duration> {
        let timings = &record.timings;
        match self {
            Self::ConnectionStart => (record.kind == Kind::Tcp).then_some(Duration::ZERO),
            Self::ConnectionEnd => timings.total.filter(|_| record.kind == Kind::Tcp),
            Self::UpstreamHandshakeEnd => {
                Some(timings.upstream_connect_complete? + timings.upstream_handshake?)
            }
            Self::DownstreamStart => Some(Duration::ZERO),
            Self::DownstreamRequestEnd => timings.last_downstream_rx,
            Self::DownstreamResponseStart => timings.first_downstream_tx,
            Self::DownstreamResponseEnd => timings.last_downstream_tx,
            Self::UpstreamConnectStart => timings.upstream_connect_start,
            Self::UpstreamConnectEnd => timings.upstream_connect_complete,
            Self::UpstreamRequestStart => timings.first_upstream_tx,
            Self::UpstreamRequestEnd => timings.last_upstream_tx,
            Self::UpstreamResponseStart => timings.first_upstream_rx,
            Self::UpstreamBodyStart => timings.first_upstream_body_rx,
            Self::UpstreamResponseEnd => timings.last_upstream_rx,
        }
    }
}

impl Unit {
    pub(super) fn count(self, duration: Duration) -> u64 {
        let count = match self {
            Self::Milliseconds => duration.as_millis(),
            Self::Microseconds => duration.as_micros(),
            Self::Nanoseconds => duration.as_nanos(),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

/// `START:END:PRECISION`.
pub(super) fn parse(arguments: &str) -> Result<(Point, Point, Unit), Error> {
    let parts: Vec<&str> = arguments.split(':').collect();
    let [from, to, unit] = parts.as_slice() else {
        return Err(Error::Format(format!(
            "`%COMMON_DURATION%`: `{arguments}` is not START:END:PRECISION"
        )));
    };
    let unit = match *unit {
        "ms" => Unit::Milliseconds,
        "us" => Unit::Microseconds,
        "ns" => Unit::Nanoseconds,
        _ => {
            return Err(Error::Format(format!(
                "`%COMMON_DURATION%`: precision `{unit}` is not ms, us or ns"
            )));
        }
    };
    Ok((Point::parse(from)?, Point::parse(to)?, unit))
}
