//! Statistics about the process and its configuration (`server.…`, `cluster_manager.…`,
//! `listener_manager.…`, `control_plane.…`), read off when somebody looks; and what has to be done
//! to statistics now and then.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use wire_envoy::type_url;

use super::{Admin, memory::memory_bytes};
use crate::ConnectionState;

/// Envoy's `stats_flush_interval`.
const FLUSH: Duration = Duration::from_secs(5);

/// The control plane as Istio's bootstrap has it.
const XDS_CLUSTER: &str = "cluster.xds-grpc;";

/// Update counters of one resource type.
const TYPES: [(&str, &str); 4] = [
    (type_url::CLUSTER, "cluster_manager.cds"),
    (type_url::LISTENER, "listener_manager.lds"),
    (type_url::ROUTE, "http.rds"),
    (type_url::ENDPOINT, "cluster.eds"),
];

impl Admin {
    /// Ends histogram intervals every five seconds, and forgets Istio's series that were silent for
    /// one to two times `eviction`.
    pub async fn keep_house(self: Arc<Self>, eviction: Duration) {
        let mut flush = interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut evict = interval(eviction.max(FLUSH));
        loop {
            tokio::select! {
                _ = flush.tick() => self.live.stats.flush(),
                _ = evict.tick() => self.metrics.expire(),
            }
        }
    }

    /// Brings everything up to date that is not counted as it happens.
    pub(super) fn refresh(&self) {
        proxy::report::gauges::refresh(&self.live);
        let stats = &self.live.stats;
        let set = |name: &str, value: u64| stats.gauge(name).set(value);
        let config = self.live.config();
        set("server.uptime", self.uptime().as_secs());
        set("server.live", u64::from(self.is_ready()));
        // Envoy's LIVE, DRAINING and PRE_INITIALIZING.
        let state = match (self.failing.load(Ordering::Relaxed), self.status.is_ready()) {
            (true, _) => 1,
            (false, true) => 0,
            (false, false) => 2,
        };
        set("server.state", state);
        set("server.concurrency", self.workers as u64);
        let memory = memory_bytes();
        set("server.memory_allocated", memory.resident);
        set("server.memory_heap_size", memory.data);
        set("server.memory_physical_size", memory.resident);
        let open = config
            .listeners
            .values()
            .map(|listener| listener.metrics.active())
            .sum();
        set("server.total_connections", open);
        set("server.version", version_number(&self.version));
        if let Some(leaf) = self.status.certificate() {
            let left = leaf
                .not_after_time()
                .duration_since(self.live.clock.wall())
                .unwrap_or_default();
            set(
                "server.days_until_first_cert_expiring",
                left.as_secs() / 86_400,
            );
        }
        set("listener_manager.workers_started", 1);
        let connection = self.status.connection();
        set(
            "control_plane.connected_state",
            u64::from(connection.connected),
        );
        // Dashboards ask for the control plane's cluster by the name that Istio's bootstrap gives
        // it.
        for gauge in ["upstream_cx_active", "upstream_rq_active"] {
            set(
                &format!("{XDS_CLUSTER}.{gauge}"),
                u64::from(connection.connected),
            );
        }
        stats
            .text_readout("control_plane.identifier")
            .set(&*connection.identifier);
        self.updates(&connection);
    }

    /// Counters that the feed keeps in its status. What was shown before is remembered, so that
    /// resetting counters holds.
    fn updates(&self, connection: &ConnectionState) {
        let types = self.status.types();
        let mut shown = self.shown_updates.lock();
        let mut count = |name: String, value: u64| {
            let counter = self.live.stats.counter(&name);
            let before = shown.insert(name, value).unwrap_or(0);
            counter.add(value.saturating_sub(before));
        };
        for (what, value) in [
            ("upstream_cx_total", connection.attempts),
            ("upstream_cx_connect_fail", connection.failures),
        ] {
            count(format!("{XDS_CLUSTER}.{what}"), value);
        }
        for (type_url, prefix) in TYPES {
            let state = types.get(type_url);
            let (updates, rejected) = state.map_or((0, 0), |state| (state.updates, state.rejected));
            let applied = updates.saturating_sub(rejected);
            for (what, value) in [
                ("update_attempt", updates),
                ("update_success", applied),
                ("update_rejected", rejected),
            ] {
                count(format!("{prefix}.{what}"), value);
            }
        }
    }
}

/// As one number, `1.2.3` → 1002003; a gauge cannot hold a text.
fn version_number(version: &str) -> u64 {
    let mut parts = version
        .split(['.', '-'])
        .map(|part| part.parse::<u64>().unwrap_or(0).min(999));
    let mut next = || parts.next().unwrap_or(0);
    next() * 1_000_000 + next() * 1000 + next()
}
