//! What the control plane has sent, held until it can be used: warming, without IO or clock.
//!
//! Rules (Envoy's, and a little kinder):
//! - a cluster waits for its endpoints (or first DNS answer) and secrets; a listener for its route tables and secrets; the version
//!   before stays in use until then. After `warm_timeout` it is used as it is: the data path refuses what it lacks.
//! - a route table or TCP listener that names a cluster which is still warming waits for it, so that no request is sent to nowhere.
//! - a removed cluster is kept while routes in use name it, at most for `retire_grace`.
//! - endpoints, route tables and secrets that nothing refers to any more are dropped.
//!
//! [`Warming::settle`] gives what has become usable, as one update.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use proxy::publish::{Changes, Update};
use proxy_config::{
    Cluster, ClusterName, Endpoints, Listener, ListenerName, Refused, RouteTable, RouteTableName,
    Secret, SecretName, cluster::Discovery,
};

mod references;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;

pub use references::Kind;
use references::{
    cluster_secrets, listener_clusters, listener_routes, listener_secrets, route_clusters,
};

/// One resource that was set.
#[derive(Debug, Clone)]
pub enum Change {
    Cluster(Arc<Cluster>),
    Endpoints(Arc<Endpoints>),
    Listener(Arc<Listener>),
    Routes(Arc<RouteTable>),
    Secret(Arc<Secret>),
}

/// Names to ask for, and clusters to resolve.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    pub endpoints: BTreeSet<String>,
    pub routes: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub resolved: Vec<Arc<Cluster>>,
}

/// See the module.
#[derive(Debug)]
pub struct Warming {
    warm_timeout: Duration,
    retire_grace: Duration,
    /// Secrets that come from elsewhere (the workload's own) and are never waited for.
    own_secrets: HashSet<&'static str>,
    clusters: BTreeMap<ClusterName, Item<Cluster>>,
    listeners: BTreeMap<ListenerName, Item<Listener>>,
    routes: BTreeMap<RouteTableName, Item<RouteTable>>,
    endpoints: BTreeMap<Arc<str>, Arc<Endpoints>>,
    secrets: BTreeMap<SecretName, Arc<Secret>>,
    /// Names that do not exist, as far as the control plane or DNS can tell.
    absent: HashSet<(Kind, Arc<str>)>,
    /// Something other than endpoints changed since the last settling.
    structural: bool,
    update: Update,
}

/// The version in use and the one that waits.
#[derive(Debug)]
struct Item<R> {
    live: Option<Arc<R>>,
    next: Option<(Arc<R>, Instant)>,
    retiring_since: Option<Instant>,
}

impl<R> Default for Item<R> {
    fn default() -> Self {
        Self {
            live: None,
            next: None,
            retiring_since: None,
        }
    }
}

impl<R: PartialEq> Item<R> {
    fn newest(&self) -> Option<&Arc<R>> {
        self.next
            .as_ref()
            .map(|(next, _)| next)
            .or(self.live.as_ref())
    }

    fn set(&mut self, resource: Arc<R>, now: Instant) {
        self.retiring_since = None;
        if self.live.as_ref().is_some_and(|live| **live == *resource) {
            self.next = None;
        } else {
            self.next = Some((resource, now));
        }
    }

    fn is_warming_only(&self) -> bool {
        self.live.is_none() && self.next.is_some()
    }

    /// Takes the waiting version into use, when it is ready or has waited long enough.
    fn promote(
        &mut self,
        now: Instant,
        timeout: Duration,
        is_ready: impl Fn(&R) -> bool,
    ) -> Option<Arc<R>> {
        let (next, _) = self
            .next
            .take_if(|(next, since)| is_ready(next) || now.duration_since(*since) >= timeout)?;
        self.live = Some(next.clone());
        Some(next)
    }
}

