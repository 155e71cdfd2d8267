//! The extension providers of the mesh configuration.

use std::sync::Arc;

use mesh_model::mesh_config::{
    AccessLogFormat, ExtensionProvider, OpenTelemetryHttp, ProviderKind,
};
use mesh_model::object::Text;
use serde_json::Value;
use wire_kube::istio::extension_provider as wire;

use crate::cx::Cx;
use crate::value::{check_json_format, check_log_format};

pub(super) fn providers(
    cx: &mut Cx,
    values: Vec<wire::ExtensionProvider>,
) -> Arc<[ExtensionProvider]> {
    let providers = cx.collect("extensionProviders", values, provider);
    for (index, provider) in providers.iter().enumerate() {
        if providers
            .iter()
            .take(index)
            .any(|before| before.name == provider.name)
        {
            cx.error_at(
                "extensionProviders",
                format!("two providers are named {:?}", &*provider.name),
            );
        }
    }
    providers.into()
}

fn provider(cx: &mut Cx, value: wire::ExtensionProvider) -> Option<ExtensionProvider> {
    let wire::ExtensionProvider {
        name,
        envoy_ext_authz_http,
        envoy_ext_authz_grpc,
        zipkin: to_zipkin,
        lightstep,
        datadog,
        stackdriver,
        opencensus,
        skywalking,
        opentelemetry,
        prometheus,
        envoy_file_access_log,
        envoy_http_als,
        envoy_tcp_als,
        envoy_otel_als,
        sds,
    } = value;
    if name.is_empty() {
        cx.error_at("name", "is needed");
    }
    let mut kinds: Vec<ProviderKind> = Vec::new();
    kinds.extend(cx.optional("zipkin", to_zipkin, zipkin));
    kinds.extend(cx.optional("opentelemetry", opentelemetry, open_telemetry));
    kinds.extend(cx.optional("envoyFileAccessLog", envoy_file_access_log, file_access_log));
    kinds.extend(prometheus.map(|_| ProviderKind::Prometheus));
    // Reported when something refers to them, not for standing here.
    let others = [
        ("envoyExtAuthzHttp", envoy_ext_authz_http.is_some()),
        ("envoyExtAuthzGrpc", envoy_ext_authz_grpc.is_some()),
        ("lightstep", lightstep.is_some()),
        ("datadog", datadog.is_some()),
        ("stackdriver", stackdriver.is_some()),
        ("opencensus", opencensus.is_some()),
        ("skywalking", skywalking.is_some()),
        ("envoyHttpAls", envoy_http_als.is_some()),
        ("envoyTcpAls", envoy_tcp_als.is_some()),
        ("envoyOtelAls", envoy_otel_als.is_some()),
        ("sds", sds.is_some()),
    ];
    kinds.extend(
        others
            .iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(kind, _)| ProviderKind::Unsupported {
                kind: (*kind).into(),
            }),
    );
    if kinds.len() != 1 {
        cx.error("a provider needs exactly one of the kinds, such as zipkin or envoyFileAccessLog");
    }
    Some(ExtensionProvider {
        name: name.into(),
        kind: kinds.pop()?,
    })
}

fn zipkin(cx: &mut Cx, value: wire::Zipkin) -> Option<ProviderKind> {
    let wire::Zipkin {
        service,
        port,
        max_tag_length,
        enable_64bit_trace_id,
        path,
        trace_context_option,
        timeout,
        headers,
    } = value;
    cx.unsupported("timeout", timeout.is_some());
    cx.unsupported("headers", !headers.is_empty());
    let port = service_port(cx, &service, port)?;
    Some(ProviderKind::Zipkin {
        service: service.into(),
        port,
        max_tag_length: (max_tag_length > 0).then_some(max_tag_length),
        trace_id_64bit: enable_64bit_trace_id,
        path: if path.is_empty() {
            "/api/v2/spans".into()
        } else {
            path.into()
        },
        w3c_too: trace_context_option == wire::TraceContextOption::UseB3WithW3cPropagation,
    })
}

fn open_telemetry(cx: &mut Cx, value: wire::OpenTelemetry) -> Option<ProviderKind> {
    let wire::OpenTelemetry {
        service,
        port,
        max_tag_length,
        http,
        grpc,
        resource_detectors,
        dynatrace_sampler,
        service_attribute_enrichment,
    } = value;
    cx.unsupported("grpc", grpc.is_some());
    cx.unsupported("resourceDetectors", resource_detectors.is_some());
    cx.unsupported("dynatraceSampler", dynatrace_sampler.is_some());
    cx.unsupported(
        "serviceAttributeEnrichment",
        service_attribute_enrichment.is_some(),
    );
    let http = cx.optional("http", http, |cx, http| {
        let wire::OtlpHttp {
            path,
            timeout,
            headers,
        } = http;
        let headers = cx.collect("headers", headers, |cx, header| {
            let wire::ProviderHeader {
                name,
                value,
                env_name,
            } = header;
            cx.unsupported("envName", env_name.is_some());
            value.map(|value| (Text::from(name), Text::from(value)))
        });
        Some(OpenTelemetryHttp {
            path: path.into(),
            timeout,
            headers: headers.into(),
        })
    });
    let port = service_port(cx, &service, port)?;
    Some(ProviderKind::OpenTelemetry {
        service: service.into(),
        port,
        max_tag_length: (max_tag_length > 0).then_some(max_tag_length),
        http,
    })
}

fn file_access_log(cx: &mut Cx, value: wire::FileAccessLog) -> Option<ProviderKind> {
    let wire::FileAccessLog {
        path,
        log_format,
        omit_empty_values,
    } = value;
    let format = cx.optional("logFormat", log_format, |cx, format| {
        let wire::LogFormat { text, labels } = format;
        match (text, labels) {
            (Some(text), None) => {
                check_log_format(cx, "text", &text);
                Some(AccessLogFormat::Text(text.into()))
            }
            (None, Some(labels @ Value::Object(_))) => {
                check_json_format(cx, "labels", &labels);
                Some(AccessLogFormat::Json(labels.to_string().into()))
            }
            (None, None) => None,
            (None, Some(_)) => {
                cx.error_at("labels", "must be an object");
                None
            }
            (Some(_), Some(_)) => {
                cx.error("only one of text and labels may be set");
                None
            }
        }
    });
    Some(ProviderKind::FileAccessLog {
        path: if path.is_empty() {
            "/dev/stdout".into()
        } else {
            path.into()
        },
        format,
        omit_empty_values,
    })
}

fn service_port(cx: &mut Cx, service: &str, port: u32) -> Option<u16> {
    if service.is_empty() {
        cx.error_at("service", "is needed");
    }
    cx.within("port", |cx| cx.port_number(port))
}
