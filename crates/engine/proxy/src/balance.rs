//! Which host of a cluster takes the next request.
//!
//! [`Hosts`] is one immutable view of a cluster's endpoints, prepared when endpoints or their
//! health change; [`pick`] is pure over it: facts about the request and random numbers come in, a
//! host comes out. It runs for every attempt, so nothing in it allocates. Follows Envoy's load
//! balancing documentation.

use std::{collections::HashMap, sync::Arc, time::Instant};

use foldhash::fast::RandomState;
use proxy_config::{
    Cluster, Endpoints, cluster::Balancer, endpoint::EndpointAddress, metadata::Metadata,
};
use stdx::Rng;

use crate::endpoint::{HostState, LiveEndpoint};

mod edf;
mod group;
pub mod hash;
mod level;
mod load;
mod maglev;
mod ring;
mod subset;

use level::{Levels, Picked, Rules};
use subset::{Found, Subsets};

/// One view of a cluster's endpoints.
#[derive(Default)]
pub struct Hosts {
    /// All of them, usable or not, in the order received.
    pub all: Arc<[Arc<LiveEndpoint>]>,
    by_address: HashMap<EndpointAddress, usize, RandomState>,
    whole: Levels,
    subsets: Option<Subsets>,
    is_warming: bool,
}

/// What a pick may depend on.
#[derive(Default)]
pub struct PickFacts<'a> {
    /// From the route's hash policies.
    pub hash: Option<u64>,
    /// Subset selection: the route's (or weighted cluster's) `metadata_match`.
    pub metadata_match: Option<&'a Metadata>,
    /// `HostState::id` of hosts that earlier attempts of this request used; avoided when other hosts can be found in
    /// `selection_attempts` further picks (`previous_hosts`, `host_selection_retry_max_attempts`).
    pub tried: &'a [u64],
    pub selection_attempts: u32,
}

pub enum Pick {
    Host(Arc<LiveEndpoint>),
    /// No host at all, or none that may be used: 503 `UH`.
    NoHealthyHost,
}

impl Hosts {
    /// Prepares a view. `all` are the endpoints of `endpoints` in order; `now` is for slow start.
    pub fn build(
        cluster: &Cluster,
        endpoints: Option<&Endpoints>,
        all: Arc<[Arc<LiveEndpoint>]>,
        now: Instant,
    ) -> Self {
        let by_address = all
            .iter()
            .enumerate()
            .map(|(at, host)| (host.address().clone(), at))
            .collect();
        let rules = Rules {
            cluster,
            endpoints,
            now,
        };
        Self {
            by_address,
            whole: Levels::new(rules, &all),
            subsets: cluster
                .subsets
                .as_ref()
                .map(|config| Subsets::new(config, rules, &all)),
            is_warming: all
                .iter()
                .any(|host| group::is_warming(&cluster.balancer, host.state.added, now)),
            all,
        }
    }

    /// Whether the weight of a host grows with time, so that the view must be made anew now and
    /// then.
    pub fn is_warming(&self) -> bool {
        self.is_warming
    }

    /// The state of the host with this address, to hand on to the next view.
    pub fn state_of(&self, address: &EndpointAddress) -> Option<Arc<HostState>> {
        self.find(address).map(|host| host.state.clone())
    }

    /// The host with this address.
    pub fn find(&self, address: &EndpointAddress) -> Option<&Arc<LiveEndpoint>> {
        self.by_address
            .get(address)
            .and_then(|at| self.all.get(*at))
    }
}

/// How a host was found, for statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Circumstances {
    pub panics: bool,
    pub subset: bool,
    pub fallback: bool,
}

/// Chooses a host.
pub fn pick(cluster: &Cluster, hosts: &Hosts, facts: &PickFacts<'_>, rng: &dyn Rng) -> Pick {
    choose(&cluster.balancer, hosts, facts, rng).0
}

/// As [`pick`], and what was special about it.
pub(crate) fn choose(
    balancer: &Balancer,
    hosts: &Hosts,
    facts: &PickFacts<'_>,
    rng: &dyn Rng,
) -> (Pick, Circumstances) {
    let mut seen = Circumstances::default();
    let levels = match hosts
        .subsets
        .as_ref()
        .map(|subsets| subsets.find(facts.metadata_match))
    {
        None => &hosts.whole,
        Some(Found::Subset(levels)) => {
            seen.subset = true;
            levels
        }
        Some(Found::Fallback(levels)) => {
            seen.fallback = true;
            levels.unwrap_or(&hosts.whole)
        }
        Some(Found::Nothing) => return (Pick::NoHealthyHost, seen),
    };
    // Consistent hashing keeps its number over all tries; others draw anew.
    let is_hashed = matches!(
        balancer,
        Balancer::RingHash { .. } | Balancer::Maglev { .. }
    );
    let hash = facts.hash.filter(|_| is_hashed);
    let fixed = hash.unwrap_or_else(|| rng.u64());
    let mut chosen = None;
    for attempt in 0..=facts.selection_attempts {
        let number = if is_hashed || attempt == 0 {
            fixed
        } else {
            rng.u64()
        };
        let Some(Picked { host, panics }) = levels.pick(balancer, number, attempt, rng) else {
            break;
        };
        seen.panics |= panics;
        chosen = Some(host);
        if !facts.tried.contains(&host.state.id) {
            break;
        }
    }
    (
        chosen.map_or(Pick::NoHealthyHost, |host| Pick::Host(host.clone())),
        seen,
    )
}

#[cfg(test)]
mod tests;
