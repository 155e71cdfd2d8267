//! One connection to one endpoint: socket, source address and mark, connect timeout, PROXY protocol
//! header, TLS.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use identity::tls::ClientConfig;
use proxy_config::{
    Cluster,
    cluster::{ProxyProtocolVersion, TcpKeepalive, UpstreamBind},
    endpoint::EndpointAddress,
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive as Keepalive, Type};
use stdx::Clock;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    endpoint::LiveEndpoint,
    tls::{self, LiveClientTls, LiveTransport, Secured, Stream},
    upstream::{
        cluster::LiveCluster,
        connected::{ConnectError, ConnectErrorKind, ConnectOptions, ConnectTimes, Connected},
    },
};

/// Connects within the cluster's `connect_timeout`, handshakes included.
pub async fn connect(
    cluster: &LiveCluster,
    endpoint: &LiveEndpoint,
    options: &ConnectOptions,
) -> Result<Connected, ConnectError> {
    let timed_out = ConnectError {
        kind: ConnectErrorKind::Timeout,
        reason: Arc::from(""),
    };
    match timeout(
        cluster.config.connect_timeout,
        connect_now(cluster, endpoint, options),
    )
    .await
    {
        Ok(result) => result,
        Err(_) => Err(timed_out),
    }
}

async fn connect_now(
    cluster: &LiveCluster,
    endpoint: &LiveEndpoint,
    options: &ConnectOptions,
) -> Result<Connected, ConnectError> {
    match endpoint.address() {
        EndpointAddress::Socket(address) => {
            let began = cluster.clock.now();
            let stream = tcp(*address, cluster).await?;
            let connected = cluster.clock.now();
            let (local, remote) = (stream.local_addr().ok(), Some(*address));
            let (stream, secured) =
                secure(stream, &endpoint.transport, options, &*cluster.clock).await?;
            let times = ConnectTimes {
                began,
                connected,
                secured: secured.is_some().then(|| cluster.clock.now()),
            };
            Ok(Connected {
                stream,
                local,
                remote,
                secured,
                times,
            })
        }
        EndpointAddress::Pipe(path) => {
            if !matches!(*endpoint.transport, LiveTransport::Plaintext) {
                return Err(ConnectError::local(
                    "only plaintext is supported over Unix sockets",
                ));
            }
            let began = cluster.clock.now();
            let stream = UnixStream::connect(&**path)
                .await
                .map_err(|e| ConnectError::remote(refused(&e)))?;
            Ok(Connected {
                stream: Stream::Unix(stream),
                local: None,
                remote: None,
                secured: None,
                times: ConnectTimes {
                    began,
                    connected: cluster.clock.now(),
                    secured: None,
                },
            })
        }
    }
}

async fn tcp(address: SocketAddr, cluster: &LiveCluster) -> Result<TcpStream, ConnectError> {
    let Cluster {
        bind,
        tcp_keepalive,
        ..
    } = &*cluster.config;
    let socket = prepare(address, bind, cluster.mark, *tcp_keepalive)
        .map_err(|e| ConnectError::local(format!("immediate connect error: {e}")))?;
    let stream = socket
        .connect(address)
        .await
        .map_err(|e| ConnectError::remote(refused(&e)))?;
    // Small writes must not wait for acknowledgements; Envoy sets it everywhere, too. A socket
    // without it still works.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn prepare(
    address: SocketAddr,
    bind: &UpstreamBind,
    mark: Option<u32>,
    keepalive: Option<TcpKeepalive>,
) -> io::Result<TcpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    if let Some(source) = bind
        .source
        .filter(|source| source.is_ipv4() == address.is_ipv4())
    {
        if bind.transparent && source.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        }
        // Without this every port of the source address could be used for one destination only.
        if source.port() == 0 {
            set_bind_address_no_port(&socket);
        }
        socket.bind(&source.into())?;
    }
    if let Some(TcpKeepalive {
        probes,
        time,
        interval,
    }) = keepalive
    {
        let mut wanted = Keepalive::new();
        wanted = time.map_or(wanted.clone(), |time| wanted.with_time(time));
        wanted = interval.map_or(wanted.clone(), |interval| wanted.with_interval(interval));
        wanted = probes.map_or(wanted.clone(), |probes| wanted.with_retries(probes));
        socket.set_tcp_keepalive(&wanted)?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// The kernel then chooses the port at connect time, when it knows the destination.
fn set_bind_address_no_port(socket: &Socket) {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open for the call, and `on` is as long as `size` says. An old
    // kernel without the option still binds, only with fewer ports, so the result does not matter.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size,
        );
    }
}

