//! A ServiceEntry as services: one for each of its hosts.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::service::{Service, ServicePort, TargetPort};

use crate::service_entry::Entry;

/// `given` are addresses of hosts beside those that the entry lists.
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
