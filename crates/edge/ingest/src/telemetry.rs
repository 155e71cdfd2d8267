//! Telemetry: access logs, tracing and metrics of workloads (reference 4.2).

use std::sync::Arc;

use mesh_model::Telemetry;
use mesh_model::object::Text;
use mesh_model::telemetry::{
    AccessLogging, CustomTag, MetricOverride, Metrics, TagOverride, Tracing, WorkloadMode,
};
use wire_kube::istio::telemetry as wire;

use crate::cx::Cx;
use crate::problem::{Severity, code};
use crate::value::{check_expression, check_log_format, has_targets, percent, selector};

pub fn parse(cx: &mut Cx, spec: wire::Telemetry) -> Option<Telemetry> {
    let wire::Telemetry {
        selector: who,
        target_ref,
        target_refs,
        tracing,
        metrics,
        access_logging,
    } = spec;
    let targeted = has_targets(cx, &target_ref, &target_refs);
    if targeted && who.is_some() {
        cx.error("only one of selector and targetRefs may be set");
    }
    let selector = selector(cx, who);
    let tracing = cx.collect("tracing", tracing, tracing_of);
    let metrics = cx.collect("metrics", metrics, metrics_of);
    let access_logging = cx.collect("accessLogging", access_logging, |cx, value| {
        let wire::AccessLogging {
            r#match,
            providers,
            disabled,
            filter,
        } = value;
        let providers = provider_names(cx, providers);
        let filter = filter
            .map(|wire::AccessLogFilter { expression }| Text::from(expression))
            .filter(|f| !f.is_empty());
        if let Some(text) = &filter {
            cx.within("filter", |cx| check_expression(cx, "expression", text));
        }
        Some(AccessLogging {
            mode: mode_of(r#match),
            providers,
            disabled,
            filter,
        })
    });
    if targeted {
        return None;
    }
    Some(Telemetry {
        meta: cx.meta.clone(),
        selector,
        access_logging: access_logging.into(),
        tracing: tracing.into(),
        metrics: metrics.into(),
    })
}

fn mode_of(value: Option<wire::TracingSelector>) -> WorkloadMode {
    value.map_or(WorkloadMode::Both, |wire::TracingSelector { mode }| {
        workload_mode(mode)
    })
}

fn workload_mode(mode: wire::WorkloadMode) -> WorkloadMode {
    match mode {
        wire::WorkloadMode::ClientAndServer => WorkloadMode::Both,
        wire::WorkloadMode::Client => WorkloadMode::Client,
        wire::WorkloadMode::Server => WorkloadMode::Server,
    }
}

/// Providers that Istio knows without being told.
const BUILT_IN_PROVIDERS: &[&str] = &["prometheus", "envoy", "stackdriver"];

fn provider_names(cx: &mut Cx, providers: Vec<wire::ProviderRef>) -> Arc<[Text]> {
    cx.collect("providers", providers, |cx, wire::ProviderRef { name }| {
        let known = BUILT_IN_PROVIDERS.contains(&name.as_str()) || cx.mesh.extension_providers.iter().any(|p| *p.name == *name);
        if name.is_empty() {
            cx.error_at("name", "is needed");
        } else if !known {
            let message = format!("no extension provider is named {name:?}: add it to extensionProviders of the mesh configuration");
            cx.within("name", |cx| cx.report(Severity::Warning, code::TELEMETRY_PROVIDER, message));
        }
        Some(Text::from(name))
    })
    .into()
}

fn tracing_of(cx: &mut Cx, value: wire::Tracing) -> Option<Tracing> {
    let wire::Tracing {
        r#match,
        providers,
        random_sampling_percentage,
        disable_span_reporting,
        custom_tags,
        use_request_id_for_trace_sampling,
        enable_istio_tags,
        disable_context_propagation,
    } = value;
    if providers.len() > 1 {
        cx.error_at("providers", "tracing takes one provider");
    }
    let providers = provider_names(cx, providers);
    let sampling = cx.optional(
        "randomSamplingPercentage",
        random_sampling_percentage,
        percent,
    );
    let custom_tags = cx.within("customTags", |cx| {
        let mut tags = Vec::new();
        for (name, value) in custom_tags {
            let tag = cx.within(&name, |cx| custom_tag(cx, value));
            tags.extend(tag.map(|tag| (Text::from(name), tag)));
        }
        tags
    });
    Some(Tracing {
        mode: mode_of(r#match),
        providers,
        sampling,
        disable_span_reporting,
        custom_tags: custom_tags.into(),
        use_request_id_for_sampling: use_request_id_for_trace_sampling,
        enable_istio_tags,
        disable_context_propagation: disable_context_propagation.unwrap_or(false),
    })
}

fn custom_tag(cx: &mut Cx, value: wire::CustomTag) -> Option<CustomTag> {
    let wire::CustomTag {
        literal,
        environment,
        header,
        formatter,
    } = value;
    match (literal, environment, header, formatter) {
        (Some(wire::LiteralTag { value }), None, None, None) => {
            Some(CustomTag::Literal(value.into()))
        }
        (
            None,
            Some(wire::NamedTag {
                name,
                default_value,
            }),
            None,
            None,
        ) => Some(CustomTag::Environment {
            name: name.into(),
            default: default_value.into(),
        }),
        (
            None,
            None,
            Some(wire::NamedTag {
                name,
                default_value,
            }),
            None,
        ) => Some(CustomTag::Header {
            name: name.into(),
            default: default_value.into(),
        }),
        (None, None, None, Some(wire::LiteralTag { value })) => {
            cx.within("formatter", |cx| check_log_format(cx, "value", &value));
            Some(CustomTag::Formatter(value.into()))
        }
        _ => {
            cx.error("exactly one of literal, environment, header and formatter is needed");
            None
        }
    }
}

fn metrics_of(cx: &mut Cx, value: wire::Metrics) -> Option<Metrics> {
    let wire::Metrics {
        providers,
        overrides,
        reporting_interval,
    } = value;
    let providers = provider_names(cx, providers);
    let overrides = cx.collect("overrides", overrides, |cx, value| {
        let wire::MetricsOverride {
            r#match,
            disabled,
            tag_overrides,
        } = value;
        let (metric, mode) = match r#match {
            None => (None, WorkloadMode::Both),
            Some(wire::MetricSelector {
                metric: Some(_),
                custom_metric: Some(_),
                mode: _,
            }) => {
                cx.error_at("match", "only one of metric and customMetric may be set");
                return None;
            }
            Some(wire::MetricSelector {
                metric,
                custom_metric,
                mode,
            }) => {
                let known = metric.and_then(prometheus_name).map(Text::from);
                (custom_metric.map(Text::from).or(known), workload_mode(mode))
            }
        };
        let tags = cx.within("tagOverrides", |cx| {
            let mut tags = Vec::new();
            for (name, wire::TagOverride { operation, value }) in tag_overrides {
                let change = match operation {
                    wire::TagOperation::Remove => TagOverride::Remove,
                    wire::TagOperation::Upsert => TagOverride::Upsert(Text::from(value.as_str())),
                };
                if matches!(change, TagOverride::Upsert(_)) && value.is_empty() {
                    cx.within(&name, |cx| {
                        cx.error_at("value", "is needed with operation UPSERT")
                    });
                }
                if matches!(change, TagOverride::Upsert(_)) && !value.is_empty() {
                    cx.within(&name, |cx| check_expression(cx, "value", &value));
                }
                if matches!(change, TagOverride::Remove) && !value.is_empty() {
                    cx.within(&name, |cx| {
                        cx.error_at("value", "must be empty with operation REMOVE")
                    });
                }
                tags.push((Text::from(name), change));
            }
            tags
        });
        Some(MetricOverride {
            metric,
            mode,
            disabled,
            tags: tags.into(),
        })
    });
    Some(Metrics {
        providers,
        overrides: overrides.into(),
        reporting_interval,
    })
}

/// Names without `istio_`; `None` stands for all.
fn prometheus_name(metric: wire::Metric) -> Option<&'static str> {
    match metric {
        wire::Metric::AllMetrics => None,
        wire::Metric::RequestCount => Some("requests_total"),
        wire::Metric::RequestDuration => Some("request_duration_milliseconds"),
        wire::Metric::RequestSize => Some("request_bytes"),
        wire::Metric::ResponseSize => Some("response_bytes"),
        wire::Metric::TcpOpenedConnections => Some("tcp_connections_opened_total"),
        wire::Metric::TcpClosedConnections => Some("tcp_connections_closed_total"),
        wire::Metric::TcpSentBytes => Some("tcp_sent_bytes_total"),
        wire::Metric::TcpReceivedBytes => Some("tcp_received_bytes_total"),
        wire::Metric::GrpcRequestMessages => Some("request_messages_total"),
        wire::Metric::GrpcResponseMessages => Some("response_messages_total"),
    }
}
