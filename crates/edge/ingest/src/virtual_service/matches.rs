//! What a request must look like for a route to take it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_model::matching::StringMatch;
use mesh_model::object::Text;
use mesh_model::virtual_service::HttpMatch;
use wire_kube::istio::virtual_service as wire;

use super::gateway_refs::gateway_refs;
use crate::cx::Cx;
use crate::problem::{Severity, code};
use crate::value::{labels, string_match, text};

pub(super) fn http_match(cx: &mut Cx, value: wire::HttpMatchRequest) -> Option<HttpMatch> {
    let wire::HttpMatchRequest {
        name,
        uri,
        scheme,
        method,
        authority,
        headers,
        port,
        source_labels,
        gateways,
        query_params,
        ignore_uri_case,
        without_headers,
        source_namespace,
        stat_prefix,
    } = value;
    let present_is_meant = |cx: &mut Cx, field: &str, value: Option<wire::StringMatch>| {
        cx.optional(field, value, |cx, value| match string_match(cx, value)? {
            StringMatch::Present => None,
            other => Some(other),
        })
    };
    let uri = present_is_meant(cx, "uri", uri);
    let scheme = present_is_meant(cx, "scheme", scheme);
    let method = present_is_meant(cx, "method", method);
    let authority = present_is_meant(cx, "authority", authority);
    let headers = header_matches(cx, "headers", headers);
    let without_headers = header_matches(cx, "withoutHeaders", without_headers);
    let query = query_matches(cx, query_params);
    let port = match port {
        None => None,
        Some(number) => Some(cx.within("port", |cx| cx.port_number(number))?),
    };
    let gateways = gateway_refs(cx, &gateways);
    Some(HttpMatch {
        name: text(&name),
        uri,
        ignore_uri_case,
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query,
        port,
        source_labels: labels(&source_labels),
        source_namespace: text(&source_namespace),
        gateways: gateways.into(),
        stat_prefix: text(&stat_prefix),
    })
}

fn header_matches(
    cx: &mut Cx,
    field: &str,
    map: BTreeMap<String, wire::StringMatch>,
) -> Arc<[(Text, StringMatch)]> {
    cx.within(field, |cx| {
        let mut out = Vec::new();
        for (name, value) in map {
            cx.within(&name, |cx| {
                if name.starts_with("@request.auth.claims") {
                    cx.report(
                        Severity::Warning,
                        code::UNSUPPORTED_FIELD,
                        "routing by JWT claims is not supported yet; this match never holds",
                    );
                } else if !is_header_name(&name) {
                    cx.error(format!("{name:?} is not a header name"));
                }
                out.extend(string_match(cx, value).map(|matching| (lower(&name), matching)));
            });
        }
        out.into()
    })
}

fn query_matches(
    cx: &mut Cx,
    map: BTreeMap<String, wire::StringMatch>,
) -> Arc<[(Text, StringMatch)]> {
    cx.within("queryParams", |cx| {
        let mut out = Vec::new();
        for (name, value) in map {
            cx.within(&name, |cx| {
                if name.is_empty() {
                    cx.error("a query parameter must have a name");
                }
                out.extend(
                    string_match(cx, value).map(|matching| (Text::from(name.as_str()), matching)),
                );
            });
        }
        out.into()
    })
}

/// RFC 9110 tokens, or one of HTTP/2's pseudo-headers.
pub(super) fn is_header_name(name: &str) -> bool {
    let rest = name.strip_prefix(':').unwrap_or(name);
    !rest.is_empty()
        && rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Names in lower case, as header maps want them.
fn lower(name: &str) -> Text {
    name.to_ascii_lowercase().into()
}
