//! Generators: what a proxy is sent, from what the mesh means (`mesh_model::Snapshot` → `wire_envoy::pb`).
//!
//! A [`Client`] is a proxy as its node describes it. A [`View`] is what that proxy may know of a snapshot. From it come the inputs of each
//! generator, and an input is at once cache key, relevance filter and only source: equal inputs give equal bytes.
//!
//! ```text
//! let view = View::new(&snapshot, &client);
//! clusters(&view.cluster_inputs())                -> Vec<pb::cluster::Cluster>
//! listeners(&view.listener_inputs())              -> Vec<pb::listener::Listener>
//! routes(&view.route_inputs(name)?)               -> pb::route::RouteConfiguration
//! endpoints(&view.endpoint_inputs(cluster)?)      -> pb::endpoint::ClusterLoadAssignment
//! secret(name, &snapshot, &client)?               -> pb::tls::Secret
//! name_table(&view.name_table_inputs())           -> pb::istio::nds::NameTable
//! packed(&message)                                -> pb::Any, with the same bytes for the same message
//! problems(&view)                                 -> Vec<Problem>
//! ```
//!
//! Names follow Istio's (reference 1.9). Deliberately not here: who is sent what and when (`control`), and EnvoyFilter.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod canonical;
pub mod client;
pub mod clusters;
pub mod endpoints;
mod error;
mod inbound;
pub mod listeners;
pub mod name_table;
mod names;
mod problems;
mod rbac;
pub mod routes;
pub mod secrets;
mod telemetry;
mod tls;
pub mod view;
mod wire;

pub use canonical::packed;
pub use client::{Client, ClientKind, Interception};
pub use clusters::{ClusterInputs, clusters, own_clusters, service_clusters};
pub use endpoints::{EndpointInputs, endpoints};
pub use error::{InvalidNode, Problem, SecretError};
pub use listeners::{ListenerInputs, listeners};
pub use name_table::{NameTableInputs, name_table};
pub use names::OutboundName;
pub use problems::problems;
pub use routes::{RouteInputs, routes};
pub use secrets::secret;
pub use view::View;
