//! A request that is under way at an upstream: what counts it, and its place in the circuit
//! breaker.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    endpoint::LiveEndpoint,
    upstream::{
        breaker::{Guard, Resource},
        cluster::LiveCluster,
        metrics::{Count, Level},
    },
};

/// A request that has its connection, until its response has ended. One that still waits for a
/// connection is not under way.
pub(crate) struct InFlight {
    cluster: Arc<LiveCluster>,
    host: Arc<LiveEndpoint>,
    _place: Guard,
}

impl InFlight {
    /// `None` when as many requests are under way as the circuit breaker allows.
    pub(crate) fn enter(
        cluster: &Arc<LiveCluster>,
        host: &Arc<LiveEndpoint>,
        high_priority: bool,
    ) -> Option<Self> {
        let place = cluster.breaker(high_priority).enter(Resource::Requests)?;
        cluster.metrics.count(Count::RqTotal);
        cluster.metrics.raise(Level::RqActive);
        host.state.active_requests.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            cluster: cluster.clone(),
            host: host.clone(),
            _place: place,
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.cluster.metrics.lower(Level::RqActive);
        self.host
            .state
            .active_requests
            .fetch_sub(1, Ordering::Relaxed);
    }
}
