//! Whether an attempt that went wrong is made again, and after how long.
//!
//! Pure. A request's policy is the route's, changed by `x-envoy-…` headers where they got this far:
//! those of clients are removed when a head is admitted, so these were set by configuration.
//! Follows Envoy's router filter documentation (`x-envoy-retry-on`, `x-envoy-retry-grpc-on`,
//! `x-envoy-max-retries`, `x-envoy-retriable-…`) and its back-off.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use proxy_config::{
    matcher::{HeaderKey, HeaderMatcher, HeaderTest, HeaderView},
    route::{BackOff, RetryOn, RetryPolicy},
};

use crate::{
    headers::{
        has_envoy_headers,
        names::{
            X_ENVOY_MAX_RETRIES, X_ENVOY_RETRIABLE_HEADER_NAMES, X_ENVOY_RETRIABLE_STATUS_CODES,
            X_ENVOY_RETRY_GRPC_ON, X_ENVOY_RETRY_ON,
        },
    },
    upstream::reset::ResetReason,
};

/// Envoy's defaults, for requests that ask for retries where the route has no policy.
const NUM_RETRIES: u32 = 1;
const BACK_OFF: BackOff = BackOff {
    base: Duration::from_millis(25),
    max: Duration::from_millis(250),
};

/// What came of an attempt.
#[derive(Debug, Clone, Copy)]
pub enum Attempt<'a> {
    /// A response's head came.
    Response { status: u16, headers: &'a HeaderMap },
    /// The stream ended without one. `request_sent`: the request's head had been written.
    Reset {
        reason: &'a ResetReason,
        request_sent: bool,
    },
    /// The time for one try was over.
    PerTryTimeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Retry,
    /// What happened is not to be retried.
    No,
    /// It would be, but the retries are used up: `URX`.
    LimitExceeded,
}

/// The policy for one request. What its headers ask for does not go upstream.
pub fn asked_for(
    policy: Option<Arc<RetryPolicy>>,
    headers: &mut HeaderMap,
) -> Option<Arc<RetryPolicy>> {
    if !has_envoy_headers(headers) {
        return policy;
    }
    let on = [
        headers.remove(X_ENVOY_RETRY_ON),
        headers.remove(X_ENVOY_RETRY_GRPC_ON),
    ];
    let number = headers.remove(X_ENVOY_MAX_RETRIES);
    let statuses = headers.remove(X_ENVOY_RETRIABLE_STATUS_CODES);
    let names = headers.remove(X_ENVOY_RETRIABLE_HEADER_NAMES);
    let asks = [&on[0], &on[1], &number, &statuses, &names]
        .into_iter()
        .any(Option::is_some);
    if !asks || (policy.is_none() && on.iter().all(Option::is_none)) {
        return policy;
    }
    let mut policy = policy.map_or_else(only_by_headers, |policy| (*policy).clone());
    for words in on.iter().flatten() {
        policy.on = both(
            policy.on,
            RetryOn::parse(words.to_str().unwrap_or_default()).0,
        );
    }
    if let Some(number) = number.and_then(|number| number.to_str().ok()?.trim().parse().ok()) {
        policy.num_retries = number;
    }
    let listed = |list: &Option<HeaderValue>| -> Vec<String> {
        let list = list
            .as_ref()
            .and_then(|list| list.to_str().ok())
            .unwrap_or_default();
        list.split(',')
            .map(|word| word.trim().to_owned())
            .filter(|word| !word.is_empty())
            .collect()
    };
    let codes = listed(&statuses)
        .into_iter()
        .filter_map(|code| code.parse().ok());
    policy.retriable_status_codes = policy
        .retriable_status_codes
        .iter()
        .copied()
        .chain(codes)
        .collect();
    let present = listed(&names)
        .into_iter()
        .filter_map(|name| name.parse::<HeaderName>().ok())
        .map(|name| HeaderMatcher {
            name: HeaderKey::Name(name),
            test: HeaderTest::Present(true),
            invert: false,
            missing_as_empty: false,
        });
    policy.retriable_headers = policy
        .retriable_headers
        .iter()
        .cloned()
        .chain(present)
        .collect();
    Some(Arc::new(policy))
}

