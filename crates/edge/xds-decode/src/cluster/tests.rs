use std::time::Duration;

use proxy_config::{
    Cluster,
    cluster::{
        Balancer, Discovery, DnsFamily, LocalityMode, ProxyProtocolVersion, Transport,
        UpstreamProtocol,
    },
};

use crate::{
    reject::Reject,
    testing::{decode, parts, refused},
};

fn cluster(yaml: &str) -> Result<Cluster, Reject> {
    decode(yaml, super::cluster)
}

#[test]
fn what_is_not_said_has_envoys_defaults() {
    let cluster = cluster("name: a").expect("decoded");
    assert!(
        matches!(&cluster.discovery, Discovery::Static(endpoints) if endpoints.localities.is_empty())
    );
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.balancer, Balancer::RoundRobin { slow_start: None });
    assert_eq!(cluster.circuit_breakers.default.max_connections, 1024);
    assert_eq!(cluster.circuit_breakers.high.max_retries, 3);
    assert_eq!(cluster.common_lb.healthy_panic_threshold_percent, 50.0);
    assert_eq!(cluster.common_lb.locality, LocalityMode::None);
    assert_eq!(cluster.http.protocol, UpstreamProtocol::Http1);
    assert_eq!(cluster.http.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(cluster.transport, Transport::Plaintext);
    assert_eq!(cluster.outlier_detection, None);
}

#[test]
fn outlier_detection_has_envoys_defaults_and_limits() {
    let found =
        cluster("{name: a, outlier_detection: {consecutive_gateway_failure: 3}}").expect("decoded");
    let outlier = found.outlier_detection.expect("on");
    assert_eq!(outlier.consecutive_5xx.expect("enforced").count, 5);
    assert_eq!(
        outlier.consecutive_gateway_failure, None,
        "enforcing defaults to 0"
    );
    assert_eq!(outlier.max_ejection_percent.value(), 10);
    assert_eq!(outlier.max_ejection_time, Duration::from_secs(300));
    assert_eq!(outlier.success_rate.expect("enforced").stdev_factor, 1900);
    let long =
        cluster("{name: a, outlier_detection: {base_ejection_time: 900s}}").expect("decoded");
    assert_eq!(
        long.outlier_detection.expect("on").max_ejection_time,
        Duration::from_secs(900)
    );
    let (field, _) = refused(cluster(
        "{name: a, outlier_detection: {max_ejection_percent: 101}}",
    ));
    assert_eq!(field, "outlier_detection.max_ejection_percent");
    let (field, _) = refused(cluster("{name: a, outlier_detection: {interval: 0s}}"));
    assert_eq!(field, "outlier_detection.interval");
}

#[test]
fn error_statuses_come_from_a_matcher_over_the_status() {
    let options = |matcher: &str| {
        format!(
            "{{name: a, outlier_detection: {{}}, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
             {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
             explicit_http_config: {{http2_protocol_options: {{}}}}, outlier_detection: {{error_matcher: {matcher}}}}}}}}}"
        )
    };
    let status = "{http_response_headers_match: {headers: [{name: ':status', string_match: {exact: '429'}}]}}";
    let found = cluster(&options(&format!(
        "{{or_match: {{rules: [{status}, {status}]}}}}"
    )))
    .expect("decoded");
    let outlier = found.outlier_detection.expect("on");
    assert_eq!(
        outlier.error_statuses.as_deref(),
        Some([429..430, 429..430].as_slice())
    );
    assert_eq!(found.http.protocol, UpstreamProtocol::Http2);
    assert!(
        refused(cluster(&options("{any_match: true}")))
            .0
            .ends_with("outlier_detection.error_matcher")
    );
}

#[test]
fn balancers_are_checked() {
    let maglev = |size: &str| {
        cluster(&format!(
            "{{name: a, lb_policy: MAGLEV, maglev_lb_config: {{table_size: {size}}}}}"
        ))
    };
    assert_eq!(
        maglev("65537").expect("a prime").balancer,
        Balancer::Maglev {
            table_size: 65537,
            use_hostname: false
        }
    );
    assert_eq!(refused(maglev("65536")).0, "maglev_lb_config.table_size");
    let ring = cluster(
        "{name: a, lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 10, maximum_ring_size: 5}}",
    );
    assert_eq!(refused(ring).0, "ring_hash_lb_config.minimum_ring_size");
    let slow = cluster(
        "{name: a, lb_policy: LEAST_REQUEST, least_request_lb_config: {slow_start_config: {slow_start_window: 60s, \
         aggression: {default_value: 2.0, runtime_key: '('}}}}",
    );
    let Balancer::LeastRequest {
        choice_count: 2,
        slow_start: Some(slow),
        ..
    } = slow.expect("decoded").balancer
    else {
        panic!("another balancer")
    };
    assert_eq!(
        (slow.window, slow.aggression, slow.min_weight_percent),
        (Duration::from_secs(60), 2.0, 10.0)
    );
}

#[test]
fn typed_policies_are_tried_in_order() {
    let unknown = "{typed_extension_config: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.pick_first.v3.PickFirst}}}";
    let known = "{typed_extension_config: {name: y, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality, \
                 endpoint_picking_policy: {policies: [{typed_extension_config: {name: z, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random}}}]}}}}";
    let found = cluster(&format!(
        "{{name: a, load_balancing_policy: {{policies: [{unknown}, {known}]}}}}"
    ))
    .expect("decoded");
    assert_eq!(
        (found.balancer, found.common_lb.locality),
        (Balancer::Random, LocalityMode::Weighted)
    );
    let (_, reason) = refused(cluster(&format!(
        "{{name: a, load_balancing_policy: {{policies: [{unknown}]}}}}"
    )));
    assert!(reason.contains("pick_first.v3.PickFirst"), "{reason}");
}

