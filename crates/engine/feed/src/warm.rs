//! What the control plane has sent, and what of it is still waited for: warming, without IO or
//! clock.
//!
//! Rules:
//! - a route table, a listener and a cluster of another transport are taken into use at once,
//!   because the version before may send in plaintext what the new one does not. What they lack
//!   (route table, secret, endpoints, first DNS answer) is published as waited for
//!   ([`proxy::Waiting`]): requests and connections that need it wait at their door until it comes,
//!   it is known not to exist, or `warm_timeout` is over; then the data path refuses them.
//! - a cluster whose new version has the transport of the one in use stays as it is until the new
//!   one has its endpoints.
//! - a removed cluster is kept while routes in use name it, at most for `retire_grace`.
//! - endpoints, route tables and secrets that nothing refers to any more are dropped.
//!
//! [`Warming::settle`] gives what has changed, as one update.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use proxy::{
    Waiting,
    publish::{Changes, Update},
};
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
    pub resolved: BTreeMap<ClusterName, Arc<Cluster>>,
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
    /// Route tables and secrets that listeners name and that are not there, since when.
    missing: BTreeMap<(Kind, Arc<str>), Missing>,
    /// Something other than endpoints changed since the last settling.
    structural: bool,
    /// What is referred to; made anew by [`Warming::settle`] when something other than endpoints
    /// changed.
    wanted: Wanted,
    /// What was last published as waited for.
    waiting: Arc<Waiting>,
    /// What has not come in time, in words, since it was last told.
    given_up: Vec<String>,
    update: Update,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Missing {
    since: Instant,
    given_up: bool,
}

/// The version in use and the one that is to follow.
#[derive(Debug)]
struct Item<R> {
    live: Option<Arc<R>>,
    next: Option<(Arc<R>, Instant)>,
    /// What the version in use needs is not there yet, since then.
    waiting_since: Option<Instant>,
    retiring_since: Option<Instant>,
}

impl<R> Default for Item<R> {
    fn default() -> Self {
        Self {
            live: None,
            next: None,
            waiting_since: None,
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

    /// Takes the version that follows into use: when it is ready, has waited long enough, or must
    /// not wait.
    fn promote(&mut self, now: Instant, waits: &Waits<'_, R>) -> Option<Arc<R>> {
        let is_over = |since: Instant| now.duration_since(since) >= waits.timeout;
        if let Some(live) = &self.live
            && self
                .waiting_since
                .is_some_and(|since| (waits.is_ready)(live) || is_over(since))
        {
            self.waiting_since = None;
        }
        let (next, since) = self.next.as_ref()?;
        let is_usable = (waits.is_ready)(next) || is_over(*since);
        let may_stay = |live: &Arc<R>| self.waiting_since.is_none() && (waits.may_stay)(live, next);
        if !is_usable && self.live.as_ref().is_some_and(may_stay) {
            return None;
        }
        self.waiting_since = (!is_usable).then_some(*since);
        let (next, _) = self.next.take()?;
        self.live = Some(next.clone());
        Some(next)
    }
}

/// What resources of one kind wait for.
struct Waits<'a, R> {
    timeout: Duration,
    /// All that it needs is there, or known not to exist.
    is_ready: &'a dyn Fn(&R) -> bool,
    /// The version in use may stay until the new one is ready: it is no laxer.
    may_stay: &'a dyn Fn(&R, &R) -> bool,
}

impl Warming {
    /// `own_secrets`: whether `default` and `ROOTCA` are the workload's own identity, and not asked
    /// for by SDS.
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
            missing: BTreeMap::new(),
            structural: false,
            wanted: Wanted::default(),
            waiting: Arc::default(),
            given_up: Vec::new(),
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

    pub fn has_secret(&self, name: &str) -> bool {
        self.secrets.contains_key(name)
    }

    /// The control plane has no such resource (any more). Endpoints and route tables in use stay,
    /// as in Envoy.
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

