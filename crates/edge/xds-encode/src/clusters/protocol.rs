//! Which HTTP version a cluster speaks, and the limits of its HTTP connections.

use std::{collections::HashMap, time::Duration};

use mesh_model::destination_rule::{ConnectionPool, H2Upgrade, HttpPool, OutlierDetection};
use wire_envoy::pb::{
    Any,
    core::{self, Http1ProtocolOptions, Http2ProtocolOptions, UpstreamHttpProtocolOptions},
    http_options::{
        HttpProtocolOptions,
        http_protocol_options::{
            ExplicitHttpConfig, OutlierDetection as OutlierMatch, UpstreamProtocolOptions,
            UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
        },
    },
};

use super::{outbound::Target, upstream_tls};
use crate::{ClientKind, inbound::InboundPort, packed, routes::header_is, wire};

const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// How long an idle HTTP connection to an unknown destination is kept.
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);

type Options = HashMap<String, Any>;

/// HTTP version of requests that a cluster sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
    AsDownstream,
}

pub(super) fn passthrough() -> Options {
    let common = core::HttpProtocolOptions {
        idle_timeout: Some(wire::duration(PASSTHROUGH_IDLE)),
        ..Default::default()
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(common),
        upstream_protocol_options: Some(spoken(Version::AsDownstream, &HttpPool::default())),
        ..Default::default()
    };
    keyed(&options)
}

/// Of a service's port: HTTP/2 where declared or upgraded to, what the caller spoke where that was asked for or is not declared.
pub(super) fn version(target: &Target<'_>) -> Version {
    let pool = target
        .policy
        .connection_pool
        .as_ref()
        .map(|pool| &pool.http);
    let protocol = target.port.protocol;
    let upgrade = pool.and_then(|pool| pool.h2_upgrade);
    if protocol.is_http2() {
        return Version::Http2;
    }
    if pool.is_some_and(|pool| pool.use_client_protocol) {
        return Version::AsDownstream;
    }
    match upgrade {
        Some(H2Upgrade::Upgrade) => Version::Http2,
        None if target.inputs.mesh.h2_upgrade && protocol.is_http() => Version::Http2,
        _ if protocol.is_auto() && target.inputs.client.kind == ClientKind::Sidecar => {
            Version::AsDownstream
        }
        _ => Version::Http1,
    }
}

pub(super) fn outbound(target: &Target<'_>) -> Options {
    let pool = target.policy.connection_pool.clone().unwrap_or_default();
    let version = version(target);
    let auto = upstream_tls::names_itself(target).then(|| UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: upstream_tls::verifies_host(target),
        ..Default::default()
    });
    let errors = target.policy.outlier_detection.as_ref().and_then(errors);
    options(version, &pool, auto, errors)
}

pub(super) fn inbound(port: &InboundPort, pool: &ConnectionPool) -> Options {
    let version = match port.protocol {
        protocol if protocol.is_http2() => Version::Http2,
        protocol if protocol.is_auto() || pool.http.use_client_protocol => Version::AsDownstream,
        _ => Version::Http1,
    };
    options(version, pool, None, None)
}

/// Nothing at all for plain HTTP/1 without limits: those are Envoy's defaults.
fn options(
    version: Version,
    pool: &ConnectionPool,
    auto: Option<UpstreamHttpProtocolOptions>,
    errors: Option<OutlierMatch>,
) -> Options {
    let common = core::HttpProtocolOptions {
        idle_timeout: pool.http.idle_timeout.map(wire::duration),
        max_connection_duration: pool.tcp.max_connection_duration.map(wire::duration),
        max_requests_per_connection: pool
            .http
            .max_requests_per_connection
            .filter(|limit| *limit > 0)
            .map(wire::number),
        ..Default::default()
    };
    let common = (common != core::HttpProtocolOptions::default()).then_some(common);
    if version == Version::Http1 && common.is_none() && auto.is_none() && errors.is_none() {
        return Options::new();
    }
    keyed(&HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: auto,
        outlier_detection: errors,
        upstream_protocol_options: Some(spoken(version, &pool.http)),
        ..Default::default()
    })
}

fn spoken(version: Version, pool: &HttpPool) -> UpstreamProtocolOptions {
    let http2 = Http2ProtocolOptions {
        max_concurrent_streams: pool
            .max_concurrent_streams
            .filter(|limit| *limit > 0)
            .map(wire::number),
        connection_keepalive: pool.http2_keepalive.map(|(interval, timeout)| {
            core::KeepaliveSettings {
                interval: Some(wire::duration(interval)),
                timeout: Some(wire::duration(timeout)),
                ..Default::default()
            }
        }),
        ..Default::default()
    };
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    match version {
        Version::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(
            Http1ProtocolOptions::default(),
        )),
        Version::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
        Version::AsDownstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2),
                ..Default::default()
            })
        }
    }
}

/// Statuses that count as errors instead of 5xx.
fn errors(detection: &OutlierDetection) -> Option<OutlierMatch> {
    use wire_envoy::pb::envoy::config::common::matcher::v3::{
        HttpHeadersMatch, MatchPredicate, match_predicate,
    };
    if detection.http_error_codes.is_empty() {
        return None;
    }
    let status = |code: &u16| MatchPredicate {
        rule: Some(match_predicate::Rule::HttpResponseHeadersMatch(
            HttpHeadersMatch {
                headers: vec![header_is(":status", wire::exact(code.to_string()))],
            },
        )),
    };
    let rules = detection.http_error_codes.iter().map(status).collect();
    let any = MatchPredicate {
        rule: Some(match_predicate::Rule::OrMatch(match_predicate::MatchSet {
            rules,
        })),
    };
    Some(OutlierMatch {
        error_matcher: Some(any),
    })
}

fn keyed(options: &HttpProtocolOptions) -> Options {
    Options::from([(KEY.to_owned(), packed(options))])
}
