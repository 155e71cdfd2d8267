//! Endpoints of services: slices joined with their pods, WorkloadEntries that a selector selects, and what ServiceEntries list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_model::object::Text;
use mesh_model::service::{Resolution, Service, ServicePort, TargetPort};
use mesh_model::snapshot::{ServiceEndpoints, ServiceKey};
use mesh_model::workload::{Endpoint, EndpointAddress, Locality, Readiness};
use mesh_model::{MeshConfig, Snapshot, Workload};
use wire_kube::kinds::Kind;

use super::endpoint_facts::{identity_of, no_labels, speaks_mesh_tls, zone_only};
use super::{EndpointMap, Store};
use crate::Domain;
use crate::kubernetes::endpoint_slice::{Slice, SliceEndpoint};
use crate::kubernetes::pod::{canonical_name, canonical_revision};
use crate::service_entry::{Entry, EntryEndpoint};

pub(super) fn key(service: &Service) -> ServiceKey {
    ServiceKey {
        namespace: service.meta.object.namespace.clone(),
        host: service.host.shared(),
    }
}

pub(super) fn kubernetes_key(mesh: &MeshConfig, name: &str, namespace: &Text) -> ServiceKey {
    let host = format!("{name}.{namespace}.svc.{}", mesh.cluster_domain).to_ascii_lowercase();
    ServiceKey {
        namespace: namespace.clone(),
        host: host.into(),
    }
}

type Ports = BTreeMap<u16, Vec<Endpoint>>;

impl Store {
    /// Keys of the services behind which a pod stands, or could by a selector.
    pub(super) fn services_with_pod(&self, namespace: &Text, pod: &Text) -> Vec<ServiceKey> {
        let behind = self.slices.services_of(namespace, pod);
        let mut keys: Vec<ServiceKey> = behind
            .map(|service| kubernetes_key(&self.mesh, service, namespace))
            .collect();
        keys.extend(self.entries_with_selector(namespace));
        keys
    }

    /// Keys of the services of a namespace that select workloads.
    pub(super) fn services_with_selector(&self, namespace: &Text) -> Vec<ServiceKey> {
        let services = self
            .in_namespace(Kind::Service, namespace)
            .filter_map(|(_, domain)| match domain {
                Domain::Service(service) if service.selector.is_some() => Some(key(service)),
                _ => None,
            });
        let mut keys: Vec<ServiceKey> = services.collect();
        keys.extend(self.entries_with_selector(namespace));
        keys
    }

    fn entries_with_selector(&self, namespace: &Text) -> Vec<ServiceKey> {
        let entries = self
            .in_namespace(Kind::ServiceEntry, namespace)
            .filter_map(|(_, domain)| match domain {
                Domain::ServiceEntry(entry) if entry.workload_selector.is_some() => Some(entry),
                _ => None,
            });
        entries
            .flat_map(|entry| {
                entry.hosts.iter().map(|host| ServiceKey {
                    namespace: namespace.clone(),
                    host: host.shared(),
                })
            })
            .collect()
    }

    pub(super) fn endpoints(&self, before: Option<&Snapshot>) -> Arc<EndpointMap> {
        let all = self.dirty.everything || self.dirty.all_endpoints;
        let Some(before) = before.filter(|_| !all) else {
            let every = self.declared.all().map(|s| key(s));
            let every: BTreeSet<ServiceKey> = every.collect();
            let known = before.map(|b| &*b.endpoints);
            let built = every.into_iter().map(|key| {
                let endpoints = self.reused(known, &key);
                (key, endpoints)
            });
            return Arc::new(built.collect());
        };
        if self.dirty.endpoints.is_empty() {
            return before.endpoints.clone();
        }
        let mut map = (*before.endpoints).clone();
        for changed in &self.dirty.endpoints {
            if self.declared.of(changed).next().is_some() {
                let endpoints = self.reused(Some(&before.endpoints), changed);
                map.insert(changed.clone(), endpoints);
            } else {
                map.remove(changed);
            }
        }
        Arc::new(map)
    }

    /// Puts a service's endpoints together; lists of ports that come out as before are those of
    /// before.
    fn reused(&self, known: Option<&EndpointMap>, key: &ServiceKey) -> Arc<ServiceEndpoints> {
        let known = known.and_then(|map| map.get(key));
        let ports = self.joined(key).into_iter().map(|(port, list)| {
            let same = known
                .and_then(|k| k.ports.get(&port))
                .filter(|k| k[..] == list[..]);
            (port, same.cloned().unwrap_or_else(|| list.into()))
        });
        let built = ServiceEndpoints::new(ports.collect());
        match known.filter(|known| ***known == built) {
            Some(known) => known.clone(),
            None => Arc::new(built),
        }
    }

