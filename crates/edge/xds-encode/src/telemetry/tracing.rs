//! Tracing (reference 4.4): sampling, tags and the collector.
//!
//! The request's own decision and a forced trace are always honoured; the sampling rate decides only for requests that come without one.

use std::collections::BTreeMap;

use mesh_model::{
    matching::Millionths,
    mesh_config::{OpenTelemetryHttp, ProviderKind},
    object::Text,
    telemetry::CustomTag,
};
use wire_envoy::pb::{
    core::{self, GrpcService, HttpUri, http_uri::HttpUpstreamType},
    envoy::r#type::{
        metadata::v3::{MetadataKey, MetadataKind, metadata_key, metadata_kind},
        tracing::v3 as tag,
    },
    hcm::http_connection_manager::Tracing,
    trace::{
        OpenTelemetryConfig, ZipkinConfig, tracing::Http, tracing::http::ConfigType, zipkin_config,
    },
};

use super::{Reports, Side, provider, service_host};
use crate::{names::OutboundName, packed, wire};

/// Results of authorization policies that are only tried out: tag → key that the filter writes.
const DRY_RUN: [(&str, &str); 4] = [
    (
        "istio.authorization.dry_run.allow_policy.name",
        "istio_dry_run_allow_shadow_effective_policy_id",
    ),
    (
        "istio.authorization.dry_run.allow_policy.result",
        "istio_dry_run_allow_shadow_engine_result",
    ),
    (
        "istio.authorization.dry_run.deny_policy.name",
        "istio_dry_run_deny_shadow_effective_policy_id",
    ),
    (
        "istio.authorization.dry_run.deny_policy.result",
        "istio_dry_run_deny_shadow_engine_result",
    ),
];

/// What holds for one side of a client.
struct Settings {
    provider: Option<Text>,
    sampling: Millionths,
    is_reported: bool,
    tags: BTreeMap<Text, CustomTag>,
    has_istio_tags: bool,
    uses_request_id: bool,
    propagates: bool,
}

impl Reports<'_> {
    /// `None`: tracing is off in the whole mesh.
    pub fn tracing(&self) -> Option<Tracing> {
        if !self.mesh.enable_tracing {
            return None;
        }
        let settings = self.tracing_settings();
        let kind = settings
            .provider
            .as_ref()
            .filter(|_| settings.is_reported)
            .and_then(|name| provider(self.mesh, name));
        let sent_to = kind.as_ref().and_then(|kind| self.collector(kind));
        let tag_length = match &kind {
            Some(
                ProviderKind::Zipkin { max_tag_length, .. }
                | ProviderKind::OpenTelemetry { max_tag_length, .. },
            ) => *max_tag_length,
            _ => None,
        };
        Some(Tracing {
            client_sampling: Some(wire::percent(100.0)),
            random_sampling: Some(wire::percent(
                f64::from(settings.sampling.value()) / 10_000.0,
            )),
            overall_sampling: Some(wire::percent(100.0)),
            max_path_tag_length: tag_length.filter(|_| sent_to.is_some()).map(wire::number),
            custom_tags: self.tags(&settings),
            spawn_upstream_span: (sent_to.is_some() && self.side == Side::Gateway)
                .then(|| wire::boolean(true)),
            provider: sent_to,
            no_context_propagation: !settings.propagates,
            ..Default::default()
        })
    }

    /// The sampling decision is written into the request id.
    pub fn samples_by_request_id(&self) -> bool {
        self.tracing_settings().uses_request_id
    }

    fn tracing_settings(&self) -> Settings {
        let mut settings = Settings {
            provider: self.mesh.default_providers.tracing.first().cloned(),
            sampling: self.mesh.tracing_sampling,
            is_reported: true,
            tags: BTreeMap::new(),
            has_istio_tags: true,
            uses_request_id: true,
            propagates: true,
        };
        for telemetry in self.telemetries {
            let Some(own) = telemetry
                .tracing
                .iter()
                .find(|own| self.side.takes(own.mode))
            else {
                continue;
            };
            settings.provider = own.providers.first().cloned().or(settings.provider);
            settings.sampling = own.sampling.unwrap_or(settings.sampling);
            settings.is_reported = own
                .disable_span_reporting
                .map_or(settings.is_reported, |disabled| !disabled);
            if !own.custom_tags.is_empty() {
                settings.tags = own.custom_tags.iter().cloned().collect();
            }
            settings.has_istio_tags = own.enable_istio_tags.unwrap_or(settings.has_istio_tags);
            settings.uses_request_id = own
                .use_request_id_for_sampling
                .unwrap_or(settings.uses_request_id);
            settings.propagates &= !own.disable_context_propagation;
        }
        settings
    }

    /// Tags in the order of their names.
    fn tags(&self, settings: &Settings) -> Vec<tag::CustomTag> {
        let known = |text: &str| {
            if text.is_empty() {
                "unknown".to_owned()
            } else {
                text.to_owned()
            }
        };
        let mut tags: BTreeMap<String, tag::custom_tag::Type> = DRY_RUN
            .iter()
            .map(|(name, key)| ((*name).to_owned(), rbac_result(key)))
            .collect();
        if settings.has_istio_tags {
            let (service, revision) = self.client.canonical();
            let own = [
                ("istio.canonical_revision", revision),
                ("istio.canonical_service", service),
                ("istio.cluster_id", &self.client.cluster_id),
                ("istio.mesh_id", &self.client.mesh_id),
                ("istio.namespace", &self.client.namespace),
            ];
            tags.extend(own.map(|(name, value)| (name.to_owned(), literal(&known(value)))));
        }
        tags.extend(
            settings
                .tags
                .iter()
                .map(|(name, own)| (name.to_string(), custom(own))),
        );
        tags.into_iter()
            .map(|(tag, value)| tag::CustomTag {
                tag,
                r#type: Some(value),
            })
            .collect()
    }

    fn collector(&self, kind: &ProviderKind) -> Option<Http> {
        let (name, config) = match kind {
            ProviderKind::Zipkin {
                service,
                port,
                trace_id_64bit,
                path,
                w3c_too,
                ..
            } => (
                "envoy.tracers.zipkin",
                packed(&zipkin(
                    service_host(service),
                    *port,
                    *trace_id_64bit,
                    path,
                    *w3c_too,
                )),
            ),
            ProviderKind::OpenTelemetry {
                service,
                port,
                http,
                ..
            } => (
                "envoy.tracers.opentelemetry",
                packed(&self.open_telemetry(service_host(service), *port, http.as_ref())),
            ),
            _ => return None,
        };
        Some(Http {
            name: name.to_owned(),
            config_type: Some(ConfigType::TypedConfig(config)),
        })
    }

    fn open_telemetry(
        &self,
        host: &str,
        port: u16,
        http: Option<&OpenTelemetryHttp>,
    ) -> OpenTelemetryConfig {
        let cluster = OutboundName::new(host, None, port).to_string();
        let service_name = self.client.cluster.to_string();
        let Some(http) = http else {
            let envoy = core::grpc_service::EnvoyGrpc {
                cluster_name: cluster,
                authority: host.to_owned(),
                ..Default::default()
            };
            let grpc = GrpcService {
                target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
                ..Default::default()
            };
            return OpenTelemetryConfig {
                grpc_service: Some(grpc),
                service_name,
                ..Default::default()
            };
        };
        let header = |(name, value): &(Text, Text)| core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: name.to_string(),
                value: value.to_string(),
                ..Default::default()
            }),
            append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd
                .into(),
            ..Default::default()
        };
        let uri = HttpUri {
            uri: format!("http://{host}:{port}{}", http.path),
            timeout: http.timeout.map(wire::duration),
            http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)),
        };
        let service = core::HttpService {
            http_uri: Some(uri),
            request_headers_to_add: http.headers.iter().map(header).collect(),
            ..Default::default()
        };
        OpenTelemetryConfig {
            http_service: Some(service),
            service_name,
            ..Default::default()
        }
    }
}

