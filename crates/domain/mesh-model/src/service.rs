//! A service: a host with ports that workloads stand behind, whether it comes from a Kubernetes Service or a ServiceEntry.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::object::{ExportTo, Host, Meta, Selector, Text};
use crate::port::Port;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The object it comes from (`Service` or `ServiceEntry`).
    pub meta: Meta,
    /// `reviews.default.svc.cluster.local`, or a host of the ServiceEntry (possibly `*.suffix`).
    pub host: Host,
    /// Short name for metrics (`reviews`); the host itself for a ServiceEntry.
    pub name: Text,
    pub ports: Arc<[ServicePort]>,
    /// Virtual addresses; empty for headless services and ServiceEntries without addresses.
    pub addresses: Arc<[IpNet]>,
    pub resolution: Resolution,
    pub location: Location,
    pub export_to: ExportTo,
    /// Endpoints that are not ready are offered too.
    pub publish_not_ready: bool,
    /// Labels of the pods (or WorkloadEntries) behind it.
    pub selector: Option<Selector>,
    /// Names that must be in the certificates of a ServiceEntry's endpoints.
    pub subject_alt_names: Arc<[Text]>,
    /// ExternalName services are an alias of this host.
    pub alias_of: Option<Host>,
    /// `internalTrafficPolicy: Local`.
    pub node_local: bool,
    pub session_affinity_client_ip: bool,
}

impl Service {
    pub fn namespace(&self) -> &str {
        self.meta.namespace()
    }
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.port.number == number)
    }
    pub fn is_headless(&self) -> bool {
        self.resolution == Resolution::Passthrough
            && self.location == Location::MeshInternal
            && self.addresses.is_empty()
            && &*self.meta.object.kind == "Service"
    }
    /// Single virtual addresses (not ranges).
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses
            .iter()
            .filter(|net| net.prefix_len() == net.max_prefix_len())
            .map(IpNet::addr)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub port: Port,
    /// Where endpoints listen unless they say otherwise.
    pub target: TargetPort,
    pub node_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// A container port's name.
    Named(Text),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Endpoints are known (Kubernetes, STATIC).
    ClientSide,
    /// Every address of the names (DNS).
    Dns,
    /// One address at a time (DNS_ROUND_ROBIN).
    DnsRoundRobin,
    /// The request's own host is resolved (DYNAMIC_DNS).
    DynamicDns,
    /// The connection's own destination (NONE, headless).
    Passthrough,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Location {
    MeshInternal,
    MeshExternal,
}
