use std::time::Duration;

use proxy_config::{
    Listener,
    filter::{HttpFilterKind, NetworkFilter},
    listener::{ListenerFilterKind, Terminal, TransportProtocol},
};

use crate::{
    reject::Reject,
    testing::{decode, parts, refused},
};

const ADDRESS: &str = "name: a, address: {socket_address: {address: 0.0.0.0, port_value: 80}}";
const TCP: &str = "{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c}}";

fn listener(fields: &str) -> Result<Listener, Reject> {
    decode(&format!("{{{ADDRESS}, {fields}}}"), super::listener)
}

#[test]
fn what_is_not_said_has_envoys_defaults() {
    let found = listener(&format!("filter_chains: [{{filters: [{TCP}]}}]")).expect("decoded");
    assert!(found.bind_to_port);
    assert!(!found.use_original_dst);
    assert_eq!(
        found.listener_filters_timeout,
        Some(Duration::from_secs(15))
    );
    assert_eq!(found.per_connection_buffer_limit_bytes, 1 << 20);
    assert_eq!(found.chains[0].matches, Default::default());
    assert!(
        matches!(&found.chains[0].terminal, Terminal::Tcp(tcp) if tcp.proxy.idle_timeout == Some(Duration::from_secs(3600)))
    );
    let waits = listener(&format!(
        "listener_filters_timeout: 0s, filter_chains: [{{filters: [{TCP}]}}]"
    ))
    .expect("decoded");
    assert_eq!(waits.listener_filters_timeout, None);
}

#[test]
fn a_chain_is_matched_by_what_it_says() {
    let found = listener(&format!(
        "filter_chains: [{{filter_chain_match: {{destination_port: 8080, server_names: ['*.Example.com'], transport_protocol: tls, \
         prefix_ranges: [{{address_prefix: 10.1.2.3, prefix_len: 16}}], application_protocols: [istio]}}, filters: [{TCP}]}}]"
    ))
    .expect("decoded");
    let matches = &found.chains[0].matches;
    assert_eq!(matches.destination_port, Some(8080));
    assert_eq!(&*matches.server_names[0], "*.example.com");
    assert_eq!(matches.transport_protocol, TransportProtocol::Tls);
    assert_eq!(matches.destination_prefixes[0].to_string(), "10.1.0.0/16");
    let quic = listener(&format!(
        "filter_chains: [{{filter_chain_match: {{transport_protocol: quic}}, filters: [{TCP}]}}]"
    ));
    assert_eq!(
        refused(quic).0,
        "filter_chains[0].filter_chain_match.transport_protocol"
    );
    let name = listener(&format!(
        "filter_chains: [{{filter_chain_match: {{server_names: ['a.*']}}, filters: [{TCP}]}}]"
    ));
    assert_eq!(
        refused(name).0,
        "filter_chains[0].filter_chain_match.server_names[0]"
    );
}

#[test]
fn one_filter_ends_a_chain_and_unknown_filters_are_named() {
    let after = listener(&format!("filter_chains: [{{filters: [{TCP}, {TCP}]}}]"));
    assert_eq!(refused(after).0, "filter_chains[0].filters[1]");
    let sni = "{name: s, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster}}";
    assert_eq!(
        refused(listener(&format!("filter_chains: [{{filters: [{sni}]}}]"))).0,
        "filter_chains[0].filters"
    );
    let authz = "{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz}}";
    let (field, reason) = refused(listener(&format!(
        "filter_chains: [{{filters: [{authz}, {TCP}]}}]"
    )));
    assert_eq!(field, "filter_chains[0].filters[0].typed_config");
    assert!(
        reason.contains("ext_authz.v3.ExtAuthz is not supported as a network filter"),
        "{reason}"
    );
    assert_eq!(
        refused(listener("use_original_dst: true")).0,
        "filter_chains"
    );
}

#[test]
fn listener_filters_can_be_switched_off_by_port() {
    let found = listener(&format!(
        "listener_filters: [{{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}, \
         filter_disabled: {{not_match: {{or_match: {{rules: [{{destination_port_range: {{start: 80, end: 81}}}}]}}}}}}}}], \
         filter_chains: [{{filters: [{TCP}]}}]"
    ))
    .expect("decoded");
    let filter = &found.listener_filters[0];
    assert_eq!(filter.kind, ListenerFilterKind::TlsInspector);
    let disabled = filter.disabled.as_ref().expect("given");
    assert!(disabled.is_match(81) && !disabled.is_match(80));
}

