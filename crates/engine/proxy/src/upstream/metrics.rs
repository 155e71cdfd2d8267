//! What is counted about a cluster, under Envoy's names (`cluster.<name>.…`).

use std::time::{Duration, Instant};

use parking_lot::RwLock;
use proxy_config::Cluster;
use telemetry::stats::{Counter, Counters, Gauges, Scope, Store};

use crate::{
    report::distribution::Distributions,
    upstream::connected::{ConnectErrorKind, ConnectTimes},
};

/// Names one block of counters or gauges, and an enum whose values are the positions in it.
macro_rules! block {
    ($(#[$doc:meta])* $kind:ident $names:ident { $($variant:ident $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind { $($variant),* }
        const $names: &[&str] = &[$($name),*];
    };
}

block! {
    /// Counters of a cluster.
    Count COUNTERS {
        CxTotal "upstream_cx_total",
        CxHttp1Total "upstream_cx_http1_total",
        CxHttp2Total "upstream_cx_http2_total",
        CxConnectFail "upstream_cx_connect_fail",
        CxConnectTimeout "upstream_cx_connect_timeout",
        CxOverflow "upstream_cx_overflow",
        CxPoolOverflow "upstream_cx_pool_overflow",
        CxRxBytes "upstream_cx_rx_bytes_total",
        CxTxBytes "upstream_cx_tx_bytes_total",
        CxDestroy "upstream_cx_destroy",
        CxProtocolError "upstream_cx_protocol_error",
        SslHandshake "ssl.handshake",
        SslConnectionError "ssl.connection_error",
        RqTotal "upstream_rq_total",
        RqCompleted "upstream_rq_completed",
        Rq1xx "upstream_rq_1xx",
        Rq2xx "upstream_rq_2xx",
        Rq3xx "upstream_rq_3xx",
        Rq4xx "upstream_rq_4xx",
        Rq5xx "upstream_rq_5xx",
        RqPendingTotal "upstream_rq_pending_total",
        RqPendingOverflow "upstream_rq_pending_overflow",
        RqPendingFailureEject "upstream_rq_pending_failure_eject",
        RqCancelled "upstream_rq_cancelled",
        RqUnsent "upstream_rq_unsent",
        RqTimeout "upstream_rq_timeout",
        RqPerTryTimeout "upstream_rq_per_try_timeout",
        RqRxReset "upstream_rq_rx_reset",
        RqTxReset "upstream_rq_tx_reset",
        RqRetry "upstream_rq_retry",
        RqRetrySuccess "upstream_rq_retry_success",
        RqRetryOverflow "upstream_rq_retry_overflow",
        RqRetryLimitExceeded "upstream_rq_retry_limit_exceeded",
        RqRetryBackoffExponential "upstream_rq_retry_backoff_exponential",
        RqMaxDurationReached "upstream_rq_max_duration_reached",
        CxNoneHealthy "upstream_cx_none_healthy",
        OutlierEjectionsTotal "outlier_detection.ejections_enforced_total",
        OutlierEjectionsConsecutive5xx "outlier_detection.ejections_enforced_consecutive_5xx",
        OutlierEjectionsDetected5xx "outlier_detection.ejections_detected_consecutive_5xx",
        OutlierEjectionsOverflow "outlier_detection.ejections_overflow",
        OutlierEnforcedGateway "outlier_detection.ejections_enforced_consecutive_gateway_failure",
        OutlierDetectedGateway "outlier_detection.ejections_detected_consecutive_gateway_failure",
        OutlierEnforcedLocalOrigin "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
        OutlierDetectedLocalOrigin "outlier_detection.ejections_detected_consecutive_local_origin_failure",
        OutlierEnforcedSuccessRate "outlier_detection.ejections_enforced_success_rate",
        OutlierDetectedSuccessRate "outlier_detection.ejections_detected_success_rate",
        OutlierEnforcedFailurePercentage "outlier_detection.ejections_enforced_failure_percentage",
        OutlierDetectedFailurePercentage "outlier_detection.ejections_detected_failure_percentage",
        RqActiveOverflow "upstream_rq_active_overflow",
        DnsQueryAttempt "dns_query_attempt",
        DnsQueryFailure "dns_query_failure",
        DnsQueryTimeout "dns_query_timeout",
        DnsHostOverflow "dns_host_overflow",
        LbHealthyPanic "lb_healthy_panic",
        LbSubsetsSelected "lb_subsets_selected",
        LbSubsetsFallback "lb_subsets_fallback",
    }
}

block! {
    /// Gauges of a cluster.
    Level GAUGES {
        CxActive "upstream_cx_active",
        RqActive "upstream_rq_active",
        RqPendingActive "upstream_rq_pending_active",
        RqMirrorActive "upstream_rq_mirror_active",
        MembershipTotal "membership_total",
        MembershipHealthy "membership_healthy",
        OutlierEjectionsActive "outlier_detection.ejections_active",
    }
}

/// Distributions of a cluster, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// From the end of the request to the end of the response.
    Request,
    /// A connection, handshakes included.
    Connect,
    /// A connection's life.
    Connection,
}

const TOOK: &[&str; 3] = &[
    "upstream_rq_time",
    "upstream_cx_connect_ms",
    "upstream_cx_length_ms",
];

/// Gauges of one circuit breaker; the positions in both lists below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerLevel {
    CxOpen,
    RqPendingOpen,
    RqOpen,
    RqRetryOpen,
    CxPoolOpen,
    RemainingCx,
    RemainingPending,
    RemainingRq,
    RemainingRetries,
    RemainingCxPools,
}

