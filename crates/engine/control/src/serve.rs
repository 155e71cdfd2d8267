//! The ports: gRPC over TLS (15012), gRPC in plaintext on loopback (15010), HTTP for health,
//! metrics and debugging (15014, 8080).
//!
//! TLS asks for a client certificate without requiring one: who has none proves itself by token.
//! The server's own certificate is made by the mesh's authority for istiod's DNS names and renewed
//! at half its life, or when the authority changes; running connections are not disturbed by that.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures_util::Stream;
use identity::{
    CertificateAuthority, ConnectionInfo,
    tls::{
        ClientAuth, PeerValidation, Presented, Roots, ServerConfig, ServerTls, TlsSettings,
        server_config,
    },
};
use stdx::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::{authority::Current, error::ControlError, peer::Peer};

/// A TLS handshake that takes longer is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Handshakes under way at a time; more wait in the accept queue.
const MAX_HANDSHAKES: usize = 512;
/// Connections with a finished handshake that wait for the gRPC server.
const ACCEPTED: usize = 64;
/// Pause after the system refused to accept (no file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the own certificate's age is looked at: by the wall clock, as a machine may sleep.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// Life of the control plane's own certificate, which is renewed at half of it.
const SERVER_CERTIFICATE_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// A TLS connection that knows its peer.
pub struct PeerStream {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The names under which proxies know the control plane.
pub fn server_names(root_namespace: &str, cluster_domain: &str) -> Vec<String> {
    let service = format!("istiod.{root_namespace}");
    vec![
        format!("{service}.svc"),
        format!("{service}.svc.{cluster_domain}"),
        service,
        "localhost".into(),
    ]
}

/// The server's TLS configuration, which its owner replaces when the certificate is renewed.
pub struct ServerCertificate {
    authority: Current,
    names: Vec<String>,
    clock: Arc<dyn Clock>,
    current: ArcSwap<Issued>,
}

/// A TLS configuration and when its certificate is at half its life.
struct Issued {
    config: Arc<ServerConfig>,
    renew_at: SystemTime,
    issuer: Arc<CertificateAuthority>,
}

impl ServerCertificate {
    pub fn issue(
        authority: Current,
        names: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ControlError> {
        let issued = Self::make(authority.load_full(), &names, clock.wall())?;
        Ok(Arc::new(Self {
            authority,
            names,
            clock,
            current: ArcSwap::from_pointee(issued),
        }))
    }

    fn make(
        authority: Arc<CertificateAuthority>,
        names: &[String],
        now: SystemTime,
    ) -> Result<Issued, ControlError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let rest = authority
            .not_after()
            .duration_since(now)
            .unwrap_or_default();
        let life = SERVER_CERTIFICATE_TTL.min(rest);
        let certificate = authority.issue_server(&names, life, now)?;
        // Any certificate of the mesh's roots is welcome; what its holder may do is decided by its
        // name.
        let validation = PeerValidation {
            roots: Roots::Bundle(authority.bundle().clone()),
            ..PeerValidation::unverified()
        };
        let tls = ServerTls {
            presented: Presented::Fixed(Arc::new([certificate])),
            client_auth: ClientAuth::Optional(validation),
            alpn: vec![b"h2".to_vec()],
            settings: TlsSettings::default(),
            resumption: true,
        };
        Ok(Issued {
            config: server_config(&tls)?,
            renew_at: now + life / 2,
            issuer: authority,
        })
    }

    /// Renews at half life, until the task is dropped.
    pub async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RENEWAL_CHECK).await;
            if let Err(error) = self.renew(self.clock.wall()) {
                tracing::error!(%error, "could not renew the control plane's own certificate; tried again in a minute");
            }
        }
    }

    /// Renews when half of the certificate's life is over at `now`, or another authority is in
    /// force; true when it did.
    fn renew(&self, now: SystemTime) -> Result<bool, ControlError> {
        let (held, authority) = (self.current.load(), self.authority.load_full());
        if now < held.renew_at && Arc::ptr_eq(&held.issuer, &authority) {
            return Ok(false);
        }
        self.current
            .store(Arc::new(Self::make(authority, &self.names, now)?));
        Ok(true)
    }
}

/// Accepts TLS connections; the stream ends when the listener is dropped with it.
pub fn accept_tls(
    listener: TcpListener,
    certificate: Arc<ServerCertificate>,
) -> impl Stream<Item = io::Result<PeerStream>> {
    let (sender, receiver) = mpsc::channel(ACCEPTED);
    // task: accepts on the TLS port; ends when the server drops the stream of connections
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let mut handshakes = JoinSet::new();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((tcp, address)) => {
                        let acceptor = TlsAcceptor::from(certificate.current.load().config.clone());
                        let sender = sender.clone();
                        handshakes.spawn(async move {
                            if let Some(stream) = handshake(acceptor, tcp, address).await {
                                // A closed receiver means that the server stops.
                                let _ = sender.send(Ok(stream)).await;
                            }
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = sender.closed() => return,
            }
            while handshakes.try_join_next().is_some() {}
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    address: SocketAddr,
) -> Option<PeerStream> {
    // Small messages go out at once; a socket that cannot is still usable.
    let _ = tcp.set_nodelay(true);
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => {
            let info = ConnectionInfo::of(stream.get_ref().1);
            let id = info.peer.and_then(|leaf| leaf.spiffe_id());
            Some(PeerStream {
                stream,
                peer: Peer {
                    id,
                    address: Some(address),
                },
            })
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