#[test]
fn dns_clusters_keep_names() {
    let found = cluster(
        "{name: a, type: STRICT_DNS, dns_lookup_family: V4_ONLY, dns_refresh_rate: 60s, load_assignment: {cluster_name: a, endpoints: \
         [{lb_endpoints: [{endpoint: {address: {socket_address: {address: example.com, port_value: 443}}}}]}]}}",
    );
    let Discovery::StrictDns { endpoints, refresh } = found.expect("decoded").discovery else {
        panic!("another kind")
    };
    assert_eq!(
        (&*endpoints[0].hosts[0].host, endpoints[0].hosts[0].port),
        ("example.com", 443)
    );
    assert_eq!(
        (refresh.rate, refresh.family),
        (Duration::from_secs(60), DnsFamily::V4Only)
    );
    let (field, reason) = refused(cluster(
        "{name: a, type: STATIC, load_assignment: {cluster_name: a, endpoints: \
         [{lb_endpoints: [{endpoint: {address: {socket_address: {address: example.com, port_value: 443}}}}]}]}}",
    ));
    assert_eq!(
        field,
        "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address"
    );
    assert!(reason.contains("no IP address"));
}

#[test]
fn transports_nest_one_deep_and_unknown_ones_are_named() {
    let socket = |inner: &str| {
        format!(
            "{{name: p, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
             config: {{version: V2}}, transport_socket: {inner}}}}}"
        )
    };
    let raw = "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}";
    let found =
        cluster(&format!("{{name: a, transport_socket: {}}}", socket(raw))).expect("decoded");
    assert_eq!(
        found.transport,
        Transport::ProxyProtocol {
            version: ProxyProtocolVersion::V2,
            inner: Box::new(Transport::Plaintext)
        }
    );
    assert!(
        cluster(&format!(
            "{{name: a, transport_socket: {}}}",
            socket(&socket(raw))
        ))
        .is_err()
    );
    let alts = "{name: a, transport_socket: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts}}}";
    let (field, reason) = refused(cluster(alts));
    assert_eq!(field, "transport_socket.typed_config");
    assert!(
        reason.starts_with("envoy.extensions.transport_sockets.alts.v3.Alts is not supported"),
        "{reason}"
    );
}

#[test]
fn the_original_destinations_bind_marks_sockets() {
    let found = cluster(
        "{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}, \
         socket_options: [{level: 1, name: 36, int_value: 1337}]}}",
    )
    .expect("decoded");
    assert_eq!(
        found.bind.source,
        Some("127.0.0.6:0".parse().expect("address"))
    );
    assert_eq!(found.bind.mark, Some(1337));
    let (field, reason) = refused(cluster(
        "{name: a, upstream_bind_config: {socket_options: [{level: 1, name: 2, int_value: 1}]}}",
    ));
    assert_eq!(
        (field.as_str(), reason.as_str()),
        (
            "upstream_bind_config.socket_options",
            "socket option 2 of level 1 is not supported"
        )
    );
}

#[test]
fn a_rejected_field_is_named() {
    let (field, reason) = refused(cluster("{name: a, health_checks: [{timeout: 1s}]}"));
    assert_eq!(
        (field.as_str(), reason.as_str()),
        (
            "health_checks",
            "not supported: active health checks are not supported"
        )
    );
    assert_eq!(refused(cluster("{}")).0, "name");
    assert_eq!(
        refused(cluster("{name: a, connect_timeout: -1s}")).0,
        "connect_timeout"
    );
}

#[test]
fn an_unreadable_transport_makes_no_connections_and_is_never_plaintext() {
    let quic = "{name: q, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport}}";
    let (cluster, refused) = parts(
        &format!(
            "{{name: a, transport_socket: {quic}, transport_socket_matches: [{{name: m, match: {{k: v}}, transport_socket: {quic}}}]}}"
        ),
        super::cluster,
    );
    let cluster = cluster.expect("taken");
    let fields: Vec<&str> = refused.iter().map(|r| &*r.field).collect();
    assert_eq!(
        fields,
        [
            "transport_socket.typed_config",
            "transport_socket_matches[0].transport_socket.typed_config"
        ]
    );
    assert!(matches!(cluster.transport, Transport::Refused(_)));
    assert!(matches!(
        cluster.transport_matches[0].transport,
        Transport::Refused(_)
    ));
}

#[test]
fn an_endpoint_that_cannot_be_read_gets_no_traffic_and_the_others_do() {
    let address = |port| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: {port}}}}}}}}}"
        )
    };
    let (cluster, refused) = parts(
        &format!(
            "{{name: a, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{}, {}]}}]}}}}",
            address(0),
            address(80)
        ),
        super::cluster,
    );
    assert_eq!(
        refused[0].field,
        "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address"
    );
    let Discovery::Static(endpoints) = cluster.expect("taken").discovery else {
        panic!("not static")
    };
    assert_eq!(endpoints.localities[0].endpoints.len(), 1);
}
