//! The router's part: path and host as the chosen route wants them, and what the upstream is told about the attempt.

use std::time::Duration;

use http::{Uri, uri::PathAndQuery};
use proxy_config::route::{Forward, HostRewrite, PathMatch, PathRewrite};

use crate::{
    grpc,
    headers::{admit, names::*, number, operations, text},
    request::Request,
    route::{split_path, starts_with},
};

/// Rewrites the head for the route; once, before the first attempt.
pub fn prepare(request: &mut Request, forward: &Forward) {
    operations::on_request(request);
    rewrite_host(request, forward);
    rewrite_path(request, forward);
    request.record.path = request.head.uri.path_and_query().cloned();
    request.record.authority = Some(request.authority.clone());
}

/// What this attempt (counted from 1) tells the upstream.
pub fn attempt(request: &mut Request, attempt: u32, elapsed: Duration) {
    if request
        .route
        .as_ref()
        .is_some_and(|matched| matched.virtual_host.include_request_attempt_count)
    {
        request
            .head
            .headers
            .insert(X_ENVOY_ATTEMPT_COUNT, number(attempt.into()));
    }
    if attempt > 1 {
        expected_timeout(request, attempt, elapsed);
    }
}

/// How long this attempt may take: the time for one try, and of the whole time what is left.
pub fn expected_timeout(request: &mut Request, attempt: u32, elapsed: Duration) {
    let left = request.timeout.map(|timeout| match attempt {
        0 | 1 => timeout,
        // 0 would be no limit.
        _ => timeout
            .saturating_sub(elapsed)
            .max(Duration::from_millis(1)),
    });
    let Some(expected) = request.per_try_timeout.into_iter().chain(left).min() else {
        return;
    };
    if request.is_grpc
        && request
            .forward_rules()
            .is_some_and(|rules| rules.grpc_timeout.is_some())
    {
        let value = text(&grpc::encode_timeout(expected));
        request.head.headers.insert(GRPC_TIMEOUT, value);
    }
    let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
    if !request.suppresses_envoy_headers {
        request
            .head
            .headers
            .insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, number(milliseconds));
    }
}

fn rewrite_host(request: &mut Request, forward: &Forward) {
    let literal = request
        .weighted_cluster()
        .and_then(|weighted| weighted.host_rewrite.clone());
    let new = match (&literal, &forward.host_rewrite) {
        (Some(host), _) | (None, HostRewrite::Literal(host)) => Some(text(host)),
        // The endpoint is not chosen yet; `auto_host` does this.
        (None, HostRewrite::None | HostRewrite::Auto) => None,
        (None, HostRewrite::Header(name)) => request.head.headers.get(name).cloned(),
        (None, HostRewrite::PathRegex(rewrite)) => Some(text(&rewrite.apply(request.path_only()))),
    };
    if let Some(new) = new {
        set_host(request, forward, new);
    }
}

/// `HostRewrite::Auto`: the host name of the endpoint that was chosen.
pub fn auto_host(request: &mut Request, forward: &Forward, hostname: &str) {
    if forward.host_rewrite == HostRewrite::Auto
        && !hostname.is_empty()
        && request.authority != hostname
    {
        set_host(request, forward, text(hostname));
    }
}

fn set_host(request: &mut Request, forward: &Forward, new: http::HeaderValue) {
    let old = std::mem::replace(&mut request.authority, new);
    request.record.authority = Some(request.authority.clone());
    if !request.suppresses_envoy_headers {
        request
            .head
            .headers
            .insert(X_ENVOY_ORIGINAL_HOST, old.clone());
    }
    if forward.append_x_forwarded_host && old != request.authority {
        admit::append(
            &mut request.head.headers,
            X_FORWARDED_HOST,
            old.to_str().unwrap_or_default(),
        );
    }
}

fn rewrite_path(request: &mut Request, forward: &Forward) {
    let Some(matched) = &request.route else {
        return;
    };
    let path_and_query = request.path();
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
        request.record.original_path = request.head.uri.path_and_query().cloned();
        if !request.suppresses_envoy_headers {
            request.head.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
        }
        request.head.uri = Uri::from(parsed);
    }
}
