//! Istio's standard metrics (`stats.PluginConfig`).

use std::{sync::Arc, time::Duration};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct IstioStats {
    /// On a gateway the reporter is `source` though the listener is inbound-less; `SERVER_GATEWAY`
    /// reports as `destination`.
    pub reporter: Reporter,
    pub disable_host_header_fallback: bool,
    /// How often TCP metrics are reported; default 5 s.
    pub tcp_reporting_interval: Option<Duration>,
    pub overrides: Arc<[MetricOverride]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reporter {
    /// From the listener's direction.
    #[default]
    Unspecified,
    ServerGateway,
}

/// Changes of one metric, or of all when `metric` is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricOverride {
    /// Short name without `istio_`, e.g. `requests_total`.
    pub metric: Option<Arc<str>>,
    pub drop: bool,
    pub tags_to_remove: Arc<[Arc<str>]>,
    /// Tag → expression (CEL).
    pub dimensions: Arc<[(Arc<str>, Arc<str>)]>,
}
