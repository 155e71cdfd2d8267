//! Local rate limits of requests and of connections.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use proxy_config::{
    filter::local_rate_limit::{
        Descriptor, DescriptorAction, DescriptorActions, LocalRateLimit, NetworkLocalRateLimit,
        TokenBucket,
    },
    matcher::Fraction,
};
use wire_envoy::pb::{
    self,
    envoy::extensions::common::ratelimit::v3::{
        LocalRateLimitDescriptor, XRateLimitHeadersRfcVersion, rate_limit_descriptor::Entry,
    },
    http_filters::local_ratelimit::v3::LocalRateLimit as Http,
    network_filters::local_ratelimit::v3::LocalRateLimit as Network,
    route::rate_limit::{Action, action::ActionSpecifier},
};

use crate::{
    context::Cx,
    header,
    judgement::{enumerated, take},
    matcher,
    reject::{Refusal, Within, each},
    scalar,
};

/// The shortest interval at which Envoy fills a bucket.
const FILL_MINIMUM: Duration = Duration::from_millis(50);

pub(crate) fn http(cx: &mut Cx, value: Http) -> Result<LocalRateLimit, Refusal> {
    take!(cx, value => Http {
        read {
            stat_prefix, status, token_bucket, filter_enabled, filter_enforced, response_headers_to_add, descriptors,
            local_rate_limit_per_downstream_connection, enable_x_ratelimit_headers, always_consume_default_token_bucket, rate_limits,
        }
        ignore "only rate limits of the filter itself are read" { stage, vh_rate_limits }
        ignore "requests above the limit that are let through look like others" { request_headers_to_add_when_not_enforced }
        ignore "descriptors are fixed" { max_dynamic_descriptors }
        reject "limits are this proxy's own" { local_cluster_rate_limit }
        reject "gRPC answers are UNAVAILABLE" { rate_limited_as_resource_exhausted }
        reject "is not sent" { enable_retry_after_header }
    });
    if !scalar::flag_or(always_consume_default_token_bucket, true) {
        return Err(Refusal::at(
            "always_consume_default_token_bucket",
            "the default bucket always counts",
        ));
    }
    let status = match status.map(|s| s.code).unwrap_or_default() {
        // Envoy takes a status below 400 as 429.
        ..400 => StatusCode::TOO_MANY_REQUESTS,
        code => scalar::status("status", code.unsigned_abs())?,
    };
    let headers = enumerated!(enable_x_ratelimit_headers => XRateLimitHeadersRfcVersion, "enable_x_ratelimit_headers")?;
    Ok(LocalRateLimit {
        stat_prefix: stat_prefix.into(),
        status,
        bucket: token_bucket
            .map(bucket)
            .transpose()
            .within("token_bucket")?,
        enabled: share(cx, "filter_enabled", filter_enabled)?,
        enforced: share(cx, "filter_enforced", filter_enforced)?,
        response_headers: header::additions(
            cx,
            "response_headers_to_add",
            response_headers_to_add,
        )?,
        per_connection: local_rate_limit_per_downstream_connection,
        x_ratelimit_headers: headers == XRateLimitHeadersRfcVersion::DraftVersion03,
        descriptors: each("descriptors", descriptors, |d| descriptor(cx, d))?,
        actions: each("rate_limits", rate_limits, |r| rate_limit(cx, r))?,
    })
}

/// Absent means never, as Envoy's documentation says of both fractions.
fn share(
    cx: &mut Cx,
    field: &'static str,
    value: Option<pb::core::RuntimeFractionalPercent>,
) -> Result<Fraction, Refusal> {
    value
        .map_or(Ok(Fraction::NONE), |f| scalar::runtime_fraction(cx, f))
        .within(field)
}

fn bucket(value: pb::kind::TokenBucket) -> Result<TokenBucket, Refusal> {
    let pb::kind::TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval,
    } = value;
    let tokens_per_fill = scalar::count_or(tokens_per_fill, 1);
    if max_tokens == 0 || tokens_per_fill == 0 {
        return Err(Refusal::at(
            "max_tokens",
            "and tokens_per_fill must be at least 1",
        ));
    }
    let fill_interval =
        scalar::duration(fill_interval.ok_or_else(|| Refusal::missing("fill_interval"))?)
            .within("fill_interval")?;
    if fill_interval < FILL_MINIMUM {
        return Err(Refusal::at("fill_interval", "must be at least 50ms"));
    }
    Ok(TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval,
    })
}

