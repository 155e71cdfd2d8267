//! Endpoints of a cluster (`envoy.config.endpoint.v3.ClusterLoadAssignment`).

use std::{net::SocketAddr, sync::Arc};

use crate::metadata::Metadata;

#[derive(Debug, Clone, PartialEq)]
pub struct Endpoints {
    /// The cluster's EDS service name.
    pub cluster: Arc<str>,
    pub localities: Arc<[LocalityEndpoints]>,
    /// Priorities overprovision by this percentage; Envoy's default 140.
    pub overprovisioning_percent: u32,
    /// Endpoints in panic are not used instead of all.
    pub weighted_priority_health: bool,
    /// Share of requests to drop, `(category, per million)`.
    pub drops: Arc<[(Arc<str>, u32)]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    pub locality: Locality,
    /// 0 is the highest.
    pub priority: u32,
    /// Weight of the locality; `None`: no traffic under locality-weighted balancing.
    pub weight: Option<u32>,
    pub endpoints: Arc<[Endpoint]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub address: EndpointAddress,
    /// For `HostRewrite::Auto` and health checks; empty when none.
    pub hostname: Arc<str>,
    pub health: Health,
    /// >= 1.
    pub weight: u32,
    /// `envoy.lb` selects subsets, `envoy.transport_socket_match` the transport, `istio` names the
    /// workload.
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    Socket(SocketAddr),
    /// Unix domain socket.
    Pipe(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Healthy,
    Unhealthy,
    Draining,
    Timeout,
    Degraded,
}
