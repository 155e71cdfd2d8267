//! From many objects to one snapshot: the last good version of each object, and what they mean together.
//!
//! [`Store::apply`] and [`Store::delete`] take changes and remember what they touch; [`Store::build`] makes a new
//! [`Snapshot`] in which every part that was not touched is the same `Arc` as in the one before. A change costs what it
//! touches: endpoints are put together again for the services behind which something changed, lists for the namespaces with
//! a change. [`Store::take_changes`] tells what is otherwise, for analysis, which looks at objects together.
//!
//! One writer, no locks, no clock: the caller decides when to build.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mesh_model::object::{Labels, Text};
use mesh_model::snapshot::{ByNamespace, ServiceKey};
use mesh_model::{MeshConfig, Service, Snapshot, Workload};
use serde_json::Value;
use wire_kube::kinds::Kind;

use crate::key::Key;
use crate::problem::{Problem, Severity, code};
use crate::{Domain, parse};

mod auto_addresses;
mod changes;
mod delegates;
mod dirty;
mod endpoint_facts;
mod endpoints;
mod index;
mod rules;
mod services;
mod slices;
#[cfg(test)]
mod tests;
mod workloads;

pub use changes::Changes;
pub use delegates::reaches;
pub use rules::belong_together;

/// What came of applying an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// `None` when the object has no identity or is of no known kind; it is not kept then.
    pub key: Option<Key>,
    /// Did what the object means change? (A bad version changes nothing.)
    pub changed: bool,
    pub problems: Vec<Problem>,
}

struct Entry {
    object: Arc<Value>,
    /// Of the last version without errors.
    good: Option<Domain>,
    problems: Vec<Problem>,
}

impl Entry {
    /// No problem of the newest version is an error, so it is the one that holds.
    fn is_in_force(&self) -> bool {
        !self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// Would somebody who looks at this object instead of `before` see something else than a new
    /// status?
    fn differs_from(&self, before: &Self) -> bool {
        let is_other = |path| self.object.pointer(path) != before.object.pointer(path);
        self.good != before.good
            || self.problems != before.problems
            || ["/spec", "/metadata/annotations"].into_iter().any(is_other)
    }
}

/// The last good version of every object, and the snapshot that they make.
pub struct Store {
    /// From the file that the program was given; a ConfigMap takes its place while there is one.
    own_mesh: Arc<MeshConfig>,
    mesh: Arc<MeshConfig>,
    cluster: Text,
    entries: BTreeMap<Key, Entry>,
    workloads: BTreeMap<(Text, Text), Arc<Workload>>,
    slices: slices::Slices,
    /// What each Service, and each host of each ServiceEntry, declares by itself.
    declared: services::Declared,
    /// `None`: ServiceEntries get no addresses that they don't give.
    auto_addresses: Option<auto_addresses::AutoAddresses>,
    dirty: dirty::Dirty,
    built: Option<Arc<Snapshot>>,
    changes: Changes,
}

impl Store {
    /// An empty store under a mesh configuration ([`crate::default_mesh`] when there is none).
    pub fn new(mesh: MeshConfig) -> Self {
        let mesh = Arc::new(mesh);
        Self {
            own_mesh: mesh.clone(),
            mesh,
            cluster: "Kubernetes".into(),
            entries: BTreeMap::new(),
            workloads: BTreeMap::new(),
            slices: slices::Slices::default(),
            declared: services::Declared::default(),
            auto_addresses: None,
            dirty: dirty::Dirty {
                everything: true,
                ..dirty::Dirty::default()
            },
            built: None,
            changes: Changes::default(),
        }
    }

    /// As [`Store::new`], and ServiceEntries that carry TCP and give no address get one of 240.240.0.0/16 for each host.
    pub fn with_auto_addresses(mesh: MeshConfig) -> Self {
        Self {
            auto_addresses: Some(Default::default()),
            ..Self::new(mesh)
        }
    }

    /// The addresses that ServiceEntries were given, by host.
    pub fn auto_addresses(
        &self,
    ) -> impl Iterator<Item = (&Key, &BTreeMap<Text, std::net::Ipv4Addr>)> {
        self.auto_addresses.iter().flat_map(|auto| auto.all())
    }

    /// Replaces the mesh configuration.
    pub fn set_mesh(&mut self, mesh: MeshConfig) {
        self.own_mesh = Arc::new(mesh);
        self.choose_mesh();
    }