fn only_by_headers() -> RetryPolicy {
    RetryPolicy {
        on: RetryOn::default(),
        num_retries: NUM_RETRIES,
        per_try_timeout: None,
        retriable_status_codes: Arc::from([]),
        retriable_headers: Arc::from([]),
        retriable_request_headers: Arc::from([]),
        skip_previous_hosts: false,
        host_selection_max_attempts: 1,
        back_off: BACK_OFF,
    }
}

fn both(a: RetryOn, b: RetryOn) -> RetryOn {
    RetryOn {
        five_xx: a.five_xx || b.five_xx,
        gateway_error: a.gateway_error || b.gateway_error,
        reset: a.reset || b.reset,
        reset_before_request: a.reset_before_request || b.reset_before_request,
        connect_failure: a.connect_failure || b.connect_failure,
        envoy_ratelimited: a.envoy_ratelimited || b.envoy_ratelimited,
        retriable_4xx: a.retriable_4xx || b.retriable_4xx,
        refused_stream: a.refused_stream || b.refused_stream,
        retriable_status_codes: a.retriable_status_codes || b.retriable_status_codes,
        retriable_headers: a.retriable_headers || b.retriable_headers,
        http3_post_connect_failure: a.http3_post_connect_failure || b.http3_post_connect_failure,
        grpc_cancelled: a.grpc_cancelled || b.grpc_cancelled,
        grpc_deadline_exceeded: a.grpc_deadline_exceeded || b.grpc_deadline_exceeded,
        grpc_internal: a.grpc_internal || b.grpc_internal,
        grpc_resource_exhausted: a.grpc_resource_exhausted || b.grpc_resource_exhausted,
        grpc_unavailable: a.grpc_unavailable || b.grpc_unavailable,
    }
}

/// Decides after an attempt. `retries`: how many were made already.
pub fn decide(policy: &RetryPolicy, attempt: Attempt<'_>, retries: u32) -> Decision {
    if !is_retriable(policy, attempt) {
        Decision::No
    } else if retries >= policy.num_retries {
        Decision::LimitExceeded
    } else {
        Decision::Retry
    }
}

/// Whether the policy applies to a request at all (`retriable_request_headers`).
pub fn applies(policy: &RetryPolicy, request: &HeaderView<'_>) -> bool {
    policy.retriable_request_headers.is_empty()
        || policy
            .retriable_request_headers
            .iter()
            .any(|header| header.is_match(request))
}

/// Time to wait before retry number `retry` (from 1): fully jittered, `random % ((2^retry - 1) ×
/// base)`, at most `max`.
pub fn back_off(rules: &BackOff, retry: u32, random: u64) -> Duration {
    let base = u64::try_from(rules.base.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let factor = 1u64
        .checked_shl(retry.min(32))
        .unwrap_or(u64::MAX)
        .saturating_sub(1)
        .max(1);
    Duration::from_millis(random % base.saturating_mul(factor)).min(rules.max)
}

fn is_retriable(policy: &RetryPolicy, attempt: Attempt<'_>) -> bool {
    match attempt {
        Attempt::Response { status, headers } => is_response_retriable(policy, status, headers),
        Attempt::Reset {
            reason,
            request_sent,
        } => is_reset_retriable(policy, reason, request_sent),
        Attempt::PerTryTimeout => is_reset_retriable(policy, &ResetReason::LocalReset, true),
    }
}

fn is_response_retriable(policy: &RetryPolicy, status: u16, headers: &HeaderMap) -> bool {
    let on = &policy.on;
    if headers.contains_key("x-envoy-ratelimited") {
        return on.envoy_ratelimited;
    }
    (on.five_xx && status >= 500)
        || (on.gateway_error && (502..=504).contains(&status))
        || (on.retriable_4xx && status == 409)
        || (on.retriable_status_codes && policy.retriable_status_codes.contains(&status))
        || (on.retriable_headers && has_retriable_header(policy, status, headers))
        || is_grpc_status_retriable(policy, headers)
}

fn has_retriable_header(policy: &RetryPolicy, status: u16, headers: &HeaderMap) -> bool {
    let view = HeaderView {
        headers,
        authority: "",
        method: "",
        path: "",
        scheme: "",
        protocol: "",
        status: Some(status),
    };
    policy
        .retriable_headers
        .iter()
        .any(|header| header.is_match(&view))
}

/// Only a status in the response's head (a response without messages) can be acted on.
fn is_grpc_status_retriable(policy: &RetryPolicy, headers: &HeaderMap) -> bool {
    let on = &policy.on;
    let status = headers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok())
        .and_then(|status| status.parse::<u32>().ok());
    match status {
        Some(1) => on.grpc_cancelled,
        Some(4) => on.grpc_deadline_exceeded,
        Some(8) => on.grpc_resource_exhausted,
        Some(13) => on.grpc_internal,
        Some(14) => on.grpc_unavailable,
        _ => false,
    }
}

