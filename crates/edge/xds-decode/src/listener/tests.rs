use std::time::Duration;

use proxy_config::{
    Listener,
    listener::{ListenerFilterKind, Terminal, TransportProtocol},
};

use crate::{
    reject::Reject,
    testing::{decode, refused},
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