    /// Takes a new or changed object.
    pub fn apply(&mut self, object: Arc<Value>) -> Applied {
        let key = match Key::of(&object) {
            Ok(key) => key,
            Err(problem) => {
                return Applied {
                    key: None,
                    changed: false,
                    problems: vec![problem],
                };
            }
        };
        let (domain, mut problems) = parse(&self.mesh, key.kind, &object);
        if self.auto_addresses.is_some()
            && let Some(Domain::ServiceEntry(entry)) = &domain
            && auto_addresses::needs_addresses(entry)
        {
            problems.retain(|problem| problem.code != code::ADDRESSES_NEEDED);
        }
        let failed = problems.iter().any(|p| p.severity == Severity::Error);
        let before = self.entries.get(&key).and_then(|e| e.good.clone());
        let good = if failed { before.clone() } else { domain };
        let changed = good != before;
        if changed {
            self.index(before.as_ref(), good.as_ref());
            self.allocate(&key, good.as_ref(), &object);
            self.touch(&key, before.as_ref());
            self.touch(&key, good.as_ref());
        }
        let entry = Entry {
            object,
            good,
            problems: problems.clone(),
        };
        if self
            .entries
            .get(&key)
            .is_none_or(|before| entry.differs_from(before))
        {
            self.changes.objects.insert(key.clone());
        }
        self.entries.insert(key.clone(), entry);
        if changed && key.kind == Kind::ConfigMap {
            self.choose_mesh();
        }
        Applied {
            key: Some(key),
            changed,
            problems,
        }
    }

    /// Forgets an object. True when it was there and meant something.
    pub fn delete(&mut self, key: &Key) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        self.changes.objects.insert(key.clone());
        if entry.good.is_none() {
            return false;
        }
        self.index(entry.good.as_ref(), None);
        self.allocate(key, None, &entry.object);
        self.touch(key, entry.good.as_ref());
        if key.kind == Kind::ConfigMap {
            self.choose_mesh();
        }
        true
    }

    /// The newest version of an object, good or bad.
    pub fn object(&self, key: &Key) -> Option<&Arc<Value>> {
        self.entries.get(key).map(|e| &e.object)
    }

