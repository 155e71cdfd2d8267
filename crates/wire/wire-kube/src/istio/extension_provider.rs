//! MeshConfig's `extensionProviders`: where authorization is asked and where logs, spans and
//! metrics go.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::virtual_service::HttpRetry;
use crate::read::Empty;

message! {
    /// A name and one of the others.
    struct ExtensionProvider {
        name: String,
        envoy_ext_authz_http: Option<ExtAuthzHttp>,
        envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
        zipkin: Option<Zipkin>,
        lightstep: Option<Value>,
        datadog: Option<Datadog>,
        stackdriver: Option<Value>,
        opencensus: Option<Value>,
        skywalking: Option<Skywalking>,
        opentelemetry: Option<OpenTelemetry>,
        prometheus: Option<Empty>,
        envoy_file_access_log: Option<FileAccessLog>,
        envoy_http_als: Option<HttpAls>,
        envoy_tcp_als: Option<TcpAls>,
        envoy_otel_als: Option<OtelAls>,
        sds: Option<Value>,
    }
}

message! {
    struct IncludeRequestBody {
        max_request_bytes: u32,
        allow_partial_message: bool,
        pack_as_bytes: bool,
    }
}

message! {
    struct ExtAuthzHttp {
        service: String,
        port: u32,
        timeout: Option<Duration>,
        path_prefix: String,
        fail_open: bool,
        clear_route_cache: bool,
        status_on_error: String,
        /// Deprecated form of `includeRequestHeadersInCheck`.
        include_headers_in_check: Vec<String>,
        include_request_headers_in_check: Vec<String>,
        include_additional_headers_in_check: BTreeMap<String, String>,
        include_request_body_in_check: Option<IncludeRequestBody>,
        headers_to_upstream_on_allow: Vec<String>,
        headers_to_downstream_on_deny: Vec<String>,
        headers_to_downstream_on_allow: Vec<String>,
    }
}

message! {
    struct ExtAuthzGrpc {
        service: String,
        port: u32,
        timeout: Option<Duration>,
        fail_open: bool,
        clear_route_cache: bool,
        status_on_error: String,
        include_request_body_in_check: Option<IncludeRequestBody>,
    }
}

message! {
    struct Zipkin {
        service: String,
        port: u32,
        max_tag_length: u32,
        enable_64bit_trace_id: bool,
        path: String,
        trace_context_option: TraceContextOption,
        timeout: Option<Duration>,
        headers: Vec<ProviderHeader>,
    }
}

names! {
    enum TraceContextOption {
        UseB3 = 0 "USE_B3",
        UseB3WithW3cPropagation = 1 "USE_B3_WITH_W3C_PROPAGATION",
    }
}

message! {
    struct ProviderHeader {
        name: String,
        value: Option<String>,
        env_name: Option<String>,
    }
}

message! {
    struct Datadog {
        service: String,
        port: u32,
        max_tag_length: u32,
    }
}

message! {
    struct Skywalking {
        service: String,
        port: u32,
        access_token: String,
    }
}

message! {
    struct OpenTelemetry {
        service: String,
        port: u32,
        max_tag_length: u32,
        http: Option<OtlpHttp>,
        grpc: Option<OtlpGrpc>,
        resource_detectors: Option<ResourceDetectors>,
        dynatrace_sampler: Option<Value>,
        service_attribute_enrichment: Option<Value>,
    }
}

message! {
    struct OtlpHttp {
        path: String,
        timeout: Option<Duration>,
        headers: Vec<ProviderHeader>,
    }
}

message! {
    struct OtlpGrpc {
        timeout: Option<Duration>,
        initial_metadata: Vec<ProviderHeader>,
        retry_policy: Option<HttpRetry>,
    }
}

message! {
    struct ResourceDetectors {
        environment: Option<Empty>,
        dynatrace: Option<Empty>,
    }
}

message! {
    struct FileAccessLog {
        path: String,
        log_format: Option<LogFormat>,
        omit_empty_values: bool,
    }
}

message! {
    /// For files, text or labels; for OTLP both.
    struct LogFormat {
        text: Option<String>,
        labels: Option<Value>,
    }
}

message! {
    struct HttpAls {
        service: String,
        port: u32,
        log_name: String,
        filter_state_objects_to_log: Vec<String>,
        additional_request_headers_to_log: Vec<String>,
        additional_response_headers_to_log: Vec<String>,
        additional_response_trailers_to_log: Vec<String>,
    }
}

message! {
    struct TcpAls {
        service: String,
        port: u32,
        log_name: String,
        filter_state_objects_to_log: Vec<String>,
    }
}

message! {
    struct OtelAls {
        service: String,
        port: u32,
        log_name: String,
        log_format: Option<LogFormat>,
        filter_state_objects_to_log: Vec<String>,
    }
}
