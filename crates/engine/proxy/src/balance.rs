//! Which host of a cluster takes the next request.
//!
//! [`Hosts`] is one immutable view of a cluster's endpoints, prepared when endpoints or their health change; [`pick`] is pure over it:
//! facts about the request and random numbers come in, a host comes out. It runs for every attempt, so nothing in it allocates.
//! Follows Envoy's load balancing documentation.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use foldhash::fast::RandomState;
use proxy_config::{
    Cluster, Endpoints,
    endpoint::EndpointAddress,
    metadata::Metadata,
};
use stdx::Rng;

use crate::publish::{HostState, LiveEndpoint};

pub mod hash;

/// One view of a cluster's endpoints.
#[derive(Default)]
pub struct Hosts {
    /// All of them, usable or not, in the order received.
    pub all: Arc<[Arc<LiveEndpoint>]>,
    by_address: HashMap<EndpointAddress, usize, RandomState>,
    /// Usable hosts by priority; the first that is not empty is used.
    levels: Vec<Vec<Arc<LiveEndpoint>>>,
    cursor: AtomicUsize,
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
    pub fn build(_cluster: &Cluster, endpoints: Option<&Endpoints>, all: Arc<[Arc<LiveEndpoint>]>, _now: Instant) -> Self {
        let highest = endpoints.iter().flat_map(|e| e.localities.iter()).map(|l| l.priority).max().unwrap_or(0);
        let levels = (0..=highest)
            .map(|level| all.iter().filter(|host| host.priority == level && host.is_available()).cloned().collect())
            .collect();
        let by_address = all.iter().enumerate().map(|(at, host)| (host.address().clone(), at)).collect();
        Self { all, by_address, levels, cursor: AtomicUsize::default() }
    }

    /// The state of the host with this address, to hand on to the next view.
    pub fn state_of(&self, address: &EndpointAddress) -> Option<Arc<HostState>> {
        self.find(address).map(|host| host.state.clone())
    }

    /// The host with this address.
    pub fn find(&self, address: &EndpointAddress) -> Option<&Arc<LiveEndpoint>> {
        self.by_address.get(address).and_then(|at| self.all.get(*at))
    }
}

/// Chooses a host.
pub fn pick(cluster: &Cluster, hosts: &Hosts, facts: &PickFacts<'_>, rng: &dyn Rng) -> Pick {
    let mut chosen = pick_once(cluster, hosts, facts, rng);
    for _ in 0..facts.selection_attempts {
        match &chosen {
            Some(host) if facts.tried.contains(&host.state.id) => chosen = pick_once(cluster, hosts, facts, rng),
            _ => break,
        }
    }
    chosen.map_or(Pick::NoHealthyHost, Pick::Host)
}

fn pick_once(_cluster: &Cluster, hosts: &Hosts, _facts: &PickFacts<'_>, _rng: &dyn Rng) -> Option<Arc<LiveEndpoint>> {
    let level = hosts.levels.iter().find(|level| !level.is_empty())?;
    let at = hosts.cursor.fetch_add(1, Ordering::Relaxed) % level.len();
    level.get(at).cloned()
}