    /// Endpoints of all that declare the service: one port's are joined where it has one name and
    /// endpoints are found in one way.
    fn joined(&self, key: &ServiceKey) -> Ports {
        let mut ports = Ports::new();
        let mut named: BTreeMap<u16, (&Text, Resolution)> = BTreeMap::new();
        for service in self.declared.of(key) {
            let mut own = self.endpoints_of(service);
            for port in service.ports.iter() {
                let is = (&port.port.name, service.resolution);
                if *named.entry(port.port.number).or_insert(is) == is {
                    let endpoints = own.remove(&port.port.number).unwrap_or_default();
                    ports.entry(port.port.number).or_default().extend(endpoints);
                }
            }
        }
        ports
    }

    fn endpoints_of(&self, service: &Service) -> Ports {
        let mut ports: Ports = service
            .ports
            .iter()
            .map(|p| (p.port.number, Vec::new()))
            .collect();
        let namespace = service.namespace();
        if &*service.meta.object.kind == "Service" {
            self.add_slices(service, &mut ports);
            self.add_selected_entries(service, &mut ports);
        } else if let Some(Domain::ServiceEntry(entry)) =
            self.good(Kind::ServiceEntry, namespace, service.meta.name())
        {
            self.add_listed(entry, service, &mut ports);
            self.add_selected_pods(service, &mut ports);
            self.add_selected_entries(service, &mut ports);
        }
        ports
    }

    fn add_slices(&self, service: &Service, ports: &mut Ports) {
        let mut seen = BTreeSet::new();
        let object = &service.meta.object;
        for name in self.slices.of_service(&object.namespace, &object.name) {
            let Some(Domain::EndpointSlice(slice)) =
                self.good(Kind::EndpointSlice, &object.namespace, name)
            else {
                continue;
            };
            for (name, target) in &slice.ports {
                let Some(port) = service.ports.iter().find(|p| p.port.name == *name) else {
                    continue;
                };
                for endpoint in &slice.endpoints {
                    for address in &endpoint.addresses {
                        if seen.insert((port.port.number, *address, *target)) {
                            let built = self.slice_endpoint(
                                slice,
                                endpoint,
                                EndpointAddress::Ip(*address),
                                *target,
                            );
                            ports.entry(port.port.number).or_default().push(built);
                        }
                    }
                }
            }
        }
    }

    fn slice_endpoint(
        &self,
        slice: &Slice,
        endpoint: &SliceEndpoint,
        address: EndpointAddress,
        port: u16,
    ) -> Endpoint {
        let namespace = &slice.meta.object.namespace;
        let workload = endpoint
            .pod
            .as_ref()
            .and_then(|pod| self.workloads.get(&(namespace.clone(), pod.clone())));
        if let Some(workload) = workload {
            return self.of_workload(
                workload,
                address,
                port,
                endpoint.readiness,
                endpoint.hostname.clone(),
            );
        }
        let known = self.node_locality(&endpoint.node);
        let locality = if known == Locality::default() {
            zone_only(&endpoint.zone)
        } else {
            known
        };
        Endpoint {
            address,
            port,
            ready: endpoint.readiness,
            labels: no_labels(),
            locality,
            weight: 1,
            mesh_tls: false,
            identity: None,
            namespace: namespace.clone(),
            workload_name: "".into(),
            canonical_name: "".into(),
            canonical_revision: "latest".into(),
            network: "".into(),
            cluster: self.cluster.clone(),
            node: endpoint.node.clone(),
            hostname: endpoint.hostname.clone(),
        }
    }

    fn of_workload(
        &self,
        workload: &Workload,
        address: EndpointAddress,
        port: u16,
        ready: Readiness,
        hostname: Option<Text>,
    ) -> Endpoint {
        Endpoint {
            address,
            port,
            ready,
            labels: workload.labels.clone(),
            locality: workload.locality.clone(),
            weight: 1,
            mesh_tls: workload.mesh_tls,
            identity: identity_of(&self.mesh, &workload.namespace, &workload.service_account),
            namespace: workload.namespace.clone(),
            workload_name: workload.workload_name.clone(),
            canonical_name: workload.canonical_name.clone(),
            canonical_revision: workload.canonical_revision.clone(),
            network: workload.network.clone(),
            cluster: workload.cluster.clone(),
            node: workload.node.clone(),
            hostname,
        }
    }