fn descriptor(cx: &mut Cx, value: LocalRateLimitDescriptor) -> Result<Descriptor, Refusal> {
    take!(cx, value => LocalRateLimitDescriptor {
        read { entries, token_bucket }
        reject "is not supported" { shadow_mode }
    });
    let entries = entries
        .into_iter()
        .map(|Entry { key, value }| (Arc::from(key), Arc::from(value)))
        .collect();
    let token_bucket = token_bucket.ok_or_else(|| Refusal::missing("token_bucket"))?;
    Ok(Descriptor {
        entries,
        bucket: bucket(token_bucket).within("token_bucket")?,
    })
}

fn rate_limit(cx: &mut Cx, value: pb::route::RateLimit) -> Result<DescriptorActions, Refusal> {
    take!(cx, value => pb::route::RateLimit {
        read { actions }
        ignore "all stages are one" { stage }
        ignore "there is no runtime layer" { disable_key }
        reject "limits are those of the descriptors" { limit, hits_addend }
        reject "requests are counted when they come" { apply_on_stream_done }
        reject "headers are set by the filter" { x_ratelimit_option }
    });
    each("actions", actions, action).map(DescriptorActions)
}

fn action(value: Action) -> Result<DescriptorAction, Refusal> {
    let key_or = |key: String, default: &str| {
        if key.is_empty() {
            default.into()
        } else {
            Arc::from(key)
        }
    };
    Ok(
        match value
            .action_specifier
            .ok_or_else(|| Refusal::missing("action_specifier"))?
        {
            ActionSpecifier::RequestHeaders(action) => {
                let pb::route::rate_limit::action::RequestHeaders {
                    header_name,
                    descriptor_key,
                    skip_if_absent,
                } = action;
                DescriptorAction::RequestHeader {
                    header: scalar::header_key("request_headers.header_name", &header_name)?,
                    key: descriptor_key.into(),
                    skip_if_absent,
                }
            }
            ActionSpecifier::RemoteAddress(_) => DescriptorAction::RemoteAddress,
            ActionSpecifier::GenericKey(action) => {
                let pb::route::rate_limit::action::GenericKey {
                    descriptor_value,
                    default_value,
                    descriptor_key,
                } = action;
                if !default_value.is_empty() {
                    return Err(Refusal::at("generic_key.default_value", "is not supported"));
                }
                DescriptorAction::GenericKey {
                    key: key_or(descriptor_key, "generic_key"),
                    value: descriptor_value.into(),
                }
            }
            ActionSpecifier::HeaderValueMatch(action) => {
                let pb::route::rate_limit::action::HeaderValueMatch {
                    descriptor_value,
                    default_value,
                    descriptor_key,
                    expect_match,
                    headers,
                } = action;
                if !default_value.is_empty() {
                    return Err(Refusal::at(
                        "header_value_match.default_value",
                        "is not supported",
                    ));
                }
                DescriptorAction::HeaderValueMatch {
                    key: key_or(descriptor_key, "header_match"),
                    value: descriptor_value.into(),
                    expect: scalar::flag_or(expect_match, true),
                    headers: matcher::headers("header_value_match.headers", headers)?,
                }
            }
            _ => {
                return Err(Refusal::at(
                    "action_specifier",
                    "only headers, fixed keys and the remote address are supported",
                ));
            }
        },
    )
}

pub(crate) fn network(cx: &mut Cx, value: Network) -> Result<NetworkLocalRateLimit, Refusal> {
    take!(cx, value => Network {
        read { stat_prefix, token_bucket, runtime_enabled }
        reject "buckets are not shared between listeners" { share_key }
    });
    let on = runtime_enabled
        .and_then(|f| f.default_value)
        .is_none_or(|v| v.value);
    Ok(NetworkLocalRateLimit {
        stat_prefix: stat_prefix.into(),
        bucket: bucket(token_bucket.ok_or_else(|| Refusal::missing("token_bucket"))?)
            .within("token_bucket")?,
        enabled: if on { Fraction::ALL } else { Fraction::NONE },
    })
}
