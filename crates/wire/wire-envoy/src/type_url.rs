//! Names of resource types: `type.googleapis.com/` and the full protobuf name.

use prost::Name;

/// What every type URL on the wire starts with.
pub const PREFIX: &str = "type.googleapis.com/";

macro_rules! urls {
    ($($(#[$doc:meta])* $name:ident = $type:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = concat!("type.googleapis.com/", $type);)*
    };
}

urls! {
    /// CDS.
    CLUSTER = "envoy.config.cluster.v3.Cluster";
    /// EDS.
    ENDPOINT = "envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// LDS.
    LISTENER = "envoy.config.listener.v3.Listener";
    /// RDS.
    ROUTE = "envoy.config.route.v3.RouteConfiguration";
    /// SRDS.
    SCOPED_ROUTE = "envoy.config.route.v3.ScopedRouteConfiguration";
    /// VHDS.
    VIRTUAL_HOST = "envoy.config.route.v3.VirtualHost";
    /// SDS.
    SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret";
    /// ECDS.
    EXTENSION_CONFIG = "envoy.config.core.v3.TypedExtensionConfig";
    /// RTDS.
    RUNTIME = "envoy.service.runtime.v3.Runtime";
    /// NDS, Istio's DNS name table.
    NAME_TABLE = "istio.networking.nds.v1.NameTable";
    /// PCDS, Istio's proxy configuration with trust anchors.
    PROXY_CONFIG = "istio.mesh.v1alpha1.ProxyConfig";
    /// A configuration message as a Struct, as Istio writes it.
    TYPED_STRUCT_UDPA = "udpa.type.v1.TypedStruct";
    /// The same in its newer package.
    TYPED_STRUCT_XDS = "xds.type.v3.TypedStruct";
}

/// The type URL of a message type.
pub fn type_url<M: Name>() -> String {
    format!("{PREFIX}{}", M::full_name())
}

/// The full message name in a type URL: what stands after the last slash.
pub fn message_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}
