//! Cross-origin resource sharing: preflight requests are answered here, and responses tell browsers
//! which origins may read them.
//!
//! The policy is on the route or its virtual host; a request without an `origin` passes untouched.
//! Follows Envoy's CORS filter and the Fetch standard's CORS protocol.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN,
    },
    response::Parts,
};
use proxy_config::filter::{PerRouteConfig, cors::CorsPolicy};
use telemetry::stats::{Counters, Scope, Store};

use crate::{
    filters::flow::{Flow, Run, per_route},
    local_reply::LocalReply,
    request::Request,
};

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

const COUNTERS: &[&str] = &["origin_valid", "origin_invalid"];

/// What one filter keeps across requests and workers.
pub struct State {
    counters: Counters,
    /// Keeps the series alive.
    _scope: Scope,
}

/// What the response must tell.
#[derive(Clone)]
struct Granted {
    origin: HeaderValue,
    policy: Arc<CorsPolicy>,
}

impl State {
    /// `prefix`: `http.<name>.`
    pub fn new(stats: &Store, prefix: &str) -> Self {
        let scope = stats.scope(&format!("{prefix}cors."));
        Self {
            counters: scope.counters(COUNTERS),
            _scope: scope,
        }
    }
}

pub fn on_request(run: Run<'_>, state: &State, request: &mut Request) -> Flow {
    let Some(policy) = policy(run.name, request) else {
        return Flow::Continue;
    };
    let random = run.rng.u64();
    let is_enabled = policy.enabled.selects(random);
    if !is_enabled
        && !policy
            .shadow_enabled
            .is_some_and(|share| share.selects(random))
    {
        return Flow::Continue;
    }
    let Some(origin) = request
        .head
        .headers
        .get(ORIGIN)
        .filter(|origin| !origin.is_empty())
        .cloned()
    else {
        return Flow::Continue;
    };
    let is_allowed = is_allowed(&policy, &origin);
    state.counters.inc(usize::from(!is_allowed));
    if !is_enabled {
        return Flow::Continue;
    }
    let answer = (is_allowed || !policy.forward_not_matching_preflights)
        && is_preflight(&request.head.method, &request.head.headers);
    let headers = answer.then(|| preflight(&policy, &request.head.headers));
    if is_allowed {
        request.head.extensions.insert(Granted { origin, policy });
    }
    match headers {
        None => Flow::Continue,
        Some(headers) => {
            let mut reply = LocalReply::new(request, StatusCode::OK, "", "cors_response");
            reply.head.headers.extend(headers);
            Flow::Respond(reply)
        }
    }
}

pub fn on_response(request: &Request, head: &mut Parts) {
    let Some(Granted { origin, policy }) = request.head.extensions.get::<Granted>() else {
        return;
    };
    let headers = &mut head.headers;
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials {
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    if let Some(exposed) = &policy.expose_headers {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
    }
}

/// A policy given as the filter's own configuration hides those that are fields of route and
/// virtual host.
fn policy(name: &str, request: &Request) -> Option<Arc<CorsPolicy>> {
    if let Some(PerRouteConfig::Cors(policy)) = per_route(request, name) {
        return Some(policy.clone());
    }
    let of_route = request
        .forward_rules()
        .and_then(|rules| rules.cors.as_ref());
    of_route
        .or_else(|| request.route.as_ref()?.virtual_host.cors.as_ref())
        .cloned()
}

/// A pattern that takes `*` takes every origin.
fn is_allowed(policy: &CorsPolicy, origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok();
    policy.allow_origins.iter().any(|allowed| {
        allowed.is_match("*") || origin.is_some_and(|origin| allowed.is_match(origin))
    })
}

fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers
            .get(ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|method| !method.is_empty())
}

/// What a preflight is answered besides the origin, which [`on_response`] adds.
fn preflight(policy: &CorsPolicy, request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if policy.allow_credentials {
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    // `*` would mean the name "*" where credentials are sent, so what was asked for is named.
    let mut list = |name: HeaderName, allowed: &Option<HeaderValue>, asked: HeaderName| {
        let value = match allowed {
            Some(all) if all == "*" => request.get(asked),
            allowed => allowed.as_ref(),
        };
        value.map(|value| headers.insert(name, value.clone()));
    };
    list(
        ACCESS_CONTROL_ALLOW_METHODS,
        &policy.allow_methods,
        ACCESS_CONTROL_REQUEST_METHOD,
    );
    list(
        ACCESS_CONTROL_ALLOW_HEADERS,
        &policy.allow_headers,
        ACCESS_CONTROL_REQUEST_HEADERS,
    );
    if let Some(age) = &policy.max_age {
        headers.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
    }
    if policy.allow_private_network
        && request
            .get(REQUEST_PRIVATE_NETWORK)
            .is_some_and(|asked| asked == "true")
    {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    headers
}

#[cfg(test)]
mod tests;
