//! Circuit breakers: how many connections, waiting requests, active requests and retries a cluster
//! may have at once.
//!
//! One [`Breaker`] for each priority of a cluster, shared by all workers (Envoy's resource
//! manager). Asking for a place gives a [`Guard`] that frees it when dropped, so no path can leak
//! one. A full breaker refuses at once; callers answer 503 `UO`. Follows
//! `envoy.config.cluster.v3.CircuitBreakers`.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use proxy_config::cluster::Thresholds;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Connections,
    /// Requests that wait for a connection.
    PendingRequests,
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
    /// Pools of connections, all workers.
    ConnectionPools,
}

#[derive(Debug)]
pub struct Breaker {
    limits: Thresholds,
    in_use: [AtomicU32; 5],
}

/// A place in a breaker, freed on drop.
#[derive(Debug)]
pub struct Guard {
    breaker: Arc<Breaker>,
    resource: Resource,
}

impl Breaker {
    pub fn new(limits: Thresholds) -> Self {
        Self {
            limits,
            in_use: Default::default(),
        }
    }

    /// How many are in use now.
    pub fn in_use(&self, resource: Resource) -> u32 {
        self.counter(resource).load(Ordering::Relaxed)
    }

    /// How many may be in use now; for retries under a budget it follows the requests under way.
    pub fn limit(&self, resource: Resource) -> u32 {
        match resource {
            Resource::Connections => self.limits.max_connections,
            Resource::PendingRequests => self.limits.max_pending_requests,
            Resource::Requests => self.limits.max_requests,
            Resource::ConnectionPools => self.limits.max_connection_pools.unwrap_or(u32::MAX),
            Resource::Retries => match self.limits.retry_budget {
                None => self.limits.max_retries,
                Some(budget) => {
                    let active = self
                        .in_use(Resource::Requests)
                        .saturating_add(self.in_use(Resource::PendingRequests));
                    let share = f64::from(active) * budget.percent / 100.0;
                    (share as u32).max(budget.min_retry_concurrency)
                }
            },
        }
    }

    /// Takes a place, or `None` when all are taken.
    pub fn enter(self: &Arc<Self>, resource: Resource) -> Option<Guard> {
        let limit = self.limit(resource);
        let taken =
            self.counter(resource)
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                    (n < limit).then_some(n + 1)
                });
        taken.ok().map(|_| Guard {
            breaker: self.clone(),
            resource,
        })
    }

    /// Takes a place beyond the limit: a host without any connection always gets one, or its
    /// requests would wait for ever.
    pub fn enter_beyond_limit(self: &Arc<Self>, resource: Resource) -> Guard {
        self.counter(resource).fetch_add(1, Ordering::Relaxed);
        Guard {
            breaker: self.clone(),
            resource,
        }
    }

    fn counter(&self, resource: Resource) -> &AtomicU32 {
        let [connections, pending, requests, retries, pools] = &self.in_use;
        match resource {
            Resource::Connections => connections,
            Resource::PendingRequests => pending,
            Resource::Requests => requests,
            Resource::Retries => retries,
            Resource::ConnectionPools => pools,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.breaker
            .counter(self.resource)
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proxy_config::cluster::RetryBudget;

    use super::*;

    fn breaker(max: u32, budget: Option<RetryBudget>) -> Arc<Breaker> {
        Arc::new(Breaker::new(Thresholds {
            max_connections: max,
            max_pending_requests: max,
            max_requests: 1000,
            max_retries: max,
            retry_budget: budget,
            max_connection_pools: None,
            track_remaining: false,
        }))
    }

    #[test]
    fn a_full_breaker_refuses_until_a_guard_is_dropped() {
        let breaker = breaker(2, None);
        let first = breaker.enter(Resource::Connections);
        let second = breaker.enter(Resource::Connections);
        assert!(first.is_some() && second.is_some());
        assert!(breaker.enter(Resource::Connections).is_none());
        assert!(
            breaker.enter(Resource::PendingRequests).is_some(),
            "resources are counted apart"
        );
        drop(first);
        assert!(breaker.enter(Resource::Connections).is_some());
        assert_eq!(breaker.in_use(Resource::Connections), 1);
    }

    #[test]
    fn a_retry_budget_follows_the_requests_under_way() {
        let breaker = breaker(
            0,
            Some(RetryBudget {
                percent: 20.0,
                min_retry_concurrency: 3,
            }),
        );
        assert_eq!(breaker.limit(Resource::Retries), 3);
        let requests: Vec<_> = (0..50).map(|_| breaker.enter(Resource::Requests)).collect();
        assert_eq!(breaker.limit(Resource::Retries), 10);
        drop(requests);
    }
}
