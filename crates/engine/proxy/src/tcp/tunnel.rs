//! A TCP connection carried through an HTTP proxy: CONNECT, then bytes.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Uri, header::HOST};
use hyper_util::rt::TokioIo;
use proxy_config::{cluster::UpstreamProtocol, tcp_proxy::Tunnel};
use telemetry::record::Protocol;

use crate::{
    body::RequestBody,
    endpoint::LiveEndpoint,
    tls::Stream,
    upstream::{cluster::LiveCluster, connected::Connected, handshake::HttpVersion, pool::PoolKey},
    worker::Worker,
};

/// Asks the endpoint for a tunnel. `Err`: why there is none.
pub async fn open(
    worker: &Worker,
    tunnel: &Tunnel,
    cluster: &Arc<LiveCluster>,
    host: &Arc<LiveEndpoint>,
) -> Result<Connected, Arc<str>> {
    if tunnel.use_post {
        return Err("tunnelling by POST is not supported".into());
    }
    let version = match cluster.config.http.protocol {
        UpstreamProtocol::Http2 => HttpVersion::Http2,
        UpstreamProtocol::Alpn => HttpVersion::Negotiated,
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => HttpVersion::Http1,
    };
    let mut lease = worker
        .pools
        .pool(cluster, host, PoolKey::new(version))
        .ok_or("overflow")?
        .acquire()
        .await
        .map_err(|error| error.to_string())?;
    let target: Uri = tunnel
        .hostname
        .parse()
        .map_err(|_| format!("{} is no host with a port", tunnel.hostname))?;
    let mut request = Request::new(RequestBody::Empty);
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target;
    if lease.connection.protocol == Protocol::Http2 {
        *request.version_mut() = http::Version::HTTP_2;
    } else {
        let host = HeaderValue::from_str(&tunnel.hostname).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
    }
    let response = lease
        .send(request)
        .await
        .map_err(|error| error.reset.as_str())?;
    if !response.status().is_success() {
        return Err(format!("the proxy answered {}", response.status()).into());
    }
    let (local, remote) = (lease.connection.local, lease.connection.remote);
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| error.to_string())?;
    let stream = Stream::Tunnel(Box::new(TokioIo::new(upgraded)));
    let times = lease.connection.times;
    Ok(Connected {
        stream,
        local,
        remote,
        secured: None,
        times,
    })
}