fn zipkin(host: &str, port: u16, short_ids: bool, path: &str, w3c_too: bool) -> ZipkinConfig {
    let propagated = if w3c_too {
        zipkin_config::TraceContextOption::UseB3WithW3cPropagation
    } else {
        zipkin_config::TraceContextOption::UseB3
    };
    ZipkinConfig {
        collector_cluster: OutboundName::new(host, None, port).to_string(),
        collector_endpoint: if path.is_empty() {
            "/api/v2/spans".to_owned()
        } else {
            path.to_owned()
        },
        collector_hostname: host.to_owned(),
        collector_endpoint_version: zipkin_config::CollectorEndpointVersion::HttpJson.into(),
        trace_id_128bit: !short_ids,
        shared_span_context: Some(wire::boolean(false)),
        trace_context_option: propagated.into(),
        ..Default::default()
    }
}

fn literal(value: &str) -> tag::custom_tag::Type {
    tag::custom_tag::Type::Literal(tag::custom_tag::Literal {
        value: value.to_owned(),
    })
}

fn rbac_result(key: &str) -> tag::custom_tag::Type {
    let segment = metadata_key::PathSegment {
        segment: Some(metadata_key::path_segment::Segment::Key(key.to_owned())),
    };
    tag::custom_tag::Type::Metadata(tag::custom_tag::Metadata {
        kind: Some(MetadataKind {
            kind: Some(metadata_kind::Kind::Request(metadata_kind::Request {})),
        }),
        metadata_key: Some(MetadataKey {
            key: "envoy.filters.http.rbac".to_owned(),
            path: vec![segment],
        }),
        ..Default::default()
    })
}

fn custom(own: &CustomTag) -> tag::custom_tag::Type {
    match own {
        CustomTag::Literal(value) => literal(value),
        CustomTag::Environment { name, default } => {
            tag::custom_tag::Type::Environment(tag::custom_tag::Environment {
                name: name.to_string(),
                default_value: default.to_string(),
            })
        }
        CustomTag::Header { name, default } => {
            tag::custom_tag::Type::RequestHeader(tag::custom_tag::Header {
                name: name.to_string(),
                default_value: default.to_string(),
            })
        }
        CustomTag::Formatter(format) => tag::custom_tag::Type::Value(format.to_string()),
    }
}
