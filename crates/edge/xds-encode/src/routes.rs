//! Routes (RDS): from a host and a request to clusters.
//!
//! A sidecar asks for one table per HTTP port (`9080`), or per service and port where the protocol is detected (`orders.shop…:9999`); a
//! gateway for one per port of plain HTTP (`http.8080`) and one per TLS server (`https.443.<server>.<gateway>.<namespace>`).

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    MeshConfig, Service, VirtualService, object::Text, port::Protocol, sidecar::OutboundMode,
};
use wire_envoy::pb::{
    matcher::StringMatcher,
    route::{HeaderMatcher, RouteConfiguration, header_matcher::HeaderMatchSpecifier},
};

use crate::{
    Client, ClientKind, View,
    view::{EgressScope, RulesByHost, SinglePorts},
    wire,
};

pub(crate) mod actions;
mod gateway;
mod hashing;
mod matches;
mod retries;
mod sidecar;
mod virtual_service;

pub(crate) use gateway::{GatewayServer, bound_hosts};
pub(crate) use virtual_service::has_labels;

/// Direct responses may be up to this long.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1_048_576;

/// Everything that one route table depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteInputs {
    name: Text,
    client: Arc<Client>,
    mesh: Arc<MeshConfig>,
    virtual_services: Arc<[Arc<VirtualService>]>,
    single_ports: SinglePorts,
    hash_rules: RulesByHost,
    role: Role,
}

#[derive(Debug, Clone, PartialEq)]
enum Role {
    Sidecar {
        port: u16,
        /// Services with that port, in host order.
        services: Arc<[Arc<Service>]>,
        /// Service host → other hosts that mean it (ExternalName).
        aliases: Arc<BTreeMap<Text, Vec<Text>>>,
        /// The table is for the only service, whatever the host says.
        is_for_one_service: bool,
        outbound: OutboundMode,
    },
    Gateway {
        servers: Arc<[GatewayServer]>,
    },
}

impl View {
    /// `None`: no listener of this client names such a table.
    pub fn route_inputs(&self, name: &str) -> Option<RouteInputs> {
        match self.client.kind {
            ClientKind::Gateway => self.gateway_route_inputs(name),
            ClientKind::Sidecar => self.sidecar_route_inputs(name),
        }
    }

    fn gateway_route_inputs(&self, name: &str) -> Option<RouteInputs> {
        let servers: Vec<GatewayServer> = self
            .gateway_servers()
            .into_iter()
            .filter(|server| server.route_name().as_deref() == Some(name))
            .collect();
        if servers.is_empty() {
            return None;
        }
        let rules = self.gateway_rules(&servers);
        let rules: Arc<[Arc<VirtualService>]> = rules
            .into_iter()
            .filter(|rule| !rule.http.is_empty())
            .collect();
        Some(self.inputs(
            name,
            rules,
            Arc::new([]),
            Role::Gateway {
                servers: servers.into(),
            },
        ))
    }

    fn sidecar_route_inputs(&self, name: &str) -> Option<RouteInputs> {
        let (host, port) = match name.rsplit_once(':') {
            Some((host, port)) => (Some(host), port.parse().ok()?),
            None => (None, name.parse::<u16>().ok()?),
        };
        let scope = self.scope_of(host, port)?;
        let is_http = |service: &Service| {
            service
                .port(port)
                .is_some_and(|port| port.port.protocol.is_http() || port.port.protocol.is_auto())
        };
        let wanted = |service: &&Arc<Service>| {
            service.alias_of.is_none()
                && is_http(service)
                && host.is_none_or(|host| service.host.as_str() == host)
        };
        let services: Vec<Arc<Service>> = scope.services.iter().filter(wanted).cloned().collect();
        if services.is_empty() {
            return None;
        }
        let mut aliases: BTreeMap<Text, Vec<Text>> = BTreeMap::new();
        for alias in scope.services.iter().filter(|_| host.is_none()) {
            if let Some(target) = alias
                .alias_of
                .as_ref()
                .filter(|target| services.iter().any(|service| service.host == **target))
            {
                aliases
                    .entry(target.shared())
                    .or_default()
                    .push(alias.host.shared());
            }
        }
        // On port 80 rules without a service count too; elsewhere only those of services with the port.
        let relevant = |rule: &&Arc<VirtualService>| {
            let has_service = || {
                rule.hosts.iter().any(|wanted| {
                    services
                        .iter()
                        .any(|service| wanted.covers(service.host.as_str()))
                })
            };
            !rule.http.is_empty() && ((port == 80 && host.is_none()) || has_service())
        };
        let rules: Arc<[Arc<VirtualService>]> = scope
            .virtual_services
            .iter()
            .filter(relevant)
            .cloned()
            .collect();
        let services: Arc<[Arc<Service>]> = services.into();
        let role = Role::Sidecar {
            port,
            services: services.clone(),
            aliases: Arc::new(aliases),
            is_for_one_service: host.is_some(),
            outbound: self.outbound_mode(),
        };
        Some(self.inputs(name, rules, services, role))
    }

