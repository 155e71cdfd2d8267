//! A sidecar's inbound listener: per port the filter chains that its mutual TLS mode and protocol need (rows SEC-030, SEC-032, TM-112).
//!
//! PERMISSIVE tells mutual TLS from plaintext and from the application's own TLS by transport and ALPN; STRICT has only chains with
//! mutual TLS; DISABLE looks for none. Ports of undeclared protocol detect HTTP.

use std::collections::BTreeSet;

use mesh_model::{peer_authentication::MtlsMode, port::Protocol};
use serde_json::json;
use wire_envoy::pb::{
    core::TrafficDirection,
    listener::{
        Filter, FilterChain, FilterChainMatch, Listener, ListenerFilterChainMatchPredicate,
        listener_filter_chain_match_predicate::Rule,
    },
    route::RouteConfiguration,
};

use super::{
    ListenerInputs, SidecarInputs, at, detecting, http, http_inspector, original_destination,
    ports_are, tcp, tls_inspector, with_socket,
};
use crate::{
    Interception,
    inbound::InboundPort,
    names, rbac,
    routes::actions,
    telemetry::Side,
    tls::{self, ALL_ISTIO_ALPN, HTTP_ISTIO_ALPN, TCP_ISTIO_ALPN},
    wire,
};

const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// What the bytes of a chain are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Http,
    Bytes,
}

/// One way in to a port.
struct Way {
    transport: &'static str,
    alpn: &'static [&'static str],
    content: Content,
    /// The proxy ends the TLS.
    mutual: bool,
}

const fn way(
    transport: &'static str,
    alpn: &'static [&'static str],
    content: Content,
    mutual: bool,
) -> Way {
    Way {
        transport,
        alpn,
        content,
        mutual,
    }
}

/// Chains of a port, in the order in which Istio lists them.
fn ways(mode: MtlsMode, protocol: Protocol) -> &'static [Way] {
    use Content::{Bytes, Http};
    const PERMISSIVE_HTTP: [Way; 2] = [
        way("tls", &ALL_ISTIO_ALPN, Http, true),
        way("raw_buffer", &[], Http, false),
    ];
    const PERMISSIVE_TCP: [Way; 3] = [
        way("tls", &ALL_ISTIO_ALPN, Bytes, true),
        way("tls", &[], Bytes, false),
        way("raw_buffer", &[], Bytes, false),
    ];
    const PERMISSIVE_AUTO: [Way; 5] = [
        way("tls", &HTTP_ISTIO_ALPN, Http, true),
        way("raw_buffer", &PLAIN_HTTP, Http, false),
        way("tls", &TCP_ISTIO_ALPN, Bytes, true),
        way("raw_buffer", &[], Bytes, false),
        way("tls", &[], Bytes, false),
    ];
    const STRICT_HTTP: [Way; 1] = [way("tls", &[], Http, true)];
    const STRICT_TCP: [Way; 1] = [way("tls", &[], Bytes, true)];
    const STRICT_AUTO: [Way; 2] = [
        way("tls", &HTTP_ISTIO_ALPN, Http, true),
        way("tls", &[], Bytes, true),
    ];
    const DISABLE_HTTP: [Way; 1] = [way("raw_buffer", &[], Http, false)];
    const DISABLE_TCP: [Way; 1] = [way("raw_buffer", &[], Bytes, false)];
    const DISABLE_AUTO: [Way; 2] = [
        way("raw_buffer", &PLAIN_HTTP, Http, false),
        way("raw_buffer", &[], Bytes, false),
    ];
    match (mode, protocol.is_http(), protocol.is_auto()) {
        (MtlsMode::Permissive, true, _) => &PERMISSIVE_HTTP,
        (MtlsMode::Permissive, _, true) => &PERMISSIVE_AUTO,
        (MtlsMode::Permissive, _, _) => &PERMISSIVE_TCP,
        (MtlsMode::Strict, true, _) => &STRICT_HTTP,
        (MtlsMode::Strict, _, true) => &STRICT_AUTO,
        (MtlsMode::Strict, _, _) => &STRICT_TCP,
        (MtlsMode::Disable, true, _) => &DISABLE_HTTP,
        (MtlsMode::Disable, _, true) => &DISABLE_AUTO,
        (MtlsMode::Disable, _, _) => &DISABLE_TCP,
    }
}

fn detects_http(mode: MtlsMode, protocol: Protocol) -> bool {
    protocol.is_auto() && mode != MtlsMode::Strict
}

