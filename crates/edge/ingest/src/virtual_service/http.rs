//! HTTP routes: what is done with a request that matched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_model::matching::Millionths;
use mesh_model::object::Text;
use mesh_model::virtual_service::{
    AbortStatus, CorsPolicy, FaultInjection, HeaderChanges, Headers, HttpAction, HttpDestination,
    HttpRedirect, HttpRewrite, HttpRoute, Mirror, RedirectPort, Retries,
};
use wire_kube::istio::virtual_service as wire;

use super::destination::{check_weights, destination, destination_here};
use super::grpc_status::grpc_status;
use super::matches::{http_match, is_header_name};
use crate::cx::Cx;
use crate::re2;
use crate::value::{
    check_header_value, check_regex, is_dns_label, percent, string_match, text, texts,
    whole_percent,
};

/// The largest body of a direct response that Envoy takes, in bytes.
const DIRECT_BODY_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn route(cx: &mut Cx, value: wire::HttpRoute, in_delegate: bool) -> Option<HttpRoute> {
    #[rustfmt::skip]
    let wire::HttpRoute {
        name, r#match, route, redirect, direct_response, delegate, rewrite, timeout, retries,
        fault, mirror, mirrors, mirror_percent, mirror_percentage, cors_policy, headers,
    } = value;
    let chosen = [
        ("route", !route.is_empty()),
        ("redirect", redirect.is_some()),
        ("directResponse", direct_response.is_some()),
        ("delegate", delegate.is_some()),
    ];
    let chosen: Vec<&str> = chosen
        .iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(name, _)| *name)
        .collect();
    match chosen.as_slice() {
        [_] => {}
        [] => cx.error("one of route, redirect, directResponse and delegate is needed"),
        several => cx.error(format!("only one of {} may be set", several.join(", "))),
    }
    let answers_itself = redirect.is_some() || direct_response.is_some();
    if answers_itself && (fault.is_some() || rewrite.is_some()) {
        cx.error("a route that redirects or answers by itself can have neither fault nor rewrite");
    }
    if in_delegate && delegate.is_some() {
        cx.error_at("delegate", "a delegate cannot delegate further");
    }
    let matches = cx.collect("match", r#match, http_match);
    let mirrors = all_mirrors(cx, mirror, mirrors, mirror_percent, mirror_percentage);
    let headers = cx
        .optional("headers", headers, |cx, h| Some(header_changes(cx, h)))
        .unwrap_or_default();
    let rewrite = cx.optional("rewrite", rewrite, rewrite_of);
    let timeout = timeout.filter(|t| !t.is_zero());
    let retries = cx.optional("retries", retries, retries_of);
    let fault = cx.optional("fault", fault, fault_of);
    let cors = cx.optional("corsPolicy", cors_policy, cors_of);
    let action = if let Some(redirect) = redirect {
        cx.within("redirect", |cx| redirect_of(cx, redirect))
            .map(HttpAction::Redirect)
    } else if let Some(direct) = direct_response {
        cx.within("directResponse", |cx| direct_response_of(cx, direct))
    } else if let Some(delegate) = delegate {
        cx.within("delegate", |cx| delegate_of(cx, delegate))
    } else {
        Some(HttpAction::Route(destinations(cx, route).into()))
    };
    Some(HttpRoute {
        name: text(&name),
        matches: matches.into(),
        action: action?,
        headers,
        rewrite,
        timeout,
        retries,
        fault,
        mirrors,
        cors,
    })
}

fn destinations(cx: &mut Cx, route: Vec<wire::HttpRouteDestination>) -> Vec<HttpDestination> {
    let weights: Vec<i32> = route.iter().map(|r| r.weight).collect();
    let weights = check_weights(cx, &weights);
    let parsed = cx.each("route", route, |cx, entry| {
        let wire::HttpRouteDestination {
            destination: to,
            weight: _,
            headers,
        } = entry;
        let headers = cx
            .optional("headers", headers, |cx, h| Some(header_changes(cx, h)))
            .unwrap_or_default();
        Some((destination(cx, to)?, headers))
    });
    let pairs = parsed
        .into_iter()
        .zip(weights)
        .filter(|(_, weight)| *weight > 0);
    pairs
        .filter_map(|(parsed, weight)| {
            parsed.map(|(destination, headers)| HttpDestination {
                destination,
                weight,
                headers,
            })
        })
        .collect()
}

