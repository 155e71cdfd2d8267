//! MeshConfig with Istio's defaults (reference 1.8).
//!
//! A field that is written replaces the default; a field that has no effect yet is reported by name.

use std::sync::Arc;
use std::time::Duration;

use identity::TrustDomain;
use mesh_model::MeshConfig;
use mesh_model::destination_rule::{LocalityLb, TrafficPolicy};
use mesh_model::matching::Millionths;
use mesh_model::mesh_config::{
    AccessLogFile, AccessLogFormat, DefaultProviders, ExportToDefault, PathNormalization,
};
use mesh_model::object::{Labels, Meta, ObjectRef};
use mesh_model::sidecar::OutboundMode;
use serde_json::Value;
use wire_kube::istio::gateway::TlsProtocol;
use wire_kube::istio::mesh_config as wire;
use wire_kube::istio::proxy_config as proxy;

use crate::cx::Cx;
use crate::problem::{Problem, Severity, code};
use crate::traffic_policy::{connection_pool, keepalive, locality_lb, outlier_detection};
use crate::value::{percent, text, texts};
use crate::virtual_service::retries_of;

mod providers;

/// Istio's defaults, for the cluster domain `cluster.local`.
pub fn default_mesh() -> MeshConfig {
    let trust_domain = TrustDomain::parse("cluster.local");
    // The literal is a trust domain, so the other branch is never taken; it must not panic either.
    #[expect(clippy::expect_used, reason = "a literal that the tests parse")]
    let trust_domain = trust_domain.expect("invariant: cluster.local is a trust domain");
    MeshConfig {
        trust_domain,
        trust_domain_aliases: Arc::new([]),
        root_namespace: "istio-system".into(),
        cluster_domain: "cluster.local".into(),
        connect_timeout: Duration::from_secs(10),
        protocol_detection_timeout: None,
        outbound: OutboundMode::AllowAny,
        inbound_to_localhost: false,
        auto_mtls: true,
        access_log: None,
        enable_tracing: true,
        tracing_sampling: Millionths::from_percent(1.0).unwrap_or(Millionths::NONE),
        locality_lb: LocalityLb {
            enabled: Some(true),
            ..LocalityLb::default()
        },
        default_service_export_to: ExportToDefault::All,
        default_virtual_service_export_to: ExportToDefault::All,
        default_destination_rule_export_to: ExportToDefault::All,
        h2_upgrade: false,
        dns_refresh_rate: Duration::from_secs(60),
        path_normalization: PathNormalization::Base,
        default_http_retry: None,
        default_traffic_policy: TrafficPolicy::default(),
        min_tls_13: false,
        disable_listener_log: false,
        extension_providers: Arc::new([]),
        default_providers: DefaultProviders::default(),
        enable_prometheus_merge: true,
        tcp_keepalive: None,
        gateway_trusted_proxies: 0,
        drain: Duration::from_secs(45),
        termination_drain: Duration::from_secs(5),
        proxy_listen_port: 15001,
        proxy_inbound_listen_port: 15006,
    }
}

/// Reads a MeshConfig; `None` when it cannot be used.
pub fn parse_mesh(value: &Value) -> (Option<MeshConfig>, Vec<Problem>) {
    let (written, faults) = wire_kube::read::read::<wire::MeshConfig>(value);
    let defaults = default_mesh();
    let meta = Meta {
        object: ObjectRef {
            kind: "MeshConfig".into(),
            namespace: "".into(),
            name: "mesh".into(),
        },
        created_at_seconds: 0,
        labels: Labels::default(),
        annotations: Labels::default(),
        api_version: "".into(),
    };
    let mut cx = Cx::new(&defaults, &meta);
    let mesh = apply(&mut cx, written);
    let (mut problems, mut failed) = cx.finish();
    let mut all: Vec<Problem> = faults.into_iter().map(Problem::from).collect();
    failed |= all.iter().any(|p| p.severity == Severity::Error);
    all.append(&mut problems);
    ((!failed).then_some(mesh), all)
}

/// As [`parse_mesh`], for YAML text.
pub(crate) fn parse_mesh_text(text: &str) -> (Option<MeshConfig>, Vec<Problem>) {
    match wire_kube::manifest::load("mesh", text) {
        Ok(documents) => match documents.first() {
            Some(document) => parse_mesh(&document.object),
            None => (Some(default_mesh()), Vec::new()),
        },
        Err(e) => (
            None,
            vec![Problem::new(
                Severity::Error,
                code::INVALID,
                "",
                e.to_string(),
            )],
        ),
    }
}

