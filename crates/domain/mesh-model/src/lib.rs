//! What the mesh means: services, workloads, traffic rules, policies, and the `Snapshot` that holds one consistent state of all of them.
//!
//! Sits between `ingest` (what users write → these types) and `xds-encode` (these types → what proxies are sent). The types are Istio's
//! concepts with every default resolved that needs no context, every duration, percentage, pattern and enum parsed.
//!
//! Invariants: no serde, no prost, no tokio here; nothing refers to Envoy's wire format; values are `Eq`/`PartialEq` so that an unchanged
//! object can be recognised; names keep the spelling of the user's object for messages (`ObjectRef`).
//!
//! Deliberately not here: reading YAML or JSON (`wire-kube`, `ingest`), and the form of listeners, routes, clusters (`xds-encode`).

pub mod authorization_policy;
pub mod destination_rule;
pub mod gateway;
pub mod matching;
pub mod mesh_config;
pub mod object;
pub mod peer_authentication;
pub mod port;
pub mod secret;
pub mod service;
pub mod sidecar;
pub mod snapshot;
pub mod telemetry;
pub mod virtual_service;
pub mod workload;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub use gateway::Gateway;
pub use mesh_config::MeshConfig;
pub use object::{ExportTo, Host, Labels, Meta, ObjectRef, Selector};
pub use peer_authentication::PeerAuthentication;
pub use port::{Port, Protocol};
pub use secret::Credential;
pub use service::Service;
pub use sidecar::Sidecar;
pub use snapshot::Snapshot;
pub use telemetry::Telemetry;
pub use virtual_service::VirtualService;
pub use workload::{Endpoint, Workload};