fn delegate_of(cx: &mut Cx, value: wire::Delegate) -> Option<HttpAction> {
    let wire::Delegate { name, namespace } = value;
    if name.is_empty() {
        cx.error_at("name", "the name of a VirtualService is needed");
        return None;
    }
    let namespace = match namespace.as_str() {
        "" => cx.namespace().clone(),
        other if is_dns_label(other) => other.into(),
        other => {
            cx.error_at("namespace", format!("{other:?} is not a namespace"));
            return None;
        }
    };
    Some(HttpAction::Delegate {
        namespace,
        name: name.into(),
    })
}

fn redirect_of(cx: &mut Cx, value: wire::HttpRedirect) -> Option<HttpRedirect> {
    let wire::HttpRedirect {
        uri,
        prefix_rewrite,
        authority,
        port,
        derive_port,
        scheme,
        redirect_code,
    } = value;
    if !uri.is_empty() && !prefix_rewrite.is_empty() {
        cx.error("only one of uri and prefixRewrite may be set");
    }
    let port = match (port, derive_port) {
        (Some(_), Some(_)) => {
            cx.error("only one of port and derivePort may be set");
            None
        }
        (Some(number), None) => cx
            .within("port", |cx| cx.port_number(number))
            .map(RedirectPort::Number),
        (None, Some(wire::RedirectPortSelection::FromProtocolDefault)) => {
            Some(RedirectPort::FromProtocolDefault)
        }
        (None, Some(wire::RedirectPortSelection::FromRequestPort)) => {
            Some(RedirectPort::FromRequest)
        }
        (None, None) => None,
    };
    if !matches!(scheme.as_str(), "" | "http" | "https") {
        cx.error_at("scheme", format!("{scheme:?} is neither http nor https"));
    }
    let code = match redirect_code {
        0 => 301,
        301 | 302 | 303 | 307 | 308 => redirect_code as u16,
        other => {
            cx.error_at(
                "redirectCode",
                format!("{other}: must be 301, 302, 303, 307 or 308"),
            );
            301
        }
    };
    let nothing = uri.is_empty()
        && prefix_rewrite.is_empty()
        && authority.is_empty()
        && scheme.is_empty()
        && port.is_none();
    if nothing && redirect_code == 0 {
        cx.error("a redirect must say where to: set uri, prefixRewrite, authority, port or scheme");
    }
    Some(HttpRedirect {
        uri: text(&uri),
        prefix_rewrite: text(&prefix_rewrite),
        authority: text(&authority),
        port,
        scheme: text(&scheme),
        code,
    })
}

fn direct_response_of(cx: &mut Cx, value: wire::HttpDirectResponse) -> Option<HttpAction> {
    let wire::HttpDirectResponse { status, body } = value;
    let status = status_code(cx, "status", i64::from(status), 200)?;
    let body: Vec<u8> = cx
        .optional("body", body, |cx, body| {
            let wire::HttpBody { string, bytes } = body;
            match (string, bytes) {
                (Some(string), None) => Some(string.into_bytes()),
                (None, Some(bytes)) => match STANDARD.decode(&bytes) {
                    Ok(bytes) => Some(bytes),
                    Err(_) => {
                        cx.error_at("bytes", "is not base64");
                        None
                    }
                },
                (None, None) => None,
                (Some(_), Some(_)) => {
                    cx.error("only one of string and bytes may be set");
                    None
                }
            }
        })
        .unwrap_or_default();
    if body.len() > DIRECT_BODY_BYTES_MAX {
        cx.error_at(
            "body",
            format!(
                "{} bytes: a body must have at most {DIRECT_BODY_BYTES_MAX}",
                body.len()
            ),
        );
    }
    Some(HttpAction::DirectResponse {
        status,
        body: body.into(),
    })
}

