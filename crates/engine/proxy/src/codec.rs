//! HTTP and TCP framing on both sides, by hyper's connection-level interfaces.
//!
//! [`server`] drives a downstream connection and calls `serve` for each request; [`client_handshake`] makes an upstream connection for a
//! pool; [`upgrade`] carries what follows a 101 or a CONNECT. [`ResetReason`] is how an upstream stream can end without an answer, in
//! Envoy's words, which access logs and local replies show.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proxy_config::cluster::UpstreamHttp;
use telemetry::record::{Protocol, ResponseFlags, TlsInfo};

use crate::{
    exchange::body::RequestBody,
    upstream::{
        connect::{ConnectError, ConnectErrorKind, ConnectTimes, Connected},
        pool::HttpVersion,
    },
};

mod refused;
pub mod server;
pub mod upgrade;

/// Receive windows of HTTP/2 streams and connections where the configuration names none. Bounds what a slow reader makes us hold.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A new upstream connection.
pub struct Handshake {
    pub sender: ClientSender,
    pub facts: ConnectionFacts,
    /// Moves the connection's bytes; ends with it.
    pub driver: Pin<Box<dyn Future<Output = ()> + Send>>,
}

pub enum ClientSender {
    Http1(http1::SendRequest<RequestBody>),
    /// `allowed`: streams that the peer allows, kept up to date by the driver.
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        allowed: Arc<AtomicUsize>,
    },
}

/// What a handshake settled.
pub struct ConnectionFacts {
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub tls: Option<Arc<TlsInfo>>,
    pub protocol: Protocol,
    pub times: ConnectTimes,
}

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

/// What a hyper error in the body of an upstream's answer means. A body that ends too soon breaks the protocol.
pub fn body_reset_reason(error: &hyper::Error) -> ResetReason {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    let is_cut = source.is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof);
    if is_cut || error.is_incomplete_message() {
        ResetReason::ProtocolError
    } else {
        reset_reason(error)
    }
}

/// Makes an HTTP connection over what `connect` made.
pub async fn client_handshake(
    connected: Connected,
    version: HttpVersion,
    http: &UpstreamHttp,
) -> Result<Handshake, ConnectError> {
    let Connected {
        stream,
        local,
        remote,
        secured,
        times,
    } = connected;
    let tls = secured.map(|secured| secured.info);
    let is_http2 = match version {
        HttpVersion::Http1 => false,
        HttpVersion::Http2 => true,
        HttpVersion::Negotiated => tls
            .as_ref()
            .and_then(|tls| tls.alpn.as_deref())
            .is_some_and(|alpn| alpn == "h2"),
    };
    let failed = |error: hyper::Error| ConnectError {
        kind: ConnectErrorKind::Remote,
        reason: error.to_string().into(),
    };
    let io = TokioIo::new(stream);
    if is_http2 {
        let (sender, connection) = client_http2(http).handshake(io).await.map_err(failed)?;
        let facts = ConnectionFacts {
            local,
            remote,
            tls,
            protocol: Protocol::Http2,
            times,
        };
        let allowed = Arc::new(AtomicUsize::new(usize::MAX));
        let seen = allowed.clone();
        let mut connection = connection;
        let driver = Box::pin(std::future::poll_fn(move |cx| {
            let done = Pin::new(&mut connection).poll(cx).map(drop);
            seen.store(connection.current_max_send_streams(), Ordering::Relaxed);
            done
        }));
        Ok(Handshake {
            sender: ClientSender::Http2 { sender, allowed },
            facts,
            driver,
        })
    } else {
        let mut builder = http1::Builder::new();
        builder
            .preserve_header_case(http.preserve_header_case)
            .allow_obsolete_multiline_headers_in_responses(true);
        let (sender, connection) = builder.handshake(io).await.map_err(failed)?;
        let facts = ConnectionFacts {
            local,
            remote,
            tls,
            protocol: Protocol::Http11,
            times,
        };
        // How a connection ends is told to each request on it.
        let driver = Box::pin(async move { drop(connection.with_upgrades().await) });
        Ok(Handshake {
            sender: ClientSender::Http1(sender),
            facts,
            driver,
        })
    }
}

fn client_http2(http: &UpstreamHttp) -> http2::Builder<TokioExecutor> {
    let options = &http.http2;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(
            options
                .initial_stream_window_bytes
                .unwrap_or(STREAM_WINDOW_BYTES),
        )
        .initial_connection_window_size(
            options
                .initial_connection_window_bytes
                .unwrap_or(CONNECTION_WINDOW_BYTES),
        )
        .keep_alive_interval(options.keepalive_interval);
    if let Some(timeout) = options.keepalive_timeout {
        builder.keep_alive_timeout(timeout);
    }
    builder
}
