//! Forwarding: target, rewrites, time limits, retries, mirrors, hashing.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use proxy_config::{
    hash_policy::{HashPolicy, HashSource},
    route::{Forward, GrpcTimeout, HostRewrite, MaxStreamDuration, PathRewrite},
    upgrade::Upgrade,
};
use wire_envoy::pb::{
    self,
    core::RoutingPriority,
    route::route_action::{
        self, ClusterNotFoundResponseCode, HostRewriteSpecifier, InternalRedirectAction,
        UpgradeConfig, hash_policy::PolicySpecifier,
    },
};

use super::{mirror, retry, target};
use crate::{
    context::Cx,
    filter::{cors, http as http_filter},
    judgement::{enumerated, take},
    matcher, metadata,
    reject::{Refusal, Within, each},
    scalar,
};

/// Envoy's default; Istio sends 0s, no limit.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn forward(cx: &mut Cx, value: pb::route::RouteAction) -> Result<Forward, Refusal> {
    take!(cx, value => pb::route::RouteAction {
        read {
            cluster_not_found_response_code, metadata_match, prefix_rewrite, regex_rewrite, append_x_forwarded_host, timeout,
            idle_timeout, retry_policy, request_mirror_policies, priority, hash_policy, cors, upgrade_configs,
            max_stream_duration, cluster_specifier, host_rewrite_specifier, internal_redirect_action, max_grpc_timeout,
            grpc_timeout_offset,
        }
        ignore "buffers are flushed within the stream's idle time" { flush_timeout }
        ignore "early data is not sent" { early_data_policy }
        ignore "an attempt that times out is retried, not doubled" { hedge_policy }
        ignore "there are no rate limits of virtual hosts" { include_vh_rate_limits }
        ignore "redirects are passed to the client" { max_internal_redirects }
        leave "redirects are passed to the client" { internal_redirect_policy }
        reject "the rate limit service is not supported" { rate_limits }
        reject "is not supported" { path_rewrite_policy, path_rewrite, retry_policy_typed_config }
    });
    if internal_redirect_action != InternalRedirectAction::PassThroughInternalRedirect as i32 {
        return Err(Refusal::at(
            "internal_redirect_action",
            "redirects are passed to the client",
        ));
    }
    Ok(Forward {
        target: target::target(cx, cluster_specifier)?,
        cluster_not_found_status: not_found_status(cluster_not_found_response_code)?,
        path_rewrite: rewritten_path(prefix_rewrite, regex_rewrite)?,
        host_rewrite: host_rewrite(host_rewrite_specifier)?,
        append_x_forwarded_host,
        // A route with the newer limits has none of the older ones.
        timeout: match &max_stream_duration {
            Some(_) => None,
            None => scalar::limit("timeout", timeout, Some(TIMEOUT))?,
        },
        grpc_timeout: match &max_stream_duration {
            Some(_) => None,
            None => grpc_timeout(max_grpc_timeout, grpc_timeout_offset)?,
        },
        idle_timeout: scalar::optional_duration("idle_timeout", idle_timeout)?,
        max_stream_duration: stream_duration(max_stream_duration.unwrap_or_default())?,
        retry: retry_policy
            .map(|p| retry::policy(cx, p))
            .transpose()
            .within("retry_policy")?
            .map(Arc::new),
        mirrors: mirror::mirrors(cx, request_mirror_policies)?,
        hash_policies: each("hash_policy", hash_policy, |p| self::hash_policy(cx, p))?,
        cors: cors
            .map(|c| cors::legacy(cx, c))
            .transpose()
            .within("cors")?
            .map(Arc::new),
        metadata_match: metadata::optional(cx, metadata_match).within("metadata_match")?,
        upgrades: each("upgrade_configs", upgrade_configs, |u| upgrade(cx, u))?,
        high_priority: enumerated!(priority => RoutingPriority, "priority")?
            == RoutingPriority::High,
    })
}