/// Envoy's words.
fn refused(error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::ConnectionRefused => "Connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "No route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "Network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "Connection timed out".to_owned(),
        _ => error.to_string(),
    };
    format!("delayed connect error: {what}")
}

async fn secure(
    mut stream: TcpStream,
    transport: &LiveTransport,
    options: &ConnectOptions,
    clock: &dyn Clock,
) -> Result<(Stream, Option<Secured>), ConnectError> {
    match transport {
        LiveTransport::Plaintext => Ok((Stream::Tcp(stream), None)),
        LiveTransport::Tls(context) => {
            let config = client_config(context, options)?;
            let handshake = tls::connect(context, &config, stream, clock);
            let (stream, secured) = handshake
                .await
                .map_err(|e| ConnectError::remote(format!("TLS_error:|{e}:TLS_error_end")))?;
            Ok((stream, Some(secured)))
        }
        LiveTransport::ProxyProtocol(version, inner) => {
            let header = proxy_protocol(*version, options.downstream);
            stream
                .write_all(&header)
                .await
                .map_err(|e| ConnectError::remote(e.to_string()))?;
            Box::pin(secure(stream, inner, options, clock)).await
        }
        LiveTransport::Refuse => Err(ConnectError::local(
            "the transport socket cannot be made as configured",
        )),
    }
}

fn client_config(
    context: &LiveClientTls,
    options: &ConnectOptions,
) -> Result<ClientConfig, ConnectError> {
    let mut config = context
        .current()
        .ok_or_else(|| ConnectError::local("TLS_error: Secret is not supplied by SDS"))?;
    if let Some(name) = &options.server_name {
        config = config
            .with_server_name(name)
            .map_err(|e| ConnectError::local(e.to_string()))?;
    }
    if let Some(alpn) = &options.alpn {
        config = config.with_alpn(alpn.iter().map(|p| p.as_bytes().to_vec()).collect());
    }
    Ok(config)
}

/// The header of HAProxy's PROXY protocol, version 1 or 2.
fn proxy_protocol(
    version: ProxyProtocolVersion,
    addresses: Option<(SocketAddr, SocketAddr)>,
) -> Vec<u8> {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    match (version, addresses) {
        (ProxyProtocolVersion::V1, Some((source, destination)))
            if source.is_ipv4() == destination.is_ipv4() =>
        {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            format!(
                "PROXY {family} {from} {to} {} {}\r\n",
                source.port(),
                destination.port()
            )
            .into_bytes()
        }
        (ProxyProtocolVersion::V1, _) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyProtocolVersion::V2, Some((SocketAddr::V4(source), SocketAddr::V4(destination)))) => {
            let mut header = [
                SIGNATURE,
                &[0x21, 0x11, 0, 12],
                &source.ip().octets(),
                &destination.ip().octets(),
            ]
            .concat();
            header.extend(
                source
                    .port()
                    .to_be_bytes()
                    .into_iter()
                    .chain(destination.port().to_be_bytes()),
            );
            header
        }
        (ProxyProtocolVersion::V2, Some((SocketAddr::V6(source), SocketAddr::V6(destination)))) => {
            let mut header = [
                SIGNATURE,
                &[0x21, 0x21, 0, 36],
                &source.ip().octets(),
                &destination.ip().octets(),
            ]
            .concat();
            header.extend(
                source
                    .port()
                    .to_be_bytes()
                    .into_iter()
                    .chain(destination.port().to_be_bytes()),
            );
            header
        }
        // LOCAL: the receiver uses the connection's own addresses.
        (ProxyProtocolVersion::V2, _) => [SIGNATURE, &[0x20, 0, 0, 0]].concat(),
    }
}

/// The original destination of a redirected connection; `None` when it was not redirected or the
/// kernel does not know.
pub fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr().ok()?;
    let found = if local.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let found = found.ok()?.as_socket()?;
    (found.ip() != Ipv4Addr::UNSPECIFIED).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_protocol_headers_are_those_of_the_specification() {
        let addresses = Some((
            "10.0.0.1:1000".parse().unwrap(),
            "10.0.0.2:80".parse().unwrap(),
        ));
        assert_eq!(
            proxy_protocol(ProxyProtocolVersion::V1, addresses),
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n"
        );
        let v2 = proxy_protocol(ProxyProtocolVersion::V2, addresses);
        assert_eq!(v2.len(), 28);
        assert_eq!(
            &v2[12..],
            [0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 3, 232, 0, 80]
        );
        assert_eq!(
            proxy_protocol(ProxyProtocolVersion::V2, None)[12..],
            [0x20, 0, 0, 0]
        );
    }
}
