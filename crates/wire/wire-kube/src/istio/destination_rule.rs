//! `networking.istio.io` DestinationRule: what happens on the way to a service after routing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::selector::WorkloadSelector;
use super::virtual_service::PortSelector;

message! {
    struct DestinationRule {
        host: String,
        traffic_policy: Option<TrafficPolicy>,
        subsets: Vec<Subset>,
        export_to: Vec<String>,
        workload_selector: Option<WorkloadSelector>,
    }
}

message! {
    struct Subset {
        name: String,
        labels: BTreeMap<String, String>,
        traffic_policy: Option<TrafficPolicy>,
    }
}

message! {
    struct TrafficPolicy {
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
        port_level_settings: Vec<PortTrafficPolicy>,
        tunnel: Option<TunnelSettings>,
        proxy_protocol: Option<ProxyProtocol>,
        retry_budget: Option<RetryBudget>,
    }
}

message! {
    struct PortTrafficPolicy {
        port: Option<PortSelector>,
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
    }
}

message! {
    struct LoadBalancerSettings {
        simple: Option<SimpleLb>,
        consistent_hash: Option<ConsistentHashLb>,
        locality_lb_setting: Option<LocalityLbSetting>,
        /// Deprecated.
        warmup_duration_secs: Option<Duration>,
        warmup: Option<WarmupConfiguration>,
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    }
}

names! {
    enum SimpleLb {
        Unspecified = 0 "UNSPECIFIED",
        /// Deprecated name of LEAST_REQUEST.
        LeastConn = 1 "LEAST_CONN",
        Random = 2 "RANDOM",
        Passthrough = 3 "PASSTHROUGH",
        RoundRobin = 4 "ROUND_ROBIN",
        LeastRequest = 5 "LEAST_REQUEST",
    }
}

message! {
    struct ConsistentHashLb {
        http_header_name: Option<String>,
        http_cookie: Option<HttpCookie>,
        use_source_ip: Option<bool>,
        http_query_parameter_name: Option<String>,
        ring_hash: Option<RingHash>,
        maglev: Option<Maglev>,
        /// Deprecated.
        minimum_ring_size: u64,
    }
}

message! {
    struct HttpCookie {
        name: String,
        path: String,
        ttl: Option<Duration>,
        attributes: Vec<CookieAttribute>,
    }
}

message! {
    struct CookieAttribute {
        name: String,
        value: String,
    }
}

message! {
    struct RingHash {
        minimum_ring_size: u64,
    }
}

message! {
    struct Maglev {
        table_size: u64,
    }
}

message! {
    struct WarmupConfiguration {
        duration: Option<Duration>,
        minimum_percent: Option<f64>,
        aggression: Option<f64>,
    }
}

message! {
    struct LocalityLbSetting {
        distribute: Vec<LocalityDistribute>,
        failover: Vec<LocalityFailover>,
        failover_priority: Vec<String>,
        enabled: Option<bool>,
    }
}

message! {
    struct LocalityDistribute {
        from: String,
        to: BTreeMap<String, u32>,
    }
}

message! {
    struct LocalityFailover {
        from: String,
        to: String,
    }
}

message! {
    struct ZoneAwareLbSetting {
        enabled: Option<bool>,
        failover: Vec<LocalityFailover>,
        failover_priority: Vec<String>,
        min_cluster_size: Option<u64>,
    }
}

message! {
    struct ConnectionPoolSettings {
        tcp: Option<TcpSettings>,
        http: Option<HttpSettings>,
    }
}

message! {
    struct TcpSettings {
        max_connections: i32,
        connect_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        max_connection_duration: Option<Duration>,
        idle_timeout: Option<Duration>,
    }
}

message! {
    struct TcpKeepalive {
        probes: u32,
        time: Option<Duration>,
        interval: Option<Duration>,
    }
}

message! {
    struct HttpSettings {
        http1_max_pending_requests: i32,
        http2_max_requests: i32,
        max_requests_per_connection: i32,
        max_retries: i32,
        idle_timeout: Option<Duration>,
        h2_upgrade_policy: H2UpgradePolicy,
        use_client_protocol: bool,
        max_concurrent_streams: i32,
        http2_keep_alive: Option<Http2KeepAlive>,
    }
}

names! {
    enum H2UpgradePolicy {
        Default = 0 "DEFAULT",
        DoNotUpgrade = 1 "DO_NOT_UPGRADE",
        Upgrade = 2 "UPGRADE",
    }
}

message! {
    struct Http2KeepAlive {
        interval: Option<Duration>,
        timeout: Option<Duration>,
    }
}

message! {
    struct OutlierDetection {
        /// Deprecated: consecutive gateway errors.
        consecutive_errors: i32,
        split_external_local_origin_errors: bool,
        consecutive_local_origin_failures: Option<u32>,
        consecutive_gateway_errors: Option<u32>,
        consecutive_5xx_errors: Option<u32>,
        interval: Option<Duration>,
        base_ejection_time: Option<Duration>,
        max_ejection_percent: i32,
        min_health_percent: i32,
        outlier_detection_http_error_codes: Vec<u32>,
    }
}

message! {
    struct ClientTlsSettings {
        mode: ClientTlsMode,
        client_certificate: String,
        private_key: String,
        ca_certificates: String,
        credential_name: String,
        subject_alt_names: Vec<String>,
        sni: String,
        insecure_skip_verify: Option<bool>,
        ca_crl: String,
    }
}

names! {
    enum ClientTlsMode {
        Disable = 0 "DISABLE",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        IstioMutual = 3 "ISTIO_MUTUAL",
    }
}

message! {
    struct TunnelSettings {
        protocol: String,
        target_host: String,
        target_port: u32,
    }
}

message! {
    struct ProxyProtocol {
        version: ProxyProtocolVersion,
    }
}

names! {
    enum ProxyProtocolVersion {
        V1 = 0 "V1",
        V2 = 1 "V2",
    }
}

message! {
    struct RetryBudget {
        percent: Option<f64>,
        min_retry_concurrency: u32,
        budget_interval: Option<Duration>,
    }
}
