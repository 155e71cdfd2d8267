//! The HTTP side: one router for everything, and around each request the counters, CORS headers and the shape it asks for.
//!
//! Own paths: `/echo` (as `/anything`, shaped by its query), `/counters`, `/hello` (Istio's helloworld), `/health`; httpbin's are in
//! [`crate::httpbin`]. Each answer names the server in `x-echo-hostname` and, if it has one, `x-echo-version`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::access_log;
use crate::connection::Connection;
use crate::counters::Counters;
use crate::grpc;
use crate::httpbin::{self, answer};
use crate::server::{Echo, Settings};
use crate::shape;
use crate::websocket;

pub fn router(echo: Echo) -> Router {
    let echo = Arc::new(echo);
    let (settings, counters) = (echo.settings.clone(), echo.counters.clone());
    httpbin::routes()
        .route("/echo", any(httpbin::reflect::anything))
        .route("/counters", get(read_counters).delete(reset_counters))
        .route("/hello", get(hello))
        .route("/health", get(health))
        .route("/websocket/echo", any(websocket::echo))
        .fallback(async || answer::error(StatusCode::NOT_FOUND, ""))
        .method_not_allowed_fallback(async || answer::error(StatusCode::METHOD_NOT_ALLOWED, ""))
        .layer(DefaultBodyLimit::max(settings.max_body_bytes))
        .layer(middleware::from_fn_with_state(echo.clone(), around))
        .with_state(echo)
        .merge(grpc_routes(&settings, counters))
}

/// gRPC alone; what is no method of ours gets UNIMPLEMENTED.
pub fn grpc_router(settings: &Settings, counters: Arc<Counters>) -> Router {
    grpc_routes(settings, counters).fallback(async || {
        tonic::Status::unimplemented("no such method").into_http::<axum::body::Body>()
    })
}

fn grpc_routes(settings: &Settings, counters: Arc<Counters>) -> Router {
    let echo = grpc::service(settings.hostname.clone(), settings.version.clone());
    Router::new()
        .route_service("/tanbark.echo.v1.Echo/{method}", echo)
        .route_service("/grpc.health.v1.Health/{method}", grpc::health())
        .layer(middleware::from_fn_with_state(counters, count))
}

async fn count(State(counters): State<Arc<Counters>>, request: Request, next: Next) -> Response {
    counters.request(request.uri().path());
    next.run(request).await
}

async fn around(State(echo): State<Arc<Echo>>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/counters" {
        return next.run(request).await;
    }
    echo.counters.request(request.uri().path());
    let line = echo.settings.access_log.then(|| {
        let connection = request.extensions().get::<Connection>();
        access_log::Line::begin(&request, connection.map(|connection| connection.peer.ip()))
    });
    let cors = echo
        .settings
        .cors
        .then(|| cors_headers(request.method(), request.headers()));
    let mut response = if cors.is_some() && request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        shape::shape(&echo.failures, request, next).await
    };
    let headers = response.headers_mut();
    headers.extend(cors.into_iter().flatten());
    for (name, value) in [
        ("x-echo-hostname", &echo.settings.hostname),
        ("x-echo-version", &echo.settings.version),
    ] {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
    if let Some(line) = line {
        println!("{}", line.end(&response));
    }
    response
}

/// go-httpbin allows every origin everything.
fn cors_headers(method: &Method, request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let origin = request
        .get(ORIGIN)
        .cloned()
        .unwrap_or(HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    if method == Method::OPTIONS {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, HEAD, PUT, DELETE, PATCH, OPTIONS"),
        );
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
        if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
    }
    headers
}

async fn read_counters(State(echo): State<Arc<Echo>>) -> Response {
    answer::json(StatusCode::OK, &echo.counters.read())
}

async fn reset_counters(State(echo): State<Arc<Echo>>) -> StatusCode {
    echo.counters.reset();
    echo.failures.forget();
    StatusCode::NO_CONTENT
}

async fn hello(State(echo): State<Arc<Echo>>) -> String {
    format!(
        "Hello version: {}, instance: {}\n",
        echo.settings.version, echo.settings.hostname
    )
}

async fn health() -> &'static str {
    "Helloworld is healthy"
}
