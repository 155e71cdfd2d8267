//! Gauges that are read off the live objects when somebody looks, rather than kept up to date on
//! the way of a request.

use std::sync::Arc;

use crate::{
    publish::Live,
    upstream::{
        breaker::{Breaker, Resource},
        cluster::LiveCluster,
        metrics::{BreakerLevel, Level},
    },
};

/// Sets membership and circuit breaker gauges of all clusters. Before each answer that shows
/// statistics.
pub fn refresh(live: &Live) {
    for cluster in live.config().clusters.values() {
        membership(cluster);
        breaker(cluster, &cluster.default_breaker, false);
        breaker(cluster, &cluster.high_breaker, true);
    }
}

fn membership(cluster: &LiveCluster) {
    let hosts = cluster.hosts();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    // Hosts that are in no list count as long as they are used, and none of them is known to be
    // unhealthy.
    let ad_hoc = cluster.ad_hoc.count();
    let available = hosts.all.iter().filter(|host| host.is_available()).count();
    cluster
        .metrics
        .set(Level::MembershipTotal, count(hosts.all.len() + ad_hoc));
    cluster
        .metrics
        .set(Level::MembershipHealthy, count(available + ad_hoc));
}

fn breaker(cluster: &LiveCluster, breaker: &Arc<Breaker>, is_high: bool) {
    let resources = [
        (
            Resource::Connections,
            BreakerLevel::CxOpen,
            BreakerLevel::RemainingCx,
        ),
        (
            Resource::PendingRequests,
            BreakerLevel::RqPendingOpen,
            BreakerLevel::RemainingPending,
        ),
        (
            Resource::Requests,
            BreakerLevel::RqOpen,
            BreakerLevel::RemainingRq,
        ),
        (
            Resource::Retries,
            BreakerLevel::RqRetryOpen,
            BreakerLevel::RemainingRetries,
        ),
        (
            Resource::ConnectionPools,
            BreakerLevel::CxPoolOpen,
            BreakerLevel::RemainingCxPools,
        ),
    ];
    let tracks = if is_high {
        cluster.config.circuit_breakers.high
    } else {
        cluster.config.circuit_breakers.default
    }
    .track_remaining;
    for (resource, open, remaining) in resources {
        let left = breaker
            .limit(resource)
            .saturating_sub(breaker.in_use(resource));
        cluster
            .metrics
            .set_breaker(is_high, open, u64::from(left == 0));
        // Envoy shows 0 unless asked to track it.
        cluster
            .metrics
            .set_breaker(is_high, remaining, if tracks { left.into() } else { 0 });
    }
}
