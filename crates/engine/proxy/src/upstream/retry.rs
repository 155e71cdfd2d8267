//! Whether an attempt that went wrong is made again, and after how long.
//!
//! Pure. Follows Envoy's router filter documentation (`x-envoy-retry-on`, `x-envoy-retry-grpc-on`) and its back-off.

use std::time::Duration;

use http::HeaderMap;
use proxy_config::{
    matcher::HeaderView,
    route::{BackOff, RetryPolicy},
};

use crate::codec::ResetReason;

/// What came of an attempt.
#[derive(Debug, Clone, Copy)]
pub enum Attempt<'a> {
    /// A response's head came.
    Response { status: u16, headers: &'a HeaderMap },
    /// The stream ended without one. `request_sent`: the request's head had been written.
    Reset { reason: &'a ResetReason, request_sent: bool },
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
    policy.retriable_request_headers.is_empty() || policy.retriable_request_headers.iter().any(|header| header.is_match(request))
}

/// Time to wait before retry number `retry` (from 1): fully jittered, `random % ((2^retry - 1) × base)`, at most `max`.
pub fn back_off(rules: &BackOff, retry: u32, random: u64) -> Duration {
    let base = u64::try_from(rules.base.as_millis()).unwrap_or(u64::MAX).max(1);
    let factor = 1u64.checked_shl(retry.min(32)).unwrap_or(u64::MAX).saturating_sub(1).max(1);
    Duration::from_millis(random % base.saturating_mul(factor)).min(rules.max)
}

fn is_retriable(policy: &RetryPolicy, attempt: Attempt<'_>) -> bool {
    match attempt {
        Attempt::Response { status, headers } => is_response_retriable(policy, status, headers),
        Attempt::Reset { reason, request_sent } => is_reset_retriable(policy, reason, request_sent),
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
    let view = HeaderView { headers, authority: "", method: "", path: "", scheme: "", protocol: "", status: Some(status) };
    policy.retriable_headers.iter().any(|header| header.is_match(&view))
}

/// Only a status in the response's head (a response without messages) can be acted on.
fn is_grpc_status_retriable(policy: &RetryPolicy, headers: &HeaderMap) -> bool {
    let on = &policy.on;
    let status = headers.get("grpc-status").and_then(|status| status.to_str().ok()).and_then(|status| status.parse::<u32>().ok());
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
    use std::sync::Arc;

    use proxy_config::route::RetryOn;

    use super::*;

    fn policy(on: &str) -> RetryPolicy {
        RetryPolicy {
            on: RetryOn::parse(on).0,
            num_retries: 2,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: Arc::from([418]),
            retriable_headers: Arc::from([]),
            retriable_request_headers: Arc::from([]),
            skip_previous_hosts: true,
            host_selection_max_attempts: 5,
            previous_priorities: None,
            back_off: BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
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
            ("reset-before-request", unsent(&ResetReason::ConnectionTermination), true),
            ("reset-before-request", reset(&ResetReason::ConnectionTermination), false),
            ("5xx,reset,connect-failure", reset(&ResetReason::Overflow), false),
        ];
        for (on, (status, reset), expected) in table {
            let headers = HeaderMap::new();
            let attempt = match &reset {
                Some((reason, request_sent)) => Attempt::Reset { reason, request_sent: *request_sent },
                None => Attempt::Response { status, headers: &headers },
            };
            let decision = decide(&policy(on), attempt, 0);
            assert_eq!(decision == Decision::Retry, expected, "{on} {status} {reset:?}");
        }
    }

    #[test]
    fn grpc_conditions_look_at_the_head() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", http::HeaderValue::from_static("14"));
        let attempt = Attempt::Response { status: 200, headers: &headers };
        assert_eq!(decide(&policy("unavailable"), attempt, 0), Decision::Retry);
        assert_eq!(decide(&policy("cancelled"), attempt, 0), Decision::No);
        assert_eq!(decide(&policy("unavailable"), attempt, 2), Decision::LimitExceeded);
    }

    #[test]
    fn back_off_grows_with_jitter_to_its_cap() {
        let rules = BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) };
        assert_eq!(back_off(&rules, 1, 24), Duration::from_millis(24));
        assert_eq!(back_off(&rules, 1, 25), Duration::ZERO);
        assert_eq!(back_off(&rules, 2, 74), Duration::from_millis(74));
        assert_eq!(back_off(&rules, 3, 174), Duration::from_millis(174));
        assert_eq!(back_off(&rules, 10, 24_000), Duration::from_millis(250));
        assert_eq!(back_off(&rules, u32::MAX, u64::MAX), Duration::from_millis(250));
    }
}
