//! Clusters (`envoy.config.cluster.v3`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderName;

use crate::{
    ClusterName, Endpoints, Refused,
    http_connection_manager::Http2Options,
    matcher::Percent,
    metadata::{Metadata, Value},
    tls::UpstreamTls,
};

#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    pub name: ClusterName,
    /// Prefix of its statistics (`cluster.<name>.`); the cluster's name unless given; Istio ends it
    /// with `;`.
    pub alt_stat_name: Option<Arc<str>>,
    pub discovery: Discovery,
    pub connect_timeout: Duration,
    pub balancer: Balancer,
    pub subsets: Option<SubsetConfig>,
    pub common_lb: CommonLb,
    /// Default and high priority.
    pub circuit_breakers: CircuitBreakers,
    pub outlier_detection: Option<Arc<OutlierDetection>>,
    pub http: UpstreamHttp,
    /// Used when no match applies.
    pub transport: Transport,
    /// First whose criteria are all found in the endpoint's `envoy.transport_socket_match`
    /// metadata.
    pub transport_matches: Arc<[TransportMatch]>,
    pub bind: UpstreamBind,
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// TCP connections only; Istio puts the metadata exchange here.
    pub peer_metadata_exchange: bool,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    Static(Arc<Endpoints>),
    /// By this name through EDS.
    Eds {
        service_name: Arc<str>,
    },
    /// Every address of every name is an endpoint (STRICT_DNS).
    StrictDns {
        endpoints: Arc<[DnsEndpoints]>,
        refresh: DnsRefresh,
    },
    /// Connections go to whatever the name resolves to now (LOGICAL_DNS).
    LogicalDns {
        endpoints: Arc<[DnsEndpoints]>,
        refresh: DnsRefresh,
    },
    /// The downstream connection's original destination.
    OriginalDst {
        http_header: Option<HeaderName>,
        port_override: Option<u16>,
    },
    /// `envoy.clusters.dynamic_forward_proxy`: the request's host is resolved.
    DynamicForward {
        refresh: DnsRefresh,
    },
}

/// One locality's endpoints of a DNS cluster, hosts not yet resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsEndpoints {
    pub locality: crate::endpoint::Locality,
    pub priority: u32,
    pub locality_weight: Option<u32>,
    pub hosts: Arc<[DnsHost]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DnsHost {
    /// Name or literal address.
    pub host: Arc<str>,
    pub port: u16,
    pub weight: u32,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsRefresh {
    pub rate: Duration,
    pub respect_ttl: bool,
    pub family: DnsFamily,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsFamily {
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Balancer {
    RoundRobin {
        slow_start: Option<SlowStart>,
    },
    LeastRequest {
        choice_count: u32,
        active_request_bias: f64,
        slow_start: Option<SlowStart>,
    },
    Random,
    RingHash {
        minimum_size: u64,
        maximum_size: u64,
        hash: RingHashFunction,
        use_hostname: bool,
    },
    Maglev {
        table_size: u64,
        use_hostname: bool,
    },
    /// Original destination and the like.
    ClusterProvided,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingHashFunction {
    XxHash,
    Murmur2,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    pub aggression: f64,
    pub min_weight_percent: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SubsetConfig {
    pub fallback: SubsetFallback,
    pub default_subset: Value,
    /// Key sets that select.
    pub selectors: Arc<[Arc<[Arc<str>]>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubsetFallback {
    NoFallback,
    AnyEndpoint,
    DefaultSubset,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CommonLb {
    /// 0.0..=100.0; Envoy's default 50; 0 switches the panic mode off.
    pub healthy_panic_threshold_percent: f64,
    pub locality: LocalityMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalityMode {
    None,
    /// Zone-aware routing of the local cluster.
    ZoneAware {
        fail_traffic_on_panic: bool,
    },
    /// `load_balancing_weight` of each locality.
    Weighted,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CircuitBreakers {
    pub default: Thresholds,
    pub high: Thresholds,
}

/// Envoy's defaults: 1024, 1024, 1024, 3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    pub retry_budget: Option<RetryBudget>,
    pub max_connection_pools: Option<u32>,
    /// `remaining_*` gauges are published.
    pub track_remaining: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    pub percent: f64,
    pub min_retry_concurrency: u32,
}

/// Envoy's defaults where Istio sends none.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: Percent,
    pub always_eject_one_host: bool,
    /// `None`: not counted.
    pub consecutive_5xx: Option<Consecutive>,
    pub consecutive_gateway_failure: Option<Consecutive>,
    pub consecutive_local_origin_failure: Option<Consecutive>,
    pub split_external_local_origin_errors: bool,
    pub success_rate: Option<SuccessRate>,
    pub failure_percentage: Option<FailurePercentage>,
    /// `None`: 5xx; otherwise these answers count as errors.
    pub error_statuses: Option<Arc<[std::ops::Range<u16>]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consecutive {
    pub count: u32,
    /// Chance that the ejection is carried out.
    pub enforcing: Percent,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRate {
    pub minimum_hosts: u32,
    pub request_volume: u32,
    /// Thousandths of a standard deviation (1900 = 1.9).
    pub stdev_factor: u32,
    pub enforcing: Percent,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailurePercentage {
    pub threshold: Percent,
    pub minimum_hosts: u32,
    pub request_volume: u32,
    pub enforcing: Percent,
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamHttp {
    pub protocol: UpstreamProtocol,
    pub http2: Http2Options,
    /// Idle connections are closed after this; `None`: never; default 1 h.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub max_stream_duration: Option<Duration>,
    pub auto_sni: bool,
    pub auto_san_validation: bool,
    pub preserve_header_case: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// Whatever the downstream speaks (`use_downstream_protocol_config`).
    Downstream,
    /// By ALPN (`auto_config`).
    Alpn,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    Plaintext,
    Tls(Arc<UpstreamTls>),
    /// PROXY protocol header, then the inner transport.
    ProxyProtocol {
        version: ProxyProtocolVersion,
        inner: Box<Transport>,
    },
    /// Could not be read: no connection is made.
    Refused(Arc<Refused>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TransportMatch {
    pub name: Arc<str>,
    /// All must be equal in the endpoint's metadata; empty matches every endpoint.
    pub criteria: Arc<[(Arc<str>, Value)]>,
    pub transport: Transport,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamBind {
    /// Source address; port 0: any.
    pub source: Option<SocketAddr>,
    /// SO_MARK.
    pub mark: Option<u32>,
    pub transparent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}
