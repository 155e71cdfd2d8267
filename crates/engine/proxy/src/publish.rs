//! Domain configuration → live objects, swapped in at once.
//!
//! [`Live`] is what every worker holds. One `ArcSwap` carries listeners, route tables and clusters
//! together, so a request that loads it once at its start sees one version; each cluster carries
//! its endpoints in an `ArcSwap` of its own, because they churn far more. [`Live::publish`] is the
//! only writer: it takes an [`Update`] of things set and removed by name, reuses every live object
//! whose configuration is equal (its counters, pools and ejections survive) and makes new ones for
//! the rest.
//!
//! The caller warms, and tells what is published before all that it needs is there
//! ([`Update::waiting`]); those who need it wait. What is published without endpoints or secrets is
//! safe all the same: no endpoints answers 503 `UH`, no secret refuses connections; plaintext is
//! never used instead.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use proxy_config::{
    Cluster, ClusterName, Endpoints, Listener, ListenerName, RouteTable, RouteTableName, Secret,
    SecretName,
};
use stdx::{Clock, Rng, SystemClock, SystemRng};
use telemetry::stats::{Options, Store};
use tokio::sync::watch;

mod counts;

use counts::PublishCounts;

use crate::{
    config::{Config, Map, Waiting},
    filters::local_rate_limit::Registry,
    listener::LiveListener,
    makers::{Ids, Makers},
    peers::Own,
    problem::PublishProblem,
    route::LiveRouteTable,
    tls,
    upstream::{
        cluster::LiveCluster,
        names::{Resolve, SystemResolver},
        outlier,
    },
};

/// How often ejections are looked at.
const TEND_INTERVAL: Duration = Duration::from_millis(900);

/// Resources of one kind that were set (added or replaced) and removed. A name in both is set.
#[derive(Debug, Clone)]
pub struct Changes<Name, Resource> {
    pub set: Vec<Arc<Resource>>,
    pub removed: Vec<Name>,
}

