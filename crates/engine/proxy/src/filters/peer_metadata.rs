//! Istio's peer metadata over HTTP: who the two sides of a request are, told by
//! `x-envoy-peer-metadata` and `x-envoy-peer-metadata-id`.
//!
//! Towards the upstream a sidecar adds its own and takes the upstream's from the response; towards
//! the downstream it takes the client's from the request and, if the client told its own, answers
//! with ours. The headers never reach an application. How they are read and written is in
//! [`crate::peers`].

use http::response::Parts;
use proxy_config::{filter::peer_metadata::PeerMetadata, metadata::Value};

use crate::{
    filters::flow::Flow,
    peers::{Own, PeerCache, take, tell},
    request::Request,
};

pub fn on_request(
    config: &PeerMetadata,
    own: &Own,
    peers: &PeerCache,
    request: &mut Request,
) -> Flow {
    if config.discover_downstream {
        let told = take(&mut request.head.headers, peers);
        request.record.downstream_peer = told.or(request.record.downstream_peer.take());
    }
    if config.propagate_upstream && !(config.skip_external_clusters && is_external(request)) {
        tell(&mut request.head.headers, own);
    }
    Flow::Continue
}

pub fn on_response(
    config: &PeerMetadata,
    own: &Own,
    peers: &PeerCache,
    (request, head): (&mut Request, &mut Parts),
) {
    if config.discover_upstream {
        let told = take(&mut head.headers, peers);
        request.record.upstream_peer = told.or(request.record.upstream_peer.take());
    }
    if config.propagate_downstream && request.record.downstream_peer.is_some() {
        tell(&mut head.headers, own);
    }
}

/// Istio marks clusters outside the mesh by `istio.external: true`.
fn is_external(request: &Request) -> bool {
    request
        .cluster
        .as_ref()
        .is_some_and(|c| c.metadata.lookup("istio", &["external"]) == Some(&Value::Bool(true)))
}
