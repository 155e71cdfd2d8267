//! `HttpConnectionManager`, with Envoy's defaults where nothing is said.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use proxy_config::{
    HttpConnectionManager, RouteTableName,
    http_connection_manager::{
        ClientCertDetails, CodecType, EscapedSlashes, ForwardClientCert, HttpTimeouts,
        PathNormalization, RequestId, RouteSource, ServerHeader, StripPort,
    },
};
use wire_envoy::pb::{
    self,
    envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig,
    hcm::{
        RequestIdExtension,
        http_connection_manager::{
            CodecType as WireCodec, ForwardClientCertDetails, InternalAddressConfig,
            PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
            SetCurrentClientCertDetails, StripPortMode,
        },
    },
};

use crate::{
    access_log, address, config_source,
    context::Cx,
    extension::Extension,
    filter::http,
    http_protocol,
    judgement::{enumerated, take},
    reject::{Refusal, Within, each},
    route, scalar, tracing,
};

/// Envoy's default of `idle_timeout`.
const IDLE: Duration = Duration::from_secs(3600);
/// Envoy's default of `stream_idle_timeout`.
const STREAM_IDLE: Duration = Duration::from_secs(300);
/// Envoy's default of `drain_timeout`.
const DRAIN: Duration = Duration::from_secs(5);
/// Envoy's default of `delayed_close_timeout`.
const DELAYED_CLOSE: Duration = Duration::from_secs(1);
/// Envoy's default of `max_request_headers_kb`.
const MAX_REQUEST_HEADERS_KB: u32 = 60;
const MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// Envoy refuses more.
const REQUEST_HEADERS_LIMIT_KB: u32 = 8192;

/// A connection manager of which something cannot be read: it answers every request 503, and its
/// access logs tell why.
pub(crate) fn refusing(
    cx: &mut Cx,
    value: pb::hcm::HttpConnectionManager,
    refusal: Refusal,
) -> Result<HttpConnectionManager, Refusal> {
    let refused = cx.refuse(MANAGER, refusal, "its requests are answered 503");
    let bare = pb::hcm::HttpConnectionManager {
        stat_prefix: value.stat_prefix,
        codec_type: value.codec_type,
        access_log: value.access_log,
        http_filters: vec![router()],
        route_specifier: Some(RouteSpecifier::RouteConfig(Default::default())),
        ..Default::default()
    };
    // What is wrong with its access logs was told already.
    let bare = manager(&mut Cx::with_environment(cx.environment().clone()), bare)?;
    Ok(HttpConnectionManager {
        filters: http::refusing(refused),
        ..bare
    })
}

fn router() -> pb::hcm::HttpFilter {
    pb::hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(pb::hcm::http_filter::ConfigType::TypedConfig(
            wire_envoy::any(&pb::http_filters::router::v3::Router::default()),
        )),
        ..Default::default()
    }
}

