//! What is counted about listeners (`listener.<address>.…`) and connection managers
//! (`http.<prefix>.…`), under Envoy's names.

use std::sync::Arc;

use proxy_config::{HttpConnectionManager, Listener, listener::ListenAddress};
use telemetry::{
    record::{Protocol, Record, ResponseFlags},
    stats::{Counters, Gauge, Scope, Store},
};
use tokio::time::Instant;

use crate::report::distribution::Distributions;

macro_rules! block {
    ($(#[$doc:meta])* $kind:ident $names:ident { $($variant:ident $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind { $($variant),* }
        const $names: &[&str] = &[$($name),*];
    };
}

block! {
    /// Counters of a listener.
    ListenerCount LISTENER {
        Connections "downstream_cx_total",
        Destroyed "downstream_cx_destroy",
        NoChain "no_filter_chain_match",
        Handshakes "ssl.handshake",
        HandshakeErrors "ssl.connection_error",
        SilentConnections "downstream_pre_cx_timeout",
        HandshakeTimeouts "downstream_cx_transport_socket_connect_timeout",
    }
}

block! {
    /// Counters of a connection manager.
    HttpCount HTTP {
        Connections "downstream_cx_total",
        Http1Connections "downstream_cx_http1_total",
        Http2Connections "downstream_cx_http2_total",
        Destroyed "downstream_cx_destroy",
        Requests "downstream_rq_total",
        Http1Requests "downstream_rq_http1_total",
        Http2Requests "downstream_rq_http2_total",
        Completed "downstream_rq_completed",
        Upgrades "downstream_cx_upgrades_total",
        Status1xx "downstream_rq_1xx",
        Status2xx "downstream_rq_2xx",
        Status3xx "downstream_rq_3xx",
        Status4xx "downstream_rq_4xx",
        Status5xx "downstream_rq_5xx",
        Timeouts "downstream_rq_timeout",
        HeaderTimeouts "downstream_rq_header_timeout",
        ProtocolErrors "downstream_cx_protocol_error",
        IdleTimeouts "downstream_rq_idle_timeout",
        IdleConnections "downstream_cx_idle_timeout",
        Resets "downstream_rq_rx_reset",
        TooLong "downstream_rq_max_duration_reached",
        TlsConnections "downstream_cx_ssl_total",
        RefusedUpgrades "downstream_rq_ws_on_non_ws_route",
        NoRoute "no_route",
        NoCluster "no_cluster",
        Routed "rq_total",
        DirectResponses "rq_direct_response",
        Received "downstream_cx_rx_bytes_total",
        Sent "downstream_cx_tx_bytes_total",
    }
}

/// Answers of a connection manager by listener, `listener.<address>.http.<prefix>.…`.
const ANSWERS: &[&str] = &[
    "downstream_rq_completed",
    "downstream_rq_1xx",
    "downstream_rq_2xx",
    "downstream_rq_3xx",
    "downstream_rq_4xx",
    "downstream_rq_5xx",
];

const HTTP_TOOK: &[&str; 2] = &["downstream_rq_time", "downstream_cx_length_ms"];
const REQUEST_TIME: usize = 0;
const CONNECTION_TIME: usize = 1;

/// Series of one listener; the same whenever a listener of this address is made.
pub struct ListenerMetrics {
    counters: Counters,
    active: Gauge,
    length: Distributions<1>,
    scope: Scope,
}

impl ListenerMetrics {
    pub fn new(stats: &Store, listener: &Listener) -> Self {
        let scope = stats.scope(&format!("listener.{}.", prefix(listener)));
        Self {
            counters: scope.counters(LISTENER),
            active: scope.gauge("downstream_cx_active"),
            length: Distributions::new(&["downstream_cx_length_ms"]),
            scope,
        }
    }

    /// Connections that are open now.
    pub fn active(&self) -> u64 {
        self.active.value()
    }

    pub fn count(&self, what: ListenerCount) {
        self.counters.inc(what as usize);
    }
}

/// The configured prefix, else the address with underscores for colons.
pub(crate) fn prefix(listener: &Listener) -> String {
    match (&listener.stat_prefix, listener.addresses.first()) {
        (Some(prefix), _) => prefix.to_string(),
        (None, Some(ListenAddress::Socket(address))) => address.to_string().replace(':', "_"),
        (None, Some(ListenAddress::Pipe(path))) => path.replace(':', "_"),
        (None, None) => listener.name.as_str().replace(':', "_"),
    }
}

/// A connection of a listener, counted as open until dropped.
pub struct OpenConnection(Arc<ListenerMetrics>, Instant);

impl OpenConnection {
    pub fn new(metrics: &Arc<ListenerMetrics>) -> Self {
        metrics.count(ListenerCount::Connections);
        metrics.active.inc();
        Self(metrics.clone(), now())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let metrics = &self.0;
        let life = now().saturating_duration_since(self.1);
        metrics.length.record(&metrics.scope, 0, life);
        metrics.active.dec();
        metrics.count(ListenerCount::Destroyed);
    }
}

/// Series of one connection manager; those with one prefix share them.
pub struct HttpMetrics {
    counters: Counters,
    connections: Gauge,
    http1_connections: Gauge,
    http2_connections: Gauge,
    tls_connections: Gauge,
    requests: Gauge,
    took: Distributions<2>,
    answers: Counters,
    scope: Scope,
    _listener_scope: Scope,
}

impl HttpMetrics {
    /// Of a listener with this prefix of its own series.
    pub fn new(stats: &Store, http: &HttpConnectionManager, listener: &str) -> Self {
        let scope = stats.scope(&format!("http.{}.", http.stat_prefix));
        let of_listener = stats.scope(&format!("listener.{listener}.http.{}.", http.stat_prefix));
        Self {
            counters: scope.counters(HTTP),
            connections: scope.gauge("downstream_cx_active"),
            http1_connections: scope.gauge("downstream_cx_http1_active"),
            http2_connections: scope.gauge("downstream_cx_http2_active"),
            tls_connections: scope.gauge("downstream_cx_ssl_active"),
            requests: scope.gauge("downstream_rq_active"),
            took: Distributions::new(HTTP_TOOK),
            answers: of_listener.counters(ANSWERS),
            scope,
            _listener_scope: of_listener,
        }
    }

    pub(crate) fn count(&self, what: HttpCount) {
        self.counters.inc(what as usize);
    }

    /// A request's head was read.
    pub fn began(&self, protocol: Protocol) {
        self.count(HttpCount::Requests);
        self.count(match protocol {
            Protocol::Http10 | Protocol::Http11 => HttpCount::Http1Requests,
            Protocol::Http2 | Protocol::Http3 => HttpCount::Http2Requests,
        });
        self.requests.inc();
    }

    /// A request has ended, however.
    pub fn ended(&self, record: &Record) {
        self.requests.dec();
        self.counters.add(
            HttpCount::Received as usize,
            record.bytes.downstream_wire_received,
        );
        self.counters
            .add(HttpCount::Sent as usize, record.bytes.downstream_wire_sent);
        let flags = [
            (
                ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
                HttpCount::Resets,
            ),
            (ResponseFlags::STREAM_IDLE_TIMEOUT, HttpCount::IdleTimeouts),
            (
                ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
                HttpCount::ProtocolErrors,
            ),
        ];
        for (flag, what) in flags {
            if record.flags.contains(flag) {
                self.count(what);
            }
        }
        if let Some(total) = record.timings.total {
            self.took.record(&self.scope, REQUEST_TIME, total);
        }
        let told = match record.response_code_details.as_deref() {
            Some("request_overall_timeout") => Some(HttpCount::Timeouts),
            Some("route_not_found") => Some(HttpCount::NoRoute),
            Some("cluster_not_found") => Some(HttpCount::NoCluster),
            Some("direct_response") => Some(HttpCount::DirectResponses),
            Some("upgrade_failed") => Some(HttpCount::RefusedUpgrades),
            _ => None,
        };
        if let Some(told) = told {
            self.count(told);
        }
        // What filters answered or refused never came to the router.
        let by_router = matches!(
            told,
            Some(HttpCount::NoRoute | HttpCount::NoCluster | HttpCount::DirectResponses)
        );
        if record.attempts > 0 || by_router {
            self.count(HttpCount::Routed);
        }
        let Some(status) = record.status.filter(|status| *status != 0) else {
            return;
        };
        self.count(HttpCount::Completed);
        let class = usize::from(status / 100).clamp(1, 5);
        self.answers.inc(0);
        self.answers.inc(class);
        self.count(match class {
            1 => HttpCount::Status1xx,
            2 => HttpCount::Status2xx,
            3 => HttpCount::Status3xx,
            4 => HttpCount::Status4xx,
            _ => HttpCount::Status5xx,
        });
    }
}

/// A connection of a connection manager, counted as open until dropped.
pub struct OpenHttp {
    metrics: Arc<HttpMetrics>,
    is_http2: bool,
    is_tls: bool,
    since: Instant,
}

impl OpenHttp {
    pub fn new(metrics: &Arc<HttpMetrics>, is_http2: bool, is_tls: bool) -> Self {
        metrics.count(HttpCount::Connections);
        metrics.count(if is_http2 {
            HttpCount::Http2Connections
        } else {
            HttpCount::Http1Connections
        });
        metrics.connections.inc();
        if is_tls {
            metrics.count(HttpCount::TlsConnections);
            metrics.tls_connections.inc();
        }
        let open = Self {
            metrics: metrics.clone(),
            is_http2,
            is_tls,
            since: now(),
        };
        open.by_version().inc();
        open
    }

    fn by_version(&self) -> &Gauge {
        if self.is_http2 {
            &self.metrics.http2_connections
        } else {
            &self.metrics.http1_connections
        }
    }
}

impl Drop for OpenHttp {
    fn drop(&mut self) {
        let metrics = &self.metrics;
        metrics.connections.dec();
        self.by_version().dec();
        if self.is_tls {
            metrics.tls_connections.dec();
        }
        metrics.count(HttpCount::Destroyed);
        let life = now().saturating_duration_since(self.since);
        metrics.took.record(&metrics.scope, CONNECTION_TIME, life);
    }
}

/// Counters of TCP proxies.
const TCP: &[&str] = &[
    "downstream_cx_total",
    "downstream_cx_no_route",
    "downstream_cx_rx_bytes_total",
    "downstream_cx_tx_bytes_total",
    "max_downstream_connection_duration",
    "idle_timeout",
];
const TCP_IDLE: usize = 5;

/// Series of a TCP proxy, `tcp.<prefix>.…`; those with one prefix share them.
pub struct TcpMetrics {
    counters: Counters,
    _scope: Scope,
}

impl TcpMetrics {
    pub fn new(stats: &Store, prefix: &str) -> Self {
        let scope = stats.scope(&format!("tcp.{prefix}."));
        Self {
            counters: scope.counters(TCP),
            _scope: scope,
        }
    }

    /// A connection was closed for being idle.
    pub fn idled(&self) {
        self.counters.inc(TCP_IDLE);
    }

    /// A connection has ended.
    pub fn ended(&self, record: &Record) {
        let flags = |flag| u64::from(record.flags.contains(flag));
        let amounts = [
            1,
            flags(ResponseFlags::NO_CLUSTER_FOUND),
            record.bytes.received,
            record.bytes.sent,
            flags(ResponseFlags::DURATION_TIMEOUT),
        ];
        for (index, amount) in amounts.into_iter().enumerate() {
            self.counters.add(index, amount);
        }
    }
}

/// Lives of connections are measured from accept to end, with the clock of the timers.
fn now() -> Instant {
    Instant::now()
}
