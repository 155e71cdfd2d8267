//! Wire types: the protobuf messages of Envoy's xDS v3 surface and of Istio's additions to it.
//!
//! [`pb`] has every message, under the short names of the modules used most (`pb::cluster::Cluster`,
//! `pb::listener::Listener`, …) and under their full package paths (`pb::envoy::…`, `pb::google::protobuf::…`).
//! [`type_url`] names the resource types; [`any`] packs and unpacks `Any`; [`structs`] reads `google.protobuf.Struct`;
//! [`Descriptors`] turns messages into proto3 JSON or YAML and back.
//!
//! Nothing here judges a value: that is the work of `xds-decode` (wire → domain) and `xds-encode` (domain → wire).
//! Descriptors cost about 18 MB while they live, so nothing on the data path may load them, and whoever does drops them.
//!
//! Field numbers follow the published protobuf files of envoyproxy/data-plane-api, cncf/xds, istio/api and istio/proxy.

pub mod any;
mod descriptors;
pub mod pb;
pub mod structs;
pub mod type_url;

pub use any::{any, unpack};
pub use descriptors::{Descriptors, JsonError, Names, Unknown, dynamic_to_json};
pub use type_url::type_url;
