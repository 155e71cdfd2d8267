//! Requests that never become one, because the codec cannot read their head: counted, and logged as Envoy does.
//!
//! hyper has answered by then (400, or 431 for a head that is too large) or, when a head took too long, closed the connection, where
//! Envoy would say 408. No filter has seen such a request, so no metric of a filter counts it.

use http::StatusCode;
use telemetry::record::{Kind, Protocol, Record, ResponseFlags};

use crate::{
    codec::session::Session,
    report::{Finished, downstream::HttpCount},
};

/// Notes how the codec ended. What only ends a connection, like a client that goes away, is no refusal.
pub(super) fn note(error: &hyper::Error, is_http2: bool, session: &Session) {
    let metrics = &session.http.metrics;
    if error.is_timeout() {
        metrics.count(HttpCount::HeaderTimeouts);
    } else if is_http2 && is_http2_fault(error) {
        // Of the connection, not of one of its streams: there is no request to tell of.
        metrics.count(HttpCount::ProtocolErrors);
    } else if error.is_parse() {
        report(error, session);
    }
}

/// Whether the peer broke the rules of HTTP/2.
fn is_http2_fault(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| !cause.is_io() && cause.is_library())
}

fn report(error: &hyper::Error, session: &Session) {
    let (status, details) = if error.is_parse_too_large() {
        (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "http1.headers_too_large",
        )
    } else {
        (StatusCode::BAD_REQUEST, "http1.codec_error")
    };
    let (worker, connection, http) = (&session.worker, &session.connection, &session.http);
    let mut record: Record = connection.record(worker.live.clock.wall());
    record.kind = Kind::Http;
    record.protocol = Some(Protocol::Http11);
    record.status = Some(status.as_u16());
    record
        .flags
        .insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
    record.response_code_details = Some(details.into());
    record.timings.total = Some(std::time::Duration::ZERO);
    http.metrics.began(Protocol::Http11);
    http.metrics.ended(&record);
    worker.reporter.report(Finished {
        record: &record,
        connection,
        http: Some(&http.config),
        access_logs: &http.config.access_logs,
        config: &worker.live.config(),
        route: None,
        cluster: None,
        trace: None,
        is_counted: true,
    });
}