impl Warming {
    /// `own_secrets`: whether `default` and `ROOTCA` are the workload's own identity, and not asked for by SDS.
    pub fn new(warm_timeout: Duration, retire_grace: Duration, own_secrets: bool) -> Self {
        Self {
            warm_timeout,
            retire_grace,
            own_secrets: if own_secrets {
                HashSet::from(["default", "ROOTCA"])
            } else {
                HashSet::new()
            },
            clusters: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            secrets: BTreeMap::new(),
            absent: HashSet::new(),
            structural: false,
            update: Update::default(),
        }
    }

    pub fn set(&mut self, change: Change, now: Instant) {
        self.structural |= !matches!(change, Change::Endpoints(_));
        match change {
            Change::Cluster(cluster) => self
                .clusters
                .entry(cluster.name.clone())
                .or_default()
                .set(cluster, now),
            Change::Listener(listener) => self
                .listeners
                .entry(listener.name.clone())
                .or_default()
                .set(listener, now),
            Change::Routes(table) => {
                self.absent.remove(&(Kind::Routes, table.name.shared()));
                self.routes
                    .entry(table.name.clone())
                    .or_default()
                    .set(table, now);
            }
            Change::Endpoints(endpoints) => {
                self.absent
                    .remove(&(Kind::Endpoints, endpoints.cluster.clone()));
                self.endpoints
                    .insert(endpoints.cluster.clone(), endpoints.clone());
                self.update.endpoints.set.push(endpoints);
            }
            Change::Secret(secret) => {
                self.absent.remove(&(Kind::Secret, secret.name.shared()));
                self.secrets.insert(secret.name.clone(), secret.clone());
                self.update.secrets.set.push(secret);
            }
        }
    }

    /// The control plane has no such resource (any more). Endpoints and route tables in use stay, as in Envoy.
    pub fn remove(&mut self, kind: Kind, name: &str, now: Instant) {
        self.structural = true;
        match kind {
            Kind::Cluster => {
                if let Some(item) = self.clusters.get_mut(name) {
                    item.next = None;
                    item.retiring_since.get_or_insert(now);
                }
            }
            Kind::Listener => {
                if let Some((name, item)) = self.listeners.remove_entry(name)
                    && item.live.is_some()
                {
                    self.update.listeners.removed.push(name);
                }
            }
            Kind::Endpoints | Kind::Routes => {
                self.absent.insert((kind, name.into()));
            }
            Kind::Secret => {
                self.absent.insert((kind, name.into()));
                if let Some((name, _)) = self.secrets.remove_entry(name) {
                    self.update.secrets.removed.push(name);
                }
            }
        }
    }

    /// The control plane has sent a version of which nothing can be used. The version before may be laxer, so it does not stay: requests
    /// to the cluster are answered 503, the listener closes its connections, what needs the secret is refused. Endpoints hold no
    /// policy; the last ones stay.
    pub fn refuse(&mut self, kind: Kind, name: &str, now: Instant) {
        self.structural = true;
        match kind {
            Kind::Cluster => {
                if let Some((name, item)) = self.clusters.remove_entry(name)
                    && item.live.is_some()
                {
                    self.update.clusters.removed.push(name);
                }
            }
            Kind::Listener => {
                if let Some(item) = self.listeners.get_mut(name)
                    && let Some(known) = item.newest().cloned()
                {
                    let refused = Refused {
                        name: name.into(),
                        reason: "nothing of its newest version can be read".into(),
                    };
                    item.next = Some((known.refusing(refused.into()).into(), now));
                }
            }
            // There is no name that a table in use could have.
            Kind::Routes => {}
            Kind::Endpoints if self.endpoints.contains_key(name) => {}
            Kind::Endpoints | Kind::Secret => self.remove(kind, name, now),
        }
    }

    /// What has become usable since the last call.
    pub fn settle(&mut self, now: Instant) -> Update {
        // Endpoints churn far more than the rest; when nothing waits for them, they concern nobody else.
        if std::mem::take(&mut self.structural) || self.deadline().is_some() {
            self.promote_clusters(now);
            self.promote_routes(now);
            self.promote_listeners(now);
            self.retire_clusters(now);
            self.drop_unreferenced();
        }
        let mut update = std::mem::take(&mut self.update);
        newest_wins(&mut update.endpoints, |e: &Endpoints| e.cluster.clone());
        newest_wins(&mut update.secrets, |s: &Secret| s.name.clone());
        update
    }

