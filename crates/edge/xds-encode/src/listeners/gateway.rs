//! A gateway's listeners: one per port, with a filter chain per TLS server or route (rows TM-070 … TM-076).
//!
//! Several Gateways may share a port. The oldest decides whether the port is TLS or plaintext, and plaintext HTTP or TCP; servers that
//! do not fit are left out and reported by `problems`.

use std::collections::BTreeMap;

use mesh_model::{
    Host, VirtualService,
    gateway::{Server, ServerCertificates, ServerTls, TerminateMode, TerminateTls},
    object::Text,
    virtual_service::{GatewayRef, L4Match},
};
use wire_envoy::pb::{
    core::{TrafficDirection, TransportSocket},
    listener::{Filter, FilterChain, FilterChainMatch, Listener},
    tls::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
        TlsParameters,
    },
};

use super::{GatewayInputs, HANDSHAKE, ListenerInputs, at, http, tcp, tls_inspector, with_socket};
use crate::{
    View,
    names::OutboundName,
    rbac,
    routes::{self, GatewayServer, bound_hosts},
    telemetry::Side,
    tls, wire,
};

impl View {
    /// Server names that mutual TLS is forwarded by: every port and subset of the mesh's services.
    pub(super) fn names_by_sni(&self) -> Vec<String> {
        let mut found = Vec::new();
        for service in self.services.iter().filter(|service| {
            service.location == mesh_model::service::Location::MeshInternal
                && service.alias_of.is_none()
        }) {
            let rule = self.rule_of(service);
            for port in service
                .ports
                .iter()
                .filter(|port| port.port.protocol != mesh_model::Protocol::Udp)
            {
                let subsets = rule
                    .iter()
                    .flat_map(|rule| rule.subsets.iter())
                    .map(|subset| Some(&*subset.name));
                found.extend(std::iter::once(None).chain(subsets).map(|subset| {
                    OutboundName::new(service.host.as_str(), subset, port.port.number).sni()
                }));
            }
        }
        found
    }
}

/// What a port is used for; servers of one port must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Http,
    Tcp,
    Tls,
}

fn use_of(server: &GatewayServer) -> Use {
    match &server.server.tls {
        ServerTls::Terminate(_) | ServerTls::Passthrough | ServerTls::AutoPassthrough => Use::Tls,
        ServerTls::None | ServerTls::HttpsRedirect if server.is_http() => Use::Http,
        ServerTls::None | ServerTls::HttpsRedirect => Use::Tcp,
    }
}

/// By address (empty: all) and port.
pub(crate) type ByPort<'a> = BTreeMap<(Text, u16), Vec<&'a GatewayServer>>;

/// Servers of one address and port that agree with the first; and those that don't.
pub(crate) fn by_port(servers: &[GatewayServer]) -> (ByPort<'_>, Vec<&GatewayServer>) {
    let mut ports = ByPort::new();
    let mut conflicting = Vec::new();
    for server in servers {
        let known = ports
            .entry((
                server.server.bind.clone().unwrap_or_default(),
                server.listen_port,
            ))
            .or_default();
        match known.first() {
            Some(first) if use_of(first) != use_of(server) => conflicting.push(server),
            _ => known.push(server),
        }
    }
    (ports, conflicting)
}

/// True where the gateway's pod may not open a port.
pub(crate) fn is_forbidden(client: &crate::Client, port: u16) -> bool {
    client.unprivileged && port < 1024
}

pub(super) fn listeners(inputs: &ListenerInputs, gateway: &GatewayInputs) -> Vec<Listener> {
    let (ports, _) = by_port(&gateway.servers);
    let allowed = ports
        .into_iter()
        .filter(|((_, port), _)| !is_forbidden(&inputs.client, *port));
    allowed
        .filter_map(|((bind, port), servers)| listener(inputs, gateway, &bind, port, &servers))
        .collect()
}

