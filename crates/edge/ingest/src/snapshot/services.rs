//! Services by host, from Services and ServiceEntries.
//!
//! Several objects of one namespace may declare one host. What each declares is kept as it is
//! (`Store::declared`), and the snapshot's services are made of that: ports of ServiceEntries that
//! agree are one service, endpoints of all of them are joined (`endpoints`). So an update of one
//! object and a build from nothing give the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::Snapshot;
use mesh_model::object::Text;
use mesh_model::service::{Service, ServicePort, TargetPort};
use mesh_model::snapshot::ServiceKey;
use wire_kube::kinds::Kind;

use super::Store;
use crate::Domain;
use crate::service_entry::Entry;

/// By host; those of one host in the order of precedence.
pub(super) type Declared = BTreeMap<Text, Vec<Arc<Service>>>;

type ByHost = BTreeMap<Text, Arc<[Arc<Service>]>>;

impl Store {
    /// Collects what objects declare, if that changed.
    pub(super) fn declare_services(&mut self, before: Option<&Snapshot>) {
        if before.is_some() && !self.dirty.services && !self.dirty.everything {
            return;
        }
        let mut declared = Declared::new();
        let mut declare = |service: Arc<Service>| {
            let of_host = declared.entry(service.host.shared()).or_default();
            of_host.push(service);
        };
        for (_, domain) in self.of_kind(Kind::Service) {
            if let Domain::Service(service) = domain {
                declare(service.clone());
            }
        }
        for (key, domain) in self.of_kind(Kind::ServiceEntry) {
            if let Domain::ServiceEntry(entry) = domain {
                let given = |host: &str| self.auto_addresses.as_ref()?.of(key, host);
                of_entry(entry, given).for_each(|service| declare(Arc::new(service)));
            }
        }
        for list in declared.values_mut() {
            list.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        }
        self.declared = declared;
    }

    /// Those that the snapshot has; the list of a host that did not change is that of before.
    pub(super) fn services(&self, before: Option<&Snapshot>) -> Arc<ByHost> {
        if let Some(before) = before
            && !self.dirty.services
            && !self.dirty.everything
        {
            return before.services.clone();
        }
        let lists = self.declared.iter().map(|(host, list)| {
            let list = merged(list);
            let known = before
                .and_then(|b| b.services.get(host))
                .filter(|known| known[..] == list[..]);
            let list = known.cloned().unwrap_or_else(|| list.into());
            (host.clone(), list)
        });
        Arc::new(lists.collect())
    }

    /// All that objects of one namespace declare for one host. A Kubernetes Service stands before
    /// ServiceEntries, however old they are.
    pub(super) fn declared_for<'a>(
        &'a self,
        key: &'a ServiceKey,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let list = self.declared.get(&key.host).into_iter().flatten();
        let of_namespace = list.filter(|service| service.namespace() == &*key.namespace);
        let (first, rest): (Vec<_>, Vec<_>) = of_namespace.partition(|s| is_kubernetes(s));
        first.into_iter().chain(rest)
    }
}

fn is_kubernetes(service: &Service) -> bool {
    &*service.meta.object.kind == "Service"
}

/// ServiceEntries of one namespace that agree in resolution, visibility and selector are one
/// service with the ports of all; of two with one port the first counts. One for a host that a
/// Kubernetes Service of the namespace has adds endpoints to it and is no service of its own.
/// (pilot's sidecar scope: `canMergeServices`.)
fn merged(declared: &[Arc<Service>]) -> Vec<Arc<Service>> {
    let mut found: Vec<Arc<Service>> = Vec::with_capacity(declared.len());
    for service in declared {
        let same_namespace = |other: &Arc<Service>| other.namespace() == service.namespace();
        let hidden = !is_kubernetes(service)
            && declared
                .iter()
                .any(|s| is_kubernetes(s) && same_namespace(s));
        if hidden {
            continue;
        }
        let agrees = |other: &Arc<Service>| {
            same_namespace(other)
                && !is_kubernetes(other)
                && !is_kubernetes(service)
                && other.resolution == service.resolution
                && other.export_to == service.export_to
                && other.selector == service.selector
        };
        match found.iter_mut().find(|other| agrees(other)) {
            Some(first) => add_ports(Arc::make_mut(first), &service.ports),
            None => found.push(service.clone()),
        }
    }
    found
}

fn add_ports(service: &mut Service, ports: &[ServicePort]) {
    let is_new = |port: &&ServicePort| service.port(port.port.number).is_none();
    let added: Vec<ServicePort> = ports.iter().filter(is_new).cloned().collect();
    service.ports = service.ports.iter().cloned().chain(added).collect();
}

/// A ServiceEntry as services: one for each of its hosts. `given` are addresses of hosts beside
/// those that the entry lists.
fn of_entry<'a>(
    entry: &'a Entry,
    given: impl Fn(&str) -> Option<IpAddr> + 'a,
) -> impl Iterator<Item = Service> + 'a {
    entry.hosts.iter().map(move |host| {
        let given = given(host.as_str()).map(|address| Arc::from([IpNet::from(address)]));
        let ports = entry.ports.iter().map(|p| ServicePort {
            port: p.port.clone(),
            target: TargetPort::Number(p.target),
            node_port: None,
        });
        Service {
            meta: entry.meta.clone(),
            host: host.clone(),
            name: host.shared(),
            ports: ports.collect(),
            addresses: given.unwrap_or_else(|| entry.addresses.clone()),
            resolution: entry.resolution,
            location: entry.location,
            export_to: entry.export_to.clone(),
            publish_not_ready: false,
            selector: entry.workload_selector.clone(),
            subject_alt_names: entry.subject_alt_names.clone(),
            alias_of: None,
            node_local: false,
            session_affinity_client_ip: false,
        }
    })
}