const ROUTER: &str = "{name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
const JWT: &str = "{name: envoy.filters.http.jwt_authn, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication}}";

fn http(fields: &str) -> String {
    format!(
        "{{name: h, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: s, {fields}}}}}"
    )
}

/// What is taken of a listener of which something is refused.
fn taken(fields: &str) -> (Listener, Vec<Reject>) {
    let (listener, refused) = parts(&format!("{{{ADDRESS}, {fields}}}"), super::listener);
    (listener.expect("taken"), refused)
}

#[test]
fn an_unreadable_http_filter_answers_and_the_rest_of_the_listener_is_new() {
    let manager = http(&format!(
        "http_filters: [{JWT}, {ROUTER}], route_config: {{name: r}}"
    ));
    let (found, refused) = taken(&format!(
        "filter_chains: [{{filters: [{manager}]}}, {{filter_chain_match: {{destination_port: 8080}}, filters: [{TCP}]}}]"
    ));
    assert_eq!(refused.len(), 1);
    assert_eq!(
        refused[0].field,
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config"
    );
    assert!(
        refused[0].reason.contains("JwtAuthentication"),
        "{refused:?}"
    );
    let Terminal::Http(manager) = &found.chains[0].terminal else {
        panic!("{:?}", found.chains[0].terminal)
    };
    let kinds: Vec<bool> = manager
        .filters
        .iter()
        .map(|f| matches!(f.kind, HttpFilterKind::Refused(_)))
        .collect();
    assert_eq!(kinds, [true, false]);
    assert!(matches!(found.chains[1].terminal, Terminal::Tcp(_)));
}

#[test]
fn an_unreadable_connection_manager_answers_every_request() {
    let manager = http(&format!(
        "http_filters: [{ROUTER}], route_config: {{name: r}}, strip_trailing_host_dot: true"
    ));
    let (found, refused) = taken(&format!("filter_chains: [{{filters: [{manager}]}}]"));
    assert_eq!(
        refused[0].field,
        "filter_chains[0].filters[0].typed_config.strip_trailing_host_dot"
    );
    let Terminal::Http(manager) = &found.chains[0].terminal else {
        panic!("{:?}", found.chains[0].terminal)
    };
    assert!(matches!(
        manager.filters[0].kind,
        HttpFilterKind::Refused(_)
    ));
}

#[test]
fn an_unreadable_network_filter_or_transport_closes_the_chain() {
    let authz = "{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz}}";
    let quic = "{name: q, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport}}";
    for chain in [
        format!("{{filters: [{authz}, {TCP}]}}"),
        format!("{{filters: [{TCP}], transport_socket: {quic}}}"),
    ] {
        let (found, refused) = taken(&format!("filter_chains: [{chain}]"));
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(matches!(
            found.chains[0].network_filters[0],
            NetworkFilter::Refused(_)
        ));
    }
}

#[test]
fn a_listener_whose_chains_cannot_be_told_apart_closes_everything() {
    let (found, refused) = taken(&format!(
        "filter_chains: [{{filter_chain_match: {{transport_protocol: quic}}, filters: [{TCP}]}}, {{filters: [{TCP}]}}]"
    ));
    assert_eq!(refused[0].cost, "its connections are closed");
    assert!(found.chains.is_empty());
    let chain = found.default_chain.as_ref().expect("one for all");
    assert!(matches!(
        chain.network_filters[0],
        NetworkFilter::Refused(_)
    ));
}

#[test]
fn an_unknown_access_log_costs_its_lines_only() {
    let log = "{name: l, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.wasm.v3.WasmAccessLog}}";
    let (found, refused) = taken(&format!(
        "access_log: [{log}], filter_chains: [{{filters: [{TCP}]}}]"
    ));
    assert_eq!(refused[0].field, "access_log[0].typed_config");
    assert_eq!(refused[0].cost, "left out");
    assert!(found.access_logs.is_empty());
    assert!(matches!(found.chains[0].terminal, Terminal::Tcp(_)));
}
