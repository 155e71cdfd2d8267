//! ServiceEntry and WorkloadEntry: services and workloads that Kubernetes does not know (reference rows TM-090 … TM-095).
//!
//! A ServiceEntry becomes one service per host when a snapshot is built; [`Entry`] is what it says until then.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::Host;
use mesh_model::object::{ExportTo, Labels, Meta, Selector, Text};
use mesh_model::port::Port;
use mesh_model::service::{Location, Resolution};
use mesh_model::workload::{EndpointAddress, Locality};
use wire_kube::istio::selector::LabelSelector;
use wire_kube::istio::service_entry as wire;

use crate::cx::Cx;
use crate::problem::{Severity, code};
use crate::value::{checked_labels, declared_port, export_to, labels, network, text, texts};

/// A ServiceEntry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub meta: Meta,
    pub hosts: Vec<Host>,
    pub addresses: Arc<[IpNet]>,
    pub ports: Vec<EntryPort>,
    pub location: Location,
    pub resolution: Resolution,
    pub endpoints: Vec<EntryEndpoint>,
    pub workload_selector: Option<Selector>,
    pub export_to: ExportTo,
    pub subject_alt_names: Arc<[Text]>,
}

/// A port of a ServiceEntry and where its endpoints listen unless they say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryPort {
    pub port: Port,
    pub target: u16,
}

/// An endpoint of a ServiceEntry, or a WorkloadEntry.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryEndpoint {
    pub address: EndpointAddress,
    /// Port name → number at the endpoint.
    pub ports: Vec<(Text, u16)>,
    pub labels: Labels,
    pub network: Text,
    pub locality: Locality,
    pub weight: u32,
    pub service_account: Text,
}

/// A WorkloadEntry.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadEntry {
    pub meta: Meta,
    pub endpoint: EntryEndpoint,
}

pub fn parse(cx: &mut Cx, spec: wire::ServiceEntry) -> Option<Entry> {
    #[rustfmt::skip]
    let wire::ServiceEntry {
        hosts, addresses, ports, location, resolution, endpoints, workload_selector,
        export_to: export, subject_alt_names,
    } = spec;
    if hosts.is_empty() {
        cx.error_at("hosts", "at least one host is needed");
    }
    let hosts = cx.collect("hosts", &hosts, |cx, host| entry_host(cx, host));
    let addresses = cx.collect("addresses", &addresses, |cx, address| network(cx, address));
    if ports.is_empty() {
        cx.error_at("ports", "at least one port is needed");
    }
    let ports = cx.collect("ports", ports, entry_port);
    check_ports(cx, &ports);
    if addresses.is_empty() {
        for port in ports
            .iter()
            .filter(|p| p.port.protocol.is_tcp() || p.port.protocol.is_auto())
        {
            let message = format!(
                "port {} carries TCP, which only an address can tell from others on the same port: give addresses",
                port.port.number
            );
            cx.within("addresses", |cx| {
                cx.report(Severity::Warning, code::ADDRESSES_NEEDED, message)
            });
        }
    }
    if !endpoints.is_empty() && workload_selector.is_some() {
        cx.error("only one of endpoints and workloadSelector may be set");
    }
    let endpoints = cx.collect("endpoints", endpoints, |cx, value| {
        endpoint(cx, value, Some(&ports))
    });
    check_resolution(cx, resolution, &hosts, &addresses, &endpoints);
    let workload_selector = cx.optional("workloadSelector", workload_selector, |cx, selector| {
        let LabelSelector { labels } = selector;
        cx.within("labels", |cx| checked_labels(cx, &labels))
    });
    if workload_selector.is_some()
        && matches!(
            resolution,
            wire::Resolution::DnsRoundRobin | wire::Resolution::DynamicDns
        )
    {
        cx.error("workloadSelector works with resolution STATIC and DNS only");
    }
    let export_to = export_to(cx, "exportTo", &export, &cx.mesh.default_service_export_to);
    Some(Entry {
        meta: cx.meta.clone(),
        hosts,
        addresses: addresses.into(),
        ports,
        location: match location {
            wire::Location::MeshExternal => Location::MeshExternal,
            wire::Location::MeshInternal => Location::MeshInternal,
        },
        resolution: resolution_of(resolution),
        endpoints,
        workload_selector,
        export_to,
        subject_alt_names: texts(&subject_alt_names),
    })
}

fn entry_host(cx: &mut Cx, host: &str) -> Option<Host> {
    match Host::parse(host) {
        Ok(host) if host.as_str() == "*" => {
            cx.error("`*` is not a host of a ServiceEntry: write a name, or *.domain");
            None
        }
        Ok(host) => Some(host),
        Err(e) => {
            cx.error(e.to_string());
            None
        }
    }
}

fn resolution_of(value: wire::Resolution) -> Resolution {
    match value {
        wire::Resolution::None => Resolution::Passthrough,
        wire::Resolution::Static => Resolution::ClientSide,
        wire::Resolution::Dns => Resolution::Dns,
        wire::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        wire::Resolution::DynamicDns => Resolution::DynamicDns,
    }
}

fn entry_port(cx: &mut Cx, value: wire::ServicePort) -> Option<EntryPort> {
    let wire::ServicePort {
        number,
        protocol,
        name,
        target_port,
    } = value;
    if name.is_empty() {
        cx.error_at("name", "is needed");
    }
    let target = match target_port {
        0 => None,
        number => Some(cx.within("targetPort", |cx| cx.port_number(number))?),
    };
    let port = declared_port(cx, number, &protocol, &name)?;
    let target = target.unwrap_or(port.number);
    Some(EntryPort { port, target })
}

