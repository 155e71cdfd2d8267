//! Pods and WorkloadEntries as workloads, each with the locality of its node.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::object::Text;
use mesh_model::workload::{EndpointAddress, Locality};
use mesh_model::{Snapshot, Workload};
use wire_kube::kinds::Kind;

use super::Store;
use super::endpoint_facts::{TLS_MODE_LABEL, speaks_mesh_tls};
use crate::Domain;
use crate::kubernetes::pod::{Pod, canonical_name, canonical_revision};
use crate::service_entry::WorkloadEntry;

impl Store {
    pub(super) fn update_workloads(&mut self) {
        if self.dirty.everything || self.dirty.all_workloads {
            let keys = self
                .of_kind(Kind::WorkloadEntry)
                .chain(self.of_kind(Kind::Pod))
                .map(|(key, _)| key.clone());
            let mut workloads = BTreeMap::new();
            for key in keys {
                workloads.extend(
                    self.workload(&key.namespace, &key.name)
                        .map(|w| ((key.namespace.clone(), key.name.clone()), w)),
                );
            }
            self.workloads = workloads;
            return;
        }
        for key in self.dirty.workloads.clone() {
            let id = (key.namespace.clone(), key.name.clone());
            match self.workload(&key.namespace, &key.name) {
                Some(workload) => self.workloads.insert(id, workload),
                None => self.workloads.remove(&id),
            };
        }
    }

    /// The workload of that name; the one of before when nothing about it changed.
    fn workload(&self, namespace: &Text, name: &Text) -> Option<Arc<Workload>> {
        let workload = match self.good(Kind::Pod, namespace, name) {
            Some(Domain::Pod(pod)) => self.of_pod(pod),
            _ => match self.good(Kind::WorkloadEntry, namespace, name) {
                Some(Domain::WorkloadEntry(entry)) => self.of_entry(entry),
                _ => return None,
            },
        };
        let known = self
            .workloads
            .get(&(namespace.clone(), name.clone()))
            .filter(|known| ***known == workload);
        Some(known.cloned().unwrap_or_else(|| Arc::new(workload)))
    }

    fn of_pod(&self, pod: &Pod) -> Workload {
        let labels = pod.meta.labels.clone();
        let locality = labels
            .value("istio-locality")
            .map(|l| Locality::parse(&l.replace('.', "/")));
        Workload {
            namespace: pod.meta.object.namespace.clone(),
            name: pod.meta.object.name.clone(),
            workload_name: pod.workload_name.clone(),
            service_account: pod.service_account.clone(),
            addresses: pod.addresses.as_slice().into(),
            locality: locality.unwrap_or_else(|| self.node_locality(&pod.node)),
            node: pod.node.clone(),
            cluster: self.cluster.clone(),
            network: labels
                .value("topology.istio.io/network")
                .unwrap_or_default()
                .into(),
            mesh_tls: labels.value(TLS_MODE_LABEL) == Some("istio"),
            ports: pod.ports.as_slice().into(),
            canonical_name: canonical_name(&labels, &pod.workload_name),
            canonical_revision: canonical_revision(&labels),
            labels,
        }
    }

    fn of_entry(&self, entry: &WorkloadEntry) -> Workload {
        let endpoint = &entry.endpoint;
        let labels = endpoint.labels.clone();
        let name = &entry.meta.object.name;
        let workload_name = labels
            .value("service.istio.io/workload-name")
            .map_or_else(|| name.clone(), Text::from);
        let addresses: Vec<IpAddr> = match endpoint.address {
            EndpointAddress::Ip(ip) => vec![ip],
            EndpointAddress::Name(_) | EndpointAddress::Unix(_) => Vec::new(),
        };
        Workload {
            namespace: entry.meta.object.namespace.clone(),
            name: name.clone(),
            service_account: endpoint.account().unwrap_or_else(|| "default".into()),
            addresses: addresses.into(),
            locality: endpoint.locality.clone(),
            node: "".into(),
            cluster: self.cluster.clone(),
            network: endpoint.network.clone(),
            mesh_tls: speaks_mesh_tls(endpoint),
            ports: endpoint.ports.as_slice().into(),
            canonical_name: canonical_name(&labels, &workload_name),
            canonical_revision: canonical_revision(&labels),
            labels,
            workload_name,
        }
    }

    pub(super) fn node_locality(&self, node: &str) -> Locality {
        match self.good(Kind::Node, "", node) {
            Some(Domain::Node(node)) => node.locality.clone(),
            _ => Locality::default(),
        }
    }

    pub(super) fn workload_map(
        &self,
        before: Option<&Snapshot>,
    ) -> Arc<BTreeMap<(Text, Text), Arc<Workload>>> {
        match before.filter(|b| *b.workloads == self.workloads) {
            Some(before) => before.workloads.clone(),
            None => Arc::new(self.workloads.clone()),
        }
    }

    pub(super) fn workload_addresses(
        &self,
        before: Option<&Snapshot>,
    ) -> Arc<HashMap<IpAddr, (Text, Text)>> {
        if let Some(before) = before
            && !self.dirty.everything
            && !self.dirty.all_workloads
            && self.dirty.workloads.is_empty()
        {
            return before.workload_by_address.clone();
        }
        let mut by_address = HashMap::new();
        for (id, workload) in &self.workloads {
            let shares_address = matches!(self.good(Kind::Pod, &id.0, &id.1), Some(Domain::Pod(pod)) if pod.host_network);
            if !shares_address {
                by_address.extend(
                    workload
                        .addresses
                        .iter()
                        .map(|address| (*address, id.clone())),
                );
            }
        }
        match before.filter(|b| *b.workload_by_address == by_address) {
            Some(before) => before.workload_by_address.clone(),
            None => Arc::new(by_address),
        }
    }
}