fn status_code(cx: &mut Cx, field: &str, status: i64, least: i64) -> Option<u16> {
    if (least..600).contains(&status) {
        return u16::try_from(status).ok();
    }
    cx.error_at(
        field,
        format!("{status}: an HTTP status must be from {least} to 599"),
    );
    None
}

fn rewrite_of(cx: &mut Cx, value: wire::HttpRewrite) -> Option<HttpRewrite> {
    let wire::HttpRewrite {
        uri,
        authority,
        uri_regex_rewrite,
    } = value;
    let uri_regex = cx.optional("uriRegexRewrite", uri_regex_rewrite, |cx, value| {
        let wire::RegexRewrite { r#match, rewrite } = value;
        if let Some(groups) = check_regex(cx, "match", &r#match)
            && let Err(why) = re2::check_substitution(&rewrite, groups)
        {
            cx.error_at("rewrite", format!("{rewrite:?} {why}"));
        }
        Some((Text::from(r#match), Text::from(rewrite)))
    });
    if !uri.is_empty() && uri_regex.is_some() {
        cx.error("only one of uri and uriRegexRewrite may be set");
    }
    if uri.is_empty() && authority.is_empty() && uri_regex.is_none() {
        cx.error("one of uri, authority and uriRegexRewrite is needed");
    }
    Some(HttpRewrite {
        uri: text(&uri),
        authority: text(&authority),
        uri_regex,
    })
}

/// Also used for the mesh's default policy.
pub(crate) fn retries_of(cx: &mut Cx, value: wire::HttpRetry) -> Option<Retries> {
    let wire::HttpRetry {
        attempts,
        per_try_timeout,
        retry_on,
        retry_remote_localities,
        retry_ignore_previous_hosts,
        backoff,
    } = value;
    let attempts = u32::try_from(attempts).unwrap_or_else(|_| {
        cx.error_at("attempts", format!("{attempts}: must not be negative"));
        0
    });
    if attempts == 0 && (per_try_timeout.is_some() || !retry_on.is_empty()) {
        cx.error(
            "attempts: 0 turns retries off, so perTryTimeout and retryOn have no meaning with it",
        );
    }
    short_time(cx, "perTryTimeout", per_try_timeout);
    short_time(cx, "backoff", backoff);
    if retry_remote_localities == Some(true) {
        cx.within("retryRemoteLocalities", |cx| {
            cx.warning("a stock Envoy tries other localities first; tanbark-proxy chooses among them as for a first attempt");
        });
    }
    cx.within("retryOn", |cx| {
        for word in retry_on
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            check_retry_word(cx, word);
        }
    });
    Some(Retries {
        attempts,
        per_try_timeout: per_try_timeout.filter(|t| !t.is_zero()),
        retry_on: text(&retry_on),
        remote_localities: retry_remote_localities.unwrap_or(false),
        ignore_previous_hosts: retry_ignore_previous_hosts.unwrap_or(true),
        back_off: backoff.filter(|t| !t.is_zero()),
    })
}

/// Below a millisecond Envoy would take it for none.
fn short_time(cx: &mut Cx, field: &str, value: Option<Duration>) {
    if value.is_some_and(|d| !d.is_zero() && d < Duration::from_millis(1)) {
        cx.error_at(field, "must be at least 1ms");
    }
}

/// Envoy's conditions for HTTP and gRPC, or a status code.
fn check_retry_word(cx: &mut Cx, word: &str) {
    const WORDS: &[&str] = &[
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    let is_status = word
        .parse::<u16>()
        .is_ok_and(|code| (100..600).contains(&code));
    if is_status || WORDS.contains(&word) {
        return;
    }
    let hint = match wire_kube::read::nearest(word, WORDS.iter().copied()) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => String::new(),
    };
    cx.error(format!("{word:?} is not a retry condition{hint}"));
}

fn fault_of(cx: &mut Cx, value: wire::HttpFaultInjection) -> Option<FaultInjection> {
    let wire::HttpFaultInjection { delay, abort } = value;
    if delay.is_none() && abort.is_none() {
        cx.error("one of delay and abort is needed");
    }
    let delay = cx.optional("delay", delay, delay_of);
    let abort = cx.optional("abort", abort, abort_of);
    (delay.is_some() || abort.is_some()).then_some(FaultInjection { delay, abort })
}

fn delay_of(cx: &mut Cx, delay: wire::FaultDelay) -> Option<(Duration, Millionths)> {
    let wire::FaultDelay {
        percent: whole,
        percentage,
        fixed_delay,
        exponential_delay,
    } = delay;
    cx.unsupported("exponentialDelay", exponential_delay.is_some());
    cx.deprecated("percent", whole != 0, "percentage.value");
    let share = match percentage {
        None if whole != 0 => {
            Millionths::from_percent(f64::from(whole_percent(cx, "percent", whole)))?
        }
        percentage => fault_share(cx, percentage)?,
    };
    match fixed_delay {
        Some(delay) if delay >= Duration::from_millis(1) => Some((delay, share)),
        Some(_) => {
            cx.error_at("fixedDelay", "must be at least 1ms");
            None
        }
        None if exponential_delay.is_some() => None,
        None => {
            cx.error_at("fixedDelay", "is needed");
            None
        }
    }
}

fn abort_of(cx: &mut Cx, abort: wire::FaultAbort) -> Option<(AbortStatus, Millionths)> {
    let wire::FaultAbort {
        percentage,
        http_status,
        grpc_status: grpc,
        http2_error,
    } = abort;
    cx.unsupported("http2Error", http2_error.is_some());
    let share = fault_share(cx, percentage)?;
    let status = match (http_status, grpc) {
        (Some(status), None) => {
            status_code(cx, "httpStatus", i64::from(status), 200).map(AbortStatus::Http)
        }
        (None, Some(name)) => {
            let code = grpc_status(&name);
            if code.is_none() {
                let message =
                    format!("{name:?} is not the name of a gRPC status, such as UNAVAILABLE");
                cx.error_at("grpcStatus", message);
            }
            code.map(AbortStatus::Grpc)
        }
        (None, None) if http2_error.is_some() => None,
        (None, None) => {
            cx.error("one of httpStatus and grpcStatus is needed");
            None
        }
        (Some(_), Some(_)) => {
            cx.error("only one of httpStatus and grpcStatus may be set");
            None
        }
    };
    Some((status?, share))
}

/// Without a percentage a fault reaches no request, as Istio documents it; surely not what was meant.
fn fault_share(cx: &mut Cx, value: Option<wire::Percent>) -> Option<Millionths> {
    if value.is_none() {
        cx.warning("without percentage.value no request is affected");
        return Some(Millionths::NONE);
    }
    share_of(cx, "percentage", value)
}

/// No percentage: all of it.
fn share_of(cx: &mut Cx, field: &str, value: Option<wire::Percent>) -> Option<Millionths> {
    match value {
        None => Some(Millionths::ALL),
        Some(wire::Percent { value }) => {
            cx.within(field, |cx| cx.within("value", |cx| percent(cx, value)))
        }
    }
}

fn all_mirrors(
    cx: &mut Cx,
    mirror: Option<wire::Destination>,
    mirrors: Vec<wire::HttpMirrorPolicy>,
    mirror_percent: Option<u32>,
    mirror_percentage: Option<wire::Percent>,
) -> Arc<[Mirror]> {
    if mirror.is_some() && !mirrors.is_empty() {
        cx.error("only one of mirror and mirrors may be set");
    }
    cx.deprecated(
        "mirrorPercent",
        mirror_percent.is_some(),
        "mirrorPercentage.value",
    );
    let share = match (mirror_percentage, mirror_percent) {
        (Some(value), _) => share_of(cx, "mirrorPercentage", Some(value)),
        (None, Some(whole)) => cx.within("mirrorPercent", |cx| percent(cx, f64::from(whole))),
        (None, None) => Some(Millionths::ALL),
    };
    let single = cx.optional("mirror", mirror, |cx, to| {
        let destination = destination_here(cx, to)?;
        Some(Mirror {
            destination,
            share: share?,
        })
    });
    let many = cx.collect("mirrors", mirrors, |cx, policy| {
        let wire::HttpMirrorPolicy {
            destination: to,
            percentage,
        } = policy;
        let share = share_of(cx, "percentage", percentage)?;
        Some(Mirror {
            destination: destination(cx, to)?,
            share,
        })
    });
    single
        .into_iter()
        .chain(many)
        .filter(|m| m.share > Millionths::NONE)
        .collect()
}

fn cors_of(cx: &mut Cx, value: wire::CorsPolicy) -> Option<CorsPolicy> {
    let wire::CorsPolicy {
        allow_origin,
        allow_origins,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        unmatched_preflights,
    } = value;
    cx.deprecated("allowOrigin", !allow_origin.is_empty(), "allowOrigins");
    let mut origins = cx.collect("allowOrigins", allow_origins, string_match);
    if origins.is_empty() {
        origins = allow_origin
            .iter()
            .map(|o| mesh_model::matching::StringMatch::Exact(o.as_str().into()))
            .collect();
    }
    for (field, names) in [
        ("allowHeaders", &allow_headers),
        ("exposeHeaders", &expose_headers),
    ] {
        cx.each(field, names, |cx, name| {
            if !is_header_name(name) {
                cx.error(format!("{name:?} is not a header name"));
            }
        });
    }
    if max_age.is_some_and(|age| age.subsec_nanos() != 0) {
        cx.error_at("maxAge", "must be a whole number of seconds");
    }
    Some(CorsPolicy {
        allow_origins: origins.into(),
        allow_methods: texts(&allow_methods),
        allow_headers: texts(&allow_headers),
        expose_headers: texts(&expose_headers),
        max_age,
        allow_credentials,
        forward_unmatched_preflights: unmatched_preflights != wire::UnmatchedPreflights::Ignore,
    })
}

pub(super) fn header_changes(cx: &mut Cx, value: wire::Headers) -> Headers {
    let wire::Headers { request, response } = value;
    let request = cx
        .optional("request", request, |cx, ops| {
            Some(operations(cx, ops, true))
        })
        .unwrap_or_default();
    let response = cx
        .optional("response", response, |cx, ops| {
            Some(operations(cx, ops, false))
        })
        .unwrap_or_default();
    Headers { request, response }
}

fn operations(cx: &mut Cx, value: wire::HeaderOperations, of_request: bool) -> HeaderChanges {
    let wire::HeaderOperations { set, add, remove } = value;
    let set = header_pairs(cx, "set", set, of_request);
    let add = header_pairs(cx, "add", add, of_request);
    let remove = cx.collect("remove", &remove, |cx, name| {
        usable_header(cx, name, false).then(|| Text::from(name.as_str()))
    });
    HeaderChanges {
        set,
        add,
        remove: remove.into(),
    }
}

fn header_pairs(
    cx: &mut Cx,
    field: &str,
    map: BTreeMap<String, String>,
    of_request: bool,
) -> Arc<[(Text, Text)]> {
    cx.within(field, |cx| {
        let mut pairs = Vec::new();
        for (name, value) in map {
            let usable = cx.within(&name, |cx| {
                check_header_value(cx, &value);
                usable_header(cx, &name, of_request)
            });
            if usable {
                pairs.push((Text::from(name), Text::from(value)));
            }
        }
        pairs.into()
    })
}

/// Pseudo-headers and Host are the proxy's own; of requests the authority may be set.
fn usable_header(cx: &mut Cx, name: &str, authority_allowed: bool) -> bool {
    if !is_header_name(name) {
        cx.error(format!("{name:?} is not a header name"));
        return false;
    }
    let is_authority = name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host");
    if is_authority && authority_allowed {
        return true;
    }
    if is_authority || name.starts_with(':') {
        cx.warning(format!(
            "{name} cannot be changed this way and is left as it is"
        ));
        return false;
    }
    true
}
