//! A flat set of hosts and whose turn it is among them: round robin, least request, random.
//!
//! Hosts of equal weight take turns by a shared counter, or are sampled; hosts of different weight
//! (or new ones in slow start) are scheduled by earliest deadline. Where turns begin is random, so
//! that many proxies do not all begin with the same host. Weights in slow start are those of the
//! moment when the group was made; a cluster with warming hosts makes its groups anew every second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use proxy_config::cluster::{Balancer, SlowStart};
use stdx::Rng;

use crate::{balance::edf::Edf, endpoint::LiveEndpoint};

#[derive(Default)]
pub struct Group {
    hosts: Box<[Arc<LiveEndpoint>]>,
    /// 0: turns have not begun.
    turn: AtomicU64,
    schedule: Option<Mutex<Schedule>>,
}

struct Schedule {
    edf: Edf,
    /// By host, slow start included.
    weights: Box<[f64]>,
    has_begun: bool,
}

impl Group {
    pub fn new(hosts: Vec<Arc<LiveEndpoint>>, balancer: &Balancer, now: Instant) -> Self {
        let slow_start = match balancer {
            Balancer::RoundRobin { slow_start } | Balancer::LeastRequest { slow_start, .. } => {
                slow_start.as_ref()
            }
            // Envoy's random and consistent hashing balancers do not look at weights here.
            Balancer::Random
            | Balancer::RingHash { .. }
            | Balancer::Maglev { .. }
            | Balancer::ClusterProvided => {
                return Self {
                    hosts: hosts.into(),
                    ..Self::default()
                };
            }
        };
        let weights: Box<[f64]> = hosts
            .iter()
            .map(|host| f64::from(host.config.weight) * warmth(slow_start, host.state.added, now))
            .collect();
        let are_equal = weights.iter().all(|weight| Some(weight) == weights.first());
        let schedule = (!are_equal).then(|| {
            let weight = |at: usize| weight_now(&hosts, &weights, balancer, at);
            Mutex::new(Schedule {
                edf: Edf::new((0..weights.len()).map(weight)),
                weights: weights.clone(),
                has_begun: false,
            })
        });
        Self {
            hosts: hosts.into(),
            turn: AtomicU64::default(),
            schedule,
        }
    }

    /// The host whose turn it is; `None` only without any.
    pub fn take(&self, balancer: &Balancer, rng: &dyn Rng) -> Option<&Arc<LiveEndpoint>> {
        if self.hosts.len() < 2 {
            return self.hosts.first();
        }
        match (&self.schedule, balancer) {
            (Some(schedule), _) => self.scheduled(&mut schedule.lock(), balancer, rng),
            (None, Balancer::LeastRequest { choice_count, .. }) => {
                self.least_busy(*choice_count, rng)
            }
            (None, Balancer::RoundRobin { .. }) => self.in_turn(rng),
            (None, _) => self.any(rng),
        }
    }

    fn scheduled(
        &self,
        schedule: &mut Schedule,
        balancer: &Balancer,
        rng: &dyn Rng,
    ) -> Option<&Arc<LiveEndpoint>> {
        let Schedule {
            edf,
            weights,
            has_begun,
        } = schedule;
        let weight = |at: usize| weight_now(&self.hosts, weights, balancer, at);
        if !std::mem::replace(has_begun, true) {
            for _ in 0..rng.below(edf.len() as u64) {
                edf.next(weight);
            }
        }
        self.hosts.get(edf.next(weight)?)
    }

    fn in_turn(&self, rng: &dyn Rng) -> Option<&Arc<LiveEndpoint>> {
        const BEGUN: u64 = 1 << 63;
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if turn < BEGUN {
            turn = BEGUN | (rng.u64() >> 2);
            self.turn.store(turn + 1, Ordering::Relaxed);
        }
        self.hosts
            .get(usize::try_from(turn % self.hosts.len() as u64).ok()?)
    }

    /// The least busy of a few that are drawn, one host perhaps twice, as in Envoy.
    fn least_busy(&self, choices: u32, rng: &dyn Rng) -> Option<&Arc<LiveEndpoint>> {
        let mut best = self.any(rng)?;
        for _ in 1..choices {
            let other = self.any(rng)?;
            if other.active_requests() < best.active_requests() {
                best = other;
            }
        }
        Some(best)
    }

    fn any(&self, rng: &dyn Rng) -> Option<&Arc<LiveEndpoint>> {
        self.hosts
            .get(usize::try_from(rng.below(self.hosts.len() as u64)).ok()?)
    }
}

/// A host's weight for its next turn; the busier, the less, under least request.
fn weight_now(hosts: &[Arc<LiveEndpoint>], weights: &[f64], balancer: &Balancer, at: usize) -> f64 {
    let (Some(host), Some(weight)) = (hosts.get(at), weights.get(at)) else {
        return 0.0;
    };
    match balancer {
        Balancer::LeastRequest {
            active_request_bias,
            ..
        } if *active_request_bias > 0.0 => {
            weight / (f64::from(host.active_requests()) + 1.0).powf(*active_request_bias)
        }
        _ => *weight,
    }
}

/// The share of its weight that a host has at this moment of its slow start.
fn warmth(slow_start: Option<&SlowStart>, added: Option<Instant>, now: Instant) -> f64 {
    let (Some(slow_start), Some(added)) = (slow_start, added) else {
        return 1.0;
    };
    let age = now.saturating_duration_since(added);
    if age >= slow_start.window {
        return 1.0;
    }
    let part = (age.as_secs_f64().max(0.001) / slow_start.window.as_secs_f64()).min(1.0);
    part.powf(1.0 / slow_start.aggression)
        .max(slow_start.min_weight_percent / 100.0)
}

/// Whether a host's weight still grows.
pub fn is_warming(balancer: &Balancer, added: Option<Instant>, now: Instant) -> bool {
    let (Balancer::RoundRobin { slow_start } | Balancer::LeastRequest { slow_start, .. }) =
        balancer
    else {
        return false;
    };
    let (Some(slow_start), Some(added)) = (slow_start, added) else {
        return false;
    };
    now.saturating_duration_since(added) < slow_start.window
}