/// `None`: no server of the port has anything to forward to yet.
fn listener(
    inputs: &ListenerInputs,
    gateway: &GatewayInputs,
    bind: &str,
    port: u16,
    servers: &[&GatewayServer],
) -> Option<Listener> {
    let address = if bind.is_empty() {
        inputs.client.wildcard()
    } else {
        bind
    };
    let first = servers.first()?;
    let kind = use_of(first);
    let mut chains: Vec<FilterChain> = match kind {
        Use::Http => vec![chain(None, vec![manager(inputs, address, first)])],
        Use::Tcp => servers
            .iter()
            .flat_map(|server| tcp_chains(inputs, gateway, server))
            .collect(),
        Use::Tls => {
            let https = servers
                .iter()
                .filter(|server| server.terminates_https())
                .map(|server| https_chain(inputs, address, server));
            https
                .chain(
                    servers
                        .iter()
                        .filter(|server| !server.terminates_https())
                        .flat_map(|server| tls_chains(inputs, gateway, server)),
                )
                .collect()
        }
    };
    unique(&mut chains);
    if chains.is_empty() {
        return None;
    }
    let listener = with_socket(at(
        format!("{address}_{port}"),
        address,
        port,
        TrafficDirection::Outbound,
    ));
    Some(Listener {
        filter_chains: chains,
        listener_filters: if kind == Use::Tls {
            vec![tls_inspector(None)]
        } else {
            Vec::new()
        },
        access_log: inputs.reports(Side::Gateway).listener_logs(),
        ..listener
    })
}

/// A listener may not have two chains of one match: the first keeps it.
fn unique(chains: &mut Vec<FilterChain>) {
    let mut seen: Vec<Option<FilterChainMatch>> = Vec::new();
    chains.retain(|chain| {
        let is_new = !seen.contains(&chain.filter_chain_match);
        if is_new {
            seen.push(chain.filter_chain_match.clone());
        }
        is_new
    });
}

fn chain(filter_chain_match: Option<FilterChainMatch>, filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        filter_chain_match,
        filters,
        transport_socket_connect_timeout: Some(wire::duration(HANDSHAKE)),
        ..Default::default()
    }
}

fn manager(inputs: &ListenerInputs, address: &str, server: &GatewayServer) -> Filter {
    let table = server.route_name().unwrap_or_default();
    let manager = http::Manager {
        side: Side::Gateway,
        stat_prefix: format!("outbound_{address}_{}", server.listen_port),
        table: http::Table::Named(table),
        protocol: server.server.port.protocol,
    };
    http::connection_manager(inputs, manager)
}

/// Server names of hosts; none if one of them is any host.
fn named(hosts: impl Iterator<Item = Host>) -> Option<FilterChainMatch> {
    let server_names: Vec<String> = hosts.map(|host| host.to_string()).collect();
    (!server_names.is_empty() && !server_names.iter().any(|name| name == "*")).then(|| {
        FilterChainMatch {
            server_names,
            ..Default::default()
        }
    })
}

fn https_chain(inputs: &ListenerInputs, address: &str, server: &GatewayServer) -> FilterChain {
    let hosts = server.server.hosts.iter().map(|host| host.host.clone());
    FilterChain {
        transport_socket: socket(&server.server),
        ..chain(named(hosts), vec![manager(inputs, address, server)])
    }
}

/// Chains of a plaintext TCP server: those of its rules' TCP routes.
fn tcp_chains(
    inputs: &ListenerInputs,
    gateway: &GatewayInputs,
    server: &GatewayServer,
) -> Vec<FilterChain> {
    let rules = gateway
        .rules
        .iter()
        .filter(|rule| !bound_hosts(server, rule).is_empty());
    rules
        .flat_map(|rule| tcp_routes(inputs, server, rule))
        .map(|(matching, filters)| chain(matching, filters))
        .collect()
}

