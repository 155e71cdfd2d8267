//! Documents that are always the same.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::answer;

const INDEX: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>tanbark-echo</title></head><body><h1>tanbark-echo</h1>\
<p>A test service that answers as each request asks, with the endpoints of go-httpbin: <a href=\"/get\">/get</a>, <a href=\"/headers\">/headers</a>, \
<a href=\"/ip\">/ip</a>, <a href=\"/anything\">/anything</a>, /status/N, /delay/N, /bytes/N, /stream/N, <a href=\"/cookies\">/cookies</a>, /redirect/N, \
<a href=\"/hostname\">/hostname</a> and more. <a href=\"/counters\">/counters</a> says how often each path was asked for.</p></body></html>\n";

const PAGE: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Tan bark</title></head><body><h1>Tan bark</h1>\
<p>Sails were steeped in a brew of oak bark and tallow. It kept the cloth from rotting in the wet and gave it the rust-red colour \
by which the old fishing fleets are remembered.</p></body></html>\n";

pub async fn index() -> Response {
    ([(CONTENT_TYPE, answer::HTML)], INDEX).into_response()
}

pub async fn html() -> Response {
    ([(CONTENT_TYPE, answer::HTML)], PAGE).into_response()
}

/// A document in the shape httpbin's users know: a slide show with two slides.
pub async fn json() -> Response {
    let slides = json!([
        {"title": "What a mesh does", "type": "all"},
        {"title": "Overview", "type": "all", "items": ["Traffic", "Identity", "Telemetry"]},
    ]);
    answer::json(
        StatusCode::OK,
        &json!({"slideshow": {"author": "Tanbark", "date": "date of publication", "title": "Sample Slide Show", "slides": slides}}),
    )
}

pub async fn robots() -> Response {
    (
        [(CONTENT_TYPE, answer::TEXT)],
        "User-agent: *\nDisallow: /deny\n",
    )
        .into_response()
}
