//! DestinationRule: how connections to a host are made (rows TM-040 … TM-055).

use std::{sync::Arc, time::Duration};

use crate::object::{ExportTo, Host, Meta, Selector, Text};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRule {
    pub meta: Meta,
    pub host: Host,
    pub policy: TrafficPolicy,
    pub subsets: Arc<[Subset]>,
    pub export_to: ExportTo,
    /// Only for these client workloads of its own namespace.
    pub workload_selector: Option<Selector>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    pub name: Text,
    /// Labels of its endpoints.
    pub labels: Selector,
    /// Replaces the rule's policy block by block.
    pub policy: TrafficPolicy,
}

/// Each block `None`: not set at this level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrafficPolicy {
    pub load_balancer: Option<LoadBalancer>,
    pub connection_pool: Option<ConnectionPool>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTls>,
    /// Port → policy that replaces (not merges) the four blocks above for that port.
    pub port_level: Arc<[(u16, TrafficPolicy)]>,
    pub tunnel: Option<Tunnel>,
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    pub retry_budget: Option<RetryBudget>,
}

impl TrafficPolicy {
    /// Blocks of `self` where set, else of `base` (subset over rule, rule over mesh default).
    pub fn over(&self, base: &TrafficPolicy) -> TrafficPolicy {
        TrafficPolicy {
            load_balancer: self
                .load_balancer
                .clone()
                .or_else(|| base.load_balancer.clone()),
            connection_pool: self
                .connection_pool
                .clone()
                .or_else(|| base.connection_pool.clone()),
            outlier_detection: self
                .outlier_detection
                .clone()
                .or_else(|| base.outlier_detection.clone()),
            tls: self.tls.clone().or_else(|| base.tls.clone()),
            port_level: if self.port_level.is_empty() {
                base.port_level.clone()
            } else {
                self.port_level.clone()
            },
            tunnel: self.tunnel.clone().or_else(|| base.tunnel.clone()),
            proxy_protocol: self.proxy_protocol.or(base.proxy_protocol),
            retry_budget: self.retry_budget.or(base.retry_budget),
        }
    }
    /// The policy that holds for `port`: a port-level entry replaces the four main blocks.
    pub fn for_port(&self, port: u16) -> TrafficPolicy {
        match self.port_level.iter().find(|(number, _)| *number == port) {
            None => TrafficPolicy {
                port_level: Arc::new([]),
                ..self.clone()
            },
            Some((_, at_port)) => TrafficPolicy {
                load_balancer: at_port.load_balancer.clone(),
                connection_pool: at_port.connection_pool.clone(),
                outlier_detection: at_port.outlier_detection.clone(),
                tls: at_port.tls.clone(),
                port_level: Arc::new([]),
                ..self.clone()
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    pub algorithm: Algorithm,
    pub locality: Option<LocalityLb>,
    pub warmup: Option<Warmup>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    /// Not set: LEAST_REQUEST.
    Default,
    LeastRequest,
    RoundRobin,
    Random,
    Passthrough,
    ConsistentHash {
        key: HashKey,
        table: HashTable,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Header(Text),
    Cookie {
        name: Text,
        path: Option<Text>,
        ttl: Option<Duration>,
        attributes: Arc<[(Text, Text)]>,
    },
    SourceIp,
    QueryParameter(Text),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTable {
    RingHash { minimum_size: u64 },
    Maglev { table_size: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmup {
    pub duration: Duration,
    /// 0.0..=100.0.
    pub minimum_percent: f64,
    /// 1.0 or more.
    pub aggression: f64,
}

/// Its numbers were read from text, where there is no NaN.
impl Eq for Warmup {}

/// `enabled: None`: as the mesh says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalityLb {
    pub enabled: Option<bool>,
    pub distribute: Arc<[Distribute]>,
    /// Region → region.
    pub failover: Arc<[(Text, Text)]>,
    /// Label keys, or `key=value`.
    pub failover_priority: Arc<[Text]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribute {
    pub from: Text,
    /// Locality pattern → weight, sum 100.
    pub to: Arc<[(Text, u32)]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionPool {
    pub tcp: TcpPool,
    pub http: HttpPool,
}

/// `None`: not set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TcpPool {
    pub max_connections: Option<u32>,
    pub connect_timeout: Option<Duration>,
    pub keepalive: Option<Keepalive>,
    pub max_connection_duration: Option<Duration>,
    /// `Some(ZERO)`: off.
    pub idle_timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpPool {
    pub http1_max_pending_requests: Option<u32>,
    pub http2_max_requests: Option<u32>,
    pub max_requests_per_connection: Option<u32>,
    pub max_retries: Option<u32>,
    pub idle_timeout: Option<Duration>,
    pub h2_upgrade: Option<H2Upgrade>,
    pub use_client_protocol: bool,
    pub max_concurrent_streams: Option<u32>,
    /// `(interval, timeout)`.
    pub http2_keepalive: Option<(Duration, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H2Upgrade {
    Upgrade,
    DoNotUpgrade,
}

/// `None`: Envoy's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutlierDetection {
    /// `Some(0)`: off.
    pub consecutive_5xx: Option<u32>,
    pub consecutive_gateway: Option<u32>,
    pub split_external_local_origin: bool,
    pub consecutive_local_origin: Option<u32>,
    pub interval: Option<Duration>,
    pub base_ejection_time: Option<Duration>,
    /// 0..=100.
    pub max_ejection_percent: Option<u32>,
    pub min_health_percent: u32,
    /// Statuses that count instead of 5xx.
    pub http_error_codes: Arc<[u16]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    pub mode: ClientTlsMode,
    pub client_certificate: Option<Text>,
    pub private_key: Option<Text>,
    pub ca_certificates: Option<Text>,
    pub ca_crl: Option<Text>,
    pub credential_name: Option<Text>,
    pub subject_alt_names: Arc<[Text]>,
    pub sni: Option<Text>,
    pub insecure_skip_verify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientTlsMode {
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub use_post: bool,
    pub target_host: Text,
    pub target_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocolVersion {
    V1,
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// 0.0..=100.0.
    pub percent: f64,
    pub min_retry_concurrency: u32,
}

/// Its number was read from text, where there is no NaN.
impl Eq for RetryBudget {}
