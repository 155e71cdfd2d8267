//! Short ways to write configuration values.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxy_config::{
    Cluster, ClusterName, Endpoints, FilterChain, HttpConnectionManager, HttpFilter, Listener,
    ListenerName, RouteTable, RouteTableName,
    cluster::*,
    endpoint::{Endpoint, EndpointAddress, Health, Locality, LocalityEndpoints},
    filter::{HttpFilterKind, RouterOptions, TcpTerminal},
    header::HeaderOperations,
    http_connection_manager::*,
    listener::*,
    metadata::Metadata,
    route::*,
    tcp_proxy::{TcpProxy, WeightedTcpCluster},
    upgrade::Upgrade,
};

pub fn none<T>() -> Arc<[T]> {
    Arc::from(Vec::new())
}

pub fn listener(name: &str, terminal: Terminal) -> Listener {
    Listener {
        name: ListenerName::parse(name).unwrap(),
        addresses: Arc::from([ListenAddress::Socket("127.0.0.1:0".parse().unwrap())]),
        bind_to_port: true,
        use_original_dst: false,
        transparent: false,
        listener_filters: none(),
        listener_filters_timeout: None,
        continue_on_listener_filters_timeout: false,
        chains: Arc::from([Arc::new(chain("only", terminal))]),
        default_chain: None,
        direction: TrafficDirection::Outbound,
        access_logs: none(),
        per_connection_buffer_limit_bytes: 1 << 20,
        tcp_backlog: None,
        stat_prefix: None,
        metadata: Metadata::default(),
    }
}

pub fn chain(name: &str, terminal: Terminal) -> FilterChain {
    FilterChain {
        name: name.into(),
        matches: ChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Some(Duration::from_secs(5)),
        network_filters: none(),
        terminal,
        metadata: Metadata::default(),
    }
}

pub fn http(routes: RouteSource) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".into(),
        codec: CodecType::Auto,
        routes,
        filters: Arc::from([HttpFilter {
            name: "router".into(),
            kind: HttpFilterKind::Router(RouterOptions::default()),
            disabled: false,
        }]),
        tracing: None,
        access_logs: none(),
        server_name: "istio-envoy".into(),
        server_header: ServerHeader::Overwrite,
        use_remote_address: false,
        internal_networks: none(),
        xff_trusted_hops: 0,
        skip_xff_append: false,
        append_x_forwarded_port: false,
        forward_client_cert: ForwardClientCert::Sanitize,
        client_cert_details: ClientCertDetails::default(),
        proxy_100_continue: true,
        upgrades: Arc::from([
            Upgrade {
                kind: "websocket".into(),
                enabled: true,
            },
            Upgrade {
                kind: "CONNECT".into(),
                enabled: true,
            },
        ]),
        path_normalization: PathNormalization {
            normalize: true,
            ..PathNormalization::default()
        },
        request_id: RequestId {
            generate: true,
            preserve_external: false,
            always_in_response: false,
            pack_trace_reason: true,
            use_for_sampling: true,
        },
        strip_port: StripPort::No,
        accept_http10: false,
        preserve_header_case: false,
        via: None,
        timeouts: HttpTimeouts::default(),
        http2: Http2Options::default(),
        max_request_headers_kb: 60,
        max_headers: 100,
        custom_methods: false,
        max_requests_per_connection: None,
        headers_with_underscores: UnderscoresAction::Allow,
    }
}

/// A listener whose only virtual host has these routes.
pub fn http_listener(name: &str, routes: Vec<Route>) -> Listener {
    listener(
        name,
        Terminal::Http(Arc::new(http(RouteSource::Inline(Arc::new(table(
            "inline",
            vec![host(&["*"], routes)],
        )))))),
    )
}

pub fn table(name: &str, hosts: Vec<VirtualHost>) -> RouteTable {
    RouteTable {
        name: RouteTableName::parse(name).unwrap(),
        virtual_hosts: hosts.into_iter().map(Arc::new).collect(),
        headers: HeaderOperations::default(),
        ignore_port_in_host: true,
        most_specific_header_mutations_wins: false,
        filters: none(),
        mirrors: none(),
    }
}

pub fn host(domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: domains[0].into(),
        domains: domains.iter().map(|domain| Arc::from(*domain)).collect(),
        routes: routes.into_iter().map(Arc::new).collect(),
        headers: HeaderOperations::default(),
        include_request_attempt_count: true,
        include_attempt_count_in_response: false,
        require_tls: RequireTls::No,
        cors: None,
        retry: None,
        filters: none(),
        mirrors: none(),
        metadata: Default::default(),
    }
}

