//! What is counted about listeners (`listener.<address>.…`) and connection managers (`http.<prefix>.…`), under Envoy's names.

use std::sync::Arc;

use proxy_config::{HttpConnectionManager, Listener, listener::ListenAddress};
use telemetry::{
    record::{Protocol, Record, ResponseFlags},
    stats::{Counters, Gauge, Scope, Store},
};

use crate::publish::{LiveHttp, LiveListener};

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
        NoRoute "no_route",
        NoCluster "no_cluster",
        DirectResponses "rq_direct_response",
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
        Resets "downstream_rq_rx_reset",
        TooLong "downstream_rq_max_duration_reached",
        Received "downstream_cx_rx_bytes_total",
        Sent "downstream_cx_tx_bytes_total",
    }
}

/// Series of one listener; the same whenever a listener of this address is made.
pub struct ListenerMetrics {
    counters: Counters,
    active: Gauge,
    _scope: Scope,
}

impl ListenerMetrics {
    pub fn new(stats: &Store, listener: &Listener) -> Self {
        let scope = stats.scope(&format!("listener.{}.", prefix(listener)));
        Self {
            counters: scope.counters(LISTENER),
            active: scope.gauge("downstream_cx_active"),
            _scope: scope,
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
fn prefix(listener: &Listener) -> String {
    match (&listener.stat_prefix, listener.addresses.first()) {
        (Some(prefix), _) => prefix.to_string(),
        (None, Some(ListenAddress::Socket(address))) => address.to_string().replace(':', "_"),
        (None, Some(ListenAddress::Pipe(path))) => path.replace(':', "_"),
        (None, None) => listener.name.as_str().replace(':', "_"),
    }
}

/// A connection of a listener, counted as open until dropped.
pub struct OpenConnection(Arc<LiveListener>);

impl OpenConnection {
    pub fn new(listener: &Arc<LiveListener>) -> Self {
        listener.metrics.count(ListenerCount::Connections);
        listener.metrics.active.inc();
        Self(listener.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.metrics.active.dec();
        self.0.metrics.count(ListenerCount::Destroyed);
    }
}

/// Series of one connection manager; those with one prefix share them.
pub struct HttpMetrics {
    counters: Counters,
    connections: Gauge,
    requests: Gauge,
    _scope: Scope,
}

impl HttpMetrics {
    pub fn new(stats: &Store, http: &HttpConnectionManager) -> Self {
        let scope = stats.scope(&format!("http.{}.", http.stat_prefix));
        Self {
            counters: scope.counters(HTTP),
            connections: scope.gauge("downstream_cx_active"),
            requests: scope.gauge("downstream_rq_active"),
            _scope: scope,
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
            (ResponseFlags::NO_ROUTE_FOUND, HttpCount::NoRoute),
            (ResponseFlags::NO_CLUSTER_FOUND, HttpCount::NoCluster),
        ];
        for (flag, what) in flags {
            if record.flags.contains(flag) {
                self.count(what);
            }
        }
        if record.response_code_details.as_deref() == Some("request_overall_timeout") {
            self.count(HttpCount::Timeouts);
        }
        if record.response_code_details.as_deref() == Some("direct_response") {
            self.count(HttpCount::DirectResponses);
        }
        let Some(status) = record.status.filter(|status| *status != 0) else {
            return;
        };
        self.count(HttpCount::Completed);
        self.count(match status / 100 {
            1 => HttpCount::Status1xx,
            2 => HttpCount::Status2xx,
            3 => HttpCount::Status3xx,
            4 => HttpCount::Status4xx,
            _ => HttpCount::Status5xx,
        });
    }
}

/// A connection of a connection manager, counted as open until dropped.
pub struct OpenHttp(Arc<LiveHttp>);

impl OpenHttp {
    pub fn new(http: &Arc<LiveHttp>, is_http2: bool) -> Self {
        let metrics = &http.metrics;
        metrics.count(HttpCount::Connections);
        metrics.count(if is_http2 {
            HttpCount::Http2Connections
        } else {
            HttpCount::Http1Connections
        });
        metrics.connections.inc();
        Self(http.clone())
    }
}

impl Drop for OpenHttp {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
        self.0.metrics.count(HttpCount::Destroyed);
    }
}
