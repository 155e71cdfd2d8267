//! `telemetry.istio.io` Telemetry: tracing, metrics and access logs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    struct Telemetry {
        selector: Option<WorkloadSelector>,
        /// Deprecated form of `targetRefs`.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        tracing: Vec<Tracing>,
        metrics: Vec<Metrics>,
        access_logging: Vec<AccessLogging>,
    }
}

message! {
    struct ProviderRef {
        name: String,
    }
}

names! {
    enum WorkloadMode {
        ClientAndServer = 0 "CLIENT_AND_SERVER",
        Client = 1 "CLIENT",
        Server = 2 "SERVER",
    }
}

message! {
    struct TracingSelector {
        mode: WorkloadMode,
    }
}

message! {
    struct Tracing {
        r#match: Option<TracingSelector>,
        providers: Vec<ProviderRef>,
        random_sampling_percentage: Option<f64>,
        disable_span_reporting: Option<bool>,
        custom_tags: BTreeMap<String, CustomTag>,
        use_request_id_for_trace_sampling: Option<bool>,
        enable_istio_tags: Option<bool>,
        disable_context_propagation: Option<bool>,
    }
}

message! {
    /// One of four.
    struct CustomTag {
        literal: Option<LiteralTag>,
        environment: Option<NamedTag>,
        header: Option<NamedTag>,
        formatter: Option<LiteralTag>,
    }
}

message! {
    struct LiteralTag {
        value: String,
    }
}

message! {
    struct NamedTag {
        name: String,
        default_value: String,
    }
}

message! {
    struct Metrics {
        providers: Vec<ProviderRef>,
        overrides: Vec<MetricsOverride>,
        reporting_interval: Option<Duration>,
    }
}

message! {
    struct MetricsOverride {
        r#match: Option<MetricSelector>,
        disabled: Option<bool>,
        tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    struct MetricSelector {
        metric: Option<Metric>,
        custom_metric: Option<String>,
        mode: WorkloadMode,
    }
}

names! {
    enum Metric {
        AllMetrics = 0 "ALL_METRICS",
        RequestCount = 1 "REQUEST_COUNT",
        RequestDuration = 2 "REQUEST_DURATION",
        RequestSize = 3 "REQUEST_SIZE",
        ResponseSize = 4 "RESPONSE_SIZE",
        TcpOpenedConnections = 5 "TCP_OPENED_CONNECTIONS",
        TcpClosedConnections = 6 "TCP_CLOSED_CONNECTIONS",
        TcpSentBytes = 7 "TCP_SENT_BYTES",
        TcpReceivedBytes = 8 "TCP_RECEIVED_BYTES",
        GrpcRequestMessages = 9 "GRPC_REQUEST_MESSAGES",
        GrpcResponseMessages = 10 "GRPC_RESPONSE_MESSAGES",
    }
}

message! {
    struct TagOverride {
        operation: TagOperation,
        value: String,
    }
}

names! {
    enum TagOperation {
        Upsert = 0 "UPSERT",
        Remove = 1 "REMOVE",
    }
}

message! {
    struct AccessLogging {
        r#match: Option<TracingSelector>,
        providers: Vec<ProviderRef>,
        disabled: Option<bool>,
        filter: Option<AccessLogFilter>,
    }
}

message! {
    struct AccessLogFilter {
        /// CEL.
        expression: String,
    }
}
