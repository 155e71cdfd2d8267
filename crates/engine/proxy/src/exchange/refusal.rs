//! The proxy's own answers for failures towards the upstream, in Envoy's words.

use http::{HeaderValue, StatusCode};
use telemetry::record::ResponseFlags;

use crate::{
    exchange::{Exchange, attempt::Failure, reply::Reply},
    headers::{
        self,
        names::{GRPC_STATUS, X_ENVOY_OVERLOADED},
        number,
    },
    report::downstream::HttpCount,
    upstream::reset::ResetReason,
};

/// The proxy's own answer for a failure, in Envoy's words.
pub(super) fn refusal(x: &mut Exchange, failure: Failure) -> Reply {
    const TIMEOUT: ResponseFlags = ResponseFlags::UPSTREAM_REQUEST_TIMEOUT;
    const GATEWAY_TIMEOUT: StatusCode = StatusCode::GATEWAY_TIMEOUT;
    let (status, body, flag, details) = match failure {
        Failure::Reset { reason, .. } => return reset(x, &reason),
        Failure::TooLong => return too_long(x),
        Failure::RouteTimeout | Failure::PerTryTimeout if x.request.is_timeout_empty => {
            (StatusCode::NO_CONTENT, "", TIMEOUT, "response_timeout")
        }
        Failure::RouteTimeout => (
            GATEWAY_TIMEOUT,
            "upstream request timeout",
            TIMEOUT,
            "response_timeout",
        ),
        Failure::PerTryTimeout => (
            GATEWAY_TIMEOUT,
            "upstream request timeout",
            TIMEOUT,
            "upstream_per_try_timeout",
        ),
        Failure::UpstreamTooLong => (
            GATEWAY_TIMEOUT,
            "upstream max stream duration reached",
            ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED,
            "upstream_max_stream_duration_reached",
        ),
        Failure::Downstream => (
            StatusCode::BAD_REQUEST,
            "",
            ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
            "downstream_remote_disconnect",
        ),
    };
    let reply = Reply::failure(x, status, body, flag, details);
    count(x, status);
    counted(x, reply)
}

/// The connection manager's own limit: no answer of the cluster, and no flag.
fn too_long(x: &mut Exchange) -> Reply {
    const DEADLINE_EXCEEDED: u64 = 4;
    let status = late_status(x);
    let details = "max_duration_timeout";
    let mut reply = Reply::local(x, status, "downstream duration timeout", details);
    if x.request.is_grpc {
        reply
            .head
            .headers
            .insert(GRPC_STATUS, number(DEADLINE_EXCEEDED));
    }
    x.http.metrics.count(HttpCount::TooLong);
    counted(x, reply)
}

/// Whose fault a silence is: the upstream's, once the request was read whole.
pub(crate) fn late_status(x: &Exchange) -> StatusCode {
    match x.request.body.ended(x.request.started) {
        Some(_) => StatusCode::GATEWAY_TIMEOUT,
        None => StatusCode::REQUEST_TIMEOUT,
    }
}

/// For the cluster a local answer has the status that it would have without gRPC.
fn count(x: &Exchange, status: StatusCode) {
    // Nobody hears what is said to a client that went away.
    let is_heard = !x
        .request
        .record
        .flags
        .contains(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
    if let Some(cluster) = x.cluster.as_ref().filter(|_| is_heard) {
        cluster.metrics.answered(status.as_u16());
    }
}

fn counted(x: &Exchange, mut reply: Reply) -> Reply {
    headers::response::attempt_count(&x.request, &mut reply.head);
    reply
}

fn reset(x: &mut Exchange, reason: &ResetReason) -> Reply {
    let why = reason.transport_failure();
    let retried = if x.request.record.attempts > 1 {
        "retried and the latest "
    } else {
        ""
    };
    // Why the transport failed is for the operator's log, not for the client.
    let body = format!(
        "upstream connect error or disconnect/reset before headers. {retried}reset reason: {}",
        reason.as_str()
    );
    let detail = why.map(|why| format!("|{why}")).unwrap_or_default();
    let details = format!(
        "upstream_reset_before_response_started{{{}{detail}}}",
        reason.as_str()
    )
    .replace(' ', "_");
    x.request.record.upstream_transport_failure_reason = why.cloned();
    let status = match reason {
        ResetReason::ProtocolError => StatusCode::BAD_GATEWAY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut reply = Reply::failure(x, status, body, reason.flag(), details);
    if *reason == ResetReason::Overflow && !x.request.suppresses_envoy_headers {
        reply
            .head
            .headers
            .insert(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
    }
    count(x, status);
    counted(x, reply)
}