fn tcp_routes(
    inputs: &ListenerInputs,
    server: &GatewayServer,
    rule: &VirtualService,
) -> Vec<(Option<FilterChainMatch>, Vec<Filter>)> {
    let mut found = Vec::new();
    for route in rule.tcp.iter() {
        let all = [L4Match::default()];
        let matches = if route.matches.is_empty() {
            &all[..]
        } else {
            &route.matches
        };
        for l4 in matches.iter().filter(|l4| applies(inputs, server, l4)) {
            let ranges: Vec<_> = l4.destination_subnets.iter().map(wire::range).collect();
            let matching = (!ranges.is_empty()).then(|| FilterChainMatch {
                prefix_ranges: ranges,
                ..Default::default()
            });
            found.push((
                matching,
                guarded(
                    inputs,
                    tcp::to_destinations(
                        inputs,
                        Side::Gateway,
                        &rule.meta,
                        &route.route,
                        server.server.port.number,
                    ),
                ),
            ));
        }
    }
    found
}

/// Authorization before forwarding.
fn guarded(inputs: &ListenerInputs, filters: Vec<Filter>) -> Vec<Filter> {
    rbac::network_filters(&inputs.policies, &inputs.mesh)
        .into_iter()
        .chain(filters)
        .collect()
}

fn applies(inputs: &ListenerInputs, server: &GatewayServer, l4: &L4Match) -> bool {
    let own: GatewayRef = server.reference();
    let here = l4.gateways.is_empty() || l4.gateways.contains(&own);
    let from = routes::has_labels(&l4.source_labels, &inputs.client.labels)
        && l4
            .source_namespace
            .as_ref()
            .is_none_or(|wanted| *wanted == inputs.client.namespace);
    here && from && l4.port.is_none_or(|port| port == server.server.port.number)
}

/// Chains of a TLS server that does not speak HTTP.
fn tls_chains(
    inputs: &ListenerInputs,
    gateway: &GatewayInputs,
    server: &GatewayServer,
) -> Vec<FilterChain> {
    match &server.server.tls {
        ServerTls::AutoPassthrough => gateway
            .forwarded
            .iter()
            .filter(|name| is_wanted(server, name))
            .map(|name| forwarded(inputs, name))
            .collect(),
        ServerTls::Passthrough => sni_routes(inputs, gateway, server),
        ServerTls::Terminate(_) => terminated(inputs, gateway, server),
        ServerTls::None | ServerTls::HttpsRedirect => Vec::new(),
    }
}

fn is_wanted(server: &GatewayServer, name: &str) -> bool {
    let host = OutboundName::parse(name).map(|(name, _)| name.host);
    host.is_some_and(|host| {
        server
            .server
            .hosts
            .iter()
            .any(|wanted| wanted.host.covers(&host))
    })
}

fn forwarded(inputs: &ListenerInputs, name: &str) -> FilterChain {
    let matching = FilterChainMatch {
        server_names: vec![name.to_owned()],
        application_protocols: tls::alpn(&tls::ALL_ISTIO_ALPN),
        ..Default::default()
    };
    chain(
        Some(matching),
        guarded(inputs, tcp::to_cluster(inputs, Side::Gateway, name)),
    )
}

/// TLS that is passed through by its server name.
fn sni_routes(
    inputs: &ListenerInputs,
    gateway: &GatewayInputs,
    server: &GatewayServer,
) -> Vec<FilterChain> {
    let mut found = Vec::new();
    for rule in gateway.rules.iter() {
        let bound = bound_hosts(server, rule);
        for route in rule.tls.iter() {
            for matching in route
                .matches
                .iter()
                .filter(|matching| applies(inputs, server, &matching.l4))
            {
                let names: Vec<Host> = matching
                    .sni_hosts
                    .iter()
                    .filter(|name| bound.iter().any(|host| host.covers(name.as_str())))
                    .cloned()
                    .collect();
                if !names.is_empty() {
                    let filters = tcp::to_destinations(
                        inputs,
                        Side::Gateway,
                        &rule.meta,
                        &route.route,
                        server.server.port.number,
                    );
                    found.push(chain(named(names.into_iter()), guarded(inputs, filters)));
                }
            }
        }
        if !bound.is_empty() {
            found.extend(
                tcp_routes(inputs, server, rule)
                    .into_iter()
                    .map(|(_, filters)| chain(named(bound.iter().cloned()), filters)),
            );
        }
    }
    found
}