fn apply(cx: &mut Cx, written: wire::MeshConfig) -> MeshConfig {
    let defaults = cx.mesh.clone();
    let wire::MeshConfig {
        proxy_listen_port,
        proxy_inbound_listen_port,
        proxy_http_port,
        connect_timeout,
        protocol_detection_timeout,
        tcp_keepalive,
        ingress_class: _,
        ingress_service: _,
        ingress_controller_mode: _,
        ingress_selector: _,
        enable_tracing,
        access_log_file,
        access_log_format,
        access_log_encoding,
        enable_envoy_access_log_service,
        disable_envoy_listener_log,
        default_config,
        outbound_traffic_policy,
        inbound_traffic_policy,
        config_sources,
        enable_auto_mtls,
        trust_domain,
        trust_domain_aliases,
        ca_certificates,
        default_service_export_to,
        default_virtual_service_export_to,
        default_destination_rule_export_to,
        root_namespace,
        locality_lb_setting,
        zone_aware_lb_setting,
        dns_refresh_rate,
        h2_upgrade_policy,
        inbound_cluster_stat_name,
        outbound_cluster_stat_name,
        certificates,
        service_settings,
        service_scope_configs,
        enable_prometheus_merge,
        verify_certificate_at_client: _,
        ca,
        extension_providers,
        default_providers,
        discovery_selectors,
        path_normalization,
        default_http_retry_policy,
        default_inbound_http_retry_policy,
        mesh_mtls,
        tls_defaults,
        default_traffic_policy,
        service_entry_visibility,
        hbone_idle_timeout,
        // Fields of old versions that Istio ignores as well.
        thrift_config: _,
        mixer_check_server: _,
        mixer_report_server: _,
    } = written;
    let no_effect = [
        ("proxyHttpPort", proxy_http_port.is_some_and(|p| p != 0)),
        (
            "enableEnvoyAccessLogService",
            enable_envoy_access_log_service == Some(true),
        ),
        ("configSources", !config_sources.is_empty()),
        ("caCertificates", !ca_certificates.is_empty()),
        ("zoneAwareLbSetting", zone_aware_lb_setting.is_some()),
        (
            "inboundClusterStatName",
            inbound_cluster_stat_name.is_some(),
        ),
        (
            "outboundClusterStatName",
            outbound_cluster_stat_name.is_some(),
        ),
        ("certificates", !certificates.is_empty()),
        ("serviceSettings", !service_settings.is_empty()),
        ("serviceScopeConfigs", !service_scope_configs.is_empty()),
        ("ca", ca.is_some()),
        ("discoverySelectors", !discovery_selectors.is_empty()),
        (
            "defaultInboundHttpRetryPolicy",
            default_inbound_http_retry_policy.is_some(),
        ),
        ("serviceEntryVisibility", service_entry_visibility.is_some()),
        ("hboneIdleTimeout", hbone_idle_timeout.is_some()),
        ("tlsDefaults", tls_defaults.is_some()),
    ];
    for (field, is_set) in no_effect {
        cx.unsupported(field, is_set);
    }
    let proxy = cx
        .optional("defaultConfig", default_config, |cx, p| {
            Some(proxy_defaults(cx, p))
        })
        .unwrap_or_default();
    MeshConfig {
        trust_domain: trust_domain
            .and_then(|name| trust_domain_of(cx, "trustDomain", &name))
            .unwrap_or(defaults.trust_domain),
        trust_domain_aliases: trust_domain_aliases
            .iter()
            .filter_map(|name| trust_domain_of(cx, "trustDomainAliases", name))
            .collect(),
        root_namespace: root_namespace
            .as_deref()
            .and_then(text)
            .unwrap_or(defaults.root_namespace),
        cluster_domain: defaults.cluster_domain,
        connect_timeout: connect_timeout.unwrap_or(defaults.connect_timeout),
        protocol_detection_timeout: protocol_detection_timeout.filter(|t| !t.is_zero()),
        outbound: outbound_traffic_policy.map_or(defaults.outbound, |policy| outbound(cx, policy)),
        inbound_to_localhost: inbound_traffic_policy.is_some_and(
            |wire::InboundTrafficPolicy { mode }| mode == wire::InboundMode::Localhost,
        ),
        auto_mtls: enable_auto_mtls.unwrap_or(defaults.auto_mtls),
        access_log: access_log(cx, access_log_file, access_log_format, access_log_encoding),
        enable_tracing: enable_tracing.unwrap_or(defaults.enable_tracing),
        tracing_sampling: proxy.sampling.unwrap_or(defaults.tracing_sampling),
        locality_lb: locality(cx, locality_lb_setting, defaults.locality_lb),
        default_service_export_to: export_default(
            cx,
            "defaultServiceExportTo",
            default_service_export_to,
        ),
        default_virtual_service_export_to: export_default(
            cx,
            "defaultVirtualServiceExportTo",
            default_virtual_service_export_to,
        ),
        default_destination_rule_export_to: export_default(
            cx,
            "defaultDestinationRuleExportTo",
            default_destination_rule_export_to,
        ),
        h2_upgrade: h2_upgrade_policy
            .is_some_and(|p| p == wire_kube::istio::destination_rule::H2UpgradePolicy::Upgrade),
        dns_refresh_rate: dns_refresh_rate.unwrap_or(defaults.dns_refresh_rate),
        path_normalization: path_normalization.map_or(defaults.path_normalization, normalization),
        default_http_retry: cx.optional(
            "defaultHttpRetryPolicy",
            default_http_retry_policy,
            retries_of,
        ),
        default_traffic_policy: cx
            .optional("defaultTrafficPolicy", default_traffic_policy, |cx, p| {
                Some(traffic_default(cx, p))
            })
            .unwrap_or_default(),
        min_tls_13: cx
            .optional("meshMTLS", mesh_mtls, mesh_tls)
            .unwrap_or(false),
        disable_listener_log: disable_envoy_listener_log.unwrap_or(false),
        extension_providers: providers::providers(cx, extension_providers),
        default_providers: default_providers
            .map(default_provider_names)
            .unwrap_or_default(),
        enable_prometheus_merge: enable_prometheus_merge
            .unwrap_or(defaults.enable_prometheus_merge),
        tcp_keepalive: tcp_keepalive.map(keepalive),
        gateway_trusted_proxies: proxy.trusted_proxies,
        drain: proxy.drain.unwrap_or(defaults.drain),
        termination_drain: proxy
            .termination_drain
            .unwrap_or(defaults.termination_drain),
        proxy_listen_port: port(
            cx,
            "proxyListenPort",
            proxy_listen_port,
            defaults.proxy_listen_port,
        ),
        proxy_inbound_listen_port: port(
            cx,
            "proxyInboundListenPort",
            proxy_inbound_listen_port,
            defaults.proxy_inbound_listen_port,
        ),
    }
}

