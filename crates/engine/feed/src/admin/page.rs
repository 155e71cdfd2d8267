//! A page of the admin interface: a body, its type, and the headers that Envoy gives all of them.

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;

pub(super) type Page = Response<Full<Bytes>>;

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Page {
    let mut page = with_type("text/plain; charset=UTF-8", body);
    *page.status_mut() = status;
    page
}

pub(super) fn prometheus(body: String) -> Page {
    with_type("text/plain; version=0.0.4; charset=utf-8", body)
}

pub(super) fn json(value: &serde_json::Value) -> Page {
    with_type("application/json", format!("{value:#}\n"))
}

pub(super) fn with_type(kind: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    page.headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    page.headers_mut().insert(
        "cache-control",
        http::HeaderValue::from_static("no-cache, max-age=0"),
    );
    page.headers_mut().insert(
        http::header::X_CONTENT_TYPE_OPTIONS,
        http::HeaderValue::from_static("nosniff"),
    );
    page
}