impl<Name, Resource> Default for Changes<Name, Resource> {
    fn default() -> Self {
        Self {
            set: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl<Name, Resource> Changes<Name, Resource> {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

/// One change of configuration, applied as a whole.
#[derive(Debug, Clone, Default)]
pub struct Update {
    pub listeners: Changes<ListenerName, Listener>,
    pub routes: Changes<RouteTableName, RouteTable>,
    pub clusters: Changes<ClusterName, Cluster>,
    /// By `Endpoints::cluster`: the EDS service name, or, for clusters resolved by DNS, the
    /// cluster's name. May come before the cluster.
    pub endpoints: Changes<Arc<str>, Endpoints>,
    /// `default` and `ROOTCA` (the workload's identity) are secrets like any other. New connections
    /// use the new value.
    pub secrets: Changes<SecretName, Secret>,
    /// What is waited for from now on; `None`: what was waited for before.
    pub waiting: Option<Arc<Waiting>>,
}

impl Update {
    pub fn is_empty(&self) -> bool {
        let Self {
            listeners,
            routes,
            clusters,
            endpoints,
            secrets,
            waiting,
        } = self;
        listeners.is_empty()
            && routes.is_empty()
            && clusters.is_empty()
            && endpoints.is_empty()
            && secrets.is_empty()
            && waiting.is_none()
    }
}

/// What the workers serve from; shared by all of them.
pub struct Live {
    config: ArcSwap<Config>,
    versions: watch::Sender<u64>,
    writer: Mutex<Writer>,
    pub tls: Arc<tls::Secrets>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    /// Envoy's statistics.
    pub stats: Store,
    /// This proxy, as it tells its peers.
    pub own: Own,
    /// SO_MARK of upstream connections whose cluster sets none: by it the capture rules let the
    /// proxy's own connections pass.
    mark: Option<u32>,
    /// Token buckets, shared by all workers.
    pub(crate) rate_limits: Registry,
    /// Looks up the names of dynamic forward clusters.
    resolver: Arc<dyn Resolve>,
    pub(crate) ids: Arc<Ids>,
    counts: PublishCounts,
    /// When [`Live::tend`] last did something.
    tended: Mutex<Option<Instant>>,
    opened: Opened,
}

/// For which version each worker has opened its sockets.
#[derive(Default)]
struct Opened {
    versions: Mutex<Map<u64, u64>>,
    /// All workers once had those of the then current version.
    all: AtomicBool,
}

/// The writer's book-keeping: what was published but is not reachable from `Config`.
#[derive(Default)]
struct Writer {
    endpoints: Map<Arc<str>, Arc<Endpoints>>,
}

/// What of an update makes a new version.
struct Resources {
    listeners: Changes<ListenerName, Listener>,
    routes: Changes<RouteTableName, RouteTable>,
    clusters: Changes<ClusterName, Cluster>,
    waiting: Option<Arc<Waiting>>,
}

impl Default for Live {
    fn default() -> Self {
        Self::new(
            Arc::new(SystemClock),
            Arc::new(SystemRng),
            Store::new(Options::default()),
            Own::default(),
        )
    }
}

impl Live {
    /// An empty configuration.
    pub fn new(clock: Arc<dyn Clock>, rng: Arc<dyn Rng>, stats: Store, own: Own) -> Self {
        let counts = PublishCounts::new(&stats);
        Self {
            config: ArcSwap::default(),
            versions: watch::Sender::new(0),
            writer: Mutex::default(),
            tls: Arc::new(tls::Secrets::default()),
            clock,
            rng,
            own,
            mark: None,
            rate_limits: Registry::new(stats.clone()),
            stats,
            resolver: Arc::new(SystemResolver),
            ids: Arc::default(),
            counts,
            tended: Mutex::default(),
            opened: Opened::default(),
        }
    }

    /// A worker tells that it has opened the sockets of a version.
    pub fn note_opened(&self, worker: u64, version: u64) {
        self.opened.versions.lock().insert(worker, version);
    }

    /// Whether this many workers have opened the sockets of what was published when they were first
    /// asked for; it stays so. Before, a connection to a published listener may still be refused,
    /// so the proxy is not ready.
    pub fn has_opened(&self, workers: usize) -> bool {
        if self.opened.all.load(Ordering::Relaxed) {
            return true;
        }
        let current = self.config().version;
        let versions = self.opened.versions.lock();
        let all = versions
            .values()
            .filter(|version| **version >= current)
            .count()
            >= workers;
        self.opened.all.store(all, Ordering::Relaxed);
        all
    }

    /// What live objects are made with.
    fn makers(&self) -> Makers<'_> {
        Makers {
            clock: &self.clock,
            rng: &self.rng,
            stats: &self.stats,
            tls: &self.tls,
            resolver: &self.resolver,
            ids: &self.ids,
            mark: self.mark,
        }
    }

    /// With another resolver than the system's.
    pub fn with_resolver(self, resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, ..self }
    }

    /// With this SO_MARK on upstream connections whose cluster sets none.
    pub fn with_mark(self, mark: Option<u32>) -> Self {
        Self { mark, ..self }
    }

    /// The current version, for one request.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Resolves after each publication that changed listeners, routes or clusters.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// Ends ejections whose time is over. Every worker calls it about once a second; one of them
    /// does it.
    pub fn tend(&self) {
        let now = self.clock.now();
        {
            let Some(mut tended) = self.tended.try_lock() else {
                return;
            };
            if tended.is_some_and(|last| now.saturating_duration_since(last) < TEND_INTERVAL) {
                return;
            }
            *tended = Some(now);
        }
        for cluster in self.config.load().clusters.values() {
            if outlier::tick(cluster, now) {
                cluster.refresh(now);
            }
        }
    }

    /// Applies an update. Returns what in it is unusable; an item with a problem is published in a
    /// form that refuses traffic (never in a form that is laxer than asked), and everything else is
    /// in force when this returns.
    pub fn publish(&self, update: Update) -> Vec<PublishProblem> {
        let Update {
            listeners,
            routes,
            clusters,
            endpoints,
            secrets,
            waiting,
        } = update;
        let mut problems = Vec::new();
        // Writers come one after the other; readers never take this lock.
        let mut writer = self.writer.lock();
        self.tls.replace(&secrets.set, &[], &mut problems);
        let touched = writer.replace(endpoints);
        let old = self.config.load_full();
        let changed = !(listeners.is_empty() && routes.is_empty() && clusters.is_empty());
        if changed || waiting.is_some() {
            let changes = Resources {
                listeners,
                routes,
                clusters,
                waiting,
            };
            self.swap(&old, changes, &writer, &mut problems);
        }
        // A cluster that has just been replaced or removed keeps the endpoints that it had, and a
        // secret goes after what named it.
        for cluster in self.config.load().clusters.values() {
            if let Some(service) = cluster.endpoints_name()
                && touched.contains(service)
            {
                cluster.set_endpoints(writer.endpoints.get(service).cloned());
            }
        }
        let is_set = |name: &SecretName| secrets.set.iter().any(|secret| secret.name == *name);
        let removed: Vec<_> = (secrets.removed.iter().filter(|name| !is_set(name)))
            .cloned()
            .collect();
        self.tls.replace(&[], &removed, &mut problems);
        problems
    }

    /// Stores the next version of listeners, route tables and clusters.
    fn swap(
        &self,
        old: &Config,
        changes: Resources,
        writer: &Writer,
        problems: &mut Vec<PublishProblem>,
    ) {
        let Resources {
            listeners,
            routes,
            clusters,
            waiting,
        } = changes;
        let clusters = self.clusters(old, clusters, writer, problems);
        let routes = apply(
            &old.routes,
            routes,
            |t| &t.name,
            |live| &live.config,
            |table, _| Arc::new(LiveRouteTable::new(table)),
        );
        let makers = self.makers();
        let listeners = apply(
            &old.listeners,
            listeners,
            |l| &l.name,
            |live| &live.config,
            |listener, old| {
                Arc::new(LiveListener::new(
                    listener,
                    old.map(|old| &**old),
                    makers,
                    problems,
                ))
            },
        );
        let by_address = listeners
            .values()
            .flat_map(|l| l.addresses().map(|address| (address, l.clone())))
            .collect();
        let config = Arc::new(Config {
            version: old.version + 1,
            listeners,
            routes,
            clusters,
            waiting: waiting.unwrap_or_else(|| old.waiting.clone()),
            by_address,
        });
        self.counts.changed(old, &config);
        self.config.store(config.clone());
        self.versions.send_replace(config.version);
        for (name, listener) in &old.listeners {
            listener.drain_but_for(config.listeners.get(name).map(|l| &**l));
        }
    }

    fn clusters(
        &self,
        old: &Config,
        changes: Changes<ClusterName, Cluster>,
        writer: &Writer,
        problems: &mut Vec<PublishProblem>,
    ) -> Map<ClusterName, Arc<LiveCluster>> {
        apply(
            &old.clusters,
            changes,
            |c| &c.name,
            |live| &live.config,
            |config, _| {
                let cluster = LiveCluster::new(config, self.makers(), problems);
                if let Some(endpoints) = cluster
                    .endpoints_name()
                    .and_then(|service| writer.endpoints.get(service))
                {
                    cluster.set_endpoints(Some(endpoints.clone()));
                }
                Arc::new(cluster)
            },
        )
    }
}

impl Writer {
    /// Takes the new endpoints; returns the names that changed.
    fn replace(&mut self, changes: Changes<Arc<str>, Endpoints>) -> HashSet<Arc<str>, RandomState> {
        let mut touched = HashSet::default();
        for name in changes.removed {
            if self.endpoints.remove(&name).is_some() {
                touched.insert(name);
            }
        }
        for endpoints in changes.set {
            let old = self
                .endpoints
                .insert(endpoints.cluster.clone(), endpoints.clone());
            if old.is_none_or(|old| old != endpoints) {
                touched.insert(endpoints.cluster.clone());
            }
        }
        touched
    }
}

/// The old map with the changes applied; a resource equal to what is live keeps its live object.
fn apply<Name: Clone + Eq + std::hash::Hash, Resource: PartialEq, Alive>(
    old: &Map<Name, Arc<Alive>>,
    changes: Changes<Name, Resource>,
    name: impl Fn(&Resource) -> &Name,
    config: impl Fn(&Alive) -> &Resource,
    mut make: impl FnMut(Arc<Resource>, Option<&Arc<Alive>>) -> Arc<Alive>,
) -> Map<Name, Arc<Alive>> {
    let mut new = old.clone();
    for name in &changes.removed {
        new.remove(name);
    }
    for resource in changes.set {
        let name = name(&resource).clone();
        let before = old.get(&name);
        let alive = match before {
            Some(alive) if *config(alive) == *resource => alive.clone(),
            _ => make(resource, before),
        };
        new.insert(name, alive);
    }
    new
}

#[cfg(test)]
mod tests;
