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
use wire_kube::istio::destination_rule::H2UpgradePolicy;
use wire_kube::istio::gateway::TlsProtocol;
use wire_kube::istio::mesh_config as wire;

use crate::cx::Cx;
use crate::problem::{Problem, Severity, code};
use crate::traffic_policy::{connection_pool, keepalive, locality_lb, outlier_detection};
use crate::value::{check_json_format, check_log_format, text, texts};
use crate::virtual_service::retries_of;

mod providers;
mod proxy_defaults;

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

/// Fields that are known and have no effect yet.
fn report_unused(cx: &mut Cx, written: &wire::MeshConfig) {
    let w = written;
    #[rustfmt::skip]
    let unused = [
        ("proxyHttpPort", w.proxy_http_port.is_some_and(|p| p != 0)),
        ("enableEnvoyAccessLogService", w.enable_envoy_access_log_service == Some(true)),
        ("configSources", !w.config_sources.is_empty()),
        ("caCertificates", !w.ca_certificates.is_empty()),
        ("zoneAwareLbSetting", w.zone_aware_lb_setting.is_some()),
        ("inboundClusterStatName", w.inbound_cluster_stat_name.is_some()),
        ("outboundClusterStatName", w.outbound_cluster_stat_name.is_some()),
        ("certificates", !w.certificates.is_empty()),
        ("serviceSettings", !w.service_settings.is_empty()),
        ("serviceScopeConfigs", !w.service_scope_configs.is_empty()),
        ("ca", w.ca.is_some()),
        ("discoverySelectors", !w.discovery_selectors.is_empty()),
        ("defaultInboundHttpRetryPolicy", w.default_inbound_http_retry_policy.is_some()),
        ("serviceEntryVisibility", w.service_entry_visibility.is_some()),
        ("hboneIdleTimeout", w.hbone_idle_timeout.is_some()),
        ("tlsDefaults", w.tls_defaults.is_some()),
    ];
    for (field, is_set) in unused {
        cx.unsupported(field, is_set);
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// One line a field, so that the list can be checked off against Istio's.
#[rustfmt::skip]
fn apply(cx: &mut Cx, written: wire::MeshConfig) -> MeshConfig {
    report_unused(cx, &written);
    let wire::MeshConfig {
        proxy_listen_port, proxy_inbound_listen_port, connect_timeout, protocol_detection_timeout,
        tcp_keepalive, enable_tracing, access_log_file, access_log_format, access_log_encoding,
        disable_envoy_listener_log, default_config, outbound_traffic_policy,
        inbound_traffic_policy, enable_auto_mtls, trust_domain, trust_domain_aliases,
        default_service_export_to, default_virtual_service_export_to,
        default_destination_rule_export_to, root_namespace, locality_lb_setting, dns_refresh_rate,
        h2_upgrade_policy, enable_prometheus_merge, extension_providers, default_providers,
        path_normalization, default_http_retry_policy, mesh_mtls, default_traffic_policy,
        // Reported by `report_unused`.
        proxy_http_port: _, enable_envoy_access_log_service: _, config_sources: _,
        ca_certificates: _, zone_aware_lb_setting: _, inbound_cluster_stat_name: _,
        outbound_cluster_stat_name: _, certificates: _, service_settings: _,
        service_scope_configs: _, ca: _, discovery_selectors: _,
        default_inbound_http_retry_policy: _, service_entry_visibility: _, hbone_idle_timeout: _,
        tls_defaults: _,
        // Of the Ingress kind, which is reported as a kind; and fields that Istio ignores as well.
        ingress_class: _, ingress_service: _, ingress_controller_mode: _, ingress_selector: _,
        verify_certificate_at_client: _, thrift_config: _, mixer_check_server: _,
        mixer_report_server: _,
    } = written;
    let mut mesh = cx.mesh.clone();
    set(&mut mesh.connect_timeout, connect_timeout);
    set(&mut mesh.auto_mtls, enable_auto_mtls);
    set(&mut mesh.enable_tracing, enable_tracing);
    set(&mut mesh.dns_refresh_rate, dns_refresh_rate);
    set(&mut mesh.disable_listener_log, disable_envoy_listener_log);
    set(&mut mesh.enable_prometheus_merge, enable_prometheus_merge);
    set(&mut mesh.root_namespace, root_namespace.as_deref().and_then(text));
    set(&mut mesh.outbound, outbound_traffic_policy.map(|p| outbound(cx, p)));
    set(&mut mesh.path_normalization, path_normalization.map(normalization));
    set(&mut mesh.default_providers, default_providers.map(default_provider_names));
    set(&mut mesh.trust_domain, trust_domain.and_then(|d| trust_domain_of(cx, "trustDomain", &d)));
    mesh.trust_domain_aliases = cx.collect("trustDomainAliases", &trust_domain_aliases, |cx, d| trust_domain_here(cx, d)).into();
    mesh.protocol_detection_timeout = protocol_detection_timeout.filter(|t| !t.is_zero());
    mesh.inbound_to_localhost = inbound_traffic_policy.is_some_and(to_localhost);
    mesh.access_log = access_log(cx, access_log_file, access_log_format, access_log_encoding);
    mesh.locality_lb = locality(cx, locality_lb_setting, mesh.locality_lb);
    exports(cx, "defaultServiceExportTo", default_service_export_to, &mut mesh.default_service_export_to);
    exports(cx, "defaultVirtualServiceExportTo", default_virtual_service_export_to, &mut mesh.default_virtual_service_export_to);
    exports(cx, "defaultDestinationRuleExportTo", default_destination_rule_export_to, &mut mesh.default_destination_rule_export_to);
    mesh.h2_upgrade = h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade);
    mesh.default_http_retry = cx.optional("defaultHttpRetryPolicy", default_http_retry_policy, retries_of);
    mesh.min_tls_13 = cx.optional("meshMTLS", mesh_mtls, mesh_tls).unwrap_or(false);
    mesh.default_traffic_policy = cx.optional("defaultTrafficPolicy", default_traffic_policy, traffic_default).unwrap_or_default();
    mesh.extension_providers = providers::providers(cx, extension_providers);
    mesh.tcp_keepalive = tcp_keepalive.map(keepalive);
    port(cx, "proxyListenPort", proxy_listen_port, &mut mesh.proxy_listen_port);
    port(cx, "proxyInboundListenPort", proxy_inbound_listen_port, &mut mesh.proxy_inbound_listen_port);
    if let Some(proxy) = default_config {
        cx.within("defaultConfig", |cx| proxy_defaults::apply(cx, proxy, &mut mesh));
    }
    mesh
}

fn port(cx: &mut Cx, field: &str, value: Option<i32>, slot: &mut u16) {
    if let Some(number) = value.filter(|n| *n != 0) {
        let number = u32::try_from(number).unwrap_or(0);
        set(slot, cx.within(field, |cx| cx.port_number(number)));
    }
}

fn to_localhost(policy: wire::InboundTrafficPolicy) -> bool {
    let wire::InboundTrafficPolicy { mode } = policy;
    mode == wire::InboundMode::Localhost
}

fn trust_domain_of(cx: &mut Cx, field: &str, name: &str) -> Option<TrustDomain> {
    cx.within(field, |cx| trust_domain_here(cx, name))
}

fn trust_domain_here(cx: &mut Cx, name: &str) -> Option<TrustDomain> {
    let parsed = TrustDomain::parse_mesh_config(name);
    parsed.map_err(|e| cx.error(e.to_string())).ok()
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
    match format
        .as_deref()
        .map(|text| (text, serde_json::from_str(text)))
    {
        None => {}
        Some((text, _)) if !json => check_log_format(cx, "accessLogFormat", text),
        Some((_, Ok(fields @ Value::Object(_)))) => {
            check_json_format(cx, "accessLogFormat", &fields);
        }
        Some(_) => cx.error_at(
            "accessLogFormat",
            "with accessLogEncoding JSON it must be a JSON object in text form",
        ),
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

fn exports(cx: &mut Cx, field: &str, value: Option<Vec<String>>, slot: &mut ExportToDefault) {
    let Some(values) = value else { return };
    *slot = match values
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
    };
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

fn traffic_default(cx: &mut Cx, value: wire::DefaultTrafficPolicy) -> Option<TrafficPolicy> {
    let wire::DefaultTrafficPolicy {
        connection_pool: pool,
        outlier_detection: outlier,
    } = value;
    Some(TrafficPolicy {
        connection_pool: cx.optional("connectionPool", pool, connection_pool),
        outlier_detection: cx.optional("outlierDetection", outlier, outlier_detection),
        ..TrafficPolicy::default()
    })
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
