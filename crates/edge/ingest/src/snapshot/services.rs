//! Services by host, from Services and ServiceEntries.
//!
//! Several objects of one namespace may declare one host. What each declares is kept as it is
//! ([`Declared`]), and the snapshot's services are made of that: ports of ServiceEntries that
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

use crate::service_entry::Entry;

type ByHost = BTreeMap<Text, Arc<[Arc<Service>]>>;

/// What each Service, and each host of each ServiceEntry, declares by itself.
#[derive(Default)]
pub(super) struct Declared {
    /// Those of one host in the order of precedence.
    by_host: BTreeMap<Text, Vec<Arc<Service>>>,
}

impl Declared {
    pub fn new(services: impl Iterator<Item = Arc<Service>>) -> Self {
        let mut by_host: BTreeMap<Text, Vec<Arc<Service>>> = BTreeMap::new();
        for service in services {
            let of_host = by_host.entry(service.host.shared()).or_default();
            of_host.push(service);
        }
        for list in by_host.values_mut() {
            list.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        }
        Self { by_host }
    }

    /// All of them, each by itself.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host.values().flatten()
    }

    /// The services of a snapshot; the list of a host that did not change is that of before.
    pub fn services(&self, before: Option<&Snapshot>) -> Arc<ByHost> {
        let lists = self.by_host.iter().map(|(host, list)| {
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
    pub fn of<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a Arc<Service>> {
        let list = self.by_host.get(&key.host).into_iter().flatten();
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
pub(super) fn of_entry<'a>(
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
