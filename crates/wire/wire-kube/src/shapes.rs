//! Every field of every kind that means something, as its struct declares it: for a page that
//! judges each one, and a test that finds the one that nobody judged.

use crate::kinds::Kind;
use crate::read::{Read, Shape};
use crate::{istio, kubernetes};

/// What is below `spec` in an object of one of Istio's kinds, and below the root in one of
/// Kubernetes' kinds. `None`: nothing of such an object is read but its name.
pub fn of(kind: Kind) -> Option<Shape> {
    Some(match kind {
        Kind::VirtualService => istio::virtual_service::VirtualService::shape(),
        Kind::DestinationRule => istio::destination_rule::DestinationRule::shape(),
        Kind::Gateway => istio::gateway::Gateway::shape(),
        Kind::ServiceEntry => istio::service_entry::ServiceEntry::shape(),
        Kind::WorkloadEntry => istio::service_entry::WorkloadEntry::shape(),
        Kind::Sidecar => istio::sidecar::Sidecar::shape(),
        Kind::PeerAuthentication => istio::peer_authentication::PeerAuthentication::shape(),
        Kind::AuthorizationPolicy => istio::authorization_policy::AuthorizationPolicy::shape(),
        Kind::Telemetry => istio::telemetry::Telemetry::shape(),
        Kind::Service => kubernetes::service::Service::shape(),
        Kind::EndpointSlice => kubernetes::endpoint_slice::EndpointSlice::shape(),
        Kind::Pod => kubernetes::pod::Pod::shape(),
        Kind::Node => kubernetes::node::Node::shape(),
        Kind::Secret => kubernetes::secret::Secret::shape(),
        _ => return None,
    })
}

/// What is below the root of the mesh configuration.
pub fn of_mesh() -> Shape {
    istio::mesh_config::MeshConfig::shape()
}
