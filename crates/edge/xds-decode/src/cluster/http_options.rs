//! HTTP towards the upstream: `HttpProtocolOptions` as an extension, or the older fields of the
//! cluster itself.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use proxy_config::cluster::{UpstreamHttp, UpstreamProtocol};
use wire_envoy::pb::{
    self, Any,
    cluster::cluster::ClusterProtocolSelection,
    core::{HttpProtocolOptions as CommonOptions, UpstreamHttpProtocolOptions},
    http_options::{
        HttpProtocolOptions,
        http_protocol_options::{
            AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
            explicit_http_config::ProtocolConfig,
        },
    },
};

use crate::{
    context::Cx,
    extension::Extension,
    http_protocol::{http1, http2},
    judgement::{enumerated, take},
    reject::{Refusal, Within},
    scalar,
};

mod error_statuses;

pub(super) type ErrorStatuses = Arc<[Range<u16>]>;

const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Envoy's default.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Parts {
    pub(super) typed: HashMap<String, Any>,
    pub(super) upstream: Option<UpstreamHttpProtocolOptions>,
    pub(super) common: Option<CommonOptions>,
    pub(super) http1: Option<pb::core::Http1ProtocolOptions>,
    pub(super) http2: Option<pb::core::Http2ProtocolOptions>,
    pub(super) selection: i32,
    pub(super) max_requests_per_connection: Option<pb::UInt32Value>,
}

/// The settings, and the answers that count as errors in outlier detection when they are not the
/// 5xx.
pub(super) fn upstream(
    cx: &mut Cx,
    parts: Parts,
) -> Result<(UpstreamHttp, Option<ErrorStatuses>), Refusal> {
    let Parts {
        mut typed,
        upstream,
        common,
        http1,
        http2,
        selection,
        max_requests_per_connection,
    } = parts;
    let field = "typed_extension_protocol_options";
    let options = typed.remove(KEY);
    if let Some(other) = typed.keys().min() {
        return Err(Refusal::at(field, format!("{other} is not supported")));
    }
    let legacy = scalar::count(max_requests_per_connection);
    let (mut http, errors) = match options {
        Some(any) => {
            let message = Extension::open(&any).and_then(|e| e.message(cx));
            message
                .and_then(|m| options_of(cx, m))
                .within_key(field, KEY)?
        }
        None => {
            let selection =
                enumerated!(selection => ClusterProtocolSelection, "protocol_selection")?;
            let protocol = match (selection, http2.is_some()) {
                (ClusterProtocolSelection::UseDownstreamProtocol, _) => {
                    UpstreamProtocol::Downstream
                }
                (ClusterProtocolSelection::UseConfiguredProtocol, true) => UpstreamProtocol::Http2,
                (ClusterProtocolSelection::UseConfiguredProtocol, false) => UpstreamProtocol::Http1,
            };
            (
                assemble(cx, protocol, Versions { http1, http2 }, common, upstream)?,
                None,
            )
        }
    };
    http.max_requests_per_connection = http
        .max_requests_per_connection
        .or(legacy)
        .filter(|n| *n > 0);
    Ok((http, errors))
}

/// The settings of both versions, where given.
#[derive(Default)]
struct Versions {
    http1: Option<pb::core::Http1ProtocolOptions>,
    http2: Option<pb::core::Http2ProtocolOptions>,
}

fn options_of(
    cx: &mut Cx,
    value: HttpProtocolOptions,
) -> Result<(UpstreamHttp, Option<ErrorStatuses>), Refusal> {
    take!(cx, value => HttpProtocolOptions {
        read { common_http_protocol_options, upstream_http_protocol_options, upstream_protocol_options, outlier_detection }
        ignore "headers are validated by the HTTP library" { header_validation_config }
        reject "upstream HTTP filters are not supported" { http_filters }
        reject "is read from routes" { request_mirror_policies, hash_policy, retry_policy }
    });
    let (protocol, versions) = protocol(cx, upstream_protocol_options)?;
    let errors = outlier_detection.and_then(|o| o.error_matcher);
    let errors = errors
        .map(error_statuses::error_statuses)
        .transpose()
        .within("outlier_detection.error_matcher")?;
    Ok((
        assemble(
            cx,
            protocol,
            versions,
            common_http_protocol_options,
            upstream_http_protocol_options,
        )?,
        errors,
    ))
}

fn protocol(
    cx: &mut Cx,
    value: Option<UpstreamProtocolOptions>,
) -> Result<(UpstreamProtocol, Versions), Refusal> {
    Ok(match value {
        None => return Err(Refusal::missing("upstream_protocol_options")),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config,
        })) => match protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(http1)) => (
                UpstreamProtocol::Http1,
                Versions {
                    http1: Some(http1),
                    http2: None,
                },
            ),
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => (
                UpstreamProtocol::Http2,
                Versions {
                    http1: None,
                    http2: Some(http2),
                },
            ),
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return Err(Refusal::at(
                    "explicit_http_config.http3_protocol_options",
                    "HTTP/3 is not supported",
                ));
            }
            None => return Err(Refusal::missing("explicit_http_config")),
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            take!(cx, config => UseDownstreamHttpConfig {
                read { http_protocol_options, http2_protocol_options }
                reject "HTTP/3 is not supported" { http3_protocol_options }
            });
            (
                UpstreamProtocol::Downstream,
                Versions {
                    http1: http_protocol_options,
                    http2: http2_protocol_options,
                },
            )
        }
        Some(UpstreamProtocolOptions::AutoConfig(config)) => {
            take!(cx, config => AutoHttpConfig {
                read { http_protocol_options, http2_protocol_options }
                reject "HTTP/3 is not supported" { http3_protocol_options, alternate_protocols_cache_options }
            });
            (
                UpstreamProtocol::Alpn,
                Versions {
                    http1: http_protocol_options,
                    http2: http2_protocol_options,
                },
            )
        }
    })
}

fn assemble(
    cx: &mut Cx,
    protocol: UpstreamProtocol,
    versions: Versions,
    common: Option<CommonOptions>,
    upstream: Option<UpstreamHttpProtocolOptions>,
) -> Result<UpstreamHttp, Refusal> {
    let common = crate::http_protocol::common(cx, common.unwrap_or_default(), IDLE)
        .within("common_http_protocol_options")?;
    let upstream = upstream.unwrap_or_default();
    take!(cx, upstream => UpstreamHttpProtocolOptions {
        read { auto_sni, auto_san_validation }
        reject "the SNI is taken from the host" { override_auto_sni_header }
    });
    let http1 = http1(cx, versions.http1.unwrap_or_default()).within("http_protocol_options")?;
    Ok(UpstreamHttp {
        protocol,
        http2: http2(cx, versions.http2.unwrap_or_default()).within("http2_protocol_options")?,
        idle_timeout: common.idle,
        max_connection_duration: common.max_connection_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        max_stream_duration: common.max_stream_duration,
        auto_sni,
        auto_san_validation,
        preserve_header_case: http1.preserve_header_case,
    })
}
