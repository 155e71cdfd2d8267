//! Workloads (pods, WorkloadEntries) and the endpoints they give to services.

use std::{net::IpAddr, sync::Arc};

use identity::SpiffeId;

use crate::object::{Labels, Text};

/// One running instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    pub namespace: Text,
    /// Pod or WorkloadEntry name.
    pub name: Text,
    /// Deployment, StatefulSet, … name; for metrics and metadata.
    pub workload_name: Text,
    pub service_account: Text,
    pub addresses: Arc<[IpAddr]>,
    pub labels: Labels,
    pub locality: Locality,
    pub node: Text,
    pub cluster: Text,
    pub network: Text,
    /// Speaks mTLS (`security.istio.io/tlsMode=istio`).
    pub mesh_tls: bool,
    /// Declared container ports, `(name, number)`.
    pub ports: Arc<[(Text, u16)]>,
    pub canonical_name: Text,
    pub canonical_revision: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    pub region: Option<Text>,
    pub zone: Option<Text>,
    pub sub_zone: Option<Text>,
}

impl Locality {
    /// `region/zone/subzone`, trailing empty parts left out.
    pub fn parse(text: &str) -> Self {
        let mut parts = text
            .split('/')
            .map(|p| (!p.is_empty()).then(|| Text::from(p)));
        Self {
            region: parts.next().flatten(),
            zone: parts.next().flatten(),
            sub_zone: parts.next().flatten(),
        }
    }
}

/// One address of a service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: EndpointAddress,
    /// Port at the endpoint.
    pub port: u16,
    pub ready: Readiness,
    pub labels: Labels,
    pub locality: Locality,
    /// Relative, >= 1.
    pub weight: u32,
    pub mesh_tls: bool,
    pub identity: Option<SpiffeId>,
    pub namespace: Text,
    pub workload_name: Text,
    pub canonical_name: Text,
    pub canonical_revision: Text,
    pub network: Text,
    pub cluster: Text,
    pub node: Text,
    /// Host name of a pod of a headless service.
    pub hostname: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    Ip(IpAddr),
    /// To be resolved by the proxy.
    Name(Text),
    /// `unix:///path`.
    Unix(Text),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Readiness {
    Ready,
    NotReady,
    /// Terminating but still serving.
    Draining,
}
