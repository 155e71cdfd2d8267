//! Network and HTTP filters: one variant each. A new filter is a file below and a variant here; the
//! exhaustive matches in `xds-decode` and `proxy` then list what is left to write.

use std::sync::Arc;

use crate::{Refused, tcp_proxy::TcpProxy};

pub mod alpn;
pub mod cors;
pub mod fault;
pub mod istio_stats;
pub mod local_rate_limit;
pub mod peer_metadata;
pub mod rbac;

/// A filter before the terminal one of a chain.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkFilter {
    Rbac(Arc<rbac::Rbac>),
    /// Istio's TCP metadata exchange; acts only where ALPN `istio-peer-exchange` was negotiated.
    MetadataExchange,
    IstioStats(Arc<istio_stats::IstioStats>),
    LocalRateLimit(Arc<local_rate_limit::NetworkLocalRateLimit>),
    /// Cluster named by the SNI (`outbound_.80_._.host`); east-west gateways.
    SniCluster,
    /// Could not be read: the connection is closed here.
    Refused(Arc<Refused>),
}

/// The terminal TCP filter.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpTerminal {
    pub proxy: TcpProxy,
}

/// One HTTP filter of a connection manager, with its name in the chain (per-route configuration
/// refers to the name).
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    pub name: Arc<str>,
    pub kind: HttpFilterKind,
    pub disabled: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HttpFilterKind {
    PeerMetadata(Arc<peer_metadata::PeerMetadata>),
    IstioStats(Arc<istio_stats::IstioStats>),
    Alpn(Arc<alpn::Alpn>),
    Rbac(Arc<rbac::Rbac>),
    Fault(Arc<fault::Fault>),
    /// The policy is on the route.
    Cors,
    LocalRateLimit(Arc<local_rate_limit::LocalRateLimit>),
    GrpcStats,
    Router(RouterOptions),
    /// Could not be read: a request that comes here is answered 503.
    Refused(Arc<Refused>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouterOptions {
    pub suppress_envoy_headers: bool,
}

/// What a table, virtual host, route or weighted cluster changes of a filter
/// (`typed_per_filter_config`). The most specific wins.
#[derive(Debug, Clone, PartialEq)]
pub struct PerRouteFilter {
    pub name: Arc<str>,
    pub config: PerRouteConfig,
}

#[derive(Debug, Clone, PartialEq)]
pub enum PerRouteConfig {
    Disabled,
    Fault(Arc<fault::Fault>),
    Cors(Arc<cors::CorsPolicy>),
    /// `None`: RBAC is off on this route.
    Rbac(Option<Arc<rbac::Rbac>>),
    LocalRateLimit(Arc<local_rate_limit::LocalRateLimit>),
}