fn not_found_status(number: i32) -> Result<StatusCode, Refusal> {
    Ok(
        match enumerated!(number => ClusterNotFoundResponseCode, "cluster_not_found_response_code")?
        {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
    )
}

fn rewritten_path(
    prefix: String,
    regex: Option<pb::matcher::RegexMatchAndSubstitute>,
) -> Result<PathRewrite, Refusal> {
    match (prefix.is_empty(), regex) {
        (true, None) => Ok(PathRewrite::None),
        (false, None) => Ok(PathRewrite::Prefix(prefix.into())),
        (true, Some(regex)) => matcher::rewrite(regex)
            .within("regex_rewrite")
            .map(PathRewrite::Regex),
        (false, Some(_)) => Err(Refusal::at(
            "regex_rewrite",
            "and prefix_rewrite are both set",
        )),
    }
}

fn host_rewrite(value: Option<HostRewriteSpecifier>) -> Result<HostRewrite, Refusal> {
    Ok(match value {
        None | Some(HostRewriteSpecifier::AutoHostRewrite(pb::BoolValue { value: false })) => {
            HostRewrite::None
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(pb::BoolValue { value: true })) => {
            HostRewrite::Auto
        }
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if host.is_empty() => {
            HostRewrite::None
        }
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => HostRewrite::Literal(host.into()),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            HostRewrite::Header(scalar::header_name("host_rewrite_header", &name)?)
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(regex)) => {
            HostRewrite::PathRegex(matcher::rewrite(regex).within("host_rewrite_path_regex")?)
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => {
            return Err(Refusal::at("host_rewrite", "formats are not supported"));
        }
    })
}

fn grpc_timeout(
    max: Option<pb::Duration>,
    offset: Option<pb::Duration>,
) -> Result<Option<GrpcTimeout>, Refusal> {
    let max = scalar::optional_duration("max_grpc_timeout", max)?;
    let offset = scalar::limit("grpc_timeout_offset", offset, None)?;
    Ok(max.map(|max| GrpcTimeout { max, offset }))
}

fn stream_duration(value: route_action::MaxStreamDuration) -> Result<MaxStreamDuration, Refusal> {
    let route_action::MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = value;
    Ok(MaxStreamDuration {
        max: scalar::optional_duration(
            "max_stream_duration.max_stream_duration",
            max_stream_duration,
        )?,
        grpc_timeout_header_max: scalar::optional_duration(
            "max_stream_duration.grpc_timeout_header_max",
            grpc_timeout_header_max,
        )?,
        grpc_timeout_header_offset: scalar::limit(
            "max_stream_duration.grpc_timeout_header_offset",
            grpc_timeout_header_offset,
            None,
        )?,
    })
}

fn hash_policy(cx: &mut Cx, value: route_action::HashPolicy) -> Result<HashPolicy, Refusal> {
    let route_action::HashPolicy {
        terminal,
        policy_specifier,
    } = value;
    let source = match policy_specifier.ok_or_else(|| Refusal::missing("policy_specifier"))? {
        PolicySpecifier::Header(header) => {
            take!(cx, header => route_action::hash_policy::Header {
                read { header_name }
                reject "the whole value is hashed" { regex_rewrite }
            });
            HashSource::Header(scalar::header_name("header.header_name", &header_name)?)
        }
        PolicySpecifier::Cookie(route_action::hash_policy::Cookie {
            name,
            ttl,
            path,
            attributes,
        }) => HashSource::Cookie {
            name: name.into(),
            ttl: scalar::optional_duration("cookie.ttl", ttl)?,
            path: path.into(),
            attributes: attributes
                .into_iter()
                .map(|a| (Arc::from(a.name), Arc::from(a.value)))
                .collect(),
        },
        PolicySpecifier::ConnectionProperties(
            route_action::hash_policy::ConnectionProperties { source_ip: true },
        ) => HashSource::SourceIp,
        PolicySpecifier::ConnectionProperties(_) => {
            return Err(Refusal::at(
                "connection_properties",
                "source_ip must be set",
            ));
        }
        PolicySpecifier::QueryParameter(parameter) => {
            HashSource::QueryParameter(parameter.name.into())
        }
        PolicySpecifier::FilterState(state) => HashSource::FilterState(state.key.into()),
    };
    Ok(HashPolicy { source, terminal })
}

fn upgrade(cx: &mut Cx, value: UpgradeConfig) -> Result<Upgrade, Refusal> {
    take!(cx, value => UpgradeConfig {
        read { upgrade_type, enabled, connect_config }
    });
    if let Some(connect) = connect_config {
        take!(cx, connect => route_action::upgrade_config::ConnectConfig {
            reject "no PROXY header is sent for a tunnel" { proxy_protocol_config }
            reject "tunnels are CONNECT" { allow_post }
        });
        return Err(Refusal::at("connect_config", "tunnels do not end here"));
    }
    Ok(Upgrade {
        kind: http_filter::upgrade_kind(&upgrade_type)?,
        enabled: scalar::flag_or(enabled, true),
    })
}
