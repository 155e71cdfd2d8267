//! MeshConfig: what holds for the whole mesh. Read from a file or from the `mesh` key of a
//! ConfigMap.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::destination_rule::{
    ClientTlsSettings, ConnectionPoolSettings, H2UpgradePolicy, LocalityLbSetting,
    OutlierDetection, TcpKeepalive, ZoneAwareLbSetting,
};
use super::extension_provider::ExtensionProvider;
use super::gateway::TlsProtocol;
use super::proxy_config::ProxyConfig;
use super::virtual_service::HttpRetry;

message! {
    struct MeshConfig {
        proxy_listen_port: Option<i32>,
        proxy_inbound_listen_port: Option<i32>,
        proxy_http_port: Option<i32>,
        connect_timeout: Option<Duration>,
        protocol_detection_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        ingress_class: Option<String>,
        ingress_service: Option<String>,
        ingress_controller_mode: Option<IngressControllerMode>,
        ingress_selector: Option<String>,
        enable_tracing: Option<bool>,
        access_log_file: Option<String>,
        access_log_format: Option<String>,
        access_log_encoding: Option<AccessLogEncoding>,
        enable_envoy_access_log_service: Option<bool>,
        disable_envoy_listener_log: Option<bool>,
        default_config: Option<ProxyConfig>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
        inbound_traffic_policy: Option<InboundTrafficPolicy>,
        config_sources: Vec<ConfigSource>,
        enable_auto_mtls: Option<bool>,
        trust_domain: Option<String>,
        trust_domain_aliases: Vec<String>,
        ca_certificates: Vec<CertificateData>,
        default_service_export_to: Option<Vec<String>>,
        default_virtual_service_export_to: Option<Vec<String>>,
        default_destination_rule_export_to: Option<Vec<String>>,
        root_namespace: Option<String>,
        locality_lb_setting: Option<LocalityLbSetting>,
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        dns_refresh_rate: Option<Duration>,
        h2_upgrade_policy: Option<H2UpgradePolicy>,
        inbound_cluster_stat_name: Option<String>,
        outbound_cluster_stat_name: Option<String>,
        certificates: Vec<Value>,
        service_settings: Vec<ServiceSettings>,
        service_scope_configs: Vec<Value>,
        enable_prometheus_merge: Option<bool>,
        verify_certificate_at_client: Option<bool>,
        ca: Option<Ca>,
        extension_providers: Vec<ExtensionProvider>,
        default_providers: Option<DefaultProviders>,
        discovery_selectors: Vec<DiscoverySelector>,
        path_normalization: Option<PathNormalization>,
        default_http_retry_policy: Option<HttpRetry>,
        default_inbound_http_retry_policy: Option<HttpRetry>,
        mesh_mtls as "meshMTLS": Option<TlsConfig>,
        tls_defaults: Option<TlsConfig>,
        default_traffic_policy: Option<DefaultTrafficPolicy>,
        service_entry_visibility: Option<ServiceEntryVisibility>,
        hbone_idle_timeout: Option<Duration>,
        /// Old fields that Istio still accepts and ignores.
        thrift_config: Option<Value>,
        mixer_check_server: Option<String>,
        mixer_report_server: Option<String>,
    }
}

names! {
    enum IngressControllerMode {
        Unspecified = 0 "UNSPECIFIED",
        Off = 1 "OFF",
        Default = 2 "DEFAULT",
        Strict = 3 "STRICT",
    }
}

names! {
    enum AccessLogEncoding {
        Text = 0 "TEXT",
        Json = 1 "JSON",
    }
}

message! {
    struct OutboundTrafficPolicy {
        mode: OutboundMode,
        tls: Option<ClientTlsSettings>,
    }
}

names! {
    /// In MeshConfig too REGISTRY_ONLY is 0.
    enum OutboundMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
        AllowAnyDynamicDns = 2 "ALLOW_ANY_DYNAMIC_DNS",
    }
}

message! {
    struct InboundTrafficPolicy {
        mode: InboundMode,
    }
}

names! {
    enum InboundMode {
        Passthrough = 0 "PASSTHROUGH",
        Localhost = 1 "LOCALHOST",
    }
}

message! {
    struct ConfigSource {
        address: String,
        tls_settings: Option<ClientTlsSettings>,
        subscribed_resources: Vec<Value>,
    }
}

message! {
    struct CertificateData {
        pem: Option<String>,
        spiffe_bundle_url: Option<String>,
        cert_signers: Vec<String>,
        trust_domains: Vec<String>,
    }
}

message! {
    struct ServiceSettings {
        settings: Option<ServiceSetting>,
        hosts: Vec<String>,
    }
}

message! {
    struct ServiceSetting {
        cluster_local: bool,
    }
}

message! {
    struct Ca {
        address: String,
        tls_settings: Option<ClientTlsSettings>,
        request_timeout: Option<Duration>,
        istiod_side: bool,
    }
}

message! {
    struct DefaultProviders {
        tracing: Vec<String>,
        metrics: Vec<String>,
        access_logging: Vec<String>,
    }
}

message! {
    struct DiscoverySelector {
        match_labels: BTreeMap<String, String>,
        match_expressions: Vec<Value>,
    }
}

message! {
    struct PathNormalization {
        normalization: Normalization,
    }
}

names! {
    enum Normalization {
        Default = 0 "DEFAULT",
        None = 1 "NONE",
        Base = 2 "BASE",
        MergeSlashes = 3 "MERGE_SLASHES",
        DecodeAndMergeSlashes = 4 "DECODE_AND_MERGE_SLASHES",
    }
}

message! {
    struct TlsConfig {
        min_protocol_version: TlsProtocol,
        ecdh_curves: Vec<String>,
        cipher_suites: Vec<String>,
    }
}

message! {
    struct DefaultTrafficPolicy {
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
    }
}

message! {
    struct ServiceEntryVisibility {
        default_visibility: Option<Visibility>,
        apply_to_sidecars: Option<bool>,
        policies: Vec<Value>,
    }
}

names! {
    enum Visibility {
        Unspecified = 0 "UNSPECIFIED",
        None = 1 "NONE",
        Namespace = 2 "NAMESPACE",
        Public = 3 "PUBLIC",
    }
}
