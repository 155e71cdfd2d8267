//! TLS on both sides: live contexts that follow their secrets, handshakes, and what they tell about
//! the peer.
//!
//! [`Secrets`] holds what was published by name; each context of a listener or cluster is made from
//! it and made anew when a secret it names changes, so new connections use the new value and
//! existing ones go on. A context whose secrets are missing or unusable refuses connections:
//! nothing here ever falls back to plaintext. `identity` makes all rustls configurations.

use std::{
    borrow::Cow,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use identity::{
    ConnectionInfo, PeerCertificate,
    tls::{Acceptor, ClientConfig, ServerName},
};
use proxy_config::cluster::ProxyProtocolVersion;
use stdx::Clock;
use telemetry::record::TlsInfo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

mod secrets;

pub use secrets::{LiveClientTls, LiveServerTls, Secrets};

/// How connections to an endpoint are made.
pub enum LiveTransport {
    Plaintext,
    Tls(LiveClientTls),
    /// PROXY protocol header first, then the inner transport.
    ProxyProtocol(ProxyProtocolVersion, Arc<LiveTransport>),
    /// The transport cannot be made as configured; every connection fails.
    Refuse,
}

impl LiveTransport {
    /// The TLS context, under a PROXY protocol header too.
    pub fn tls(&self) -> Option<&LiveClientTls> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::ProxyProtocol(_, inner) => inner.tls(),
            Self::Plaintext | Self::Refuse => None,
        }
    }
}

/// What a handshake settled.
#[derive(Debug, Clone)]
pub struct Secured {
    pub info: Arc<TlsInfo>,
    /// For XFCC and the like: the peer's certificates as they came.
    pub connection: Arc<ConnectionInfo>,
}

/// A connection's byte stream, whatever it is made of, so that one code path serves all.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// What follows a CONNECT through another proxy.
    Tunnel(Box<TokioIo<Upgraded>>),
}

