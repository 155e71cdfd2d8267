//! What a request must look like for a route to be taken.

use std::sync::Arc;

use proxy_config::route::{PathMatch, RouteMatch, TlsContextMatch};
use wire_envoy::pb::{
    self,
    route::route_match::{PathSpecifier, TlsContextMatchOptions},
};

use crate::{
    context::Cx,
    judgement::take,
    matcher,
    reject::{Refusal, Within, each},
    scalar,
};

pub(super) fn matches(cx: &mut Cx, value: pb::route::RouteMatch) -> Result<RouteMatch, Refusal> {
    take!(cx, value => pb::route::RouteMatch {
        read { case_sensitive, runtime_fraction, headers, query_parameters, grpc, tls_context, dynamic_metadata, path_specifier }
        reject "cookies are matched as a header" { cookies }
        reject "filter state is not matched" { filter_state }
    });
    Ok(RouteMatch {
        path: path(cx, path_specifier)?,
        case_sensitive: scalar::flag_or(case_sensitive, true),
        headers: matcher::headers("headers", headers)?,
        query: each("query_parameters", query_parameters, matcher::query)?,
        runtime_fraction: runtime_fraction
            .map(|f| scalar::runtime_fraction(cx, f))
            .transpose()
            .within("runtime_fraction")?,
        grpc_only: grpc.is_some(),
        metadata: each("dynamic_metadata", dynamic_metadata, matcher::metadata)?,
        tls: tls_context.map(
            |TlsContextMatchOptions {
                 presented,
                 validated,
             }| TlsContextMatch {
                presented: presented.map(|v| v.value),
                validated: validated.map(|v| v.value),
            },
        ),
    })
}

fn path(cx: &mut Cx, value: Option<PathSpecifier>) -> Result<PathMatch, Refusal> {
    Ok(
        match value.ok_or_else(|| Refusal::missing("path_specifier"))? {
            PathSpecifier::Prefix(text) => PathMatch::Prefix(text.into()),
            PathSpecifier::Path(text) => PathMatch::Exact(text.into()),
            PathSpecifier::PathSeparatedPrefix(text) => {
                separated(text).within("path_separated_prefix")?
            }
            PathSpecifier::SafeRegex(pattern) => {
                PathMatch::Regex(matcher::regex(pattern).within("safe_regex")?)
            }
            PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
            PathSpecifier::PathMatchPolicy(policy) => {
                PathMatch::Template(matcher::uri_template(cx, policy).within("path_match_policy")?)
            }
        },
    )
}

fn separated(text: String) -> Result<PathMatch, Refusal> {
    if !text.starts_with('/') || text.ends_with('/') || text.contains(['?', '#']) {
        return Err(Refusal::new("must start with / and not end with it"));
    }
    Ok(PathMatch::SeparatedPrefix(Arc::from(text)))
}