    /// The control plane has sent a version of which nothing can be used. The version before may be
    /// laxer, so it does not stay: requests to the cluster are answered 503, the listener closes
    /// its connections, what needs the secret is refused. Endpoints hold no policy; the last ones
    /// stay.
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

    /// What has changed since the last call.
    pub fn settle(&mut self, now: Instant) -> Update {
        // Endpoints churn far more than the rest; when nothing waits for them, they concern nobody
        // else.
        let structural = std::mem::take(&mut self.structural);
        if structural || self.deadline().is_some() {
            self.promote_clusters(now);
            self.promote_routes(now);
            self.promote_listeners(now);
            self.retire_clusters(now);
            self.wanted = self.refer();
            self.drop_unreferenced();
            self.look_for_missing(now);
            self.publish_waiting();
        }
        let mut update = std::mem::take(&mut self.update);
        newest_wins(&mut update.endpoints, |e: &Endpoints| e.cluster.clone());
        newest_wins(&mut update.secrets, |s: &Secret| s.name.clone());
        update
    }

    /// When [`Warming::settle`] has something to do even if nothing arrives.
    pub fn deadline(&self) -> Option<Instant> {
        let clusters = self.clusters.values();
        let clusters = clusters.flat_map(|item| {
            let next = item.next.as_ref().map(|(_, since)| *since);
            next.into_iter().chain(item.waiting_since)
        });
        let missing = self.missing.values().filter(|missing| !missing.given_up);
        let warming = clusters.chain(missing.map(|missing| missing.since));
        let retiring = self
            .clusters
            .values()
            .filter_map(|item| item.retiring_since);
        let warming = warming.map(|since| since + self.warm_timeout);
        warming
            .chain(retiring.map(|since| since + self.retire_grace))
            .min()
    }

    /// How many resources wait, or are waited for.
    pub fn waiting(&self) -> usize {
        let clusters = self.clusters.values();
        let missing = self.missing.values().filter(|missing| !missing.given_up);
        clusters
            .filter(|item| item.next.is_some() || item.waiting_since.is_some())
            .count()
            + missing.count()
    }

    /// What was waited for in vain, in words for the log; told once.
    pub fn given_up(&mut self) -> Vec<String> {
        std::mem::take(&mut self.given_up)
    }