impl Stream {
    /// The TCP socket below, for addresses.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Unix(_) | Self::Tunnel(_) => None,
            Self::Server(tls) => Some(tls.get_ref().0),
            Self::Client(tls) => Some(tls.get_ref().0),
        }
    }

    /// When it is dropped, the peer gets a reset in place of an orderly end, and can tell that what
    /// it read is not all.
    pub fn reset_on_drop(&self) {
        if let Some(tcp) = self.tcp() {
            // A socket that is gone already has nobody to tell.
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Takes a client's handshake.
pub async fn accept(
    context: &LiveServerTls,
    stream: TcpStream,
    clock: &dyn Clock,
) -> io::Result<(Stream, Secured)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let offered = start
        .client_hello()
        .alpn()
        .map(|alpn| alpn.map(<[u8]>::to_vec).collect::<Vec<_>>())
        .unwrap_or_default();
    let config = context
        .config_for(&offered)
        .ok_or_else(|| io::Error::other("secret is not supplied"))?;
    let stream = start.into_stream(config).await?;
    let connection = Arc::new(ConnectionInfo::of(stream.get_ref().1));
    check_resumed(&connection, context.verifies_peer(), clock)?;
    let sni = stream.get_ref().1.server_name();
    if context.requires_sni() && sni.is_none() {
        return Err(io::Error::other("no server name given"));
    }
    let info = Arc::new(tls_info(&connection, context.local_names()));
    Ok((
        Stream::Server(Box::new(stream)),
        Secured { info, connection },
    ))
}

/// A resumed handshake shows no certificate again, so the remembered one may have expired since.
fn check_resumed(
    connection: &ConnectionInfo,
    verifies_peer: bool,
    clock: &dyn Clock,
) -> io::Result<()> {
    let expired = |peer: &Arc<PeerCertificate>| !peer.is_valid_at(clock.wall());
    if connection.resumed && verifies_peer && connection.peer.as_ref().is_some_and(expired) {
        return Err(io::Error::other(
            "the certificate of the resumed session has expired",
        ));
    }
    Ok(())
}

/// Makes a handshake with a server, by a configuration of this context.
pub async fn connect(
    context: &LiveClientTls,
    config: &ClientConfig,
    stream: TcpStream,
    clock: &dyn Clock,
) -> io::Result<(Stream, Secured)> {
    let connector = TlsConnector::from(config.rustls.clone());
    let stream = connector
        .connect(config.server_name.clone(), stream)
        .await?;
    let connection = Arc::new(ConnectionInfo::of(stream.get_ref().1));
    check_resumed(&connection, context.verifies_peer(), clock)?;
    let info = Arc::new(TlsInfo {
        server_name: asked_name(config),
        ..tls_info(&connection, context.local_names())
    });
    Ok((
        Stream::Client(Box::new(stream)),
        Secured { info, connection },
    ))
}

/// The name in the client's hello; an address is not sent.
fn asked_name(config: &ClientConfig) -> Option<Arc<str>> {
    match &config.server_name {
        ServerName::DnsName(name) if config.rustls.enable_sni => Some(name.as_ref().into()),
        _ => None,
    }
}

/// Names in our own certificate.
#[derive(Debug, Clone, Default)]
pub struct LocalNames {
    pub uris: Vec<Arc<str>>,
    pub dns: Vec<Arc<str>>,
    pub emails: Vec<Arc<str>>,
    pub ips: Vec<IpAddr>,
    pub subject: Option<Arc<str>>,
}

fn tls_info(connection: &ConnectionInfo, local: LocalNames) -> TlsInfo {
    let peer = connection.peer.as_deref();
    let shared = |names: &[String]| names.iter().map(|name| Arc::from(name.as_str())).collect();
    let text = |text: &String| (!text.is_empty()).then(|| Arc::from(text.as_str()));
    TlsInfo {
        version: (!connection.version.is_empty()).then_some(connection.version),
        cipher: (!connection.cipher.is_empty()).then_some(Cow::Borrowed(connection.cipher)),
        alpn: connection
            .alpn
            .as_deref()
            .map(|alpn| String::from_utf8_lossy(alpn).into()),
        session_id: None,
        group: (!connection.group.is_empty()).then_some(Cow::Borrowed(connection.group)),
        server_name: None,
        peer_uri_sans: peer.map(|p| shared(&p.uri_sans)).unwrap_or_default(),
        peer_dns_sans: peer.map(|p| shared(&p.dns_sans)).unwrap_or_default(),
        peer_email_sans: peer.map(|p| shared(&p.email_sans)).unwrap_or_default(),
        peer_ip_sans: peer.map(|p| p.ip_sans.clone()).unwrap_or_default(),
        peer_subject: peer.and_then(|p| text(&p.subject)),
        peer_issuer: peer.and_then(|p| text(&p.issuer)),
        peer_serial: peer.and_then(|p| text(&p.serial)),
        peer_fingerprint_256: peer.and_then(|p| text(&p.sha256)),
        peer_fingerprint_1: peer.and_then(|p| text(&p.sha1)),
        peer_certificate: peer.and_then(|p| text(&p.pem)),
        peer_valid_from: peer.map(|p| p.not_before_time()),
        peer_valid_until: peer.map(|p| p.not_after_time()),
        local_uri_sans: local.uris,
        local_dns_sans: local.dns,
        local_email_sans: local.emails,
        local_ip_sans: local.ips,
        local_subject: local.subject,
        mutual: peer.is_some(),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Server(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Client(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Server(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Client(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Server(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Client(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Tunnel(stream) => Pin::new(stream).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Server(stream) => stream.is_write_vectored(),
            Self::Client(stream) => stream.is_write_vectored(),
            Self::Tunnel(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Server(stream) => Pin::new(stream).poll_flush(cx),
            Self::Client(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Server(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Client(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
