//! Tracing: sampling, tags and the collector. A collector that is not known is left out when it is
//! on the published list.

use std::sync::Arc;

use http::HeaderName;
use proxy_config::{
    ClusterName,
    tracing::{CustomTag, CustomTagValue, Tracing, TracingProvider},
};
use wire_envoy::pb::{
    self,
    core::http_uri::HttpUpstreamType,
    envoy::r#type::{
        metadata::v3::{metadata_key::path_segment::Segment, metadata_kind::Kind},
        tracing::v3::{CustomTag as Wire, custom_tag},
    },
    hcm::http_connection_manager::Tracing as WireTracing,
    trace::{
        OpenTelemetryConfig, ZipkinConfig, tracing::http::ConfigType,
        zipkin_config::CollectorEndpointVersion,
    },
};

use crate::{
    context::Cx,
    extension::Extension,
    grpc_service,
    judgement::{enumerated, take},
    left_out::left_out,
    reject::{Refusal, Within, each},
    scalar,
};

/// Envoy's default.
const PATH_TAG_BYTES: u32 = 256;

pub(crate) fn tracing(cx: &mut Cx, value: WireTracing) -> Result<Tracing, Refusal> {
    take!(cx, value => WireTracing {
        read { client_sampling, random_sampling, overall_sampling, max_path_tag_length, custom_tags, provider, spawn_upstream_span }
        ignore "spans have no logs of events" { verbose }
        reject "operations are named by routes" { operation, upstream_operation }
        reject "trace context is always passed on" { no_context_propagation }
    });
    let sampling = |field, value: Option<_>| {
        value.map_or(Ok(100.0), |percent| scalar::percentage(field, percent))
    };
    Ok(Tracing {
        client_sampling: sampling("client_sampling", client_sampling)?,
        random_sampling: sampling("random_sampling", random_sampling)?,
        overall_sampling: sampling("overall_sampling", overall_sampling)?,
        max_path_tag_length: scalar::count_or(max_path_tag_length, PATH_TAG_BYTES),
        custom_tags: each("custom_tags", custom_tags, |tag| custom_tag(cx, tag))?,
        provider: provider
            .map(|p| self::provider(cx, p))
            .transpose()
            .within("provider")?
            .flatten()
            .map(Arc::new),
        spawn_upstream_span: scalar::flag_or(spawn_upstream_span, false),
    })
}

fn custom_tag(cx: &mut Cx, value: Wire) -> Result<CustomTag, Refusal> {
    let Wire { tag, r#type } = value;
    if tag.is_empty() {
        return Err(Refusal::missing("tag"));
    }
    let value = match r#type.ok_or_else(|| Refusal::missing("type"))? {
        custom_tag::Type::Literal(custom_tag::Literal { value }) => {
            CustomTagValue::Literal(value.into())
        }
        custom_tag::Type::Environment(custom_tag::Environment {
            name,
            default_value,
        }) => CustomTagValue::Environment {
            name: name.into(),
            default: default_value.into(),
        },
        custom_tag::Type::RequestHeader(custom_tag::Header {
            name,
            default_value,
        }) => CustomTagValue::RequestHeader {
            name: scalar::header_name("request_header.name", &name)?,
            default: default_value.into(),
        },
        custom_tag::Type::Metadata(metadata) => metadata_tag(metadata).within("metadata")?,
        custom_tag::Type::Value(text) => {
            CustomTagValue::Format(cx.format(&text, false).within("value")?)
        }
    };
    Ok(CustomTag {
        name: tag.into(),
        value,
    })
}

fn metadata_tag(value: custom_tag::Metadata) -> Result<CustomTagValue, Refusal> {
    let custom_tag::Metadata {
        kind,
        metadata_key,
        default_value,
    } = value;
    match kind.and_then(|k| k.kind) {
        None | Some(Kind::Request(_)) => {}
        Some(Kind::Route(_) | Kind::Cluster(_) | Kind::Host(_)) => {
            return Err(Refusal::at(
                "kind",
                "only metadata of the request is supported",
            ));
        }
    }
    let key = metadata_key.ok_or_else(|| Refusal::missing("metadata_key"))?;
    let path = each("metadata_key.path", key.path, |segment| {
        match segment.segment {
            Some(Segment::Key(name)) => Ok(Arc::from(name)),
            Some(Segment::Index(_)) => Err(Refusal::new("list indexes are not supported")),
            None => Err(Refusal::new("is empty")),
        }
    })?;
    Ok(CustomTagValue::RequestMetadata {
        filter: key.key.into(),
        path,
        default: default_value.into(),
    })
}

/// `None` for a collector that is left out.
pub(crate) fn provider(
    cx: &mut Cx,
    value: pb::trace::tracing::Http,
) -> Result<Option<TracingProvider>, Refusal> {
    let pb::trace::tracing::Http {
        name: _,
        config_type,
    } = value;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    let extension = Extension::open(&any).within("typed_config")?;
    if let Some(lost) = left_out(&extension.name) {
        cx.note_text(extension.name, lost);
        return Ok(None);
    }
    let provider = if extension.is::<ZipkinConfig>() {
        extension.message(cx).and_then(|m| zipkin(cx, m))
    } else if extension.is::<OpenTelemetryConfig>() {
        extension.message(cx).and_then(|m| open_telemetry(cx, m))
    } else {
        Err(extension.unknown("as a tracer"))
    };
    provider.within("typed_config").map(Some)
}

