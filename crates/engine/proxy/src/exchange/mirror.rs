//! Mirrored requests: sent beside the real one, and nobody waits for what becomes of them.

use std::sync::Arc;

use http::{HeaderValue, Method, Uri, header::HOST};
use http_body_util::BodyExt;
use proxy_config::{
    cluster::UpstreamProtocol,
    route::{Forward, MirrorPolicy},
};
use telemetry::record::Protocol;

use crate::{
    balance::{Pick, PickFacts},
    body::RequestBody,
    exchange::Exchange,
    headers::text,
    route::{choose_cluster, without_port},
    upstream::{cluster::LiveCluster, handshake::HttpVersion, in_flight::InFlight, pool::PoolKey},
    worker::Worker,
};

/// Data frames that a mirror may lag behind; a slower one is given up.
const MAX_LAG_FRAMES: usize = 64;

/// One copy, ready to go.
struct Shadow {
    worker: Arc<Worker>,
    cluster: Arc<LiveCluster>,
    request: http::Request<RequestBody>,
    authority: HeaderValue,
    version: HttpVersion,
}

/// Starts the mirrors that the most specific of route, virtual host and table names, each for its share of requests.
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
            tokio::spawn(send(shadow));
        }
    }
}

fn shadow(x: &Exchange, policy: &MirrorPolicy) -> Option<Shadow> {
    let (name, _) = choose_cluster(&policy.target, &x.request.head.headers, x.request.random)?;
    let cluster = x.config.cluster(name.as_str())?.clone();
    let authority = if policy.disable_shadow_host_suffix {
        x.request.authority.clone()
    } else {
        with_suffix(&x.request.authority)
    };
    let version = match cluster.config.http.protocol {
        UpstreamProtocol::Http2 => HttpVersion::Http2,
        UpstreamProtocol::Downstream if x.request.protocol() == Protocol::Http2 => {
            HttpVersion::Http2
        }
        UpstreamProtocol::Alpn => HttpVersion::Negotiated,
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => HttpVersion::Http1,
    };
    let mut request = http::Request::new(x.request.body.copy(MAX_LAG_FRAMES));
    *request.method_mut() = x.request.head.method.clone();
    *request.headers_mut() = x.request.head.headers.clone();
    *request.uri_mut() = x.request.head.uri.clone();
    Some(Shadow {
        worker: x.worker.clone(),
        cluster,
        request,
        authority,
        version,
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
async fn send(shadow: Shadow) {
    let Shadow {
        worker,
        cluster,
        mut request,
        authority,
        version,
    } = shadow;
    let pick = cluster.pick(&PickFacts::default(), &*worker.live.rng);
    let Pick::Host(host) = pick else { return };
    let key = PoolKey {
        version,
        alpn: None,
        server_name: None,
        high_priority: false,
        downstream: None,
    };
    let Ok(mut lease) = worker.pools.pool(&cluster, &host, key).acquire().await else {
        return;
    };
    match InFlight::enter(&cluster, &host, false) {
        Some(in_flight) => lease.hold(in_flight),
        None => return lease.release(),
    }
    if lease.connection.protocol == Protocol::Http2 {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority.as_bytes())
            .path_and_query(path)
            .build();
        let Ok(uri) = uri else { return };
        *request.uri_mut() = uri;
    } else {
        request.headers_mut().insert(HOST, authority);
    }
    let is_head = *request.method() == Method::HEAD;
    let Ok(response) = lease.send(request).await else {
        return;
    };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return;
        }
    }
    debug_assert!(!is_head || http_body::Body::is_end_stream(&body));
    lease.release();
}
