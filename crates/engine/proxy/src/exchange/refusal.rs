//! The proxy's own answers for failures towards the upstream, in Envoy's words.

use http::{HeaderValue, StatusCode};
use telemetry::record::ResponseFlags;

use super::{Exchange, attempt::Failure, forward::attempt_count, reply::Reply};
use crate::{
    codec::ResetReason,
    headers::{names::X_ENVOY_OVERLOADED, upstream},
};

/// The proxy's own answer for a failure, in Envoy's words.
pub(super) fn refusal(x: &mut Exchange, failure: Failure) -> Reply {
    const TIMEOUT: ResponseFlags = ResponseFlags::UPSTREAM_REQUEST_TIMEOUT;
    let mut reply = match failure {
        Failure::RouteTimeout => Reply::failure(
            x,
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            TIMEOUT,
            "response_timeout",
        ),
        Failure::PerTryTimeout => Reply::failure(
            x,
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            TIMEOUT,
            "upstream_per_try_timeout",
        ),
        Failure::TooLong => {
            let flag = ResponseFlags::DURATION_TIMEOUT;
            Reply::failure(
                x,
                StatusCode::REQUEST_TIMEOUT,
                "downstream duration timeout",
                flag,
                "max_duration_timeout",
            )
        }
        Failure::Downstream => {
            let flag = ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;
            Reply::failure(
                x,
                StatusCode::BAD_REQUEST,
                "",
                flag,
                "downstream_remote_disconnect",
            )
        }
        Failure::Reset { reason, .. } => reset(x, &reason),
    };
    if let Some(cluster) = &x.cluster {
        cluster.metrics.answered(reply.head.status.as_u16());
    }
    attempt_count(x, &mut reply);
    reply
}

fn reset(x: &mut Exchange, reason: &ResetReason) -> Reply {
    let why = reason.transport_failure();
    let retried = if x.record.attempts > 1 {
        "retried and the latest "
    } else {
        ""
    };
    let transport = why
        .map(|why| format!(", transport failure reason: {why}"))
        .unwrap_or_default();
    let body = format!(
        "upstream connect error or disconnect/reset before headers. {retried}reset reason: {}{transport}",
        reason.as_str()
    );
    let detail = why.map(|why| format!("|{why}")).unwrap_or_default();
    let details = format!(
        "upstream_reset_before_response_started{{{}{detail}}}",
        reason.as_str()
    )
    .replace(' ', "_");
    x.record.upstream_transport_failure_reason = why.cloned();
    let mut reply = Reply::failure(
        x,
        StatusCode::SERVICE_UNAVAILABLE,
        body,
        reason.flag(),
        details,
    );
    if *reason == ResetReason::Overflow && !upstream::suppresses_envoy_headers(x) {
        reply
            .head
            .headers
            .insert(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
    }
    reply
}
