//! What a proxy is started with (`envoy.config.bootstrap.v3`), beyond what comes by xDS.

use std::{net::SocketAddr, sync::Arc};

use crate::{Cluster, Listener, metadata::Value, tracing::TracingProvider};

#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    pub node: Node,
    pub admin: Option<SocketAddr>,
    pub static_clusters: Arc<[Arc<Cluster>]>,
    pub static_listeners: Arc<[Arc<Listener>]>,
    /// Cluster that serves ADS.
    pub ads_cluster: Option<Arc<str>>,
    /// Delta rather than state-of-the-world.
    pub ads_delta: bool,
    pub tracing: Option<Arc<TracingProvider>>,
    /// Statistics kept beyond the standard Istio metrics; empty lists: all are kept.
    pub stats: StatsInclusion,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct StatsInclusion {
    pub prefixes: Arc<[Arc<str>]>,
    pub suffixes: Arc<[Arc<str>]>,
    pub regexes: Arc<[Arc<str>]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub id: Arc<str>,
    pub cluster: Arc<str>,
    pub metadata: Value,
    pub locality: crate::endpoint::Locality,
}
