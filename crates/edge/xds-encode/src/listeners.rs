//! Listeners (LDS): which connections a proxy takes and what it does with them.
//!
//! A sidecar has `virtualOutbound` and `virtualInbound`, which take redirected connections, and one listener per service address and port
//! that `virtualOutbound` hands connections to. A gateway has one listener per port of its Gateways.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_model::{
    AuthorizationPolicy, MeshConfig, Service, Telemetry, VirtualService,
    object::Text,
    peer_authentication::MtlsMode,
    port::Port,
    sidecar::{CaptureMode, OutboundMode},
    workload::{Endpoint, EndpointAddress},
};
use wire_envoy::pb::{
    core::TrafficDirection,
    envoy::extensions::filters::listener::{
        http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
        tls_inspector::v3::TlsInspector,
    },
    listener::{
        Listener, ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter,
        listener_filter_chain_match_predicate::{MatchSet, Rule},
    },
};

use crate::{
    Client, ClientKind, View,
    inbound::InboundPort,
    packed,
    routes::GatewayServer,
    telemetry::{Reports, Side},
    view::{RulesByHost, SinglePorts},
    wire,
};

mod gateway;
pub(crate) use gateway::{by_port, is_forbidden};
mod http;
mod inbound;
mod outbound;
mod tcp;

/// First bytes that are looked at for a TLS hello; Envoy reads on if they are not enough.
const HELLO_BYTES: u32 = 512;
/// A handshake must be done in this time.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(15);

/// Everything that the listeners of a client depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerInputs {
    client: Arc<Client>,
    mesh: Arc<MeshConfig>,
    telemetries: Arc<[Arc<Telemetry>]>,
    policies: Arc<[Arc<AuthorizationPolicy>]>,
    routing: Routing,
    role: Role,
}

/// What TCP routes need to know about their destinations.
#[derive(Debug, Clone, PartialEq)]
struct Routing {
    single_ports: SinglePorts,
    rules: RulesByHost,
}

#[derive(Debug, Clone, PartialEq)]
enum Role {
    Sidecar(SidecarInputs),
    Gateway(GatewayInputs),
}

#[derive(Debug, Clone, PartialEq)]
struct SidecarInputs {
    outbound: OutboundMode,
    egress: Arc<[Egress]>,
    inbound: Arc<[InboundPort]>,
    default_mtls: MtlsMode,
    /// Ports that no service declares, with a mode of their own.
    undeclared: Arc<[(u16, MtlsMode)]>,
}

/// One egress listener of a Sidecar, or everything.
#[derive(Debug, Clone, PartialEq)]
struct Egress {
    port: Option<Port>,
    bind: Option<Text>,
    capture: CaptureMode,
    services: Arc<[Reached]>,
    /// Those with TCP or TLS routes, in order of precedence.
    rules: Arc<[Arc<VirtualService>]>,
}

/// A service that listeners are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reached {
    service: Arc<Service>,
    /// By port: addresses of the pods of a headless service.
    pods: Pods,
}

type Pods = Arc<BTreeMap<u16, Vec<IpAddr>>>;

#[derive(Debug, Clone, PartialEq)]
struct GatewayInputs {
    servers: Arc<[GatewayServer]>,
    /// Those with TCP or TLS routes, bound to the servers, in order of precedence.
    rules: Arc<[Arc<VirtualService>]>,
    /// Names of clusters that TLS is forwarded to by server name; only where a server does that.
    forwarded: Arc<[String]>,
}

impl View {
    pub fn listener_inputs(&self) -> ListenerInputs {
        let policies = self
            .snapshot
            .authorization_policies_of(&self.client.namespace, &self.client.labels);
        let (role, routing) = match self.client.kind {
            ClientKind::Sidecar => self.sidecar_listener_inputs(),
            ClientKind::Gateway => self.gateway_listener_inputs(),
        };
        ListenerInputs {
            client: self.impersonal_client(),
            mesh: self.snapshot.mesh.clone(),
            telemetries: self.telemetries(),
            policies: policies.into_iter().cloned().collect(),
            routing,
            role,
        }
    }

    fn sidecar_listener_inputs(&self) -> (Role, Routing) {
        let is_relevant =
            |rule: &&Arc<VirtualService>| !rule.tcp.is_empty() || !rule.tls.is_empty();
        let nobody = Pods::default();
        let egress: Arc<[Egress]> = self
            .egress
            .iter()
            .map(|scope| Egress {
                port: scope.port.clone(),
                bind: scope.bind.clone(),
                capture: scope.capture,
                services: scope
                    .services
                    .iter()
                    .filter(|service| service.alias_of.is_none())
                    .map(|service| self.reached(service, &nobody))
                    .collect(),
                rules: scope
                    .virtual_services
                    .iter()
                    .filter(is_relevant)
                    .cloned()
                    .collect(),
            })
            .collect();
        let rules = || egress.iter().flat_map(|scope| scope.rules.iter());
        let services = egress
            .iter()
            .flat_map(|scope| scope.services.iter())
            .map(|reached| &reached.service);
        let routing = Routing {
            single_ports: self.single_ports(rules()),
            rules: self.connection_rules(rules(), services),
        };
        let inbound = self.inbound_ports();
        let undeclared = self.undeclared_mtls(&inbound);
        let inbound = inbound
            .iter()
            .map(|port| InboundPort {
                rule: None,
                connection_pool: None,
                ..port.clone()
            })
            .collect();
        let role = SidecarInputs {
            outbound: self.outbound_mode(),
            egress: egress.clone(),
            inbound,
            default_mtls: self.default_mtls(),
            undeclared,
        };
        (Role::Sidecar(role), routing)
    }