fn zipkin(cx: &mut Cx, value: ZipkinConfig) -> Result<TracingProvider, Refusal> {
    take!(cx, value => ZipkinConfig {
        read {
            collector_cluster, collector_endpoint, trace_id_128bit, shared_span_context, collector_endpoint_version,
            collector_hostname, trace_context_option, collector_service,
        }
        ignore "the upstream's span is decided by spawn_upstream_span" { split_spans_for_request }
        ignore "trace ids are random" { timestamp_trace_ids }
    });
    use pb::trace::zipkin_config::TraceContextOption;
    if enumerated!(collector_endpoint_version => CollectorEndpointVersion, "collector_endpoint_version")?
        == CollectorEndpointVersion::Grpc
    {
        return Err(Refusal::at(
            "collector_endpoint_version",
            "spans are sent over HTTP",
        ));
    }
    let (cluster, endpoint, hostname) = match collector_service {
        Some(service) => {
            let service = http_service(cx, service).within("collector_service")?;
            if !service.headers.is_empty() {
                return Err(Refusal::at(
                    "collector_service.request_headers_to_add",
                    "is not supported",
                ));
            }
            (service.cluster, service.path, service.authority)
        }
        None => {
            let cluster = ClusterName::parse(&collector_cluster)
                .map_err(|e| Refusal::at("collector_cluster", e.to_string()))?;
            let hostname = if collector_hostname.is_empty() {
                collector_cluster
            } else {
                collector_hostname
            };
            (cluster, collector_endpoint.into(), hostname.into())
        }
    };
    let context = enumerated!(trace_context_option => TraceContextOption, "trace_context_option")?;
    Ok(TracingProvider::Zipkin {
        cluster,
        endpoint,
        hostname,
        trace_id_128bit,
        shared_span_context: scalar::flag_or(shared_span_context, true),
        w3c_too: context == TraceContextOption::UseB3WithW3cPropagation,
    })
}

fn open_telemetry(cx: &mut Cx, value: OpenTelemetryConfig) -> Result<TracingProvider, Refusal> {
    take!(cx, value => OpenTelemetryConfig {
        read { grpc_service, http_service, service_name }
        ignore "the resource is this proxy's own" {
            resource_detectors, set_telemetry_sdk_resource_attributes, set_service_name_resource_attribute, set_instrumentation_scope,
        }
        ignore "spans wait in a bounded queue of the exporter's own size" { max_cache_size }
        reject "exporters are built in" { exporter }
        reject "sampling is the connection manager's" { sampler }
    });
    let service_name = if service_name.is_empty() {
        "unknown_service:envoy".into()
    } else {
        Arc::from(service_name)
    };
    match (grpc_service, http_service) {
        (Some(service), None) => {
            let grpc_service::Service { cluster, timeout } =
                grpc_service::service(cx, service).within("grpc_service")?;
            Ok(TracingProvider::OpenTelemetryGrpc {
                cluster,
                timeout,
                service_name,
            })
        }
        (None, Some(service)) => {
            let HttpService {
                cluster,
                authority,
                path,
                timeout,
                headers,
            } = self::http_service(cx, service).within("http_service")?;
            Ok(TracingProvider::OpenTelemetryHttp {
                cluster,
                authority,
                path,
                timeout,
                service_name,
                headers,
            })
        }
        _ => Err(Refusal::at(
            "grpc_service",
            "exactly one of grpc_service and http_service must be set",
        )),
    }
}

struct HttpService {
    cluster: ClusterName,
    authority: Arc<str>,
    path: Arc<str>,
    timeout: Option<std::time::Duration>,
    headers: Arc<[(HeaderName, Arc<str>)]>,
}

fn http_service(cx: &mut Cx, value: pb::core::HttpService) -> Result<HttpService, Refusal> {
    take!(cx, value => pb::core::HttpService {
        read { http_uri, request_headers_to_add }
        ignore "operators of extensions are known by their names, or refused" { formatters }
    });
    let pb::core::HttpUri {
        uri,
        timeout,
        http_upstream_type,
    } = http_uri.ok_or_else(|| Refusal::missing("http_uri"))?;
    let Some(HttpUpstreamType::Cluster(cluster)) = http_upstream_type else {
        return Err(Refusal::missing("http_uri.cluster"));
    };
    let after_scheme = uri.split_once("://").map_or(uri.as_str(), |(_, rest)| rest);
    let at = after_scheme.find('/').unwrap_or(after_scheme.len());
    let (authority, path) = after_scheme.split_at(at);
    let headers = each("request_headers_to_add", request_headers_to_add, |option| {
        let pb::core::HeaderValue { key, value, .. } =
            option.header.ok_or_else(|| Refusal::missing("header"))?;
        if value.replace("%%", "").contains('%') {
            return Err(Refusal::at("header.value", "formats are not supported"));
        }
        Ok((scalar::header_name("header.key", &key)?, Arc::from(value)))
    })?;
    Ok(HttpService {
        cluster: ClusterName::parse(cluster)
            .map_err(|e| Refusal::at("http_uri.cluster", e.to_string()))?,
        authority: authority.into(),
        path: if path.is_empty() {
            "/".into()
        } else {
            path.into()
        },
        timeout: scalar::limit("timeout", timeout, None).within("http_uri")?,
        headers,
    })
}