const DEFAULT_BREAKER: &[&str] = &[
    "circuit_breakers.default.cx_open",
    "circuit_breakers.default.rq_pending_open",
    "circuit_breakers.default.rq_open",
    "circuit_breakers.default.rq_retry_open",
    "circuit_breakers.default.cx_pool_open",
    "circuit_breakers.default.remaining_cx",
    "circuit_breakers.default.remaining_pending",
    "circuit_breakers.default.remaining_rq",
    "circuit_breakers.default.remaining_retries",
    "circuit_breakers.default.remaining_cx_pools",
];
const HIGH_BREAKER: &[&str] = &[
    "circuit_breakers.high.cx_open",
    "circuit_breakers.high.rq_pending_open",
    "circuit_breakers.high.rq_open",
    "circuit_breakers.high.rq_retry_open",
    "circuit_breakers.high.cx_pool_open",
    "circuit_breakers.high.remaining_cx",
    "circuit_breakers.high.remaining_pending",
    "circuit_breakers.high.remaining_rq",
    "circuit_breakers.high.remaining_retries",
    "circuit_breakers.high.remaining_cx_pools",
];

/// Counters and gauges of one cluster; the same series whenever a cluster of this name is made.
pub struct ClusterMetrics {
    counters: Counters,
    gauges: Gauges,
    default_breaker: Gauges,
    high_breaker: Gauges,
    /// `upstream_rq_<status>` of the statuses that came.
    statuses: RwLock<Vec<(u16, Counter)>>,
    distributions: Distributions<3>,
    /// Keeps the series alive.
    scope: Scope,
}

impl ClusterMetrics {
    pub fn new(stats: &Store, cluster: &Cluster) -> Self {
        let name = cluster
            .alt_stat_name
            .as_deref()
            .unwrap_or(cluster.name.as_str());
        // Istio ends the name with `;`, by which its tag rules find where it ends.
        let scope = stats.scope(&format!("cluster.{name}."));
        Self {
            counters: scope.counters(COUNTERS),
            gauges: scope.gauges(GAUGES),
            default_breaker: scope.gauges(DEFAULT_BREAKER),
            high_breaker: scope.gauges(HIGH_BREAKER),
            statuses: RwLock::default(),
            distributions: Distributions::new(TOOK),
            scope,
        }
    }

    pub fn count(&self, what: Count) {
        self.counters.inc(what as usize);
    }

    pub fn add(&self, what: Count, amount: u64) {
        self.counters.add(what as usize, amount);
    }

    pub fn value(&self, what: Count) -> u64 {
        self.counters.value(what as usize)
    }

    pub fn raise(&self, what: Level) {
        self.gauges.inc(what as usize);
    }

    pub fn lower(&self, what: Level) {
        self.gauges.dec(what as usize);
    }

    pub fn set(&self, what: Level, value: u64) {
        self.gauges.set(what as usize, value);
    }

    pub fn level(&self, what: Level) -> u64 {
        self.gauges.value(what as usize)
    }

    pub fn took(&self, what: Took, duration: Duration) {
        self.distributions
            .record(&self.scope, what as usize, duration);
    }

    /// A connection was made.
    pub(crate) fn connected(&self, times: &ConnectTimes) {
        let ready = times.secured.unwrap_or(times.connected);
        let took = ready.saturating_duration_since(times.began);
        self.took(Took::Connect, took);
        if times.secured.is_some() {
            self.count(Count::SslHandshake);
        }
    }

    /// A connection that was made has ended.
    pub(crate) fn disconnected(&self, times: &ConnectTimes, now: Instant) {
        self.count(Count::CxDestroy);
        let life = now.saturating_duration_since(times.began);
        self.took(Took::Connection, life);
    }

    /// Counts a final answer by its class.
    pub fn answered(&self, status: u16) {
        self.count(Count::RqCompleted);
        self.status(status).inc();
        match status / 100 {
            1 => self.count(Count::Rq1xx),
            2 => self.count(Count::Rq2xx),
            3 => self.count(Count::Rq3xx),
            4 => self.count(Count::Rq4xx),
            _ => self.count(Count::Rq5xx),
        }
    }

    fn status(&self, status: u16) -> Counter {
        if let Some((_, counter)) = self
            .statuses
            .read()
            .iter()
            .find(|(known, _)| *known == status)
        {
            return counter.clone();
        }
        let counter = self.scope.counter(&format!("upstream_rq_{status}"));
        self.statuses.write().push((status, counter.clone()));
        counter
    }

    pub(crate) fn set_breaker(&self, is_high: bool, what: BreakerLevel, value: u64) {
        let gauges = if is_high {
            &self.high_breaker
        } else {
            &self.default_breaker
        };
        gauges.set(what as usize, value);
    }

    pub(super) fn connection_started(&self) {
        self.count(Count::CxTotal);
        self.raise(Level::CxActive);
    }

    pub(super) fn connection_closed(&self) {
        self.lower(Level::CxActive);
    }

    pub(super) fn connect_failed(&self, kind: ConnectErrorKind) {
        self.lower(Level::CxActive);
        self.count(Count::CxConnectFail);
        if kind == ConnectErrorKind::Timeout {
            self.count(Count::CxConnectTimeout);
        }
        self.count(Count::CxDestroy);
    }
}
