//! Telemetry: access logs, tracing and metrics of workloads (reference 4.2).

use std::sync::Arc;

use crate::matching::Millionths;
use crate::object::{Meta, Selector, Text};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    pub meta: Meta,
    pub selector: Option<Selector>,
    pub access_logging: Arc<[AccessLogging]>,
    pub tracing: Arc<[Tracing]>,
    pub metrics: Arc<[Metrics]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WorkloadMode {
    Client,
    Server,
    #[default]
    Both,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogging {
    pub mode: WorkloadMode,
    /// Empty: inherited (mesh default).
    pub providers: Arc<[Text]>,
    pub disabled: Option<bool>,
    /// CEL.
    pub filter: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    pub mode: WorkloadMode,
    pub providers: Arc<[Text]>,
    pub sampling: Option<Millionths>,
    pub disable_span_reporting: Option<bool>,
    pub custom_tags: Arc<[(Text, CustomTag)]>,
    pub use_request_id_for_sampling: Option<bool>,
    pub enable_istio_tags: Option<bool>,
    pub disable_context_propagation: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomTag {
    Literal(Text),
    Environment { name: Text, default: Text },
    Header { name: Text, default: Text },
    Formatter(Text),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    pub providers: Arc<[Text]>,
    pub overrides: Arc<[MetricOverride]>,
    pub reporting_interval: Option<std::time::Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricOverride {
    /// Prometheus name without `istio_` (`requests_total`), `None`: all.
    pub metric: Option<Text>,
    pub mode: WorkloadMode,
    pub disabled: Option<bool>,
    pub tags: Arc<[(Text, TagOverride)]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagOverride {
    Remove,
    /// CEL expression.
    Upsert(Text),
}
