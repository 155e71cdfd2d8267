//! A cluster at run time: its configuration, its hosts, and what is counted and limited across all
//! workers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use proxy_config::{
    Cluster, Endpoints,
    cluster::{Discovery, Transport, TransportMatch},
    endpoint::{Endpoint, EndpointAddress, Health, Locality},
    metadata::Metadata,
};
use stdx::{Clock, Rng};

use crate::{
    balance::{self, Circumstances, Hosts, Pick, PickFacts},
    endpoint::{HostState, LiveEndpoint},
    makers::{Ids, Makers},
    problem::PublishProblem,
    tls::LiveTransport,
    upstream::{
        ad_hoc::AdHocHosts,
        breaker::Breaker,
        ejection,
        metrics::{ClusterMetrics, Count, Level},
        names::Names,
    },
};

pub(crate) const MILLION: u32 = 1_000_000;

/// One cluster, shared by all workers. Lives as long as its configuration is unchanged, whatever
/// its endpoints do.
pub struct LiveCluster {
    /// Never used twice; a cluster whose configuration changed gets another.
    pub id: u64,
    pub config: Arc<Cluster>,
    pub default_breaker: Arc<Breaker>,
    pub high_breaker: Arc<Breaker>,
    pub outlier: ejection::ClusterState,
    pub metrics: ClusterMetrics,
    /// Hosts of an original-destination cluster, which are in no list.
    pub ad_hoc: AdHocHosts,
    /// Names that a dynamic forward cluster resolved.
    pub(crate) names: Arc<Names>,
    /// SO_MARK of its connections.
    pub(crate) mark: Option<u32>,
    /// Of how many requests in a million none is let through (`drop_overloads`).
    drops: AtomicU32,
    pub(crate) ids: Arc<Ids>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    /// The default transport, then one for each of `transport_matches`.
    transports: Box<[Arc<LiveTransport>]>,
    hosts: ArcSwap<Hosts>,
    /// What `hosts` was made from; also serialises writers of `hosts`.
    endpoints: Mutex<Option<Arc<Endpoints>>>,
}

impl LiveCluster {
    pub(crate) fn new(
        config: Arc<Cluster>,
        makers: Makers<'_>,
        problems: &mut Vec<PublishProblem>,
    ) -> Self {
        let mut transport = |transport: &Transport| {
            let (made, trouble) = makers.tls.transport(transport);
            problems.extend(trouble.into_iter().map(|problem| PublishProblem {
                kind: "cluster",
                name: config.name.shared(),
                problem,
            }));
            Arc::new(made)
        };
        let transports: Box<[_]> = std::iter::once(&config.transport)
            .chain(config.transport_matches.iter().map(|m| &m.transport))
            .map(&mut transport)
            .collect();
        let cluster = Self {
            id: makers.ids.next(),
            default_breaker: Arc::new(Breaker::new(config.circuit_breakers.default)),
            high_breaker: Arc::new(Breaker::new(config.circuit_breakers.high)),
            outlier: ejection::ClusterState::default(),
            metrics: ClusterMetrics::new(makers.stats, &config),
            ad_hoc: AdHocHosts::default(),
            names: Arc::new(Names::new(makers.resolver.clone(), makers.clock.clone())),
            mark: config.bind.mark.or(makers.mark),
            drops: AtomicU32::new(0),
            ids: makers.ids.clone(),
            clock: makers.clock.clone(),
            rng: makers.rng.clone(),
            transports,
            hosts: ArcSwap::default(),
            endpoints: Mutex::default(),
            config,
        };
        if let Discovery::Static(endpoints) = &cluster.config.discovery {
            cluster.set_endpoints(Some(endpoints.clone()));
        }
        cluster
    }

    /// Under which name its endpoints are published; `None` when they are part of its configuration
    /// or it has none.
    pub fn endpoints_name(&self) -> Option<&str> {
        match &self.config.discovery {
            Discovery::Eds { service_name } => Some(service_name),
            Discovery::StrictDns { .. } | Discovery::LogicalDns { .. } => {
                Some(self.config.name.as_str())
            }
            Discovery::Static(_)
            | Discovery::OriginalDst { .. }
            | Discovery::DynamicForward { .. } => None,
        }
    }

    /// The hosts now, for one pick.
    pub fn hosts(&self) -> Arc<Hosts> {
        self.hosts.load_full()
    }

    /// Chooses a host, and counts what was special about the choice.
    pub fn pick(&self, facts: &PickFacts<'_>, rng: &dyn Rng) -> Pick {
        let (pick, circumstances) =
            balance::choose(&self.config.balancer, &self.hosts(), facts, rng);
        let Circumstances {
            panics,
            subset,
            fallback,
        } = circumstances;
        let counts = [
            (panics, Count::LbHealthyPanic),
            (subset, Count::LbSubsetsSelected),
            (fallback, Count::LbSubsetsFallback),
        ];
        for (_, count) in counts.into_iter().filter(|(holds, _)| *holds) {
            self.metrics.count(count);
        }
        pick
    }