/// A port as its chains see it.
struct Place<'a> {
    /// `None`: every port that is not declared.
    port: Option<u16>,
    protocol: Protocol,
    mtls: MtlsMode,
    cluster: String,
    /// Names of the HTTP and of the TCP chains.
    names: (String, String),
    http_stat_prefix: String,
    /// Port as services name it, and who that is: for the operation's name.
    service_port: u16,
    operation_host: String,
    declared: Option<&'a InboundPort>,
}

pub(super) fn listeners(inputs: &ListenerInputs, sidecar: &SidecarInputs) -> Vec<Listener> {
    let (own, redirected): (Vec<_>, Vec<_>) = sidecar.inbound.iter().partition(|port| {
        port.ingress
            .as_ref()
            .is_some_and(|ingress| ingress.has_socket)
    });
    let mut found = Vec::new();
    if inputs.client.interception != Interception::None {
        found.push(virtual_inbound(inputs, sidecar, &redirected));
    }
    found.extend(own.into_iter().map(|port| socket(inputs, port)));
    found
}

fn virtual_inbound(
    inputs: &ListenerInputs,
    sidecar: &SidecarInputs,
    ports: &[&InboundPort],
) -> Listener {
    let listen_port = inputs.mesh.proxy_inbound_listen_port;
    let mut places = vec![undeclared(None, sidecar.default_mtls)];
    places.extend(
        sidecar
            .undeclared
            .iter()
            .map(|(port, mode)| undeclared(Some(*port), *mode)),
    );
    places.extend(ports.iter().map(|port| declared(inputs, port)));
    let mut chains = vec![loops(inputs, listen_port)];
    chains.extend(places.iter().flat_map(|place| filter_chains(inputs, place)));
    let listener = with_socket(at(
        "virtualInbound".to_owned(),
        inputs.client.wildcard(),
        listen_port,
        TrafficDirection::Inbound,
    ));
    Listener {
        filter_chains: chains,
        listener_filters: inspectors(sidecar, &places, listen_port),
        transparent: (inputs.client.interception == Interception::Tproxy)
            .then(|| wire::boolean(true)),
        access_log: inputs.reports(Side::Inbound).listener_logs(),
        ..detecting(listener, &inputs.mesh)
    }
}

/// Inspectors read only where a chain needs what they find; elsewhere a server may speak first.
fn inspectors(
    sidecar: &SidecarInputs,
    places: &[Place<'_>],
    listen_port: u16,
) -> Vec<wire_envoy::pb::listener::ListenerFilter> {
    let ports = |wanted: &dyn Fn(&Place<'_>) -> bool| {
        let ports: BTreeSet<u16> = places
            .iter()
            .filter(|place| wanted(place))
            .filter_map(|place| place.port)
            .chain([listen_port])
            .collect();
        ports_are(&ports.into_iter().collect::<Vec<_>>())
    };
    let mut found = vec![original_destination()];
    let takes_tls = sidecar.default_mtls != MtlsMode::Disable
        || places.iter().any(|place| place.mtls != MtlsMode::Disable);
    if takes_tls {
        found.push(tls_inspector(ports(&|place| {
            place.mtls == MtlsMode::Disable
        })));
    }
    if places
        .iter()
        .any(|place| detects_http(place.mtls, place.protocol))
    {
        found.push(http_inspector(ports(&|place| {
            !detects_http(place.mtls, place.protocol)
        })));
    }
    found
}

/// Connections to the listener's own port would come back for ever.
fn loops(inputs: &ListenerInputs, port: u16) -> FilterChain {
    let own = FilterChainMatch {
        destination_port: Some(wire::number(port.into())),
        ..Default::default()
    };
    let filters = tcp::metadata_exchange(inputs)
        .into_iter()
        .chain(tcp::to_black_hole(inputs, Side::Inbound))
        .collect();
    FilterChain {
        filter_chain_match: Some(own),
        filters,
        name: "virtualInbound-blackhole".to_owned(),
        ..Default::default()
    }
}

fn undeclared(port: Option<u16>, mtls: MtlsMode) -> Place<'static> {
    Place {
        port,
        protocol: Protocol::Auto,
        mtls,
        cluster: names::INBOUND_PASSTHROUGH.to_owned(),
        names: (
            "virtualInbound-catchall-http".to_owned(),
            "virtualInbound".to_owned(),
        ),
        http_stat_prefix: names::INBOUND_PASSTHROUGH.to_owned(),
        service_port: 0,
        operation_host: String::new(),
        declared: None,
    }
}