    fn inputs(
        &self,
        name: &str,
        rules: Arc<[Arc<VirtualService>]>,
        services: Arc<[Arc<Service>]>,
        role: Role,
    ) -> RouteInputs {
        let is_gateway = self.client.kind == ClientKind::Gateway;
        RouteInputs {
            name: name.into(),
            client: Arc::new(self.asking_client(&rules)),
            mesh: self.snapshot.mesh.clone(),
            single_ports: if is_gateway {
                self.single_ports(rules.iter())
            } else {
                SinglePorts::default()
            },
            hash_rules: self.hash_rules(rules.iter(), services.iter()),
            virtual_services: rules,
            role,
        }
    }

    /// The client as routes see it: its namespace, and its labels where one of the rules asks for those.
    fn asking_client(&self, rules: &[Arc<VirtualService>]) -> Client {
        let asks_for_labels = |rule: &Arc<VirtualService>| {
            let mut matches = rule.http.iter().flat_map(|route| route.matches.iter());
            matches.any(|matching| !matching.source_labels.is_empty())
        };
        let mut client = self.client.forwarding_traits();
        client.namespace = self.client.namespace.clone();
        client.addresses = Arc::default();
        if rules.iter().any(asks_for_labels) {
            client.labels = self.client.labels.clone();
        }
        client
    }

    /// The egress listener that serves a port: its own, else the catch-all.
    fn scope_of(&self, host: Option<&str>, port: u16) -> Option<&EgressScope> {
        let has_service = |scope: &&EgressScope| {
            host.is_none_or(|host| {
                scope
                    .services
                    .iter()
                    .any(|service| service.host.as_str() == host)
            })
        };
        let own = self.egress.iter().find(|scope| {
            scope.port.as_ref().is_some_and(|own| own.number == port) && has_service(scope)
        });
        own.or_else(|| {
            self.egress
                .iter()
                .find(|scope| scope.port.is_none() && has_service(scope))
        })
    }
}

/// The route table.
pub fn routes(inputs: &RouteInputs) -> RouteConfiguration {
    let virtual_hosts = match &inputs.role {
        Role::Sidecar { .. } => sidecar::virtual_hosts(inputs),
        Role::Gateway { servers } => gateway::virtual_hosts(inputs, servers),
    };
    RouteConfiguration {
        name: inputs.name.to_string(),
        virtual_hosts,
        validate_clusters: Some(wire::boolean(false)),
        max_direct_response_body_size_bytes: Some(wire::number(MAX_DIRECT_RESPONSE_BYTES)),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

/// A header whose value matches.
pub(crate) fn header_is(name: &str, matcher: StringMatcher) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher)),
        ..Default::default()
    }
}

/// The name of a sidecar's table for a port of a service: shared by all services of the port where the protocol is declared.
pub(crate) fn sidecar_table(service: &Service, port: u16, protocol: Protocol) -> String {
    if protocol.is_auto() {
        format!("{}:{port}", service.host)
    } else {
        port.to_string()
    }
}