pub(crate) fn manager(
    cx: &mut Cx,
    value: pb::hcm::HttpConnectionManager,
) -> Result<HttpConnectionManager, Refusal> {
    take!(cx, value => pb::hcm::HttpConnectionManager {
        read {
            codec_type, stat_prefix, delayed_close_timeout, http_filters, tracing, common_http_protocol_options, http_protocol_options,
            http2_protocol_options, server_name, server_header_transformation, max_request_headers_kb, stream_idle_timeout,
            request_timeout, request_headers_timeout, drain_timeout, access_log, use_remote_address,
            xff_num_trusted_hops, skip_xff_append, via, generate_request_id, preserve_external_request_id,
            always_set_request_id_in_response, forward_client_cert_details, set_current_client_cert_details, proxy_100_continue,
            upgrade_configs, normalize_path, merge_slashes, path_with_escaped_slashes_action, request_id_extension,
            strip_matching_host_port, append_x_forwarded_port, route_specifier, strip_port_mode, scheme_header_transformation, internal_address_config,
        }
        ignore "user agents are counted nowhere" { add_user_agent }
        ignore "connections end within the duration on both versions" { http1_safe_max_connection_duration }
        ignore "buffers are flushed within the stream's idle time" { stream_flush_timeout }
        ignore "draining has no jitter" { drain_timeout_jitter }
        ignore "requests are logged when they end" { access_log_flush_interval, flush_access_log_on_new_request, access_log_options }
        ignore "IPv4 addresses are printed as such" { represent_ipv4_remote_address_as_ipv4_mapped_ipv6 }
        ignore "an invalid message ends its connection" { stream_error_on_invalid_http_message }
        ignore "headers are validated by the HTTP library" { typed_header_validation_config }
        ignore "no supported transport reads it" { add_proxy_protocol_connection_state }
        ignore "is a statistic of answers under overload" { append_local_overload }
        leave "local answers are Envoy's own" { local_reply_config }
        leave "Proxy-Status is not sent" { proxy_status_config }
        reject "HTTP/3 is not supported" { http3_protocol_options }
        reject "the client's address comes from X-Forwarded-For or PROXY protocol" { original_ip_detection_extensions }
        reject "headers are changed by routes" { early_header_mutation_extensions }
        reject "one rule holds for all clients" { forward_client_cert_matcher }
        reject "paths are normalized by RFC 3986 only" { path_normalization_options }
        reject "hosts are matched as they are" { strip_trailing_host_dot }
        reject "x-forwarded-proto follows the connection" { forward_proto_config }
    });
    if let Some(scheme) = scheme_header_transformation {
        take!(cx, scheme => pb::core::SchemeHeaderTransformation {
            ignore "the scheme towards the upstream follows its transport" { match_upstream }
            reject "the scheme is the connection's" { transformation }
        });
    }
    let common = http_protocol::common(cx, common_http_protocol_options.unwrap_or_default(), IDLE)
        .within("common_http_protocol_options")?;
    let http1 = http_protocol::http1(cx, http_protocol_options.unwrap_or_default())
        .within("http_protocol_options")?;
    let delayed_close = scalar::limit(
        "delayed_close_timeout",
        delayed_close_timeout,
        Some(DELAYED_CLOSE),
    )?;
    let max_request_headers_kb = request_headers_kb(max_request_headers_kb)?;
    let mut request_id =
        request_id_settings(cx, request_id_extension).within("request_id_extension")?;
    request_id.generate = scalar::flag_or(generate_request_id, true);
    request_id.preserve_external = preserve_external_request_id;
    request_id.always_in_response = always_set_request_id_in_response;
    Ok(HttpConnectionManager {
        stat_prefix: stat_prefix.into(),
        codec: codec(codec_type)?,
        routes: routes(cx, route_specifier)?,
        filters: http::http_filters(cx, http_filters)?,
        tracing: tracing
            .map(|t| tracing::tracing(cx, t))
            .transpose()
            .within("tracing")?
            .map(Arc::new),
        access_logs: access_log::access_logs(cx, "access_log", access_log)?,
        server_name: if server_name.is_empty() {
            "envoy".into()
        } else {
            server_name.into()
        },
        server_header: server_header(server_header_transformation)?,
        use_remote_address: scalar::flag_or(use_remote_address, false),
        internal_networks: internal_networks(cx, internal_address_config)
            .within("internal_address_config")?,
        xff_trusted_hops: xff_num_trusted_hops,
        skip_xff_append,
        append_x_forwarded_port,
        forward_client_cert: forward_client_cert(forward_client_cert_details)?,
        client_cert_details: client_cert_details(cx, set_current_client_cert_details)?,
        proxy_100_continue,
        upgrades: each("upgrade_configs", upgrade_configs, http::upgrade)?,
        path_normalization: PathNormalization {
            normalize: scalar::flag_or(normalize_path, false),
            merge_slashes,
            escaped_slashes: escaped_slashes(path_with_escaped_slashes_action)?,
        },
        request_id,
        strip_port: strip_port(strip_matching_host_port, strip_port_mode)?,
        accept_http10: http1.accept_http10,
        preserve_header_case: http1.preserve_header_case,
        via: scalar::text(via),
        timeouts: HttpTimeouts {
            idle: common.idle,
            stream_idle: scalar::limit(
                "stream_idle_timeout",
                stream_idle_timeout,
                Some(STREAM_IDLE),
            )?,
            request: optional("request_timeout", request_timeout)?,
            request_headers: optional("request_headers_timeout", request_headers_timeout)?,
            max_connection_duration: common.max_connection_duration,
            max_stream_duration: common.max_stream_duration,
            delayed_close,
            drain: scalar::limit("drain_timeout", drain_timeout, Some(DRAIN))?,
        },
        http2: http_protocol::http2(cx, http2_protocol_options.unwrap_or_default())
            .within("http2_protocol_options")?,
        max_request_headers_kb,
        max_headers: common.max_headers,
        custom_methods: http1.custom_methods,
        max_requests_per_connection: common.max_requests_per_connection,
        headers_with_underscores: common.underscores,
    })
}

/// A time limit that there is only where it is set.
fn optional(field: &'static str, value: Option<pb::Duration>) -> Result<Option<Duration>, Refusal> {
    scalar::limit(field, value, None)
}

fn codec(number: i32) -> Result<CodecType, Refusal> {
    Ok(match enumerated!(number => WireCodec, "codec_type")? {
        WireCodec::Auto => CodecType::Auto,
        WireCodec::Http1 => CodecType::Http1,
        WireCodec::Http2 => CodecType::Http2,
        WireCodec::Http3 => return Err(Refusal::at("codec_type", "HTTP/3 is not supported")),
    })
}

