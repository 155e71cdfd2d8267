//! Mirrored requests: sent beside the real one, and nobody waits for what becomes of them.
//!
//! The tasks belong to the worker and end by themselves: with the answer's last byte, or when the
//! time of the route is over (Envoy's rule; a route without a time has [`LONGEST`]). Their number
//! is bounded by the circuit breaker of the mirror's cluster and shown as its gauge
//! `upstream_rq_mirror_active`.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Uri, header::HOST};
use proxy_config::{
    cluster::UpstreamProtocol,
    route::{Forward, MirrorPolicy},
};
use telemetry::record::Protocol;

use crate::{
    body::RequestBody,
    exchange::Exchange,
    headers::{framing, text},
    route::{choose_cluster, without_port},
    upstream::{
        call::{Call, Keep, call},
        cluster::LiveCluster,
        handshake::HttpVersion,
        metrics::Level,
        pool::{PoolKey, UpstreamConnection},
    },
    worker::Worker,
};

/// Data frames that a mirror may lag behind; a slower one is given up.
const MAX_LAG_FRAMES: usize = 64;
/// How long a mirrored request may take where the route says nothing (Envoy's default for a stream
/// on which nothing happens).
const LONGEST: Duration = Duration::from_secs(300);

/// One copy, ready to go.
struct Shadow {
    worker: Arc<Worker>,
    cluster: Arc<LiveCluster>,
    head: http::request::Parts,
    authority: HeaderValue,
    /// `None`: it was given to a connection.
    body: Option<RequestBody>,
    key: PoolKey,
    limit: Duration,
    is_grpc: bool,
}

/// Counts a mirrored request while it is under way.
struct Counted(Arc<LiveCluster>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.lower(Level::RqMirrorActive);
    }
}

/// Starts the mirrors that the most specific of route, virtual host and table names, each for its
/// share of requests.
pub fn start(x: &Exchange, rules: &Forward) {
    let Some(matched) = &x.request.route else {
        return;
    };
    let levels = [
        &rules.mirrors,
        &matched.virtual_host.mirrors,
        &matched.table.mirrors,
    ];
    let Some(policies) = levels.into_iter().find(|policies| !policies.is_empty()) else {
        return;
    };
    if x.request.upgrade.is_some() {
        return;
    }
    for policy in policies
        .iter()
        .filter(|policy| policy.fraction.selects(x.worker.live.rng.u64()))
    {
        if let Some(shadow) = shadow(x, policy) {
            shadow.cluster.metrics.raise(Level::RqMirrorActive);
            let counted = Counted(shadow.cluster.clone());
            x.worker.background.spawn(async move {
                let _counted = counted;
                send(shadow).await;
            });
        }
    }
}

fn shadow(x: &Exchange, policy: &MirrorPolicy) -> Option<Shadow> {
    let request = &x.request;
    let (name, _) = choose_cluster(&policy.target, &request.head.headers, request.random)?;
    let cluster = x.config.cluster(name.as_str())?.clone();
    let authority = if policy.disable_shadow_host_suffix {
        request.authority.clone()
    } else {
        with_suffix(&request.authority)
    };
    let version = match cluster.config.http.protocol {
        UpstreamProtocol::Http2 => HttpVersion::Http2,
        UpstreamProtocol::Downstream if request.protocol() == Protocol::Http2 => HttpVersion::Http2,
        UpstreamProtocol::Alpn => HttpVersion::Negotiated,
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => HttpVersion::Http1,
    };
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = request.head.method.clone();
    head.headers = request.head.headers.clone();
    head.uri = request.head.uri.clone();
    Some(Shadow {
        worker: x.worker.clone(),
        cluster,
        head,
        authority,
        body: Some(request.body.copy(MAX_LAG_FRAMES)),
        key: PoolKey::new(version),
        limit: request.timeout.unwrap_or(LONGEST),
        is_grpc: request.is_grpc,
    })
}

/// `host-shadow:port`.
fn with_suffix(authority: &HeaderValue) -> HeaderValue {
    let authority = authority.to_str().unwrap_or_default();
    let host = without_port(authority);
    text(&format!(
        "{host}-shadow{}",
        authority.get(host.len()..).unwrap_or_default()
    ))
}

/// Sends it and reads what comes, so that the connection can be used again.
async fn send(mut shadow: Shadow) {
    let (worker, cluster) = (shadow.worker.clone(), shadow.cluster.clone());
    let to = Call {
        pools: &worker.pools,
        cluster: &cluster,
        rng: &*worker.live.rng,
        key: shadow.key.clone(),
        limit: shadow.limit,
        is_grpc: shadow.is_grpc,
    };
    // Whatever becomes of it is the mirror's affair; the cluster's statistics have it.
    let _ = call(to, Keep::Nothing, |connection| shadow.request(connection)).await;
}

impl Shadow {
    /// For a connection's HTTP version. `None`: the body is gone.
    fn request(&mut self, connection: &UpstreamConnection) -> Option<http::Request<RequestBody>> {
        let body = self.body.take()?;
        if matches!(body, RequestBody::Empty) {
            // Without a body it can be made again.
            self.body = Some(RequestBody::Empty);
        }
        let mut request = http::Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.headers_mut() = self.head.headers.clone();
        *request.uri_mut() = self.head.uri.clone();
        if connection.protocol == Protocol::Http2 {
            let path = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned();
            *request.uri_mut() = Uri::builder()
                .scheme("http")
                .authority(self.authority.as_bytes())
                .path_and_query(path)
                .build()
                .ok()?;
        } else {
            request.headers_mut().insert(HOST, self.authority.clone());
            if !http_body::Body::is_end_stream(request.body()) {
                framing::announce_http1_body(request.headers_mut());
            }
        }
        Some(request)
    }
}