pub fn route(path: PathMatch, action: RouteAction) -> Route {
    Route {
        name: "default".into(),
        matches: RouteMatch {
            path,
            case_sensitive: true,
            headers: none(),
            query: none(),
            runtime_fraction: None,
            grpc_only: false,
            metadata: none(),
            tls: None,
        },
        action,
        headers: HeaderOperations::default(),
        decorator: None,
        decorator_propagate: true,
        metadata: Metadata::default(),
        filters: none(),
        stat_prefix: None,
    }
}

/// Everything to one cluster.
pub fn to(cluster: &str) -> Route {
    to_with(cluster, |_| ())
}

/// What begins with this path to one cluster.
pub fn route_with_prefix(prefix: &str, cluster: &str) -> Route {
    route(
        PathMatch::Prefix(prefix.into()),
        RouteAction::Forward(Arc::new(forward(cluster))),
    )
}

pub fn to_with(cluster: &str, change: impl FnOnce(&mut Forward)) -> Route {
    let mut forward = forward(cluster);
    change(&mut forward);
    route(
        PathMatch::Prefix("/".into()),
        RouteAction::Forward(Arc::new(forward)),
    )
}

pub fn forward(cluster: &str) -> Forward {
    Forward {
        target: Target::Cluster(ClusterName::parse(cluster).unwrap()),
        cluster_not_found_status: http::StatusCode::SERVICE_UNAVAILABLE,
        path_rewrite: PathRewrite::None,
        host_rewrite: HostRewrite::None,
        append_x_forwarded_host: false,
        timeout: None,
        idle_timeout: None,
        grpc_timeout: None,
        max_stream_duration: MaxStreamDuration::default(),
        retry: None,
        mirrors: none(),
        hash_policies: none(),
        cors: None,
        metadata_match: None,
        upgrades: none(),
        high_priority: false,
    }
}

pub fn retry(on: &str, num_retries: u32) -> Option<Arc<RetryPolicy>> {
    Some(Arc::new(RetryPolicy {
        on: RetryOn::parse(on).0,
        num_retries,
        per_try_timeout: None,
        retriable_status_codes: none(),
        retriable_headers: none(),
        retriable_request_headers: none(),
        skip_previous_hosts: true,
        host_selection_max_attempts: 5,
        back_off: BackOff {
            base: Duration::from_millis(1),
            max: Duration::from_millis(5),
        },
    }))
}

pub fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    cluster_with(name, addresses, |_| ())
}

pub fn cluster_with(
    name: &str,
    addresses: &[SocketAddr],
    change: impl FnOnce(&mut Cluster),
) -> Cluster {
    let many = Thresholds {
        max_connections: u32::MAX,
        max_pending_requests: u32::MAX,
        max_requests: u32::MAX,
        max_retries: u32::MAX,
        retry_budget: None,
        max_connection_pools: None,
        track_remaining: false,
    };
    let mut cluster = Cluster {
        name: ClusterName::parse(name).unwrap(),
        alt_stat_name: None,
        discovery: Discovery::Static(Arc::new(endpoints(name, addresses))),
        connect_timeout: Duration::from_secs(2),
        balancer: Balancer::RoundRobin { slow_start: None },
        subsets: None,
        common_lb: CommonLb {
            healthy_panic_threshold_percent: 0.0,
            locality: LocalityMode::None,
        },
        circuit_breakers: CircuitBreakers {
            default: many,
            high: many,
        },
        outlier_detection: None,
        http: UpstreamHttp {
            protocol: UpstreamProtocol::Http1,
            http2: Http2Options::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_stream_duration: None,
            auto_sni: false,
            auto_san_validation: false,
            preserve_header_case: false,
        },
        transport: Transport::Plaintext,
        transport_matches: none(),
        bind: UpstreamBind::default(),
        tcp_keepalive: None,
        peer_metadata_exchange: false,
        metadata: Metadata::default(),
    };
    change(&mut cluster);
    cluster
}

pub fn endpoints(name: &str, addresses: &[SocketAddr]) -> Endpoints {
    let endpoint = |address: &SocketAddr| Endpoint {
        address: EndpointAddress::Socket(*address),
        hostname: "".into(),
        health: Health::Healthy,
        weight: 1,
        metadata: Metadata::default(),
    };
    Endpoints {
        cluster: name.into(),
        localities: Arc::from([LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: Some(1),
            endpoints: addresses.iter().map(endpoint).collect(),
        }]),
        overprovisioning_percent: 140,
        weighted_priority_health: false,
        drops: none(),
    }
}

pub fn tcp(cluster: &str) -> Terminal {
    Terminal::Tcp(Arc::new(TcpTerminal {
        proxy: TcpProxy {
            stat_prefix: "tcp".into(),
            clusters: Arc::from([WeightedTcpCluster {
                name: ClusterName::parse(cluster).unwrap(),
                weight: 1,
                metadata_match: None,
            }]),
            access_logs: none(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connect_attempts: 1,
            max_downstream_connection_duration: None,
            hash_policy: None,
            metadata_match: None,
            tunnel: None,
        },
    }))
}