fn port(cx: &mut Cx, field: &str, value: Option<i32>, default: u16) -> u16 {
    match value {
        None | Some(0) => default,
        Some(number) => cx
            .within(field, |cx| {
                cx.port_number(u32::try_from(number).unwrap_or(0))
            })
            .unwrap_or(default),
    }
}

fn trust_domain_of(cx: &mut Cx, field: &str, name: &str) -> Option<TrustDomain> {
    match TrustDomain::parse_mesh_config(name) {
        Ok(domain) => Some(domain),
        Err(e) => {
            cx.error_at(field, e.to_string());
            None
        }
    }
}

fn outbound(cx: &mut Cx, policy: wire::OutboundTrafficPolicy) -> OutboundMode {
    let wire::OutboundTrafficPolicy { mode, tls } = policy;
    cx.within("outboundTrafficPolicy", |cx| {
        cx.unsupported("tls", tls.is_some());
        match mode {
            wire::OutboundMode::RegistryOnly => OutboundMode::RegistryOnly,
            wire::OutboundMode::AllowAny => OutboundMode::AllowAny,
            wire::OutboundMode::AllowAnyDynamicDns => {
                cx.within("mode", |cx| {
                    cx.warning(
                        "ALLOW_ANY_DYNAMIC_DNS is not supported yet and is taken as ALLOW_ANY",
                    )
                });
                OutboundMode::AllowAny
            }
        }
    })
}

