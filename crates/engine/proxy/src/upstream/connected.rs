//! What comes of connecting: a connection that is ready for its first byte with its times, or the
//! error that all who waited get.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use crate::tls::{Secured, Stream};

/// A connection that is ready for its first byte.
pub struct Connected {
    pub stream: Stream,
    /// `None` for Unix sockets.
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub secured: Option<Secured>,
    pub times: ConnectTimes,
}

/// When a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectTimes {
    pub began: Instant,
    pub connected: Instant,
    /// The TLS handshake was done; `None`: no TLS.
    pub secured: Option<Instant>,
}

/// Why there is no connection. Cloned to all who waited for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ConnectError {
    pub kind: ConnectErrorKind,
    /// For `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; empty for a timeout.
    pub reason: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// No answer within `connect_timeout`.
    Timeout,
    /// The other side refused, or the handshake failed.
    Remote,
    /// Our side could not even try.
    Local,
}

/// What one connection needs beyond cluster and endpoint.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Replaces the context's ALPN (Istio's ALPN override).
    pub alpn: Option<Arc<[Arc<str>]>>,
    /// Replaces the context's SNI (`auto_sni`).
    pub server_name: Option<Arc<str>>,
    /// Source and destination of the downstream connection, for a PROXY protocol header.
    pub downstream: Option<(SocketAddr, SocketAddr)>,
}

impl ConnectError {
    pub(super) fn local(reason: impl Into<Arc<str>>) -> Self {
        Self {
            kind: ConnectErrorKind::Local,
            reason: reason.into(),
        }
    }

    pub(super) fn remote(reason: impl Into<Arc<str>>) -> Self {
        Self {
            kind: ConnectErrorKind::Remote,
            reason: reason.into(),
        }
    }
}
