//! Istio's kinds and its mesh configuration, field by field, the newest and the deprecated ones
//! included.
//!
//! One file a kind, named as the kind; shapes that several share stand in the file of the kind that
//! owns them in Istio's API.

pub mod authorization_policy;
pub mod destination_rule;
pub mod extension_provider;
pub mod gateway;
pub mod mesh_config;
pub mod peer_authentication;
pub mod proxy_config;
pub mod request_authentication;
pub mod selector;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod workload_group;