    /// Every object, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.object))
    }

    /// The problems of every object by itself. What only shows when objects are seen together is for analysis.
    pub fn problems(&self) -> impl Iterator<Item = (&Key, &Problem)> {
        self.entries
            .iter()
            .flat_map(|(key, entry)| entry.problems.iter().map(move |problem| (key, problem)))
    }

    /// The problems of one object by itself.
    pub fn problems_of(&self, key: &Key) -> &[Problem] {
        self.entries.get(key).map_or(&[], |entry| &entry.problems)
    }

    /// What changed since the last call, as of the last [`Store::build`].
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Does [`Store::build`] have something to do?
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_clean()
    }

    /// The snapshot of the present state; the same `Arc` as before when nothing changed.
    pub fn build(&mut self) -> Arc<Snapshot> {
        if let Some(built) = self.built.clone()
            && self.dirty.is_clean()
        {
            return built;
        }
        self.update_workloads();
        let before = self.built.clone();
        let before = before.as_deref();
        let services = self.services(before);
        let endpoints = self.endpoints(before);
        let snapshot = Snapshot {
            version: before.map_or(1, |b| b.version + 1),
            mesh: self.mesh.clone(),
            namespaces: self.namespaces(before),
            services,
            endpoints,
            workloads: self.workload_map(before),
            workload_by_address: self.workload_addresses(before),
            virtual_services: self.virtual_services(before),
            destination_rules: self.destination_rules(before),
            gateways: self.by_namespace(Kind::Gateway, before.map(|b| &b.gateways), index::gateway),
            sidecars: self.by_namespace(Kind::Sidecar, before.map(|b| &b.sidecars), index::sidecar),
            peer_authentications: self.by_namespace(
                Kind::PeerAuthentication,
                before.map(|b| &b.peer_authentications),
                index::peer_authentication,
            ),
            authorization_policies: self.by_namespace(
                Kind::AuthorizationPolicy,
                before.map(|b| &b.authorization_policies),
                index::authorization_policy,
            ),
            telemetries: self.by_namespace(
                Kind::Telemetry,
                before.map(|b| &b.telemetries),
                index::telemetry,
            ),
            credentials: self.credentials(before),
        };
        let snapshot = Arc::new(snapshot);
        self.changes.note(before, &snapshot, &self.dirty);
        self.dirty = dirty::Dirty::default();
        self.built = Some(snapshot.clone());
        snapshot
    }

    fn allocate(&mut self, key: &Key, good: Option<&Domain>, object: &Value) {
        let entry = match good {
            Some(Domain::ServiceEntry(entry)) => Some(&**entry),
            _ => None,
        };
        if key.kind == Kind::ServiceEntry
            && let Some(auto) = &mut self.auto_addresses
        {
            auto.set(key, entry, object);
        }
    }

    fn index(&mut self, before: Option<&Domain>, after: Option<&Domain>) {
        if let Some(Domain::EndpointSlice(slice)) = before {
            self.slices.remove(slice);
        }
        if let Some(Domain::EndpointSlice(slice)) = after {
            self.slices.add(slice);
        }
    }

    /// Marks what an object's coming, changing or going touches.
    fn touch(&mut self, key: &Key, value: Option<&Domain>) {
        self.dirty
            .namespaces
            .insert((key.kind, key.namespace.clone()));
        match value {
            Some(Domain::Service(service)) => {
                self.dirty.services = true;
                self.dirty.endpoints.insert(endpoints::key(service));
            }
            Some(Domain::ServiceEntry(entry)) => {
                self.dirty.services = true;
                let keys = entry.hosts.iter().map(|host| ServiceKey {
                    namespace: key.namespace.clone(),
                    host: host.shared(),
                });
                self.dirty.endpoints.extend(keys);
            }
            Some(Domain::EndpointSlice(slice)) => {
                self.dirty.endpoints.insert(endpoints::kubernetes_key(
                    &self.mesh,
                    &slice.service,
                    &key.namespace,
                ));
            }
            Some(Domain::Pod(_)) => {
                self.dirty.workloads.insert(key.clone());
                let keys = self.services_with_pod(&key.namespace, &key.name);
                self.dirty.endpoints.extend(keys);
            }
            Some(Domain::WorkloadEntry(_)) => {
                self.dirty.workloads.insert(key.clone());
                let keys = self.services_with_selector(&key.namespace);
                self.dirty.endpoints.extend(keys);
            }
            Some(Domain::Node(_)) => {
                self.dirty.all_workloads = true;
                self.dirty.all_endpoints = true;
            }
            _ => {}
        }
    }

    /// Takes the mesh configuration that holds now; when it is another one, every object is read again under it.
    fn choose_mesh(&mut self) {
        let from_map = self.entries.values().find_map(|e| match &e.good {
            Some(Domain::Mesh(mesh)) => Some(mesh.clone()),
            _ => None,
        });
        let mut mesh = from_map.unwrap_or_else(|| self.own_mesh.clone());
        // Istio's chart names Prometheus there; a ConfigMap that is silent about it must not switch the standard metrics off.
        if mesh.default_providers.metrics.is_empty()
            && !self.own_mesh.default_providers.metrics.is_empty()
        {
            Arc::make_mut(&mut mesh).default_providers.metrics =
                self.own_mesh.default_providers.metrics.clone();
        }
        if *mesh == *self.mesh {
            return;
        }
        self.mesh = mesh;
        self.dirty.everything = true;
        self.dirty.services = true;
        self.dirty.all_workloads = true;
        self.dirty.all_endpoints = true;
        for (key, entry) in &mut self.entries {
            if key.kind == Kind::ConfigMap {
                continue;
            }
            let (domain, problems) = parse(&self.mesh, key.kind, &entry.object);
            if !problems.iter().any(|p| p.severity == Severity::Error) {
                entry.good = domain;
            }
            entry.problems = problems;
        }
    }

    /// What the last good version of an object means.
    pub fn meaning(&self, key: &Key) -> Option<&Domain> {
        self.entries.get(key)?.good.as_ref()
    }

    /// As [`Store::meaning`], where the object's newest version is the good one.
    pub fn in_force(&self, key: &Key) -> Option<&Domain> {
        let entry = self.entries.get(key).filter(|entry| entry.is_in_force())?;
        entry.good.as_ref()
    }

    /// Good objects of a kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Domain)> {
        let first = Key {
            kind,
            namespace: "".into(),
            name: "".into(),
        };
        let range = self
            .entries
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind);
        range.filter_map(|(key, entry)| Some((key, entry.good.as_ref()?)))
    }

    /// Good objects of a kind in one namespace.
    fn in_namespace<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Domain)> {
        let first = Key {
            kind,
            namespace: namespace.into(),
            name: "".into(),
        };
        let range = self
            .entries
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind && &*key.namespace == namespace);
        range.filter_map(|(key, entry)| Some((key, entry.good.as_ref()?)))
    }

    fn good(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Domain> {
        let key = Key {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        };
        self.entries.get(&key)?.good.as_ref()
    }

    fn namespaces(&self, before: Option<&Snapshot>) -> Arc<BTreeMap<Text, Labels>> {
        if let Some(before) = before
            && !self.dirty.has_kind(Kind::Namespace)
        {
            return before.namespaces.clone();
        }
        let all = self
            .of_kind(Kind::Namespace)
            .filter_map(|(key, domain)| match domain {
                Domain::Namespace(meta) => Some((key.name.clone(), meta.labels.clone())),
                _ => None,
            });
        Arc::new(all.collect())
    }

    /// The list of each namespace in precedence order; lists of untouched namespaces are those of before.
    fn by_namespace<T>(
        &self,
        kind: Kind,
        before: Option<&Arc<ByNamespace<T>>>,
        pick: index::Pick<T>,
    ) -> Arc<ByNamespace<T>> {
        let Some(before) = before.filter(|_| !self.dirty.everything) else {
            let namespaces: BTreeSet<Text> = self
                .of_kind(kind)
                .map(|(key, _)| key.namespace.clone())
                .collect();
            let lists = namespaces
                .into_iter()
                .map(|namespace| (namespace.clone(), self.list(kind, &namespace, pick)));
            return Arc::new(lists.filter(|(_, list)| !list.is_empty()).collect());
        };
        if !self.dirty.has_kind(kind) {
            return before.clone();
        }
        let mut lists = (**before).clone();
        for (_, namespace) in self.dirty.namespaces.iter().filter(|(k, _)| *k == kind) {
            let list = self.list(kind, namespace, pick);
            if list.is_empty() {
                lists.remove(namespace);
            } else {
                lists.insert(namespace.clone(), list);
            }
        }
        Arc::new(lists)
    }

    fn list<T>(&self, kind: Kind, namespace: &str, pick: index::Pick<T>) -> Arc<[Arc<T>]> {
        let mut list: Vec<_> = self
            .in_namespace(kind, namespace)
            .filter_map(|(_, domain)| pick(domain))
            .collect();
        list.sort_by(|(a, _), (b, _)| a.precedence().cmp(&b.precedence()));
        list.into_iter().map(|(_, value)| value.clone()).collect()
    }

    fn credentials(
        &self,
        before: Option<&Snapshot>,
    ) -> Arc<BTreeMap<(Text, Text), Arc<mesh_model::Credential>>> {
        if let Some(before) = before
            && !self.dirty.has_kind(Kind::Secret)
        {
            return before.credentials.clone();
        }
        let all = self
            .of_kind(Kind::Secret)
            .filter_map(|(key, domain)| match domain {
                Domain::Credential(credential) => Some((
                    (key.namespace.clone(), key.name.clone()),
                    credential.clone(),
                )),
                _ => None,
            });
        Arc::new(all.collect())
    }

    /// Services by host, from what objects declare now.
    fn services(&mut self, before: Option<&Snapshot>) -> Arc<BTreeMap<Text, Arc<[Arc<Service>]>>> {
        if let Some(before) = before
            && !self.dirty.services
            && !self.dirty.everything
        {
            return before.services.clone();
        }
        let services = self.of_kind(Kind::Service);
        let services = services.filter_map(|(_, domain)| match domain {
            Domain::Service(service) => Some(service.clone()),
            _ => None,
        });
        let entries = self.of_kind(Kind::ServiceEntry);
        let entries = entries.filter_map(|(key, domain)| match domain {
            Domain::ServiceEntry(entry) => Some((key, entry)),
            _ => None,
        });
        let of_entries = entries.flat_map(|(key, entry)| {
            let given = |host: &str| self.auto_addresses.as_ref()?.of(key, host);
            services::of_entry(entry, given).map(Arc::new)
        });
        let declared = services::Declared::new(services.chain(of_entries));
        self.declared = declared;
        self.declared.services(before)
    }
}

/// For lookups by key in parts that hash.
type EndpointMap = HashMap<ServiceKey, Arc<mesh_model::snapshot::ServiceEndpoints>>;
