//! Istio's peer metadata over HTTP headers (`io.istio.http.peer_metadata.Config`).

/// Which sides discover the other's metadata from `x-envoy-peer-metadata(-id)`, and which sides
/// send theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerMetadata {
    pub discover_downstream: bool,
    pub discover_upstream: bool,
    pub propagate_downstream: bool,
    pub propagate_upstream: bool,
    /// Headers are sent only to endpoints inside the mesh (`skip_external_clusters`).
    pub skip_external_clusters: bool,
}
