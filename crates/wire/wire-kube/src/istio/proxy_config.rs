//! ProxyConfig: what a proxy is started with. It stands in MeshConfig as `defaultConfig`, in the
//! annotation
//! `proxy.istio.io/config`, and in a small form as the kind `networking.istio.io` ProxyConfig.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::destination_rule::{ClientTlsSettings, TcpKeepalive};
use super::selector::WorkloadSelector;
use super::telemetry::CustomTag;
use crate::read::Empty;

message! {
    struct ProxyConfig {
        config_path: Option<String>,
        binary_path: Option<String>,
        service_cluster: Option<String>,
        tracing_service_name: Option<TracingServiceName>,
        drain_duration: Option<Duration>,
        termination_drain_duration: Option<Duration>,
        parent_shutdown_duration: Option<Duration>,
        discovery_address: Option<String>,
        discovery_refresh_delay: Option<Duration>,
        zipkin_address: Option<String>,
        statsd_udp_address: Option<String>,
        proxy_admin_port: Option<i32>,
        control_plane_auth_policy: Option<ControlPlaneAuthPolicy>,
        custom_config_file: Option<String>,
        stat_name_length: Option<i32>,
        concurrency: Option<i32>,
        proxy_bootstrap_template_path: Option<String>,
        interception_mode: Option<InterceptionMode>,
        tracing: Option<ProxyTracing>,
        envoy_access_log_service: Option<RemoteService>,
        envoy_metrics_service: Option<RemoteService>,
        proxy_metadata: BTreeMap<String, String>,
        runtime_values: BTreeMap<String, String>,
        status_port: Option<i32>,
        extra_stat_tags: Vec<String>,
        gateway_topology: Option<GatewayTopology>,
        mesh_id: Option<String>,
        readiness_probe: Option<Value>,
        proxy_stats_matcher: Option<ProxyStatsMatcher>,
        hold_application_until_proxy_starts: Option<bool>,
        ca_certificates_pem: Vec<String>,
        image: Option<ProxyImage>,
        private_key_provider: Option<Value>,
        proxy_headers: Option<ProxyHeaders>,
        file_flush_interval: Option<Duration>,
        file_flush_min_size_kb: Option<u32>,
        stats_compression: Option<bool>,
        connection_settings: Option<Value>,
    }
}

names! {
    enum TracingServiceName {
        AppLabelAndNamespace = 0 "APP_LABEL_AND_NAMESPACE",
        CanonicalNameOnly = 1 "CANONICAL_NAME_ONLY",
        CanonicalNameAndNamespace = 2 "CANONICAL_NAME_AND_NAMESPACE",
    }
}

names! {
    enum ControlPlaneAuthPolicy {
        None = 0 "NONE",
        MutualTls = 1 "MUTUAL_TLS",
    }
}

names! {
    enum InterceptionMode {
        Redirect = 0 "REDIRECT",
        Tproxy = 1 "TPROXY",
        None = 2 "NONE",
    }
}

message! {
    struct ProxyTracing {
        zipkin: Option<AddressOnly>,
        lightstep: Option<Lightstep>,
        datadog: Option<AddressOnly>,
        stackdriver: Option<Value>,
        open_census_agent: Option<Value>,
        custom_tags: BTreeMap<String, CustomTag>,
        max_path_tag_length: Option<u32>,
        sampling: Option<f64>,
        tls_settings: Option<ClientTlsSettings>,
        enable_istio_tags: Option<bool>,
    }
}

message! {
    struct AddressOnly {
        address: String,
    }
}

message! {
    struct Lightstep {
        address: String,
        access_token: String,
    }
}

message! {
    struct RemoteService {
        address: String,
        tls_settings: Option<ClientTlsSettings>,
        tcp_keepalive: Option<TcpKeepalive>,
    }
}

message! {
    struct GatewayTopology {
        num_trusted_proxies: u32,
        forward_client_cert_details: ForwardClientCertDetails,
        proxy_protocol: Option<Empty>,
    }
}

names! {
    enum ForwardClientCertDetails {
        Undefined = 0 "UNDEFINED",
        Sanitize = 1 "SANITIZE",
        ForwardOnly = 2 "FORWARD_ONLY",
        AppendForward = 3 "APPEND_FORWARD",
        SanitizeSet = 4 "SANITIZE_SET",
        AlwaysForwardOnly = 5 "ALWAYS_FORWARD_ONLY",
    }
}

message! {
    struct ProxyStatsMatcher {
        inclusion_prefixes: Vec<String>,
        inclusion_suffixes: Vec<String>,
        inclusion_regexps: Vec<String>,
    }
}

message! {
    struct ProxyImage {
        image_type: String,
    }
}

message! {
    struct ProxyHeaders {
        forwarded_client_cert: ForwardClientCertDetails,
        set_current_client_cert_details: Option<ClientCertDetails>,
        request_id: Option<Disabled>,
        server: Option<ServerHeader>,
        attempt_count: Option<Disabled>,
        envoy_debug_headers: Option<Disabled>,
        metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        x_forwarded_host: Option<Enabled>,
        x_forwarded_port: Option<Enabled>,
        preserve_http1_header_case: Option<bool>,
    }
}

message! {
    struct ClientCertDetails {
        subject: Option<bool>,
        cert: Option<bool>,
        chain: Option<bool>,
        dns: Option<bool>,
        uri: Option<bool>,
    }
}

message! {
    struct Disabled {
        disabled: Option<bool>,
    }
}

message! {
    struct Enabled {
        enabled: Option<bool>,
    }
}

message! {
    struct ServerHeader {
        disabled: Option<bool>,
        value: String,
    }
}

message! {
    struct MetadataExchangeHeaders {
        mode: MetadataExchangeMode,
    }
}

names! {
    enum MetadataExchangeMode {
        Undefined = 0 "UNDEFINED",
        InMesh = 1 "IN_MESH",
    }
}

message! {
    /// The kind `networking.istio.io/v1beta1` ProxyConfig.
    struct ProxyConfigSpec {
        selector: Option<WorkloadSelector>,
        concurrency: Option<i32>,
        environment_variables: BTreeMap<String, String>,
        image: Option<ProxyImage>,
    }
}