    /// When [`Warming::settle`] has something to do even if nothing arrives.
    pub fn deadline(&self) -> Option<Instant> {
        fn waits<N, R>(items: &BTreeMap<N, Item<R>>) -> impl Iterator<Item = Instant> {
            items
                .values()
                .filter_map(|item| item.next.as_ref().map(|(_, since)| *since))
        }
        let warming = waits(&self.clusters)
            .chain(waits(&self.listeners))
            .chain(waits(&self.routes));
        let retiring = self
            .clusters
            .values()
            .filter_map(|item| item.retiring_since);
        let warming = warming.map(|since| since + self.warm_timeout);
        warming
            .chain(retiring.map(|since| since + self.retire_grace))
            .min()
    }

    /// How many resources wait.
    pub fn waiting(&self) -> usize {
        fn count<N, R>(items: &BTreeMap<N, Item<R>>) -> usize {
            items.values().filter(|item| item.next.is_some()).count()
        }
        count(&self.clusters) + count(&self.listeners) + count(&self.routes)
    }

    /// What is referred to by the newest versions.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for cluster in self
            .clusters
            .values()
            .flat_map(|item| item.newest().into_iter().chain(item.live.as_ref()))
        {
            match &cluster.discovery {
                Discovery::Eds { service_name } => {
                    wanted.endpoints.insert(service_name.to_string());
                }
                Discovery::StrictDns { .. } | Discovery::LogicalDns { .. }
                    if !wanted
                        .resolved
                        .iter()
                        .any(|known| known.name == cluster.name) =>
                {
                    wanted.resolved.push(cluster.clone());
                }
                _ => {}
            }
            wanted
                .secrets
                .extend(cluster_secrets(cluster).map(ToString::to_string));
        }
        for listener in self
            .listeners
            .values()
            .flat_map(|item| item.newest().into_iter().chain(item.live.as_ref()))
        {
            wanted
                .routes
                .extend(listener_routes(listener).map(ToString::to_string));
            wanted
                .secrets
                .extend(listener_secrets(listener).map(ToString::to_string));
        }
        wanted
            .secrets
            .retain(|name| !self.own_secrets.contains(name.as_str()));
        wanted
    }

    fn promote_clusters(&mut self, now: Instant) {
        let Self {
            clusters,
            endpoints,
            secrets,
            absent,
            own_secrets,
            ..
        } = self;
        let has_endpoints = |key: &Arc<str>| {
            endpoints.contains_key(key) || absent.contains(&(Kind::Endpoints, key.clone()))
        };
        let has_secret = |name: &SecretName| {
            own_secrets.contains(name.as_str())
                || secrets.contains_key(name)
                || absent.contains(&(Kind::Secret, name.shared()))
        };
        let is_ready = |cluster: &Cluster| {
            let hosts = match &cluster.discovery {
                Discovery::Eds { service_name } => has_endpoints(service_name),
                Discovery::StrictDns { .. } | Discovery::LogicalDns { .. } => {
                    has_endpoints(&cluster.name.shared())
                }
                Discovery::Static(_)
                | Discovery::OriginalDst { .. }
                | Discovery::DynamicForward { .. } => true,
            };
            hosts && cluster_secrets(cluster).all(has_secret)
        };
        let promoted = clusters
            .values_mut()
            .filter_map(|item| item.promote(now, self.warm_timeout, is_ready));
        self.update.clusters.set.extend(promoted);
    }

    fn promote_routes(&mut self, now: Instant) {
        let Self {
            clusters,
            routes,
            warm_timeout,
            ..
        } = self;
        let is_ready =
            |table: &RouteTable| route_clusters(table).all(|name| !is_warming(clusters, name));
        let promoted = routes
            .values_mut()
            .filter_map(|item| item.promote(now, *warm_timeout, is_ready));
        self.update.routes.set.extend(promoted);
    }

    fn promote_listeners(&mut self, now: Instant) {
        let Self {
            clusters,
            listeners,
            routes,
            secrets,
            absent,
            own_secrets,
            warm_timeout,
            ..
        } = self;
        let has_routes = |name: &RouteTableName| {
            routes.get(name).is_some_and(|item| item.live.is_some())
                || absent.contains(&(Kind::Routes, name.shared()))
        };
        let has_secret = |name: &SecretName| {
            own_secrets.contains(name.as_str())
                || secrets.contains_key(name)
                || absent.contains(&(Kind::Secret, name.shared()))
        };
        let is_ready = |listener: &Listener| {
            listener_routes(listener).all(has_routes)
                && listener_secrets(listener).all(has_secret)
                && listener_clusters(listener).all(|name| !is_warming(clusters, name))
        };
        let promoted = listeners
            .values_mut()
            .filter_map(|item| item.promote(now, *warm_timeout, is_ready));
        self.update.listeners.set.extend(promoted);
    }

    fn retire_clusters(&mut self, now: Instant) {
        if self
            .clusters
            .values()
            .all(|item| item.retiring_since.is_none())
        {
            return;
        }
        let in_use: HashSet<ClusterName> = {
            let tables = self
                .routes
                .values()
                .flat_map(|item| item.live.as_ref().into_iter().chain(item.newest()));
            let listeners = self
                .listeners
                .values()
                .flat_map(|item| item.live.as_ref().into_iter().chain(item.newest()));
            let tables = tables.flat_map(|table| route_clusters(table));
            tables
                .chain(listeners.flat_map(|listener| listener_clusters(listener)))
                .cloned()
                .collect()
        };
        let (grace, removed) = (self.retire_grace, &mut self.update.clusters.removed);
        self.clusters.retain(|name, item| {
            let Some(since) = item.retiring_since else {
                return true;
            };
            let keep =
                item.live.is_some() && in_use.contains(name) && now.duration_since(since) < grace;
            if !keep && item.live.is_some() {
                removed.push(name.clone());
            }
            keep
        });
    }

    fn drop_unreferenced(&mut self) {
        let wanted = self.wanted();
        let resolved: HashSet<&str> = wanted
            .resolved
            .iter()
            .map(|cluster| cluster.name.as_str())
            .collect();
        let update = &mut self.update;
        self.endpoints.retain(|name, _| {
            let keep = wanted.endpoints.contains(&**name) || resolved.contains(&**name);
            if !keep {
                update.endpoints.removed.push(name.clone());
            }
            keep
        });
        self.routes.retain(|name, item| {
            let keep = wanted.routes.contains(name.as_str());
            if !keep && item.live.is_some() {
                update.routes.removed.push(name.clone());
            }
            keep
        });
        self.secrets.retain(|name, _| {
            let keep = wanted.secrets.contains(name.as_str());
            if !keep {
                update.secrets.removed.push(name.clone());
            }
            keep
        });
        self.absent.retain(|(kind, name)| match kind {
            Kind::Endpoints => wanted.endpoints.contains(&**name) || resolved.contains(&**name),
            Kind::Routes => wanted.routes.contains(&**name),
            Kind::Secret => wanted.secrets.contains(&**name),
            Kind::Cluster | Kind::Listener => false,
        });
    }
}

/// Known, but not usable yet.
fn is_warming(clusters: &BTreeMap<ClusterName, Item<Cluster>>, name: &ClusterName) -> bool {
    clusters.get(name).is_some_and(Item::is_warming_only)
}

/// Of several values of one name only the last matters, and what was set and then dropped is only removed.
fn newest_wins<N: Clone + Eq + std::hash::Hash, R>(
    changes: &mut Changes<N, R>,
    name: impl Fn(&R) -> N,
) {
    let removed: HashSet<&N> = changes.removed.iter().collect();
    let mut seen = HashSet::new();
    let mut set: Vec<Arc<R>> = std::mem::take(&mut changes.set);
    set.reverse();
    set.retain(|resource| !removed.contains(&name(resource)) && seen.insert(name(resource)));
    set.reverse();
    changes.set = set;
}
