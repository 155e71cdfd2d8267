//! Answers in go-httpbin's form: JSON with two spaces of indent and a last newline, errors as `{"status_code", "error", "detail"}`.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

pub const JSON: &str = "application/json; charset=utf-8";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub const HTML: &str = "text/html; charset=utf-8";
pub const BINARY: &str = "application/octet-stream";

#[derive(Serialize)]
struct Error<'a> {
    status_code: u16,
    error: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    (status, [(CONTENT_TYPE, JSON)], pretty(value)).into_response()
}

pub fn pretty(value: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string_pretty(value).expect("invariant: our answers have text keys only");
    text.push('\n');
    text
}

/// `detail` says more than the status; empty leaves it out.
pub fn error(status: StatusCode, detail: &str) -> Response {
    json(
        status,
        &Error {
            status_code: status.as_u16(),
            error: status.canonical_reason().unwrap_or_default(),
            detail,
        },
    )
}

pub fn bad_request(detail: &str) -> Response {
    error(StatusCode::BAD_REQUEST, detail)
}
