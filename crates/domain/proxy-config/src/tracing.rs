//! Tracing settings of a connection manager and the collectors they name.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use crate::ClusterName;

#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Percent, 0.0..=100.0 each.
    pub client_sampling: f64,
    pub random_sampling: f64,
    pub overall_sampling: f64,
    pub max_path_tag_length: u32,
    pub custom_tags: Arc<[CustomTag]>,
    /// `None`: the bootstrap's tracer, if any; spans are not exported then but contexts are
    /// propagated.
    pub provider: Option<Arc<TracingProvider>>,
    pub spawn_upstream_span: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CustomTag {
    pub name: Arc<str>,
    pub value: CustomTagValue,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CustomTagValue {
    Literal(Arc<str>),
    Environment {
        name: Arc<str>,
        default: Arc<str>,
    },
    RequestHeader {
        name: HeaderName,
        default: Arc<str>,
    },
    RequestMetadata {
        filter: Arc<str>,
        path: Arc<[Arc<str>]>,
        default: Arc<str>,
    },
    /// An access-log format string.
    Format(Arc<telemetry::access_log::Format>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum TracingProvider {
    Zipkin {
        cluster: ClusterName,
        endpoint: Arc<str>,
        hostname: Arc<str>,
        trace_id_128bit: bool,
        shared_span_context: bool,
        w3c_too: bool,
    },
    OpenTelemetryGrpc {
        cluster: ClusterName,
        timeout: Option<Duration>,
        service_name: Arc<str>,
    },
    OpenTelemetryHttp {
        cluster: ClusterName,
        authority: Arc<str>,
        path: Arc<str>,
        timeout: Option<Duration>,
        service_name: Arc<str>,
        headers: Arc<[(HeaderName, Arc<str>)]>,
    },
}
