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
    pub tags: StatsTags,
    /// Bounds of Prometheus buckets by a regular expression over the whole name, the first that
    /// matches.
    pub buckets: Arc<[BucketBounds]>,
}

/// A regular expression over a statistic's whole name, and the upper bounds of its buckets.
pub type BucketBounds = (Arc<str>, Arc<[f64]>);

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub id: Arc<str>,
    pub cluster: Arc<str>,
    pub metadata: Value,
    pub locality: crate::endpoint::Locality,
}

/// How names of statistics become names with labels.
#[derive(Debug, Clone, PartialEq)]
pub struct StatsTags {
    /// Envoy's own rules count, too.
    pub use_defaults: bool,
    pub rules: Arc<[(Arc<str>, StatsTag)]>,
}

/// What a tag's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsTag {
    /// A regular expression whose first group leaves the name and whose second (else first) is the
    /// value.
    Pattern(Arc<str>),
    Fixed(Arc<str>),
}

impl Default for StatsTags {
    fn default() -> Self {
        Self {
            use_defaults: true,
            rules: Arc::from([]),
        }
    }
}