    pub fn breaker(&self, high_priority: bool) -> &Arc<Breaker> {
        if high_priority {
            &self.high_breaker
        } else {
            &self.default_breaker
        }
    }

    /// The endpoints that were last published for it.
    pub fn endpoints(&self) -> Option<Arc<Endpoints>> {
        self.endpoints.lock().clone()
    }

    /// Whether the control plane wants this request dropped, by a random number; how many in a
    /// million it wants dropped.
    pub fn is_dropped(&self, random: u64) -> Option<u32> {
        let drops = self.drops.load(Ordering::Relaxed);
        (random % u64::from(MILLION) < u64::from(drops)).then_some(drops)
    }

    /// Replaces the endpoints; hosts that stay keep their state.
    pub(crate) fn set_endpoints(&self, endpoints: Option<Arc<Endpoints>>) {
        let mut current = self.endpoints.lock();
        if let (Some(current), Some(new)) = (&*current, &endpoints)
            && Arc::ptr_eq(current, new)
        {
            return;
        }
        let categories = endpoints.iter().flat_map(|e| e.drops.iter());
        self.drops.store(
            dropped(categories.map(|(_, share)| *share)),
            Ordering::Relaxed,
        );
        let first = current.is_none();
        let known = self.hosts.load_full();
        let now = self.clock.now();
        let hosts = endpoints
            .iter()
            .flat_map(|e| e.localities.iter())
            .flat_map(|l| l.endpoints.iter().map(move |e| (l, e)));
        let all = hosts
            .map(|(locality, endpoint)| {
                let state = known.state_of(&endpoint.address).unwrap_or_else(|| {
                    Arc::new(HostState {
                        id: self.ids.next(),
                        added: (!first).then_some(now),
                        ..HostState::default()
                    })
                });
                Arc::new(LiveEndpoint {
                    transport: self.transport_for(&endpoint.metadata),
                    config: endpoint.clone(),
                    locality: locality.locality.clone(),
                    priority: locality.priority,
                    state,
                })
            })
            .collect();
        self.store(Hosts::build(&self.config, endpoints.as_deref(), all, now));
        *current = endpoints;
    }

    fn store(&self, hosts: Hosts) {
        self.metrics
            .set(Level::MembershipTotal, hosts.all.len() as u64);
        self.metrics.set(
            Level::MembershipHealthy,
            hosts.all.iter().filter(|host| host.is_available()).count() as u64,
        );
        self.hosts.store(Arc::new(hosts));
    }

    /// Recomputes which hosts are usable, after an ejection or its end, or as slow start goes on.
    pub fn refresh(&self, now: std::time::Instant) {
        let current = self.endpoints.lock();
        let hosts = self.hosts.load_full();
        self.store(Hosts::build(
            &self.config,
            current.as_deref(),
            hosts.all.clone(),
            now,
        ));
    }

    /// Forgets hosts and names that nobody uses. Called about once a second.
    pub(crate) fn sweep(&self) {
        self.ad_hoc.sweep();
        self.names.sweep();
    }

    /// The host with this address, which is in no list: the original destination of a connection, a
    /// name resolved for one request.
    pub(crate) fn ad_hoc_host(&self, address: SocketAddr) -> Arc<LiveEndpoint> {
        self.ad_hoc.host(address, || LiveEndpoint {
            config: Endpoint {
                address: EndpointAddress::Socket(address),
                hostname: Arc::from(""),
                health: Health::Healthy,
                weight: 1,
                metadata: Metadata::default(),
            },
            locality: Locality::default(),
            priority: 0,
            transport: self.transport_for(&Metadata::default()),
            state: Arc::new(HostState {
                id: self.ids.next(),
                ..HostState::default()
            }),
        })
    }

    /// `transport_socket_matches`: the first whose criteria are all found in the endpoint's metadata, else the default.
    fn transport_for(&self, metadata: &Metadata) -> Arc<LiveTransport> {
        let matched = self
            .config
            .transport_matches
            .iter()
            .position(|m| is_match(m, metadata))
            .map_or(0, |at| at + 1);
        match self.transports.get(matched) {
            Some(transport) => transport.clone(),
            None => Arc::new(LiveTransport::Refuse),
        }
    }
}

/// What several categories drop together, each of what the others let through; all in millionths.
fn dropped(categories: impl Iterator<Item = u32>) -> u32 {
    let million = u64::from(MILLION);
    let passing = categories.fold(million, |passing, share| {
        passing * (million - u64::from(share.min(MILLION))) / million
    });
    u32::try_from(million - passing).unwrap_or(MILLION)
}

fn is_match(transport_match: &TransportMatch, metadata: &Metadata) -> bool {
    const FILTER: &str = "envoy.transport_socket_match";
    transport_match
        .criteria
        .iter()
        .all(|(key, wanted)| metadata.lookup(FILTER, &[key]) == Some(wanted))
}
