//! Every protobuf message: envoy-types' tree, our own additions, and short names for what is used most.

pub use envoy_types::pb::*;

/// Messages of Istio, compiled from `proto/`.
pub mod istio {
    /// Certificate service: `IstioCertificateService.CreateCertificate`.
    pub mod auth {
        pub use crate::pb::own::istio::v1::auth::*;
    }
    /// ALPN override filter.
    pub mod alpn {
        pub use crate::pb::own::istio::envoy::config::filter::http::alpn::v2alpha1::*;
    }
    /// HTTP peer metadata filter.
    pub mod peer_metadata {
        pub use crate::pb::own::io::istio::http::peer_metadata::*;
    }
    /// TCP metadata exchange filter.
    pub mod metadata_exchange {
        pub use crate::pb::own::envoy::tcp::metadataexchange::config::*;
    }
    /// Standard metrics filter.
    pub mod stats {
        pub use crate::pb::own::stats::*;
    }
    /// DNS name table.
    pub mod nds {
        pub use crate::pb::own::istio::networking::nds::v1::*;
    }
}

/// `TypedStruct` in both of its packages; Istio writes the older one.
pub mod typed_struct {
    pub use crate::pb::own::udpa::r#type::v1::TypedStruct as Udpa;
    pub use crate::pb::own::xds::r#type::v3::TypedStruct as Xds;
}

pub use envoy_types::pb::envoy::config::{
    accesslog::v3 as accesslog, bootstrap::v3 as bootstrap, cluster::v3 as cluster,
    core::v3 as core, endpoint::v3 as endpoint, listener::v3 as listener, rbac::v3 as rbac,
    route::v3 as route, trace::v3 as trace,
};
pub use envoy_types::pb::envoy::extensions::filters::http as http_filters;
pub use envoy_types::pb::envoy::extensions::filters::listener as listener_filters;
pub use envoy_types::pb::envoy::extensions::filters::network as network_filters;
pub use envoy_types::pb::envoy::extensions::filters::network::{
    http_connection_manager::v3 as hcm, tcp_proxy::v3 as tcp_proxy,
};
pub use envoy_types::pb::envoy::extensions::transport_sockets::{
    self as transport_sockets, tls::v3 as tls,
};
pub use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http_options;
pub use envoy_types::pb::envoy::service::discovery::v3 as discovery;
pub use envoy_types::pb::envoy::r#type::{matcher::v3 as matcher, v3 as kind};
pub use envoy_types::pb::google::protobuf::{
    Any, BoolValue, Duration, Struct, UInt32Value, Value, value::Kind as ValueKind,
};

#[allow(clippy::all, missing_docs)]
mod own {
    include!(concat!(env!("OUT_DIR"), "/own.rs"));
}
