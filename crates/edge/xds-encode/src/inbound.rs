//! Which ports of a sidecar's own workload take traffic, and where it goes from there.
//!
//! Clusters and listeners both start from this list. It comes from the services that select the workload, or from the `ingress` of its
//! `Sidecar` resource. Several services on one port share it; the oldest one names it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    DestinationRule, Meta, Service,
    destination_rule::ConnectionPool,
    object::Text,
    peer_authentication::MtlsMode,
    port::Protocol,
    service::{ServicePort, TargetPort},
    sidecar::{CaptureMode, Ingress},
};

use crate::View;

/// A port of the workload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InboundPort {
    pub number: u16,
    pub protocol: Protocol,
    pub target: Target,
    pub mtls: MtlsMode,
    /// Services that this port is for, the one that names it first.
    pub services: Arc<[Arc<Service>]>,
    /// The first service's own number for it.
    pub service_port: Option<u16>,
    /// The rule of the first service that has one, with that service's number for the port.
    pub rule: Option<(u16, Arc<DestinationRule>)>,
    /// Set where it comes from a Sidecar's `ingress`.
    pub ingress: Option<IngressPort>,
    pub connection_pool: Option<ConnectionPool>,
}

/// What a Sidecar's `ingress` says beside the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IngressPort {
    pub sidecar: Meta,
    /// The address it is for: as written, else the pod's.
    pub address: Text,
    /// A socket of its own at that address, instead of redirected traffic.
    pub has_socket: bool,
}

/// Where an inbound connection is forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Where it was going.
    Original,
    Loopback(SocketAddr),
    /// A port at the pod's own address.
    Pod(u16),
    Unix(Text),
}

impl View {
    pub(crate) fn inbound_ports(&self) -> Arc<[InboundPort]> {
        match self
            .sidecar
            .as_ref()
            .filter(|sidecar| !sidecar.ingress.is_empty())
        {
            Some(sidecar) => sidecar
                .ingress
                .iter()
                .map(|ingress| self.ingress_port(ingress, &sidecar.meta))
                .collect(),
            None => self.service_ports(),
        }
    }

    /// Mode of ports that nothing declares.
    pub(crate) fn default_mtls(&self) -> MtlsMode {
        self.mtls_at(0)
    }

    /// Ports that no service declares but for which a PeerAuthentication has a mode of its own.
    pub(crate) fn undeclared_mtls(&self, declared: &[InboundPort]) -> Arc<[(u16, MtlsMode)]> {
        let own = self
            .snapshot
            .peer_authentications
            .get(&*self.client.namespace)
            .map(|list| list.as_ref())
            .unwrap_or_default();
        let selected = own.iter().filter(|policy| {
            policy
                .selector
                .as_ref()
                .is_some_and(|selector| selector.selects(&self.client.labels))
        });
        let ports: BTreeMap<u16, MtlsMode> = selected
            .flat_map(|policy| policy.port_level.iter())
            .map(|(port, _)| (*port, self.mtls_at(*port)))
            .collect();
        ports
            .into_iter()
            .filter(|(port, _)| !declared.iter().any(|known| known.number == *port))
            .collect()
    }

    fn mtls_at(&self, port: u16) -> MtlsMode {
        self.snapshot
            .mtls_mode(&self.client.namespace, &self.client.labels, port)
    }

    fn service_ports(&self) -> Arc<[InboundPort]> {
        let mut services: Vec<&Arc<Service>> = self
            .snapshot
            .services_of(&self.client.namespace, &self.client.labels)
            .collect();
        services.sort_by_key(|service| (service.meta.created_at_seconds, service.host.as_str()));
        let mut by_number: BTreeMap<u16, Vec<(&Arc<Service>, &ServicePort)>> = BTreeMap::new();
        for service in services {
            for port in service
                .ports
                .iter()
                .filter(|port| port.port.protocol != Protocol::Udp)
            {
                if let Some(number) = self.target_number(service, port) {
                    by_number.entry(number).or_default().push((service, port));
                }
            }
        }
        by_number
            .into_iter()
            .filter_map(|(number, claims)| self.service_port(number, &claims))
            .collect()
    }

    fn service_port(
        &self,
        number: u16,
        claims: &[(&Arc<Service>, &ServicePort)],
    ) -> Option<InboundPort> {
        let (_, port) = claims.first()?;
        let mut services: Vec<Arc<Service>> = claims
            .iter()
            .map(|(service, _)| (*service).clone())
            .collect();
        services.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let loopback: IpAddr = if self.client.has_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        };
        Some(InboundPort {
            number,
            protocol: port.port.protocol,
            target: if self.snapshot.mesh.inbound_to_localhost {
                Target::Loopback(SocketAddr::new(loopback, number))
            } else {
                Target::Original
            },
            mtls: self.mtls_at(number),
            service_port: Some(port.port.number),
            rule: claims.iter().find_map(|(service, port)| {
                Some((port.port.number, self.rule_of(service)?.clone()))
            }),
            services: services.into(),
            ingress: None,
            connection_pool: None,
        })
    }

    /// Where this workload listens for a service's port: as its endpoint says, else by the port's own target.
    fn target_number(&self, service: &Service, port: &ServicePort) -> Option<u16> {
        use mesh_model::workload::EndpointAddress;
        let endpoints = self
            .snapshot
            .endpoints_of(service)
            .and_then(|all| all.ports.get(&port.port.number));
        let is_own = |address: &EndpointAddress| matches!(address, EndpointAddress::Ip(ip) if self.client.addresses.contains(ip));
        if let Some(own) =
            endpoints.and_then(|list| list.iter().find(|endpoint| is_own(&endpoint.address)))
        {
            return Some(own.port);
        }
        match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Named(name) => {
                let workload = self.snapshot.workload_at(self.client.address())?;
                workload
                    .ports
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, number)| *number)
            }
        }
    }

    fn ingress_port(&self, ingress: &Ingress, sidecar: &Meta) -> InboundPort {
        let number = ingress.port.number;
        let services: Vec<&Arc<Service>> = self
            .snapshot
            .services_of(&self.client.namespace, &self.client.labels)
            .collect();
        let at_port = services.iter().filter(|service| {
            service
                .ports
                .iter()
                .any(|port| self.target_number(service, port) == Some(number))
        });
        let binds = ingress.capture == CaptureMode::None;
        let address = ingress
            .bind
            .clone()
            .unwrap_or_else(|| self.client.address().to_string().into());
        InboundPort {
            number,
            protocol: ingress.port.protocol,
            target: ingress
                .default_endpoint
                .as_deref()
                .map_or(Target::Original, |endpoint| target(endpoint, number)),
            mtls: self.mtls_at(number),
            services: at_port.map(|service| (*service).clone()).collect(),
            service_port: None,
            rule: None,
            ingress: Some(IngressPort {
                sidecar: sidecar.clone(),
                address,
                has_socket: binds,
            }),
            connection_pool: ingress.connection_pool.clone(),
        }
    }
}

/// `127.0.0.1:8080`, `[::1]:8080`, `0.0.0.0:8080` (the pod's address) or `unix:///path`.
fn target(endpoint: &str, number: u16) -> Target {
    if let Some(path) = endpoint.strip_prefix("unix://") {
        return Target::Unix(path.into());
    }
    match endpoint.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Target::Loopback(address),
        Ok(address) => Target::Pod(address.port()),
        Err(_) => Target::Pod(number),
    }
}
