//! Connections to the control plane: marked, verified against the mesh's root, with our certificate
//! once there is one.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use identity::{
    IdentityHandle, TrustBundle,
    tls::{ClientTls, PeerValidation, Presented, TlsSettings, client_config},
};
use stdx::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    FeedError,
    resolve::Resolver,
    settings::{Address, Server, ServerAuthentication},
};

/// How often a silent control plane is asked whether it is there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// A control plane that does not answer that by then is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest token file that is read.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// What a connection needs beside the server's settings.
#[derive(Clone)]
pub struct Dialer {
    pub identity: IdentityHandle,
    pub resolver: Arc<Resolver>,
    pub clock: Arc<dyn Clock>,
    pub connect_timeout: Duration,
}

/// An open connection, and the bearer token to send with each call.
pub struct Dialed {
    pub channel: Channel,
    pub authorization: Option<MetadataValue<Ascii>>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Dialer {
    pub async fn dial(&self, server: &Server) -> Result<Dialed, FeedError> {
        let failed = |error| FeedError::Connect {
            server: server.address.to_string(),
            error,
        };
        let authorization = match &server.token_file {
            Some(path) => read_token(path).await?,
            None => None,
        };
        let connect = tokio::time::timeout(self.connect_timeout, self.connect(server));
        let io = match connect.await {
            Ok(connected) => connected.map_err(failed)?,
            Err(_) => {
                return Err(failed(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "connecting took too long",
                )));
            }
        };
        let channel = channel(server, io).await.map_err(failed)?;
        Ok(Dialed {
            channel,
            authorization,
        })
    }

    async fn connect(&self, server: &Server) -> io::Result<Box<dyn Io>> {
        let tcp = match &server.address {
            Address::Socket(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Host { name, port } => self.connect_tcp(name, *port, server.mark).await?,
        };
        match &server.tls {
            None => Ok(Box::new(tcp)),
            Some(authentication) => self.handshake(authentication, tcp).await,
        }
    }

    /// Tries each address in turn.
    async fn connect_tcp(&self, name: &str, port: u16, mark: Option<u32>) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address"));
        for address in self.resolver.addresses(name).await? {
            match connect_marked((address, port).into(), mark).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn handshake(
        &self,
        authentication: &ServerAuthentication,
        tcp: TcpStream,
    ) -> io::Result<Box<dyn Io>> {
        let roots = tokio::fs::read_to_string(&authentication.root_file)
            .await
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{}: {error}", authentication.root_file.display()),
                )
            })?;
        let tls = ClientTls {
            presented: self.usable_identity(),
            validation: PeerValidation::web(
                TrustBundle::from_pem(&roots).map_err(io::Error::other)?,
            ),
            sni: Some(authentication.name.clone()),
            alpn: vec![b"h2".to_vec()],
            settings: TlsSettings::default(),
            resumption: false,
        };
        let config = client_config(&tls).map_err(io::Error::other)?;
        let connector = TlsConnector::from(config.rustls);
        Ok(Box::new(connector.connect(config.server_name, tcp).await?))
    }

    /// An expired certificate would be refused where the token alone is not, so it is not shown.
    fn usable_identity(&self) -> Option<Presented> {
        let current = self.identity.load()?;
        let valid = current.certificate().is_valid_at(self.clock.wall());
        valid.then(|| Presented::Workload(self.identity.clone()))
    }
}

/// Connects with SO_MARK, so that the capture rules let our own traffic pass.
pub(crate) async fn connect_marked(
    address: SocketAddr,
    mark: Option<u32>,
) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket)
            .set_mark(mark)
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("setting the socket mark {mark}: {error}"),
                )
            })?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// HTTP/2 over one connection that is already there; when it ends, so does the channel.
async fn channel(server: &Server, io: Box<dyn Io>) -> io::Result<Channel> {
    let authority = match &server.address {
        Address::Host { .. } => server.address.to_string(),
        Address::Socket(_) => "localhost".to_owned(),
    };
    let mut once = Some(io);
    let connector =
        tower::service_fn(move |_: http::Uri| {
            let io = once.take().map(TokioIo::new);
            std::future::ready(io.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotConnected, "the connection has ended")
            }))
        });
    Endpoint::from_shared(format!("http://{authority}"))
        .map_err(io::Error::other)?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(true)
        .connect_with_connector(connector)
        .await
        .map_err(io::Error::other)
}

/// The token as an `authorization` header; `None` when the file does not exist (the certificate may
/// be proof enough).
async fn read_token(path: &Path) -> Result<Option<MetadataValue<Ascii>>, FeedError> {
    let failed = |error| FeedError::File {
        path: path.display().to_string(),
        error,
    };
    let text = match tokio::fs::read_to_string(path).await {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let invalid = || failed(io::Error::new(io::ErrorKind::InvalidData, "is no token"));
    if text.len() > MAX_TOKEN_BYTES {
        return Err(invalid());
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", text.trim())
        .parse()
        .map_err(|_| invalid())?;
    value.set_sensitive(true);
    Ok(Some(value))
}
