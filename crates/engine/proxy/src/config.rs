//! One version of the configuration as the workers serve from it: live listeners, route tables and
//! clusters by name.
//!
//! A request loads it once and sees no other. `publish` makes it; nothing in it changes but what
//! the live objects themselves swap.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use foldhash::fast::RandomState;
use proxy_config::{ClusterName, ListenerName, RouteTableName};

use crate::{
    endpoint::LiveEndpoint, listener::LiveListener, route::LiveRouteTable,
    upstream::cluster::LiveCluster,
};

pub(crate) type Map<K, V> = HashMap<K, V, RandomState>;

/// Names that are waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Clusters in use without their first endpoints or without a secret.
    pub clusters: HashSet<ClusterName>,
    /// Route tables that listeners in use name.
    pub routes: HashSet<Arc<str>>,
    /// Secrets that listeners in use name.
    pub secrets: HashSet<Arc<str>>,
}

/// One version of listeners, route tables and clusters. Immutable but for what the live objects
/// themselves swap.
#[derive(Default)]
pub struct Config {
    /// Grows by one with each published version.
    pub version: u64,
    pub listeners: Map<ListenerName, Arc<LiveListener>>,
    pub routes: Map<RouteTableName, Arc<LiveRouteTable>>,
    pub clusters: Map<ClusterName, Arc<LiveCluster>>,
    /// What of it is not there yet.
    pub waiting: Arc<Waiting>,
    /// Listeners by the address that original destinations are compared with.
    pub(crate) by_address: Map<SocketAddr, Arc<LiveListener>>,
}

impl Config {
    /// The live cluster of this name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<LiveCluster>> {
        self.clusters.get(name)
    }

    /// Whether connections to this host may go on: its cluster is in force as it is, and has it.
    pub fn has(&self, cluster: &LiveCluster, host: &LiveEndpoint) -> bool {
        let is_current = self
            .cluster(cluster.config.name.as_str())
            .is_some_and(|current| current.id == cluster.id);
        is_current
            && (cluster.endpoints_name().is_none()
                || cluster.hosts().find(host.address()).is_some())
    }

    /// The listener for an original destination: of exactly this address, else of this port on any
    /// address.
    pub(crate) fn listener_for(&self, destination: SocketAddr) -> Option<&Arc<LiveListener>> {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.by_address.get(&destination).or_else(|| {
            self.by_address
                .get(&SocketAddr::new(any, destination.port()))
        })
    }
}