fn routes(cx: &mut Cx, value: Option<RouteSpecifier>) -> Result<RouteSource, Refusal> {
    match value.ok_or_else(|| Refusal::missing("route_specifier"))? {
        RouteSpecifier::Rds(pb::hcm::Rds {
            config_source,
            route_config_name,
        }) => {
            config_source::subscribed(cx, config_source)
                .within("config_source")
                .within("rds")?;
            RouteTableName::parse(route_config_name)
                .map(RouteSource::Named)
                .map_err(|e| Refusal::at("rds.route_config_name", e.to_string()))
        }
        RouteSpecifier::RouteConfig(config) => cx
            .within("route_config", |cx| route::inline_table(cx, config))
            .map(|t| RouteSource::Inline(Arc::new(t))),
        RouteSpecifier::ScopedRoutes(_) => Err(Refusal::at(
            "scoped_routes",
            "scoped routes are not supported",
        )),
    }
}

fn request_headers_kb(value: Option<pb::UInt32Value>) -> Result<u32, Refusal> {
    let limit = scalar::count_or(value, MAX_REQUEST_HEADERS_KB);
    if limit == 0 || limit > REQUEST_HEADERS_LIMIT_KB {
        return Err(Refusal::at(
            "max_request_headers_kb",
            format!("must be 1 to {REQUEST_HEADERS_LIMIT_KB}"),
        ));
    }
    Ok(limit)
}

fn internal_networks(
    cx: &mut Cx,
    value: Option<InternalAddressConfig>,
) -> Result<Arc<[IpNet]>, Refusal> {
    let Some(value) = value else {
        return Ok(Arc::from([]));
    };
    take!(cx, value => InternalAddressConfig {
        read { cidr_ranges }
        reject "Unix sockets of clients are not supported" { unix_sockets }
    });
    each("cidr_ranges", cidr_ranges, address::cidr)
}

fn server_header(number: i32) -> Result<ServerHeader, Refusal> {
    Ok(
        match enumerated!(number => ServerHeaderTransformation, "server_header_transformation")? {
            ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
            ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
        },
    )
}

fn forward_client_cert(number: i32) -> Result<ForwardClientCert, Refusal> {
    Ok(
        match enumerated!(number => ForwardClientCertDetails, "forward_client_cert_details")? {
            ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
            ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
            ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
            ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
            ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        },
    )
}

fn client_cert_details(
    cx: &mut Cx,
    value: Option<SetCurrentClientCertDetails>,
) -> Result<ClientCertDetails, Refusal> {
    let value = value.unwrap_or_default();
    take!(cx, value => SetCurrentClientCertDetails {
        read { subject, cert, chain, dns, uri }
        reject "is not supported" { issuer, format }
    });
    Ok(ClientCertDetails {
        subject: scalar::flag_or(subject, false),
        cert,
        chain,
        dns,
        uri,
    })
}

fn escaped_slashes(number: i32) -> Result<EscapedSlashes, Refusal> {
    Ok(
        match enumerated!(number => PathWithEscapedSlashesAction, "path_with_escaped_slashes_action")?
        {
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
            PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
            PathWithEscapedSlashesAction::UnescapeAndRedirect => {
                EscapedSlashes::UnescapeAndRedirect
            }
            PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
    )
}

fn strip_port(matching: bool, mode: Option<StripPortMode>) -> Result<StripPort, Refusal> {
    match (matching, mode) {
        (false, None | Some(StripPortMode::StripAnyHostPort(false))) => Ok(StripPort::No),
        (true, None | Some(StripPortMode::StripAnyHostPort(false))) => Ok(StripPort::Matching),
        (false, Some(StripPortMode::StripAnyHostPort(true))) => Ok(StripPort::Any),
        (true, Some(StripPortMode::StripAnyHostPort(true))) => Err(Refusal::at(
            "strip_any_host_port",
            "and strip_matching_host_port are both set",
        )),
    }
}

/// Only the UUID extension exists; its two switches default to on.
fn request_id_settings(
    cx: &mut Cx,
    value: Option<RequestIdExtension>,
) -> Result<RequestId, Refusal> {
    let uuid = match value {
        None => UuidRequestIdConfig::default(),
        Some(RequestIdExtension { typed_config }) => Extension::open_required(typed_config)
            .and_then(|e| e.message(cx))
            .within("typed_config")?,
    };
    take!(cx, uuid => UuidRequestIdConfig { read { pack_trace_reason, use_request_id_for_trace_sampling } });
    Ok(RequestId {
        generate: true,
        preserve_external: false,
        always_in_response: false,
        pack_trace_reason: scalar::flag_or(pack_trace_reason, true),
        use_for_sampling: scalar::flag_or(use_request_id_for_trace_sampling, true),
    })
}

#[cfg(test)]
mod tests;