fn declared<'a>(inputs: &ListenerInputs, port: &'a InboundPort) -> Place<'a> {
    let address = port
        .ingress
        .as_ref()
        .map_or(inputs.client.wildcard(), |ingress| &ingress.address);
    let name = format!("{address}_{}", port.number);
    let operation_host = match (&port.ingress, port.services.first()) {
        (Some(ingress), _) => format!("{}.{}", ingress.sidecar.name(), ingress.sidecar.namespace()),
        (None, Some(service)) => service.host.to_string(),
        (None, None) => String::new(),
    };
    Place {
        port: Some(port.number),
        protocol: port.protocol,
        mtls: port.mtls,
        cluster: names::inbound(port.number),
        names: (name.clone(), name.clone()),
        http_stat_prefix: format!("inbound_{name}"),
        service_port: port.service_port.unwrap_or(port.number),
        operation_host,
        declared: Some(port),
    }
}

fn filter_chains(inputs: &ListenerInputs, place: &Place<'_>) -> Vec<FilterChain> {
    ways(place.mtls, place.protocol)
        .iter()
        .map(|way| filter_chain(inputs, place, way))
        .collect()
}

fn filter_chain(inputs: &ListenerInputs, place: &Place<'_>, way: &Way) -> FilterChain {
    let matching = FilterChainMatch {
        destination_port: place.port.map(|port| wire::number(port.into())),
        transport_protocol: way.transport.to_owned(),
        application_protocols: tls::alpn(way.alpn),
        ..Default::default()
    };
    let (filters, name) = match way.content {
        Content::Http => (vec![http_manager(inputs, place)], &place.names.0),
        Content::Bytes => (bytes(inputs, place), &place.names.1),
    };
    let ingress = place.declared.and_then(|port| port.ingress.as_ref());
    FilterChain {
        filter_chain_match: Some(matching),
        filters: tcp::metadata_exchange(inputs)
            .into_iter()
            .chain(filters)
            .collect(),
        transport_socket: way
            .mutual
            .then(|| tls::inbound_socket(&inputs.mesh, offered(inputs, way.content))),
        metadata: ingress.map(|ingress| {
            wire::metadata([(
                "istio",
                json!({"config": wire::config_path(&ingress.sidecar)}),
            )])
        }),
        name: name.clone(),
        ..Default::default()
    }
}

fn offered(inputs: &ListenerInputs, content: Content) -> &'static [&'static str] {
    match content {
        Content::Bytes if !inputs.client.is_envoy_without_istio_filters => {
            &["istio-peer-exchange", "h2", "http/1.1"]
        }
        Content::Bytes | Content::Http => &["h2", "http/1.1"],
    }
}

fn bytes(inputs: &ListenerInputs, place: &Place<'_>) -> Vec<Filter> {
    let mut filters = rbac::network_filters(&inputs.policies, &inputs.mesh);
    filters.extend(tcp::to_cluster(inputs, Side::Inbound, &place.cluster));
    filters
}

fn http_manager(inputs: &ListenerInputs, place: &Place<'_>) -> Filter {
    let operation = format!("{}:{}/*", place.operation_host, place.service_port);
    let route = actions::inbound(&place.cluster, operation, place.protocol == Protocol::Grpc);
    let host = wire_envoy::pb::route::VirtualHost {
        name: format!("inbound|http|{}", place.service_port),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    };
    let table = RouteConfiguration {
        name: place.cluster.clone(),
        virtual_hosts: vec![host],
        validate_clusters: Some(wire::boolean(false)),
        ..Default::default()
    };
    let manager = http::Manager {
        side: Side::Inbound,
        stat_prefix: place.http_stat_prefix.clone(),
        table: http::Table::Inline(Box::new(table)),
        protocol: place.protocol,
    };
    http::connection_manager(inputs, manager)
}

/// A Sidecar's `ingress` with a socket of its own.
fn socket(inputs: &ListenerInputs, port: &InboundPort) -> Listener {
    let place = declared(inputs, port);
    let address = port
        .ingress
        .as_ref()
        .map_or(inputs.client.wildcard(), |ingress| &ingress.address);
    let elsewhere = ports_are(&[port.number]).map(|here| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::NotMatch(Box::new(here))),
    });
    let mut filters = Vec::new();
    if port.mtls != MtlsMode::Disable {
        filters.push(tls_inspector(elsewhere.clone()));
    }
    if detects_http(port.mtls, port.protocol) {
        filters.push(http_inspector(elsewhere));
    }
    let listener = with_socket(at(
        place.names.0.clone(),
        address,
        port.number,
        TrafficDirection::Inbound,
    ));
    Listener {
        filter_chains: filter_chains(inputs, &place),
        listener_filters: filters,
        access_log: inputs.reports(Side::Inbound).listener_logs(),
        ..detecting(listener, &inputs.mesh)
    }
}