    /// What is referred to, as of the last settling.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What is referred to by the newest versions and those in use.
    fn refer(&self) -> Wanted {
        let mut wanted = Wanted::default();
        let clusters = self.clusters.values();
        for cluster in clusters.flat_map(|item| item.live.iter().chain(item.newest())) {
            match &cluster.discovery {
                Discovery::Eds { service_name } => {
                    wanted.endpoints.insert(service_name.to_string());
                }
                Discovery::StrictDns { .. } | Discovery::LogicalDns { .. } => {
                    wanted
                        .resolved
                        .insert(cluster.name.clone(), cluster.clone());
                }
                Discovery::Static(_)
                | Discovery::OriginalDst { .. }
                | Discovery::DynamicForward { .. } => {}
            }
            wanted
                .secrets
                .extend(cluster_secrets(cluster).map(ToString::to_string));
        }
        for listener in self.live_listeners() {
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

    fn live_listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        let listeners = self.listeners.values();
        listeners.filter_map(|item| item.live.as_ref())
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
        let has_hosts = |cluster: &Cluster| match &cluster.discovery {
            Discovery::Eds { service_name } => has_endpoints(service_name),
            Discovery::StrictDns { .. } | Discovery::LogicalDns { .. } => {
                has_endpoints(&cluster.name.shared())
            }
            Discovery::Static(_)
            | Discovery::OriginalDst { .. }
            | Discovery::DynamicForward { .. } => true,
        };
        let is_ready =
            |cluster: &Cluster| has_hosts(cluster) && cluster_secrets(cluster).all(has_secret);
        for item in clusters.values() {
            if let (Some(since), Some(live)) = (item.waiting_since, &item.live)
                && now.duration_since(since) >= self.warm_timeout
            {
                let secrets = cluster_secrets(live).filter(|name| !has_secret(name));
                let mut lacks: Vec<String> = secrets.map(|name| format!("secret {name}")).collect();
                if !has_hosts(live) {
                    lacks.push("its endpoints".into());
                }
                if !lacks.is_empty() {
                    let lacks = lacks.join(", ");
                    self.given_up
                        .push(format!("{lacks} of cluster {}", live.name));
                }
            }
        }
        let may_stay = |live: &Cluster, next: &Cluster| {
            live.transport == next.transport && live.transport_matches == next.transport_matches
        };
        let waits = Waits {
            timeout: self.warm_timeout,
            is_ready: &is_ready,
            may_stay: &may_stay,
        };
        let promoted = clusters
            .values_mut()
            .filter_map(|item| item.promote(now, &waits));
        self.update.clusters.set.extend(promoted);
    }

    fn promote_routes(&mut self, now: Instant) {
        let waits = Waits {
            timeout: self.warm_timeout,
            is_ready: &|_| true,
            may_stay: &|_, _| false,
        };
        let promoted = self
            .routes
            .values_mut()
            .filter_map(|item| item.promote(now, &waits));
        self.update.routes.set.extend(promoted);
    }

    fn promote_listeners(&mut self, now: Instant) {
        let waits = Waits {
            timeout: self.warm_timeout,
            is_ready: &|_| true,
            may_stay: &|_, _| false,
        };
        let promoted = self
            .listeners
            .values_mut()
            .filter_map(|item| item.promote(now, &waits));
        self.update.listeners.set.extend(promoted);
    }

    /// Route tables and secrets that listeners in use name and that are neither there nor known not
    /// to exist.
    fn look_for_missing(&mut self, now: Instant) {
        let listeners = self.listeners.values();
        let listeners = listeners.filter_map(|item| item.live.as_ref());
        let mut missing = BTreeMap::new();
        for listener in listeners {
            let routes = listener_routes(listener).filter(|name| !self.routes.contains_key(*name));
            let secrets = listener_secrets(listener).filter(|name| {
                !self.secrets.contains_key(*name) && !self.own_secrets.contains(name.as_str())
            });
            let routes = routes.map(|name| (Kind::Routes, name.shared()));
            let secrets = secrets.map(|name| (Kind::Secret, name.shared()));
            for key in routes.chain(secrets) {
                if self.absent.contains(&key) {
                    continue;
                }
                let since = self.missing.get(&key).map_or(now, |known| known.since);
                let given_up = now.duration_since(since) >= self.warm_timeout;
                if given_up && self.missing.get(&key).is_some_and(|m| !m.given_up) {
                    let (kind, name) = &key;
                    self.given_up.push(format!("{kind} {name} of a listener"));
                }
                missing.insert(key, Missing { since, given_up });
            }
        }
        self.missing = missing;
    }

    fn publish_waiting(&mut self) {
        let mut waiting = Waiting::default();
        let clusters = self.clusters.iter();
        let clusters = clusters.filter(|(_, item)| item.waiting_since.is_some());
        waiting
            .clusters
            .extend(clusters.map(|(name, _)| name.clone()));
        for ((kind, name), _) in self.missing.iter().filter(|(_, m)| !m.given_up) {
            match kind {
                Kind::Routes => waiting.routes.insert(name.clone()),
                _ => waiting.secrets.insert(name.clone()),
            };
        }
        if waiting != *self.waiting {
            self.waiting = Arc::new(waiting);
            self.update.waiting = Some(self.waiting.clone());
        }
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
        let Self { wanted, update, .. } = self;
        self.endpoints.retain(|name, _| {
            let keep = wanted.endpoints.contains(&**name) || wanted.resolved.contains_key(&**name);
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
            Kind::Endpoints => {
                wanted.endpoints.contains(&**name) || wanted.resolved.contains_key(&**name)
            }
            Kind::Routes => wanted.routes.contains(&**name),
            Kind::Secret => wanted.secrets.contains(&**name),
            Kind::Cluster | Kind::Listener => false,
        });
    }
}

/// Of several values of one name only the last matters, and what was set and then dropped is only
/// removed.
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