    fn reached(&self, service: &Arc<Service>, nobody: &Pods) -> Reached {
        let endpoints = self
            .snapshot
            .endpoints_of(service)
            .filter(|_| service.is_headless());
        let pods = endpoints.map_or_else(
            || nobody.clone(),
            |all| {
                let ports = all.ports.iter();
                let other = |list: &Arc<[Endpoint]>| self.addresses_of_others(list);
                Arc::new(ports.map(|(port, list)| (*port, other(list))).collect())
            },
        );
        Reached {
            service: service.clone(),
            pods,
        }
    }

    fn addresses_of_others(&self, endpoints: &[Endpoint]) -> Vec<IpAddr> {
        let addresses = endpoints
            .iter()
            .filter_map(|endpoint| match &endpoint.address {
                EndpointAddress::Ip(ip) if !self.client.addresses.contains(ip) => Some(*ip),
                _ => None,
            });
        let mut addresses: Vec<IpAddr> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn gateway_listener_inputs(&self) -> (Role, Routing) {
        let servers = self.gateway_servers();
        let rules: Vec<Arc<VirtualService>> = self
            .gateway_rules(&servers)
            .into_iter()
            .filter(|rule| !rule.tcp.is_empty() || !rule.tls.is_empty())
            .collect();
        let forwards = servers
            .iter()
            .any(|server| server.server.tls == mesh_model::gateway::ServerTls::AutoPassthrough);
        let forwarded = if forwards {
            self.names_by_sni()
        } else {
            Vec::new()
        };
        let routing = Routing {
            single_ports: self.single_ports(rules.iter()),
            rules: self.connection_rules(rules.iter(), std::iter::empty()),
        };
        (
            Role::Gateway(GatewayInputs {
                servers: servers.into(),
                rules: rules.into(),
                forwarded: forwarded.into(),
            }),
            routing,
        )
    }
}

impl ListenerInputs {
    fn reports(&self, side: Side) -> Reports<'_> {
        Reports {
            client: &self.client,
            mesh: &self.mesh,
            telemetries: &self.telemetries,
            side,
        }
    }
}

/// Listeners in a stable order, each under a name of its own.
pub fn listeners(inputs: &ListenerInputs) -> Vec<Listener> {
    match &inputs.role {
        Role::Sidecar(sidecar) => {
            let mut found = outbound::listeners(inputs, sidecar);
            found.extend(inbound::listeners(inputs, sidecar));
            found
        }
        Role::Gateway(gateway) => gateway::listeners(inputs, gateway),
    }
}

/// A listener at an address.
fn at(name: String, address: &str, port: u16, direction: TrafficDirection) -> Listener {
    Listener {
        name,
        address: Some(wire::socket_address(address, port)),
        traffic_direction: direction.into(),
        ..Default::default()
    }
}

/// A listener with a socket: takes one connection at a time, so that workers share them.
fn with_socket(listener: Listener) -> Listener {
    Listener {
        max_connections_to_accept_per_socket_event: Some(wire::number(1)),
        ..listener
    }
}

/// A listener whose protocol detection ends as MeshConfig says; what is not detected by then is TCP.
fn detecting(listener: Listener, mesh: &MeshConfig) -> Listener {
    Listener {
        listener_filters_timeout: Some(wire::duration(
            mesh.protocol_detection_timeout.unwrap_or_default(),
        )),
        continue_on_listener_filters_timeout: true,
        ..listener
    }
}

fn original_destination() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.original_dst",
        packed(&OriginalDst::default()),
        None,
    )
}

fn tls_inspector(disabled: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    let config = TlsInspector {
        initial_read_buffer_size: Some(wire::number(HELLO_BYTES)),
        ..Default::default()
    };
    listener_filter(
        "envoy.filters.listener.tls_inspector",
        packed(&config),
        disabled,
    )
}

fn http_inspector(disabled: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.http_inspector",
        packed(&HttpInspector {}),
        disabled,
    )
}

fn listener_filter(
    name: &str,
    config: wire_envoy::pb::Any,
    filter_disabled: Option<ListenerFilterChainMatchPredicate>,
) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled,
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
    }
}

/// Holds for connections to one of these ports; `None` for no ports.
fn ports_are(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let one = |port: &u16| {
        let start = i32::from(*port);
        let range = wire_envoy::pb::kind::Int32Range {
            start,
            end: start + 1,
        };
        ListenerFilterChainMatchPredicate {
            rule: Some(Rule::DestinationPortRange(range)),
        }
    };
    match ports {
        [] => None,
        [port] => Some(one(port)),
        several => Some(ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet {
                rules: several.iter().map(one).collect(),
            })),
        }),
    }
}
