//! Virtual hosts of a gateway, and which servers of which Gateways a gateway's listeners serve (rows TM-070, TM-072, TM-077).
//!
//! Plain HTTP servers of one port share a table, whichever Gateway they are from. Rules of one host are put together, oldest first.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    Gateway, Host, VirtualService,
    gateway::{GatewayHost, Server, ServerTls},
    object::Text,
    port::Protocol,
    service::TargetPort,
    virtual_service::GatewayRef,
};
use wire_envoy::pb::route::{
    Route, VirtualHost, route_match::PathSpecifier, virtual_host::TlsRequirementType,
};

use super::{
    RouteInputs, actions,
    virtual_service::{Scope, http_routes},
};
use crate::View;

/// One server of a Gateway, at the port that the pod listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayServer {
    pub gateway: Arc<Gateway>,
    pub server: Server,
    pub listen_port: u16,
}

impl GatewayServer {
    pub fn reference(&self) -> GatewayRef {
        GatewayRef::Named {
            namespace: self.gateway.meta.object.namespace.clone(),
            name: self.gateway.meta.object.name.clone(),
        }
    }
    pub fn is_http(&self) -> bool {
        let protocol = self.server.port.protocol;
        protocol.is_http() || self.terminates_https()
    }
    /// TLS whose content is HTTP.
    pub fn terminates_https(&self) -> bool {
        self.server.port.protocol == Protocol::Https
            && matches!(self.server.tls, ServerTls::Terminate(_))
    }
    /// The table of its HTTP routes; none for TCP and TLS that is passed through.
    pub fn route_name(&self) -> Option<String> {
        let Server { port, .. } = &self.server;
        if self.terminates_https() {
            return Some(format!(
                "https.{}.{}.{}.{}",
                port.number,
                port.name,
                self.gateway.meta.name(),
                self.gateway.meta.namespace()
            ));
        }
        port.protocol.is_http().then(|| match &self.server.bind {
            Some(bind) if !is_wildcard(bind) => format!("http.{}.{bind}", self.listen_port),
            _ => format!("http.{}", self.listen_port),
        })
    }
}

fn is_wildcard(bind: &str) -> bool {
    matches!(bind, "" | "0.0.0.0" | "::")
}

impl View {
    /// Servers of every Gateway that selects this gateway, oldest first.
    pub(crate) fn gateway_servers(&self) -> Vec<GatewayServer> {
        let gateways = self.snapshot.gateways_of(&self.client.labels);
        let at = |gateway: &Arc<Gateway>, server: &Server| GatewayServer {
            gateway: gateway.clone(),
            server: server.clone(),
            listen_port: self.listen_port(server.port.number),
        };
        gateways
            .into_iter()
            .flat_map(|gateway| {
                gateway
                    .servers
                    .iter()
                    .map(move |server| at(gateway, server))
            })
            .collect()
    }

    /// Where the pod listens for a port of the gateway's Service; the same number without such a Service.
    fn listen_port(&self, number: u16) -> u16 {
        let services = self
            .snapshot
            .services_of(&self.client.namespace, &self.client.labels);
        let ports = services.filter_map(|service| service.port(number).map(|port| (service, port)));
        let resolved = ports.filter_map(|(service, port)| match &port.target {
            TargetPort::Number(target) => Some(*target),
            TargetPort::Named(_) => {
                let endpoints = self.snapshot.endpoints_of(service)?.ports.get(&number)?;
                endpoints.first().map(|endpoint| endpoint.port)
            }
        });
        resolved.into_iter().next().unwrap_or(number)
    }

    /// Rules bound to any of these servers' Gateways that this gateway may see, oldest first.
    pub(crate) fn gateway_rules(&self, servers: &[GatewayServer]) -> Vec<Arc<VirtualService>> {
        let mut found: Vec<Arc<VirtualService>> = Vec::new();
        for server in servers {
            for rule in self
                .snapshot
                .virtual_services_for(&server.reference(), &self.client.namespace)
            {
                if !found.iter().any(|known| Arc::ptr_eq(known, rule)) {
                    found.push(rule.clone());
                }
            }
        }
        found.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        found
    }
}

/// Hosts that a rule and a server have in common: the narrower of each pair.
pub(crate) fn bound_hosts(server: &GatewayServer, rule: &VirtualService) -> Vec<Host> {
    if !rule.gateways.contains(&server.reference()) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for GatewayHost { namespace, host } in server.server.hosts.iter() {
        if namespace
            .as_deref()
            .is_some_and(|namespace| namespace != rule.meta.namespace())
        {
            continue;
        }
        for wanted in rule.hosts.iter() {
            let common = if host.covers(wanted.as_str()) {
                wanted
            } else if wanted.covers(host.as_str()) {
                host
            } else {
                continue;
            };
            if !found.contains(common) {
                found.push(common.clone());
            }
        }
    }
    found
}

pub(super) fn virtual_hosts(inputs: &RouteInputs, servers: &[GatewayServer]) -> Vec<VirtualHost> {
    let mut hosts: BTreeMap<Text, VirtualHost> = BTreeMap::new();
    for server in servers {
        add_rules(inputs, server, &mut hosts);
    }
    if hosts.is_empty() {
        let port = servers
            .first()
            .map(|server| server.server.port.number)
            .unwrap_or_default();
        return vec![VirtualHost {
            name: format!("blackhole:{port}"),
            domains: vec!["*".to_owned()],
            ..Default::default()
        }];
    }
    let mut found: Vec<VirtualHost> = hosts.into_values().collect();
    for host in &mut found {
        host.routes.sort_by_key(is_catch_all);
    }
    found
}

fn add_rules(
    inputs: &RouteInputs,
    server: &GatewayServer,
    hosts: &mut BTreeMap<Text, VirtualHost>,
) {
    let port = server.server.port.number;
    let gateways = [server.reference()];
    let scope = Scope {
        inputs,
        port,
        gateways: &gateways,
        is_tls: server.terminates_https(),
    };
    let redirects = server.server.tls == ServerTls::HttpsRedirect;
    for rule in inputs.virtual_services.iter() {
        let bound = bound_hosts(server, rule);
        let routes = if bound.is_empty() {
            Vec::new()
        } else {
            http_routes(&scope, rule)
        };
        if routes.is_empty() {
            continue;
        }
        for host in bound {
            let known = hosts.entry(host.shared()).or_insert_with(|| {
                actions::virtual_host(format!("{host}:{port}"), vec![host.to_string()], Vec::new())
            });
            known.routes.extend(
                routes
                    .iter()
                    .filter(|route| !known.routes.contains(route))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            if redirects {
                known.require_tls = TlsRequirementType::All.into();
            }
        }
    }
    if redirects {
        for GatewayHost { host, .. } in server.server.hosts.iter() {
            let known = hosts.entry(host.shared()).or_insert_with(|| {
                actions::virtual_host(format!("{host}:{port}"), vec![host.to_string()], Vec::new())
            });
            known.require_tls = TlsRequirementType::All.into();
        }
    }
}

/// Routes that match every request come last.
fn is_catch_all(route: &Route) -> bool {
    let Some(matching) = &route.r#match else {
        return true;
    };
    let path = match &matching.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*" || regex.regex == "/.*",
        _ => false,
    };
    path && matching.headers.is_empty()
        && matching.query_parameters.is_empty()
        && matching.dynamic_metadata.is_empty()
}
