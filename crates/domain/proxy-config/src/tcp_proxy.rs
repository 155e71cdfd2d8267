//! The TCP proxy (`envoy.extensions.filters.network.tcp_proxy.v3`).

use std::{sync::Arc, time::Duration};

use crate::{ClusterName, access_log::AccessLog, hash_policy::HashPolicy, metadata::Metadata};

#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxy {
    pub stat_prefix: Arc<str>,
    /// At least one; weights are relative.
    pub clusters: Arc<[WeightedTcpCluster]>,
    pub access_logs: Arc<[AccessLog]>,
    /// `None`: no idle timeout (Envoy's 0s); default 1 h.
    pub idle_timeout: Option<Duration>,
    pub max_connect_attempts: u32,
    pub max_downstream_connection_duration: Option<Duration>,
    pub hash_policy: Option<HashPolicy>,
    pub metadata_match: Option<Metadata>,
    pub tunnel: Option<Tunnel>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WeightedTcpCluster {
    pub name: ClusterName,
    pub weight: u32,
    pub metadata_match: Option<Metadata>,
}

/// Tunnelling through an HTTP CONNECT (or POST) to the upstream proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    /// `host:port` sent as `:authority`.
    pub hostname: Arc<str>,
    pub use_post: bool,
}
