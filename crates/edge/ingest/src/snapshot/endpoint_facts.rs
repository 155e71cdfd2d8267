//! What endpoints and workloads have in common: identity, mutual TLS, and what stands in for facts
//! that nobody told.

use identity::{ServiceAccountName, SpiffeId};
use mesh_model::MeshConfig;
use mesh_model::object::{Labels, Text};
use mesh_model::workload::Locality;

use crate::service_entry::EntryEndpoint;
use crate::value::text;

/// Says that a workload has a sidecar that speaks mutual TLS.
pub(super) const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// By its label; without one, an endpoint with a service account has a certificate, so it speaks TLS.
pub(super) fn speaks_mesh_tls(endpoint: &EntryEndpoint) -> bool {
    match endpoint.labels.value(TLS_MODE_LABEL) {
        Some(mode) => mode == "istio",
        None => !endpoint.service_account.is_empty(),
    }
}

/// `spiffe://<trust domain>/ns/<namespace>/sa/<account>`; `None` when the names cannot stand in one.
pub(super) fn identity_of(mesh: &MeshConfig, namespace: &str, account: &str) -> Option<SpiffeId> {
    let account = ServiceAccountName::new(namespace, account).ok()?;
    Some(SpiffeId::workload(&mesh.trust_domain, &account))
}

/// Labels of nobody.
pub(super) fn no_labels() -> Labels {
    Labels::default()
}

/// The zone that a slice names, when the node is not known.
pub(super) fn zone_only(zone: &Option<Text>) -> Locality {
    Locality {
        region: None,
        zone: zone.as_deref().and_then(text),
        sub_zone: None,
    }
}
