//! What a proxy obeys: the domain form of xDS resources.
//!
//! Sits between `xds-decode` (wire → these types) and `proxy` (which publishes them as live
//! objects). A value of these types is valid by construction: patterns are compiled, addresses
//! parsed, percentages in range, durations non-negative.
//!
//! Invariants: no serde, no prost, no tokio, no rustls here; nothing refers to Kubernetes or to a
//! custom resource; every collection whose order matters on the wire keeps that order. Types that
//! take part in "did this change?" are `PartialEq`.
//!
//! Deliberately not here: run-time state (health, counters, connections), which belongs to
//! `proxy`'s `Live…` types. The meaning of each field is Envoy's v3 API documentation of the
//! message of the same name.

pub mod access_log;
pub mod bootstrap;
pub mod cluster;
pub mod endpoint;
pub mod filter;
pub mod hash_policy;
pub mod header;
pub mod http_connection_manager;
pub mod listener;
pub mod matcher;
pub mod metadata;
pub mod name;
pub mod refused;
pub mod route;
pub mod secret;
pub mod tcp_proxy;
pub mod tls;
pub mod tracing;
pub mod upgrade;

pub use cluster::Cluster;
pub use endpoint::Endpoints;
pub use filter::HttpFilter;
pub use http_connection_manager::HttpConnectionManager;
pub use listener::{FilterChain, Listener};
pub use name::{ClusterName, ListenerName, RouteTableName, SecretName};
pub use refused::Refused;
pub use route::RouteTable;
pub use secret::Secret;