fn access_log(
    cx: &mut Cx,
    file: Option<String>,
    format: Option<String>,
    encoding: Option<wire::AccessLogEncoding>,
) -> Option<AccessLogFile> {
    let json = encoding == Some(wire::AccessLogEncoding::Json);
    let format = format.filter(|f| !f.is_empty());
    if json
        && format
            .as_deref()
            .is_some_and(|f| !matches!(serde_json::from_str::<Value>(f), Ok(Value::Object(_))))
    {
        cx.error_at(
            "accessLogFormat",
            "with accessLogEncoding JSON it must be a JSON object in text form",
        );
    }
    let path = file.as_deref().and_then(text)?;
    let format = format.map(|f| {
        if json {
            AccessLogFormat::Json(f.into())
        } else {
            AccessLogFormat::Text(f.into())
        }
    });
    Some(AccessLogFile { path, format, json })
}

fn locality(
    cx: &mut Cx,
    value: Option<wire_kube::istio::destination_rule::LocalityLbSetting>,
    default: LocalityLb,
) -> LocalityLb {
    let Some(value) = value else { return default };
    let written = cx.within("localityLbSetting", |cx| locality_lb(cx, value));
    LocalityLb {
        enabled: written.enabled.or(default.enabled),
        ..written
    }
}

fn export_default(cx: &mut Cx, field: &str, value: Option<Vec<String>>) -> ExportToDefault {
    let Some(values) = value else {
        return ExportToDefault::All;
    };
    match values
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] | ["*"] => ExportToDefault::All,
        ["."] => ExportToDefault::Own,
        ["~"] => ExportToDefault::None,
        names if names.iter().any(|n| matches!(*n, "*" | "~" | ".")) => {
            cx.error_at(field, "`*`, `.` and `~` must stand alone");
            ExportToDefault::All
        }
        _ => ExportToDefault::Namespaces(texts(&values)),
    }
}

fn normalization(value: wire::PathNormalization) -> PathNormalization {
    let wire::PathNormalization { normalization } = value;
    match normalization {
        wire::Normalization::Default | wire::Normalization::Base => PathNormalization::Base,
        wire::Normalization::None => PathNormalization::None,
        wire::Normalization::MergeSlashes => PathNormalization::MergeSlashes,
        wire::Normalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
    }
}

fn traffic_default(cx: &mut Cx, value: wire::DefaultTrafficPolicy) -> TrafficPolicy {
    let wire::DefaultTrafficPolicy {
        connection_pool: pool,
        outlier_detection: outlier,
    } = value;
    TrafficPolicy {
        connection_pool: cx.optional("connectionPool", pool, connection_pool),
        outlier_detection: cx.optional("outlierDetection", outlier, outlier_detection),
        ..TrafficPolicy::default()
    }
}

fn mesh_tls(cx: &mut Cx, value: wire::TlsConfig) -> Option<bool> {
    let wire::TlsConfig {
        min_protocol_version,
        ecdh_curves,
        cipher_suites,
    } = value;
    cx.unsupported("ecdhCurves", !ecdh_curves.is_empty());
    cx.unsupported("cipherSuites", !cipher_suites.is_empty());
    if matches!(min_protocol_version, TlsProtocol::V10 | TlsProtocol::V11) {
        cx.error_at("minProtocolVersion", "the mesh speaks TLS 1.2 and above");
    }
    Some(min_protocol_version == TlsProtocol::V13)
}

fn default_provider_names(value: wire::DefaultProviders) -> DefaultProviders {
    let wire::DefaultProviders {
        tracing,
        metrics,
        access_logging,
    } = value;
    DefaultProviders {
        access_logging: texts(&access_logging),
        tracing: texts(&tracing),
        metrics: texts(&metrics),
    }
}

/// What of `defaultConfig` reaches the control plane.
#[derive(Default)]
struct ProxyDefaults {
    sampling: Option<Millionths>,
    trusted_proxies: u32,
    drain: Option<Duration>,
    termination_drain: Option<Duration>,
}

