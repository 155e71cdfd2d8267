//! The router's part: path and host as the chosen route wants them, and what the upstream is told about the attempt.

use std::time::Duration;

use http::{Uri, uri::PathAndQuery};
use proxy_config::route::{Forward, HostRewrite, PathMatch, PathRewrite};

use crate::{
    exchange::Exchange,
    grpc,
    headers::{admit, names::*, number, operations, text},
    route::{split_path, starts_with},
};

/// Rewrites the head for the route; once, before the first attempt.
pub fn prepare(x: &mut Exchange, forward: &Forward) {
    operations::on_request(x);
    rewrite_host(x, forward);
    rewrite_path(x, forward);
    x.record.path = x.head.uri.path_and_query().cloned();
    x.record.authority = Some(x.authority.clone());
}

/// What this attempt (counted from 1) tells the upstream.
pub fn attempt(x: &mut Exchange, attempt: u32) {
    if x.route
        .as_ref()
        .is_some_and(|matched| matched.virtual_host.include_request_attempt_count)
    {
        x.head
            .headers
            .insert(X_ENVOY_ATTEMPT_COUNT, number(attempt.into()));
    }
    if attempt > 1 {
        expected_timeout(x, attempt);
    }
}

/// How long this attempt may take: the time for one try, and of the whole time what is left.
pub fn expected_timeout(x: &mut Exchange, attempt: u32) {
    let left = x.timeout.map(|timeout| match attempt {
        0 | 1 => timeout,
        // 0 would be no limit.
        _ => timeout
            .saturating_sub(x.elapsed())
            .max(Duration::from_millis(1)),
    });
    let Some(expected) = x.per_try_timeout.into_iter().chain(left).min() else {
        return;
    };
    if x.is_grpc
        && x.forward_rules()
            .is_some_and(|rules| rules.grpc_timeout.is_some())
    {
        let value = text(&grpc::encode_timeout(expected));
        x.head.headers.insert(GRPC_TIMEOUT, value);
    }
    let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
    if !suppresses_envoy_headers(x) {
        x.head
            .headers
            .insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, number(milliseconds));
    }
}

/// Whether the router must not add `x-envoy-…` headers.
pub fn suppresses_envoy_headers(x: &Exchange) -> bool {
    x.http.suppresses_envoy_headers
}

fn rewrite_host(x: &mut Exchange, forward: &Forward) {
    let literal = x
        .weighted_cluster()
        .and_then(|weighted| weighted.host_rewrite.clone());
    let new = match (&literal, &forward.host_rewrite) {
        (Some(host), _) | (None, HostRewrite::Literal(host)) => Some(text(host)),
        // The endpoint is not chosen yet; `auto_host` does this.
        (None, HostRewrite::None | HostRewrite::Auto) => None,
        (None, HostRewrite::Header(name)) => x.head.headers.get(name).cloned(),
        (None, HostRewrite::PathRegex(rewrite)) => Some(text(&rewrite.apply(x.path_only()))),
    };
    if let Some(new) = new {
        set_host(x, forward, new);
    }
}

/// `HostRewrite::Auto`: the host name of the endpoint that was chosen.
pub fn auto_host(x: &mut Exchange, forward: &Forward, hostname: &str) {
    if forward.host_rewrite == HostRewrite::Auto && !hostname.is_empty() && x.authority != hostname
    {
        set_host(x, forward, text(hostname));
    }
}

fn set_host(x: &mut Exchange, forward: &Forward, new: http::HeaderValue) {
    let old = std::mem::replace(&mut x.authority, new);
    x.record.authority = Some(x.authority.clone());
    if !suppresses_envoy_headers(x) {
        x.head.headers.insert(X_ENVOY_ORIGINAL_HOST, old.clone());
    }
    if forward.append_x_forwarded_host && old != x.authority {
        admit::append(
            &mut x.head.headers,
            X_FORWARDED_HOST,
            old.to_str().unwrap_or_default(),
        );
    }
}

fn rewrite_path(x: &mut Exchange, forward: &Forward) {
    let Some(matched) = &x.route else { return };
    let path_and_query = x.path();
    let (path, _) = split_path(path_and_query);
    let rest = path_and_query.get(path.len()..).unwrap_or_default();
    let folds = !matched.route.matches.case_sensitive;
    let new = match &forward.path_rewrite {
        PathRewrite::None => return,
        PathRewrite::Path(new) => new.to_string(),
        PathRewrite::Regex(rewrite) => rewrite.apply(path),
        PathRewrite::Prefix(new) => {
            let matched_length = match &matched.route.matches.path {
                PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix)
                    if starts_with(path, prefix, folds) =>
                {
                    prefix.len()
                }
                // An exact path or a regular expression matched all of it.
                _ => path.len(),
            };
            format!("{new}{}", path.get(matched_length..).unwrap_or_default())
        }
    };
    let new = format!("{new}{rest}");
    // A rewrite that gives no path (a regular expression may) leaves the path alone, as a request without one cannot be sent.
    if let Ok(parsed) = new.parse::<PathAndQuery>() {
        let original = text(path_and_query);
        x.record.original_path = x.head.uri.path_and_query().cloned();
        if !suppresses_envoy_headers(x) {
            x.head.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
        }
        x.head.uri = Uri::from(parsed);
    }
}
