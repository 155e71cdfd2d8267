//! Outlier detection: hosts that answer badly are left out for a while.
//!
//! [`observe`] counts one result of one host and says whether that host must be ejected now; the caller then calls
//! `LiveCluster::refresh`. [`tick`] ends ejections. Follows Envoy's outlier detection documentation.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proxy_config::cluster::OutlierDetection;

use crate::publish::{LiveCluster, LiveEndpoint};

/// What one attempt taught about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered with this status (a gRPC status is not looked at).
    Status(u16),
    /// Connecting failed, timed out, or the connection was reset before an answer.
    LocalOriginFailure,
    /// The route's or the attempt's timeout expired first.
    Timeout,
    /// A connection was made (TCP).
    LocalOriginSuccess,
}

/// Counters of one host.
#[derive(Debug, Default)]
pub struct HostState {
    ejected: AtomicBool,
    consecutive_5xx: AtomicU32,
    ejection: Mutex<Ejection>,
}

#[derive(Debug, Default)]
struct Ejection {
    until: Option<Instant>,
    times: u32,
}

/// Counters of one cluster.
#[derive(Debug, Default)]
pub struct ClusterState {
    pub ejected_hosts: AtomicU32,
}

impl HostState {
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }
}

/// Counts one result. `true`: the host was ejected by it, and the cluster's hosts must be refreshed.
pub fn observe(cluster: &LiveCluster, endpoint: &LiveEndpoint, outcome: Outcome, now: Instant) -> bool {
    let Some(config) = &cluster.config.outlier_detection else { return false };
    let state = &endpoint.state.outlier;
    let failed = match outcome {
        Outcome::Status(status) => status >= 500,
        Outcome::LocalOriginFailure | Outcome::Timeout => true,
        Outcome::LocalOriginSuccess => return false,
    };
    if !failed {
        state.consecutive_5xx.store(0, Ordering::Relaxed);
        return false;
    }
    let count = state.consecutive_5xx.fetch_add(1, Ordering::Relaxed) + 1;
    let reached = config.consecutive_5xx.is_some_and(|limit| count >= limit.count && limit.enforcing.value() > 0);
    reached && eject(cluster, endpoint, config, now)
}

fn eject(cluster: &LiveCluster, endpoint: &LiveEndpoint, config: &OutlierDetection, now: Instant) -> bool {
    let hosts = u32::try_from(cluster.hosts().all.len()).unwrap_or(u32::MAX);
    let allowed = (hosts.saturating_mul(config.max_ejection_percent.value()) / 100).max(u32::from(config.always_eject_one_host));
    if cluster.outlier.ejected_hosts.load(Ordering::Relaxed) >= allowed {
        return false;
    }
    let state = &endpoint.state.outlier;
    let mut ejection = state.ejection.lock();
    if state.ejected.swap(true, Ordering::Relaxed) {
        return false;
    }
    ejection.times = ejection.times.saturating_add(1);
    let time = config.base_ejection_time.saturating_mul(ejection.times).min(config.max_ejection_time.max(config.base_ejection_time));
    ejection.until = Some(now + time);
    cluster.outlier.ejected_hosts.fetch_add(1, Ordering::Relaxed);
    true
}

/// Ends ejections whose time is over. `true`: some ended, and the cluster's hosts must be refreshed. Called at least once a second.
pub fn tick(cluster: &LiveCluster, now: Instant) -> bool {
    let mut changed = false;
    for endpoint in cluster.hosts().all.iter() {
        let state = &endpoint.state.outlier;
        let mut ejection = state.ejection.lock();
        if state.is_ejected() && ejection.until.is_some_and(|until| until <= now + Duration::ZERO) {
            ejection.until = None;
            state.consecutive_5xx.store(0, Ordering::Relaxed);
            state.ejected.store(false, Ordering::Relaxed);
            cluster.outlier.ejected_hosts.fetch_sub(1, Ordering::Relaxed);
            changed = true;
        }
    }
    changed
}