fn proxy_defaults(cx: &mut Cx, value: proxy::ProxyConfig) -> ProxyDefaults {
    let proxy::ProxyConfig {
        // Where a proxy finds its files, its control plane and its own ports is settled by whoever starts it.
        config_path: _,
        binary_path: _,
        service_cluster: _,
        drain_duration,
        termination_drain_duration,
        parent_shutdown_duration: _,
        discovery_address: _,
        discovery_refresh_delay: _,
        proxy_admin_port: _,
        control_plane_auth_policy: _,
        custom_config_file,
        proxy_bootstrap_template_path,
        status_port: _,
        proxy_metadata: _,
        concurrency: _,
        image: _,
        interception_mode: _,
        mesh_id: _,
        hold_application_until_proxy_starts: _,
        tracing_service_name,
        zipkin_address,
        statsd_udp_address,
        stat_name_length,
        tracing,
        envoy_access_log_service,
        envoy_metrics_service,
        runtime_values,
        extra_stat_tags,
        gateway_topology,
        readiness_probe,
        proxy_stats_matcher,
        ca_certificates_pem,
        private_key_provider,
        proxy_headers,
        file_flush_interval,
        file_flush_min_size_kb,
        stats_compression,
        connection_settings,
    } = value;
    let no_effect = [
        ("customConfigFile", custom_config_file.is_some()),
        (
            "proxyBootstrapTemplatePath",
            proxy_bootstrap_template_path.is_some(),
        ),
        (
            "tracingServiceName",
            tracing_service_name
                .is_some_and(|n| n != proxy::TracingServiceName::AppLabelAndNamespace),
        ),
        ("zipkinAddress", zipkin_address.is_some()),
        ("statsdUdpAddress", statsd_udp_address.is_some()),
        ("statNameLength", stat_name_length.is_some()),
        ("envoyAccessLogService", envoy_access_log_service.is_some()),
        ("envoyMetricsService", envoy_metrics_service.is_some()),
        ("runtimeValues", !runtime_values.is_empty()),
        ("extraStatTags", !extra_stat_tags.is_empty()),
        ("readinessProbe", readiness_probe.is_some()),
        ("proxyStatsMatcher", proxy_stats_matcher.is_some()),
        ("caCertificatesPem", !ca_certificates_pem.is_empty()),
        ("privateKeyProvider", private_key_provider.is_some()),
        ("proxyHeaders", proxy_headers.is_some()),
        ("fileFlushInterval", file_flush_interval.is_some()),
        ("fileFlushMinSizeKb", file_flush_min_size_kb.is_some()),
        ("statsCompression", stats_compression.is_some()),
        ("connectionSettings", connection_settings.is_some()),
    ];
    for (field, is_set) in no_effect {
        cx.unsupported(field, is_set);
    }
    let sampling = cx.optional("tracing", tracing, tracing_sampling);
    let trusted_proxies = cx.optional("gatewayTopology", gateway_topology, |cx, topology| {
        let proxy::GatewayTopology {
            num_trusted_proxies,
            forward_client_cert_details,
            proxy_protocol,
        } = topology;
        cx.unsupported(
            "forwardClientCertDetails",
            forward_client_cert_details != proxy::ForwardClientCertDetails::Undefined,
        );
        cx.unsupported("proxyProtocol", proxy_protocol.is_some());
        Some(num_trusted_proxies)
    });
    ProxyDefaults {
        sampling,
        trusted_proxies: trusted_proxies.unwrap_or(0),
        drain: drain_duration,
        termination_drain: termination_drain_duration,
    }
}

fn tracing_sampling(cx: &mut Cx, value: proxy::ProxyTracing) -> Option<Millionths> {
    let proxy::ProxyTracing {
        zipkin,
        lightstep,
        datadog,
        stackdriver,
        open_census_agent,
        custom_tags,
        max_path_tag_length,
        sampling,
        tls_settings,
        enable_istio_tags,
    } = value;
    let no_effect = [
        ("zipkin", zipkin.is_some()),
        ("lightstep", lightstep.is_some()),
        ("datadog", datadog.is_some()),
        ("stackdriver", stackdriver.is_some()),
        ("openCensusAgent", open_census_agent.is_some()),
        ("customTags", !custom_tags.is_empty()),
        ("maxPathTagLength", max_path_tag_length.is_some()),
        ("tlsSettings", tls_settings.is_some()),
        ("enableIstioTags", enable_istio_tags.is_some()),
    ];
    for (field, is_set) in no_effect {
        cx.unsupported(field, is_set);
    }
    cx.optional("sampling", sampling, percent)
}
