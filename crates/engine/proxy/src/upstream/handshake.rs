//! From a connection's bytes to its HTTP client: hyper's handshake for one upstream connection.
//!
//! [`client_handshake`] takes what `connect` made and gives the sender for requests, what was
//! settled, and the future that moves the connection's bytes, which the pool drives. Which version
//! is spoken is the pool's key or what ALPN settled.

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
use telemetry::record::{Protocol, TlsInfo};

use crate::{
    body::RequestBody,
    codec::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    upstream::connected::{ConnectError, ConnectErrorKind, ConnectTimes, Connected},
};

/// Heads and trailers of an HTTP/2 upstream. h2 drops what goes beyond it from trailers without a
/// word, so it is more than any proxy or client takes (Envoy: 60 KiB), and bounds what one answer
/// can make us hold.
const MAX_HEADER_LIST_BYTES: u32 = 1 << 20;

/// Which version of HTTP an upstream connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    Http1,
    Http2,
    /// What ALPN settles; HTTP/1 without.
    Negotiated,
}

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
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .keep_alive_interval(options.keepalive_interval);
    if let Some(timeout) = options.keepalive_timeout {
        builder.keep_alive_timeout(timeout);
    }
    builder
}
