//! CORS policies of routes, in both of their forms.

use proxy_config::{filter::cors::CorsPolicy, matcher::Fraction};
use wire_envoy::pb::{self, route::cors_policy::EnabledSpecifier};

use crate::{
    context::Cx,
    header,
    judgement::take,
    matcher,
    reject::{Refusal, Within, each},
    scalar,
};

pub(crate) fn policy(
    cx: &mut Cx,
    value: pb::http_filters::cors::v3::CorsPolicy,
) -> Result<CorsPolicy, Refusal> {
    take!(cx, value => pb::http_filters::cors::v3::CorsPolicy {
        read {
            allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials, filter_enabled,
            shadow_enabled, allow_private_network_access, forward_not_matching_preflights,
        }
    });
    let shadow_enabled = shadow_enabled
        .map(|f| scalar::runtime_fraction(cx, f))
        .transpose()
        .within("shadow_enabled")?;
    // A policy that only shadows is not enforced.
    let unset = if shadow_enabled.is_some() {
        Fraction::NONE
    } else {
        Fraction::ALL
    };
    Ok(CorsPolicy {
        allow_origins: each(
            "allow_origin_string_match",
            allow_origin_string_match,
            matcher::string,
        )?,
        allow_methods: header::optional_value("allow_methods", &allow_methods)?,
        allow_headers: header::optional_value("allow_headers", &allow_headers)?,
        expose_headers: header::optional_value("expose_headers", &expose_headers)?,
        max_age: header::optional_value("max_age", &max_age)?,
        allow_credentials: scalar::flag_or(allow_credentials, false),
        enabled: filter_enabled
            .map(|f| scalar::runtime_fraction(cx, f))
            .transpose()
            .within("filter_enabled")?
            .unwrap_or(unset),
        shadow_enabled,
        forward_not_matching_preflights: scalar::flag_or(forward_not_matching_preflights, true),
        allow_private_network: scalar::flag_or(allow_private_network_access, false),
    })
}

/// The older policy, a field of routes and virtual hosts.
pub(crate) fn legacy(cx: &mut Cx, value: pb::route::CorsPolicy) -> Result<CorsPolicy, Refusal> {
    let pb::route::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
        enabled_specifier,
    } = value;
    let filter_enabled =
        enabled_specifier.map(|EnabledSpecifier::FilterEnabled(fraction)| fraction);
    policy(
        cx,
        pb::http_filters::cors::v3::CorsPolicy {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        },
    )
}
