//! How many clusters and listeners there are and how often they changed (`cluster_manager.…`,
//! `listener_manager.…`).

use std::{hash::Hash, sync::Arc};

use telemetry::stats::{Counters, Gauges, Store};

use crate::config::{Config, Map};

const CLUSTERS: &[&str] = &["cluster_added", "cluster_modified", "cluster_removed"];
const CLUSTER_LEVELS: &[&str] = &["active_clusters"];
const LISTENERS: &[&str] = &["listener_added", "listener_modified", "listener_removed"];
const LISTENER_LEVELS: &[&str] = &["total_listeners_active"];

pub struct PublishCounts {
    clusters: Counters,
    listeners: Counters,
    active_clusters: Gauges,
    active_listeners: Gauges,
    _scopes: [telemetry::stats::Scope; 2],
}

impl PublishCounts {
    pub fn new(stats: &Store) -> Self {
        let (clusters, listeners) = (
            stats.scope("cluster_manager"),
            stats.scope("listener_manager"),
        );
        Self {
            clusters: clusters.counters(CLUSTERS),
            listeners: listeners.counters(LISTENERS),
            active_clusters: clusters.gauges(CLUSTER_LEVELS),
            active_listeners: listeners.gauges(LISTENER_LEVELS),
            _scopes: [clusters, listeners],
        }
    }

    pub fn changed(&self, old: &Config, new: &Config) {
        count(&self.clusters, &old.clusters, &new.clusters);
        count(&self.listeners, &old.listeners, &new.listeners);
        self.active_clusters.set(0, new.clusters.len() as u64);
        self.active_listeners.set(0, new.listeners.len() as u64);
    }
}

fn count<Name: Eq + Hash, Alive>(
    counters: &Counters,
    old: &Map<Name, Arc<Alive>>,
    new: &Map<Name, Arc<Alive>>,
) {
    for (name, alive) in new {
        match old.get(name) {
            None => counters.inc(0),
            Some(before) if !Arc::ptr_eq(before, alive) => counters.inc(1),
            Some(_) => {}
        }
    }
    counters.add(
        2,
        old.keys().filter(|name| !new.contains_key(name)).count() as u64,
    );
}
