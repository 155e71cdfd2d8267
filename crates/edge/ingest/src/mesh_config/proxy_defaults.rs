//! `defaultConfig`: what of it reaches the control plane. The rest is the proxy's own bootstrap, or has no effect yet.

use mesh_model::MeshConfig;
use mesh_model::matching::Millionths;
use wire_kube::istio::proxy_config as proxy;

use crate::cx::Cx;
use crate::value::percent;

pub(super) fn apply(cx: &mut Cx, value: proxy::ProxyConfig, mesh: &mut MeshConfig) {
    #[rustfmt::skip]
    let proxy::ProxyConfig {
        // Where a proxy finds its files, its control plane and its own ports is settled by whoever starts it.
        config_path: _, binary_path: _, service_cluster: _, drain_duration,
        termination_drain_duration, parent_shutdown_duration: _, discovery_address: _,
        discovery_refresh_delay: _, proxy_admin_port: _, control_plane_auth_policy: _,
        custom_config_file, proxy_bootstrap_template_path, status_port: _, proxy_metadata: _,
        concurrency: _, image: _, interception_mode: _, mesh_id: _,
        hold_application_until_proxy_starts: _, tracing_service_name, zipkin_address,
        statsd_udp_address, stat_name_length, tracing, envoy_access_log_service,
        envoy_metrics_service, runtime_values, extra_stat_tags, gateway_topology, readiness_probe,
        proxy_stats_matcher, ca_certificates_pem, private_key_provider, proxy_headers,
        file_flush_interval, file_flush_min_size_kb, stats_compression, connection_settings,
    } = value;
    #[rustfmt::skip]
    let no_effect = [
        ("customConfigFile", custom_config_file.is_some()),
        ("proxyBootstrapTemplatePath", proxy_bootstrap_template_path.is_some()),
        ("tracingServiceName", tracing_service_name .is_some_and(|n| n != proxy::TracingServiceName::AppLabelAndNamespace)),
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
    if let Some(sampling) = cx.optional("tracing", tracing, tracing_sampling) {
        mesh.tracing_sampling = sampling;
    }
    if let Some(topology) = gateway_topology {
        mesh.gateway_trusted_proxies =
            cx.within("gatewayTopology", |cx| trusted_proxies(cx, topology));
    }
    mesh.drain = drain_duration.unwrap_or(mesh.drain);
    mesh.termination_drain = termination_drain_duration.unwrap_or(mesh.termination_drain);
}

fn trusted_proxies(cx: &mut Cx, topology: proxy::GatewayTopology) -> u32 {
    let proxy::GatewayTopology {
        num_trusted_proxies,
        forward_client_cert_details,
        proxy_protocol,
    } = topology;
    let forwards = forward_client_cert_details != proxy::ForwardClientCertDetails::Undefined;
    cx.unsupported("forwardClientCertDetails", forwards);
    cx.unsupported("proxyProtocol", proxy_protocol.is_some());
    num_trusted_proxies
}

fn tracing_sampling(cx: &mut Cx, value: proxy::ProxyTracing) -> Option<Millionths> {
    #[rustfmt::skip]
    let proxy::ProxyTracing {
        zipkin, lightstep, datadog, stackdriver, open_census_agent, custom_tags,
        max_path_tag_length, sampling, tls_settings, enable_istio_tags,
    } = value;
    #[rustfmt::skip]
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