/// TLS that ends here, with bytes inside.
fn terminated(
    inputs: &ListenerInputs,
    gateway: &GatewayInputs,
    server: &GatewayServer,
) -> Vec<FilterChain> {
    let mut found = sni_routes(inputs, gateway, server);
    for chain in &mut found {
        chain.transport_socket = socket(&server.server);
    }
    found
}

fn socket(server: &Server) -> Option<TransportSocket> {
    let ServerTls::Terminate(settings) = &server.tls else {
        return None;
    };
    let context = CommonTlsContext {
        tls_params: parameters(settings),
        alpn_protocols: tls::alpn(&["h2", "http/1.1"]),
        tls_certificate_sds_secret_configs: certificates(&settings.certificates),
        validation_context_type: roots(settings)
            .map(|roots| tls::validation_with(roots, wanted_peers(settings))),
        ..Default::default()
    };
    let requires = matches!(
        settings.mode,
        TerminateMode::Mutual | TerminateMode::IstioMutual
    );
    let downstream = DownstreamTlsContext {
        common_tls_context: Some(context),
        require_client_certificate: Some(wire::boolean(requires)),
        ..Default::default()
    };
    Some(wire::transport_socket(tls::SOCKET, &downstream))
}

/// Envoy's own limits unless the server sets any.
fn parameters(settings: &TerminateTls) -> Option<TlsParameters> {
    if settings.min_version.is_none()
        && settings.max_version.is_none()
        && settings.cipher_suites.is_empty()
    {
        return None;
    }
    Some(TlsParameters {
        tls_minimum_protocol_version: settings
            .min_version
            .map(|lowest| tls::version(lowest).into())
            .unwrap_or_default(),
        tls_maximum_protocol_version: settings
            .max_version
            .map(|highest| tls::version(highest).into())
            .unwrap_or_default(),
        cipher_suites: settings.cipher_suites.iter().map(Text::to_string).collect(),
        ..Default::default()
    })
}

fn certificates(certificates: &ServerCertificates) -> Vec<SdsSecretConfig> {
    match certificates {
        ServerCertificates::Credentials(names) => names
            .iter()
            .map(|name| tls::control_plane_secret(&format!("kubernetes://{name}")))
            .collect(),
        ServerCertificates::Files(files) => files
            .iter()
            .map(|(certificate, key)| tls::file_certificate(certificate, key))
            .collect(),
        ServerCertificates::Workload => vec![tls::agent_secret("default")],
    }
}

/// Roots of client certificates, where those are asked for.
fn roots(settings: &TerminateTls) -> Option<SdsSecretConfig> {
    match settings.mode {
        TerminateMode::Simple => return None,
        TerminateMode::IstioMutual => return Some(tls::agent_secret("ROOTCA")),
        TerminateMode::Mutual | TerminateMode::OptionalMutual => {}
    }
    match (
        &settings.ca_credential_name,
        &settings.ca_file,
        &settings.certificates,
    ) {
        // Under this name a Secret's CA is asked for, whatever else it holds.
        (Some(name), _, _) => Some(tls::control_plane_secret(&format!(
            "kubernetes://{name}-cacert"
        ))),
        (None, Some(path), _) => Some(tls::file_roots(path, None)),
        (None, None, ServerCertificates::Credentials(names)) => names
            .first()
            .map(|name| tls::control_plane_secret(&format!("kubernetes://{name}-cacert"))),
        (None, None, _) => None,
    }
}

#[allow(
    deprecated,
    reason = "the plain list of names is what every proxy of the field reads"
)]
fn wanted_peers(settings: &TerminateTls) -> CertificateValidationContext {
    CertificateValidationContext {
        match_subject_alt_names: settings
            .subject_alt_names
            .iter()
            .map(|name| wire::exact(&**name))
            .collect(),
        verify_certificate_spki: settings.spki_hashes.iter().map(Text::to_string).collect(),
        verify_certificate_hash: settings
            .certificate_hashes
            .iter()
            .map(Text::to_string)
            .collect(),
        ..Default::default()
    }
}