fn is_reset_retriable(policy: &RetryPolicy, reason: &ResetReason, request_sent: bool) -> bool {
    let on = &policy.on;
    match reason {
        // More of what the circuit breaker just refused would not help.
        ResetReason::Overflow => false,
        // Envoy counts a reset as the 5xx that it leads to.
        _ if on.reset || on.five_xx || on.gateway_error => true,
        _ if on.reset_before_request && !request_sent => true,
        reason if reason.is_connect_failure() => on.connect_failure,
        ResetReason::RemoteRefusedStream => on.refused_stream,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &str) -> RetryPolicy {
        RetryPolicy {
            on: RetryOn::parse(on).0,
            num_retries: 2,
            per_try_timeout: None,
            retriable_status_codes: Arc::from([418]),
            retriable_headers: Arc::from([]),
            retriable_request_headers: Arc::from([]),
            skip_previous_hosts: true,
            host_selection_max_attempts: 5,
            back_off: BackOff {
                base: Duration::from_millis(25),
                max: Duration::from_millis(250),
            },
        }
    }

    #[test]
    fn conditions_are_envoys() {
        let refused = ResetReason::RemoteConnectionFailure("".into());
        let status = |status| (status, None);
        let reset = |reason: &ResetReason| (0, Some((reason.clone(), true)));
        let unsent = |reason: &ResetReason| (0, Some((reason.clone(), false)));
        let istio = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
        let table = [
            ("5xx", status(500), true),
            ("5xx", status(404), false),
            ("5xx", reset(&ResetReason::ConnectionTermination), true),
            ("gateway-error", status(500), false),
            ("gateway-error", status(503), true),
            ("retriable-4xx", status(409), true),
            ("retriable-4xx", status(400), false),
            (istio, status(503), false),
            (istio, status(418), true),
            (istio, reset(&refused), true),
            (istio, reset(&ResetReason::ConnectionTimeout), true),
            (istio, reset(&ResetReason::RemoteRefusedStream), true),
            (istio, reset(&ResetReason::ConnectionTermination), false),
            (
                "reset-before-request",
                unsent(&ResetReason::ConnectionTermination),
                true,
            ),
            (
                "reset-before-request",
                reset(&ResetReason::ConnectionTermination),
                false,
            ),
            (
                "5xx,reset,connect-failure",
                reset(&ResetReason::Overflow),
                false,
            ),
            ("reset", unsent(&ResetReason::RemoteReset), true),
            ("reset", status(503), false),
            ("gateway-error", reset(&ResetReason::RemoteReset), true),
            (
                "connect-failure",
                reset(&ResetReason::LocalConnectionFailure("".into())),
                true,
            ),
            ("connect-failure", reset(&ResetReason::RemoteReset), false),
            ("refused-stream", reset(&refused), false),
            ("retriable-status-codes", status(503), false),
            ("", status(503), false),
        ];
        for (on, (status, reset), expected) in table {
            let headers = HeaderMap::new();
            let attempt = match &reset {
                Some((reason, request_sent)) => Attempt::Reset {
                    reason,
                    request_sent: *request_sent,
                },
                None => Attempt::Response {
                    status,
                    headers: &headers,
                },
            };
            let decision = decide(&policy(on), attempt, 0);
            assert_eq!(
                decision == Decision::Retry,
                expected,
                "{on} {status} {reset:?}"
            );
        }
    }

    #[test]
    fn an_answer_of_a_rate_limit_is_retried_only_if_asked_for() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-envoy-ratelimited",
            http::HeaderValue::from_static("true"),
        );
        let attempt = Attempt::Response {
            status: 503,
            headers: &headers,
        };
        assert_eq!(decide(&policy("5xx"), attempt, 0), Decision::No);
        assert_eq!(
            decide(&policy("envoy-ratelimited"), attempt, 0),
            Decision::Retry
        );
    }

    #[test]
    fn a_time_limit_for_one_try_is_a_reset() {
        let expected = [
            ("5xx", true),
            ("gateway-error", true),
            ("reset", true),
            ("connect-failure", false),
            ("refused-stream", false),
        ];
        for (on, retried) in expected {
            assert_eq!(
                decide(&policy(on), Attempt::PerTryTimeout, 0) == Decision::Retry,
                retried,
                "{on}"
            );
        }
    }

    #[test]
    fn headers_change_the_policy_and_stay_here() {
        let with = |pairs: &[(&'static str, &'static str)], of_route: Option<RetryPolicy>| {
            let mut headers: HeaderMap = pairs
                .iter()
                .map(|(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .collect();
            let policy = asked_for(of_route.map(Arc::new), &mut headers);
            assert!(headers.is_empty());
            policy
        };
        assert!(with(&[], None).is_none());
        assert!(
            with(&[("x-envoy-max-retries", "3")], None).is_none(),
            "nothing says when to retry"
        );
        let made = with(
            &[
                ("x-envoy-retry-on", "5xx,nonsense"),
                ("x-envoy-retry-grpc-on", "unavailable"),
            ],
            None,
        )
        .unwrap();
        assert_eq!(
            (made.on, made.num_retries, made.back_off),
            (RetryOn::parse("5xx,unavailable").0, 1, BACK_OFF)
        );
        let pairs = [
            ("x-envoy-retry-on", "retriable-headers"),
            ("x-envoy-max-retries", "7"),
            ("x-envoy-retriable-status-codes", "404, x, 409"),
            ("x-envoy-retriable-header-names", "x-again"),
        ];
        let changed = with(&pairs, Some(policy("retriable-status-codes"))).unwrap();
        assert_eq!(
            (changed.num_retries, &*changed.retriable_status_codes),
            (7, &[418, 404, 409][..])
        );
        let mut again = HeaderMap::new();
        assert_eq!(
            decide(
                &changed,
                Attempt::Response {
                    status: 200,
                    headers: &again
                },
                0
            ),
            Decision::No
        );
        again.insert("x-again", HeaderValue::from_static("1"));
        assert_eq!(
            decide(
                &changed,
                Attempt::Response {
                    status: 200,
                    headers: &again
                },
                6
            ),
            Decision::Retry
        );
        assert_eq!(
            decide(
                &changed,
                Attempt::Response {
                    status: 404,
                    headers: &again
                },
                7
            ),
            Decision::LimitExceeded
        );
        let same = with(&[], Some(policy("5xx"))).unwrap();
        assert_eq!(*same, policy("5xx"));
    }

    #[test]
    fn grpc_conditions_look_at_the_head() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", http::HeaderValue::from_static("14"));
        let attempt = Attempt::Response {
            status: 200,
            headers: &headers,
        };
        assert_eq!(decide(&policy("unavailable"), attempt, 0), Decision::Retry);
        assert_eq!(decide(&policy("cancelled"), attempt, 0), Decision::No);
        assert_eq!(
            decide(&policy("unavailable"), attempt, 2),
            Decision::LimitExceeded
        );
    }

    #[test]
    fn back_off_grows_with_jitter_to_its_cap() {
        let rules = BackOff {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        };
        assert_eq!(back_off(&rules, 1, 24), Duration::from_millis(24));
        assert_eq!(back_off(&rules, 1, 25), Duration::ZERO);
        assert_eq!(back_off(&rules, 2, 74), Duration::from_millis(74));
        assert_eq!(back_off(&rules, 3, 174), Duration::from_millis(174));
        assert_eq!(back_off(&rules, 10, 24_000), Duration::from_millis(250));
        assert_eq!(
            back_off(&rules, u32::MAX, u64::MAX),
            Duration::from_millis(250)
        );
    }
}
