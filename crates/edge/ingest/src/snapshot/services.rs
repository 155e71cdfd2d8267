//! A ServiceEntry as services: one for each of its hosts.

use mesh_model::service::{Service, ServicePort, TargetPort};

use crate::service_entry::Entry;

pub(super) fn of_entry(entry: &Entry) -> impl Iterator<Item = Service> + '_ {
    entry.hosts.iter().map(|host| {
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
            addresses: entry.addresses.clone(),
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
