//! The endpoints of mccutchen/go-httpbin that people use, with its JSON shapes and limits.
//!
//! Left out, and so 404: `/image*`, `/links`, `/range`, `/digest-auth`, `/base64`, `/brotli`, `/xml`, `/forms/post`, `/dump/request`, `/env`.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, delete, get, head, patch, post, put};

use crate::server::Echo;

pub mod answer;
mod auth;
mod body;
mod document;
mod redirect;
pub mod reflect;
mod status;
mod stream;

pub fn routes() -> Router<Arc<Echo>> {
    Router::new()
        .route("/", get(document::index))
        .route("/html", get(document::html))
        .route("/json", get(document::json))
        .route("/robots.txt", get(document::robots))
        .route("/get", get(reflect::get))
        .route("/head", head(reflect::get))
        .route("/post", post(reflect::anything))
        .route("/put", put(reflect::anything))
        .route("/patch", patch(reflect::anything))
        .route("/delete", delete(reflect::anything))
        .route("/anything", any(reflect::anything))
        .route("/anything/{*rest}", any(reflect::anything))
        .route("/headers", any(reflect::headers))
        .route("/ip", any(reflect::ip))
        .route("/user-agent", any(reflect::user_agent))
        .route("/hostname", any(reflect::hostname))
        .route("/uuid", any(reflect::uuid))
        .route("/gzip", any(reflect::gzip))
        .route("/deflate", any(reflect::deflate))
        .route("/response-headers", any(reflect::response_headers))
        .route("/trailers", any(reflect::trailers))
        .route("/etag/{etag}", any(status::etag))
        .route("/cache", any(status::cache))
        .route("/cache/{seconds}", any(status::cache_for))
        .route("/status/{codes}", any(status::status))
        .route("/unstable", any(status::unstable))
        .route("/delay/{duration}", any(stream::delay))
        .route("/drip", any(stream::drip))
        .route("/bytes/{count}", any(stream::bytes))
        .route("/stream-bytes/{count}", any(stream::stream_bytes))
        .route("/stream/{count}", any(stream::lines))
        .route("/sse", any(stream::events))
        .route("/cookies", any(redirect::cookies))
        .route("/cookies/set", any(redirect::set_cookies))
        .route("/cookies/delete", any(redirect::delete_cookies))
        .route("/redirect/{count}", any(redirect::redirect))
        .route("/relative-redirect/{count}", any(redirect::relative))
        .route("/absolute-redirect/{count}", any(redirect::absolute))
        .route("/redirect-to", any(redirect::to))
        .route("/basic-auth/{user}/{password}", any(auth::basic))
        .route("/hidden-basic-auth/{user}/{password}", any(auth::hidden))
        .route("/bearer", any(auth::bearer))
}
