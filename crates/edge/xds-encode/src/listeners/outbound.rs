//! A sidecar's outbound listeners (rows TM-018, TM-019, TM-110 … TM-114).
//!
//! HTTP ports share one listener per port on all addresses, because the request says which service it is for. TCP, TLS and undeclared
//! ports are told apart by address: one listener per virtual address, or per pod of a headless service. Services without an address share
//! the wildcard listener, told apart by server name or address range; what fits none passes through or is refused.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use mesh_model::{
    Service, VirtualService,
    port::{Port, Protocol},
    service::Resolution,
    sidecar::{CaptureMode, OutboundMode},
    virtual_service::{GatewayRef, L4Match, WeightedDestination},
};
use serde_json::json;
use wire_envoy::pb::{
    core::TrafficDirection,
    listener::{Filter, FilterChain, FilterChainMatch, Listener},
};

use super::{
    Egress, HANDSHAKE, ListenerInputs, Reached, SidecarInputs, at, detecting, http, http_inspector,
    tcp, tls_inspector, with_socket,
};
use crate::{ClientKind, Interception, names, routes, telemetry::Side, wire};

/// Address and port of a listener.
type Key = (String, u16);

/// Filter chains of one listener while services add to it.
#[derive(Default)]
struct Draft {
    /// By server name or range.
    chains: Vec<FilterChain>,
    /// HTTP in plaintext, by detection.
    http: Option<FilterChain>,
    /// What nothing else takes.
    rest: Option<FilterChain>,
    binds: bool,
}

pub(super) fn listeners(inputs: &ListenerInputs, sidecar: &SidecarInputs) -> Vec<Listener> {
    let mut drafts: BTreeMap<Key, Draft> = BTreeMap::new();
    let own_ports: BTreeSet<u16> = sidecar
        .egress
        .iter()
        .filter_map(|scope| scope.port.as_ref())
        .map(|port| port.number)
        .collect();
    for scope in sidecar.egress.iter() {
        for reached in scope.services.iter() {
            for port in reached.service.ports.iter().map(|port| &port.port) {
                let is_taken = scope.port.is_none() && own_ports.contains(&port.number);
                if port.protocol != Protocol::Udp && !is_taken {
                    add(inputs, scope, reached, port, &mut drafts);
                }
            }
        }
    }
    let mut found: Vec<Listener> = drafts
        .into_iter()
        .map(|((address, port), draft)| finish(inputs, sidecar, &address, port, draft))
        .collect();
    if inputs.client.interception != Interception::None {
        found.push(virtual_outbound(inputs, sidecar));
    }
    found
}

fn add(
    inputs: &ListenerInputs,
    scope: &Egress,
    reached: &Reached,
    port: &Port,
    drafts: &mut BTreeMap<Key, Draft>,
) {
    let wildcard = inputs.client.wildcard();
    let reserved = [
        inputs.mesh.proxy_listen_port,
        inputs.mesh.proxy_inbound_listen_port,
    ];
    let protocol = scope
        .port
        .as_ref()
        .map(|own| own.protocol)
        .filter(|own| !own.is_auto())
        .unwrap_or(port.protocol);
    let binds =
        scope.capture == CaptureMode::None || inputs.client.interception == Interception::None;
    for address in addresses(inputs, scope, reached, port, protocol) {
        if address == wildcard && reserved.contains(&port.number) {
            continue;
        }
        let draft = drafts.entry((address.clone(), port.number)).or_default();
        draft.binds |= binds;
        if protocol.is_http() || protocol.is_auto() {
            let table = if protocol.is_auto() && address != wildcard {
                routes::sidecar_table(&reached.service, port.number, protocol)
            } else {
                port.number.to_string()
            };
            draft
                .http
                .get_or_insert_with(|| http_chain(inputs, &address, port, protocol, table));
        }
        if !protocol.is_http() {
            let place = Place {
                scope,
                service: &reached.service,
                port,
                protocol,
                is_shared: address == wildcard,
            };
            add_tcp(inputs, &place, draft);
        }
    }
}

/// Where a service's port is listened on.
fn addresses(
    inputs: &ListenerInputs,
    scope: &Egress,
    reached: &Reached,
    port: &Port,
    protocol: Protocol,
) -> Vec<String> {
    let wildcard = || vec![inputs.client.wildcard().to_owned()];
    if let Some(bind) = &scope.bind {
        return vec![bind.to_string()];
    }
    if protocol.is_http() {
        return wildcard();
    }
    let service = &reached.service;
    let is_reachable = |address: &std::net::IpAddr| {
        address.is_ipv4() == inputs.client.has_ipv4()
            || inputs
                .client
                .addresses
                .iter()
                .any(|own| own.is_ipv4() == address.is_ipv4())
    };
    let vips: Vec<String> = service
        .vips()
        .filter(is_reachable)
        .map(|address| address.to_string())
        .collect();
    if !vips.is_empty() {
        return vips;
    }
    if service.is_headless() {
        return reached
            .pods
            .get(&port.number)
            .into_iter()
            .flatten()
            .map(|address| address.to_string())
            .collect();
    }
    wildcard()
}