    /// Pods that a ServiceEntry's selector selects.
    fn add_selected_pods(&self, service: &Service, ports: &mut Ports) {
        let Some(selector) = &service.selector else {
            return;
        };
        for (key, domain) in self.in_namespace(Kind::Pod, service.namespace()) {
            let Domain::Pod(pod) = domain else { continue };
            if !selector.selects(&pod.meta.labels) {
                continue;
            }
            let Some(workload) = self
                .workloads
                .get(&(key.namespace.clone(), key.name.clone()))
            else {
                continue;
            };
            let ready = if pod.ready {
                Readiness::Ready
            } else {
                Readiness::NotReady
            };
            for port in service.ports.iter() {
                let TargetPort::Number(target) = port.target else {
                    continue;
                };
                for address in workload.addresses.iter() {
                    let built = self.of_workload(
                        workload,
                        EndpointAddress::Ip(*address),
                        target,
                        ready,
                        None,
                    );
                    ports.entry(port.port.number).or_default().push(built);
                }
            }
        }
    }

    /// WorkloadEntries that the selector of a Service or ServiceEntry selects.
    fn add_selected_entries(&self, service: &Service, ports: &mut Ports) {
        let Some(selector) = &service.selector else {
            return;
        };
        for (key, domain) in self.in_namespace(Kind::WorkloadEntry, service.namespace()) {
            let Domain::WorkloadEntry(entry) = domain else {
                continue;
            };
            if selector.selects(&entry.endpoint.labels) {
                self.add_entry_endpoint(service, &entry.endpoint, &key.name, ports);
            }
        }
    }

    fn add_listed(&self, entry: &Entry, service: &Service, ports: &mut Ports) {
        for (index, endpoint) in entry.endpoints.iter().enumerate() {
            // What istiod calls an address that has no object of its own.
            let name = format!("{}-{index}", service.meta.object.name);
            self.add_entry_endpoint(service, endpoint, &name, ports);
        }
        let resolved = matches!(
            service.resolution,
            Resolution::Dns | Resolution::DnsRoundRobin
        );
        if resolved
            && entry.endpoints.is_empty()
            && service.selector.is_none()
            && !service.host.is_wildcard()
        {
            let itself = EntryEndpoint {
                address: EndpointAddress::Name(service.host.shared()),
                ports: Vec::new(),
                labels: no_labels(),
                network: "".into(),
                locality: Locality::default(),
                weight: 1,
                service_account: "".into(),
            };
            self.add_entry_endpoint(service, &itself, &service.meta.object.name, ports);
        }
    }

    fn add_entry_endpoint(
        &self,
        service: &Service,
        endpoint: &EntryEndpoint,
        name: &str,
        ports: &mut Ports,
    ) {
        let namespace = &service.meta.object.namespace;
        let label = endpoint.labels.value("service.istio.io/workload-name");
        let workload_name: Text = label.unwrap_or(name).into();
        let account = endpoint.account();
        for port in service.ports.iter() {
            ports.entry(port.port.number).or_default().push(Endpoint {
                address: endpoint.address.clone(),
                port: target_of(port, endpoint),
                ready: Readiness::Ready,
                labels: endpoint.labels.clone(),
                locality: endpoint.locality.clone(),
                weight: endpoint.weight,
                mesh_tls: speaks_mesh_tls(endpoint),
                identity: account
                    .as_ref()
                    .and_then(|account| identity_of(&self.mesh, namespace, account)),
                namespace: namespace.clone(),
                canonical_name: canonical_name(&endpoint.labels, &workload_name),
                canonical_revision: canonical_revision(&endpoint.labels),
                workload_name: workload_name.clone(),
                network: endpoint.network.clone(),
                cluster: self.cluster.clone(),
                node: "".into(),
                hostname: None,
            });
        }
    }
}

/// What the endpoint says for the port's name, or for the name of its target; else the target's number, else the port's own.
fn target_of(port: &ServicePort, endpoint: &EntryEndpoint) -> u16 {
    let named = |name: &Text| {
        endpoint
            .ports
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, number)| *number)
    };
    match &port.target {
        TargetPort::Number(number) => named(&port.port.name).unwrap_or(*number),
        TargetPort::Named(name) => named(&port.port.name)
            .or_else(|| named(name))
            .unwrap_or(port.port.number),
    }
}