fn check_ports(cx: &mut Cx, ports: &[EntryPort]) {
    for (index, port) in ports.iter().enumerate() {
        if ports
            .iter()
            .take(index)
            .any(|before| before.port.number == port.port.number)
        {
            cx.error_at(
                "ports",
                format!("port {} is listed twice", port.port.number),
            );
        }
        if ports
            .iter()
            .take(index)
            .any(|before| before.port.name == port.port.name && !port.port.name.is_empty())
        {
            cx.error_at(
                "ports",
                format!("two ports are named {:?}", &*port.port.name),
            );
        }
    }
}

fn check_resolution(
    cx: &mut Cx,
    resolution: wire::Resolution,
    hosts: &[Host],
    addresses: &[IpNet],
    endpoints: &[EntryEndpoint],
) {
    let has_wildcard = hosts.iter().any(Host::is_wildcard);
    let is_range = |net: &IpNet| net.prefix_len() != net.max_prefix_len();
    let is_ip =
        |e: &EntryEndpoint| matches!(e.address, EndpointAddress::Ip(_) | EndpointAddress::Unix(_));
    match resolution {
        wire::Resolution::None if !endpoints.is_empty() => {
            cx.error_at(
                "endpoints",
                "resolution NONE sends traffic where it was going: endpoints must be empty",
            );
        }
        wire::Resolution::None => {}
        wire::Resolution::Static => {
            if endpoints.iter().any(|e| !is_ip(e)) {
                cx.error_at(
                    "endpoints",
                    "resolution STATIC needs IP addresses; use resolution DNS for names",
                );
            }
        }
        wire::Resolution::Dns | wire::Resolution::DnsRoundRobin => {
            if has_wildcard && endpoints.is_empty() {
                cx.error_at("hosts", "a wildcard cannot be resolved: give endpoints, or use resolution NONE or DYNAMIC_DNS");
            }
            if resolution == wire::Resolution::DnsRoundRobin && endpoints.len() > 1 {
                cx.error_at(
                    "endpoints",
                    "resolution DNS_ROUND_ROBIN takes at most one endpoint",
                );
            }
        }
        wire::Resolution::DynamicDns => {
            if !endpoints.is_empty() {
                cx.error_at("endpoints", "resolution DYNAMIC_DNS resolves the request's own host: endpoints must be empty");
            }
        }
    }
    let takes_ranges = matches!(
        resolution,
        wire::Resolution::None | wire::Resolution::Static
    );
    if !takes_ranges && addresses.iter().any(is_range) {
        cx.error_at(
            "addresses",
            "ranges work with resolution NONE and STATIC only",
        );
    }
}

/// An endpoint; `ports` are those of the ServiceEntry that it stands in.
pub(crate) fn endpoint(
    cx: &mut Cx,
    value: wire::WorkloadEntry,
    ports: Option<&[EntryPort]>,
) -> Option<EntryEndpoint> {
    let wire::WorkloadEntry {
        address,
        ports: own,
        labels: own_labels,
        network,
        locality,
        weight,
        service_account,
    } = value;
    let address = endpoint_address(cx, &address);
    let own = cx.within("ports", |cx| {
        let mut numbers = Vec::new();
        for (name, number) in &own {
            cx.within(name, |cx| {
                if ports.is_some_and(|ports| !ports.iter().any(|p| &*p.port.name == name.as_str()))
                {
                    cx.error(format!(
                        "{name:?} is not the name of a port of this ServiceEntry"
                    ));
                }
                numbers.extend(
                    cx.port_number(*number)
                        .map(|number| (Text::from(name.as_str()), number)),
                );
            });
        }
        numbers
    });
    let address = address?;
    if matches!(address, EndpointAddress::Unix(_)) && !own.is_empty() {
        cx.error_at("ports", "a Unix socket has no ports");
    }
    Some(EntryEndpoint {
        address,
        ports: own,
        labels: labels(&own_labels),
        network: network.into(),
        locality: Locality::parse(&locality),
        weight: weight.max(1),
        service_account: service_account.into(),
    })
}

fn endpoint_address(cx: &mut Cx, address: &str) -> Option<EndpointAddress> {
    if address.starts_with("unix://") {
        let path = address.trim_start_matches("unix://");
        if !path.starts_with('/') && !path.starts_with('@') {
            cx.error_at(
                "address",
                format!("{address:?}: the path of a Unix socket must be absolute"),
            );
        }
        return Some(EndpointAddress::Unix(address.into()));
    }
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Some(EndpointAddress::Ip(ip));
    }
    match Host::parse(address) {
        Ok(host) if !host.is_wildcard() => Some(EndpointAddress::Name(host.shared())),
        _ => {
            cx.error_at(
                "address",
                format!("{address:?} is neither an IP address, nor a DNS name, nor unix:///path"),
            );
            None
        }
    }
}

/// The kind WorkloadEntry.
pub fn parse_workload_entry(cx: &mut Cx, spec: wire::WorkloadEntry) -> Option<WorkloadEntry> {
    let endpoint = endpoint(cx, spec, None)?;
    Some(WorkloadEntry {
        meta: cx.meta.clone(),
        endpoint,
    })
}

impl EntryEndpoint {
    /// The service account, when one is named.
    pub fn account(&self) -> Option<Text> {
        text(&self.service_account)
    }
}