fn http_chain(
    inputs: &ListenerInputs,
    address: &str,
    port: &Port,
    protocol: Protocol,
    table: String,
) -> FilterChain {
    let manager = http::Manager {
        side: Side::Outbound,
        stat_prefix: format!("outbound_{address}_{}", port.number),
        table: http::Table::Named(table),
        protocol,
    };
    let detected = FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: vec!["http/1.1".to_owned(), "h2c".to_owned()],
        ..Default::default()
    };
    chain(
        Some(detected),
        vec![http::connection_manager(inputs, manager)],
    )
}

fn chain(filter_chain_match: Option<FilterChainMatch>, filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        filter_chain_match,
        filters,
        transport_socket_connect_timeout: Some(wire::duration(HANDSHAKE)),
        ..Default::default()
    }
}

/// A service's port on one listener.
struct Place<'a> {
    scope: &'a Egress,
    service: &'a Service,
    port: &'a Port,
    protocol: Protocol,
    /// The listener is for all addresses.
    is_shared: bool,
}

impl Place<'_> {
    /// Ranges that tell this service from others on the same listener.
    fn ranges(&self) -> Vec<IpNet> {
        if self.is_shared {
            self.service.addresses.to_vec()
        } else {
            Vec::new()
        }
    }
    /// Rules for this host, also those for hosts that a wildcard service stands for.
    fn rules(&self) -> impl Iterator<Item = &VirtualService> {
        let touches = |rule: &&VirtualService| {
            rule.hosts.iter().any(|host| {
                host.covers(self.service.host.as_str()) || self.service.host.covers(host.as_str())
            })
        };
        self.scope.rules.iter().map(|rule| &**rule).filter(touches)
    }
}

/// Chains for bytes: by the rules of the host, else to the service itself.
fn add_tcp(inputs: &ListenerInputs, place: &Place<'_>, draft: &mut Draft) {
    let mut has_rest = false;
    if place.protocol.is_tls() {
        has_rest = add_tls_routes(inputs, place, draft);
    } else {
        for rule in place.rules() {
            has_rest = has_rest || add_tcp_routes(inputs, place, rule, draft);
        }
    }
    if has_rest {
        return;
    }
    let host = place.service.host.shared();
    let filters = match place.service.resolution {
        Resolution::DynamicDns if place.protocol.is_tls() => {
            tcp::to_named_by_sni(inputs, &host, place.port.number)
        }
        _ => tcp::to_service(inputs, &host, place.port.number),
    };
    let names = if place.protocol.is_tls() && place.is_shared {
        vec![host.to_string()]
    } else {
        Vec::new()
    };
    put(draft, chain(matching(names, &place.ranges()), filters));
}

/// TLS routes by server name. True if there was any: then nothing else goes to the service.
fn add_tls_routes(inputs: &ListenerInputs, place: &Place<'_>, draft: &mut Draft) -> bool {
    let mut found = false;
    for rule in place.rules() {
        for route in rule.tls.iter() {
            for matching_rule in route
                .matches
                .iter()
                .filter(|m| applies(inputs, &m.l4, place.port.number))
            {
                let names = matching_rule
                    .sni_hosts
                    .iter()
                    .map(|host| host.to_string())
                    .collect();
                put(
                    draft,
                    routed(inputs, place, rule, names, &matching_rule.l4, &route.route),
                );
                found = true;
            }
        }
    }
    found
}

/// TCP routes by destination range. True if one of them takes everything.
fn add_tcp_routes(
    inputs: &ListenerInputs,
    place: &Place<'_>,
    rule: &VirtualService,
    draft: &mut Draft,
) -> bool {
    for route in rule.tcp.iter() {
        let all = [L4Match::default()];
        let matches = if route.matches.is_empty() {
            &all[..]
        } else {
            &route.matches
        };
        for l4 in matches
            .iter()
            .filter(|l4| applies(inputs, l4, place.port.number))
        {
            let mut chain = routed(inputs, place, rule, Vec::new(), l4, &route.route);
            // Istio names the rule only where it takes everything.
            chain.metadata = chain.metadata.filter(|_| route.matches.is_empty());
            put(draft, chain);
            if l4.destination_subnets.is_empty() {
                return true;
            }
        }
    }
    false
}

fn applies(inputs: &ListenerInputs, l4: &L4Match, port: u16) -> bool {
    let client = &inputs.client;
    let for_sidecars = l4.gateways.is_empty() || l4.gateways.contains(&GatewayRef::Mesh);
    let from_here = routes::has_labels(&l4.source_labels, &client.labels)
        && l4
            .source_namespace
            .as_ref()
            .is_none_or(|wanted| *wanted == client.namespace);
    for_sidecars && from_here && l4.port.is_none_or(|wanted| wanted == port)
}

