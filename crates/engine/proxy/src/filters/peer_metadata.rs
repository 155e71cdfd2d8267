//! Istio's peer metadata over HTTP: who the two sides of a request are, told by `x-envoy-peer-metadata` and `x-envoy-peer-metadata-id`.
//!
//! Towards the upstream a sidecar adds its own and takes the upstream's from the response; towards the downstream it takes the client's from
//! the request and, if the client told its own, answers with ours. The headers never reach an application. How they are read and written
//! is in [`crate::peers`].

use proxy_config::{filter::peer_metadata::PeerMetadata, metadata::Value};

use crate::{
    exchange::{Exchange, reply::Reply},
    filters::Flow,
    peers::{take, tell},
};

pub fn on_request(config: &PeerMetadata, x: &mut Exchange) -> Flow {
    if config.discover_downstream {
        let told = take(&mut x.head.headers, &x.worker.peers);
        x.record.downstream_peer = told.or(x.record.downstream_peer.take());
    }
    if config.propagate_upstream && !(config.skip_external_clusters && is_external(x)) {
        tell(&mut x.head.headers, &x.worker.live.own);
    }
    Flow::Continue
}

pub fn on_response(config: &PeerMetadata, x: &mut Exchange, reply: &mut Reply) {
    if config.discover_upstream {
        let told = take(&mut reply.head.headers, &x.worker.peers);
        x.record.upstream_peer = told.or(x.record.upstream_peer.take());
    }
    if config.propagate_downstream && x.record.downstream_peer.is_some() {
        tell(&mut reply.head.headers, &x.worker.live.own);
    }
}

/// Istio marks clusters outside the mesh by `istio.external: true`.
fn is_external(x: &Exchange) -> bool {
    x.cluster.as_ref().is_some_and(|c| {
        c.config.metadata.lookup("istio", &["external"]) == Some(&Value::Bool(true))
    })
}
