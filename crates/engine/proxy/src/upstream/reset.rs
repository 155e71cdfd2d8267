//! How an upstream stream can end without a whole answer, in Envoy's words, which access logs and
//! local replies show.
//!
//! [`ResetReason`] is a value: the pool and the body of an answer make it from hyper's errors,
//! retries decide by it, refusals tell it.

use std::sync::Arc;

use telemetry::record::ResponseFlags;

use crate::upstream::connected::{ConnectError, ConnectErrorKind};

/// How an upstream request ended without a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResetReason {
    ConnectionTimeout,
    LocalConnectionFailure(Arc<str>),
    RemoteConnectionFailure(Arc<str>),
    ConnectionTermination,
    RemoteReset,
    RemoteRefusedStream,
    LocalReset,
    Overflow,
    ProtocolError,
}

impl ResetReason {
    /// Envoy's text.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ConnectionTimeout => "connection timeout",
            Self::LocalConnectionFailure(_) => "local connection failure",
            Self::RemoteConnectionFailure(_) => "remote connection failure",
            Self::ConnectionTermination => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::RemoteRefusedStream => "remote refused stream reset",
            Self::LocalReset => "local reset",
            Self::Overflow => "overflow",
            Self::ProtocolError => "protocol error",
        }
    }

    /// Why the transport failed, where it did.
    pub fn transport_failure(&self) -> Option<&Arc<str>> {
        match self {
            Self::LocalConnectionFailure(reason) | Self::RemoteConnectionFailure(reason) => {
                Some(reason).filter(|r| !r.is_empty())
            }
            _ => None,
        }
    }

    pub fn flag(&self) -> ResponseFlags {
        match self {
            Self::ConnectionTimeout
            | Self::LocalConnectionFailure(_)
            | Self::RemoteConnectionFailure(_) => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Self::ConnectionTermination => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Self::RemoteReset | Self::RemoteRefusedStream => ResponseFlags::UPSTREAM_REMOTE_RESET,
            Self::LocalReset => ResponseFlags::LOCAL_RESET,
            Self::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            Self::ProtocolError => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
        }
    }

    /// Whether no connection could be made.
    pub fn is_connect_failure(&self) -> bool {
        matches!(
            self,
            Self::ConnectionTimeout
                | Self::LocalConnectionFailure(_)
                | Self::RemoteConnectionFailure(_)
        )
    }
}

impl From<ConnectError> for ResetReason {
    fn from(error: ConnectError) -> Self {
        match error.kind {
            ConnectErrorKind::Timeout => Self::ConnectionTimeout,
            ConnectErrorKind::Remote => Self::RemoteConnectionFailure(error.reason),
            ConnectErrorKind::Local => Self::LocalConnectionFailure(error.reason),
        }
    }
}

/// What a hyper error on an upstream stream means.
pub fn reset_reason(error: &hyper::Error) -> ResetReason {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return match h2.reason() {
                Some(h2::Reason::REFUSED_STREAM) => ResetReason::RemoteRefusedStream,
                // h2 tells this of the streams above the last that the peer takes: nothing of them
                // was processed (RFC 9113 §6.8).
                Some(h2::Reason::NO_ERROR) if h2.is_go_away() && h2.is_remote() => {
                    ResetReason::RemoteRefusedStream
                }
                Some(h2::Reason::PROTOCOL_ERROR) if h2.is_reset() => ResetReason::ProtocolError,
                _ if h2.is_go_away() || h2.is_io() => ResetReason::ConnectionTermination,
                _ if h2.is_reset() && h2.is_remote() => ResetReason::RemoteReset,
                _ if h2.is_library() => ResetReason::ProtocolError,
                _ => ResetReason::LocalReset,
            };
        }
        source = cause.source();
    }
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        ResetReason::ProtocolError
    } else {
        ResetReason::ConnectionTermination
    }
}

/// What a hyper error in the body of an upstream's answer means. A body that ends too soon, or
/// whose chunks are none, breaks the protocol.
pub fn body_reset_reason(error: &hyper::Error) -> ResetReason {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    let is_broken = source.is_some_and(|error| {
        // The last two are of chunks that are none.
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        matches!(error.kind(), UnexpectedEof | InvalidInput | InvalidData)
    });
    if is_broken || error.is_incomplete_message() {
        ResetReason::ProtocolError
    } else {
        reset_reason(error)
    }
}