fn routed(
    inputs: &ListenerInputs,
    place: &Place<'_>,
    rule: &VirtualService,
    names: Vec<String>,
    l4: &L4Match,
    route: &[WeightedDestination],
) -> FilterChain {
    let ranges = if l4.destination_subnets.is_empty() {
        place.ranges()
    } else {
        l4.destination_subnets.to_vec()
    };
    let filters =
        tcp::to_destinations(inputs, Side::Outbound, &rule.meta, route, place.port.number);
    let metadata = wire::metadata([("istio", json!({"config": wire::config_path(&rule.meta)}))]);
    FilterChain {
        metadata: Some(metadata),
        ..chain(matching(names, &ranges), filters)
    }
}

/// `None`: everything.
fn matching(server_names: Vec<String>, ranges: &[IpNet]) -> Option<FilterChainMatch> {
    if server_names.is_empty() && ranges.is_empty() {
        return None;
    }
    Some(FilterChainMatch {
        server_names,
        prefix_ranges: ranges.iter().map(wire::range).collect(),
        ..Default::default()
    })
}

/// The first chain with a match keeps it: a listener may not have two.
fn put(draft: &mut Draft, chain: FilterChain) {
    if chain.filter_chain_match.is_none() {
        draft.rest.get_or_insert(chain);
    } else if !draft
        .chains
        .iter()
        .any(|known| known.filter_chain_match == chain.filter_chain_match)
    {
        draft.chains.push(chain);
    }
}

fn finish(
    inputs: &ListenerInputs,
    sidecar: &SidecarInputs,
    address: &str,
    port: u16,
    draft: Draft,
) -> Listener {
    let Draft {
        mut chains,
        http,
        rest,
        binds,
    } = draft;
    let mut filters = Vec::new();
    if chains.iter().any(|chain| {
        chain
            .filter_chain_match
            .as_ref()
            .is_some_and(|matching| !matching.server_names.is_empty())
    }) {
        filters.push(tls_inspector(None));
    }
    if let Some(http) = http {
        filters.push(http_inspector(None));
        chains.push(http);
    }
    let mut default = rest;
    if chains.is_empty() {
        chains.extend(default.take());
    } else if default.is_none() {
        default = Some(passthrough_chain(
            inputs,
            sidecar,
            Some(FilterChainMatch::default()),
            "PassthroughFilterChain",
        ));
    }
    let listener = detecting(
        at(
            format!("{address}_{port}"),
            address,
            port,
            TrafficDirection::Outbound,
        ),
        &inputs.mesh,
    );
    let listener = Listener {
        filter_chains: chains,
        default_filter_chain: default,
        listener_filters: filters,
        ..listener
    };
    if binds {
        with_socket(listener)
    } else {
        Listener {
            bind_to_port: Some(wire::boolean(false)),
            ..listener
        }
    }
}

/// Where traffic goes that belongs to no service.
fn passthrough_chain(
    inputs: &ListenerInputs,
    sidecar: &SidecarInputs,
    filter_chain_match: Option<FilterChainMatch>,
    name: &str,
) -> FilterChain {
    let cluster = match sidecar.outbound {
        OutboundMode::AllowAny => names::PASSTHROUGH,
        OutboundMode::RegistryOnly => names::BLACK_HOLE,
    };
    FilterChain {
        filter_chain_match,
        filters: tcp::to_cluster(inputs, Side::Outbound, cluster),
        name: name.to_owned(),
        ..Default::default()
    }
}

/// Takes every redirected connection and hands it to the listener of its destination. Connections to its own port end here.
fn virtual_outbound(inputs: &ListenerInputs, sidecar: &SidecarInputs) -> Listener {
    debug_assert_eq!(inputs.client.kind, ClientKind::Sidecar);
    let port = inputs.mesh.proxy_listen_port;
    let own = FilterChainMatch {
        destination_port: Some(wire::number(port.into())),
        ..Default::default()
    };
    let loops = FilterChain {
        filter_chain_match: Some(own),
        filters: tcp::to_black_hole(inputs, Side::Outbound),
        name: "virtualOutbound-blackhole".to_owned(),
        ..Default::default()
    };
    let listener = with_socket(at(
        "virtualOutbound".to_owned(),
        inputs.client.wildcard(),
        port,
        TrafficDirection::Outbound,
    ));
    Listener {
        filter_chains: vec![
            loops,
            passthrough_chain(inputs, sidecar, None, "virtualOutbound-catchall-tcp"),
        ],
        use_original_dst: Some(wire::boolean(true)),
        transparent: (inputs.client.interception == Interception::Tproxy)
            .then(|| wire::boolean(true)),
        access_log: inputs.reports(Side::Outbound).listener_logs(),
        ..listener
    }
}
