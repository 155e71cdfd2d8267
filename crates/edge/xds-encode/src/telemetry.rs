//! What a proxy reports: access logs, spans and Istio's standard metrics, as Telemetry resources and MeshConfig say (reference 4.2 – 4.4).
//!
//! Resources apply from the widest scope (root namespace) to the narrowest (workload). A gateway counts as a client.

use std::sync::Arc;

use mesh_model::{
    MeshConfig, Telemetry,
    mesh_config::{ExtensionProvider, ProviderKind},
    telemetry::WorkloadMode,
};

use crate::Client;

mod access_log;
mod metrics;
mod tracing;

/// Which side of a request a listener is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Outbound,
    Inbound,
    Gateway,
}

impl Side {
    fn takes(self, mode: WorkloadMode) -> bool {
        match mode {
            WorkloadMode::Both => true,
            WorkloadMode::Client => self != Side::Inbound,
            WorkloadMode::Server => self == Side::Inbound,
        }
    }
}

/// What decides about reports of one client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reports<'a> {
    pub client: &'a Client,
    pub mesh: &'a MeshConfig,
    /// Widest scope first.
    pub telemetries: &'a [Arc<Telemetry>],
    pub side: Side,
}

/// A provider by name. Istio has `envoy` and `prometheus` even where MeshConfig does not list them.
pub(crate) fn provider(mesh: &MeshConfig, name: &str) -> Option<ProviderKind> {
    let listed = mesh
        .extension_providers
        .iter()
        .find(|provider: &&ExtensionProvider| &*provider.name == name);
    match (listed, name) {
        (Some(provider), _) => Some(provider.kind.clone()),
        (None, "envoy") => Some(ProviderKind::FileAccessLog {
            path: "/dev/stdout".into(),
            format: mesh.access_log.as_ref().and_then(|log| log.format.clone()),
            omit_empty_values: false,
        }),
        (None, "prometheus") => Some(ProviderKind::Prometheus),
        (None, _) => None,
    }
}

/// Host part of a provider's `service`, which may be written `namespace/host`.
fn service_host(service: &str) -> &str {
    service.split_once('/').map_or(service, |(_, host)| host)
}
