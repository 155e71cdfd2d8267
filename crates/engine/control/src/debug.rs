//! HTTP for people and tools: readiness, metrics, version, and the `/debug` pages that istioctl and
//! Kiali read (reference 4.6).
//!
//! `/debug` is answered to callers on loopback only, as it tells much about the mesh; readiness and metrics are for everyone. Pages have
//! istiod's paths and shapes (`pilot/pkg/xds/debug.go`); what is said about a proxy is what it
//! would be sent now. Keys are never shown.

use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header::CONTENT_TYPE as CONTENT_TYPE_HEADER},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::Value;

use crate::metrics::CONTENT_TYPE;

mod mesh;
mod pages;
mod proxies;

pub use pages::Pages;

/// Every page below `/debug/`, with what it shows.
const PAGES: [(&str, &str); 14] = [
    ("adsz", "Connected proxies and what each has asked for"),
    ("cachez", "Generated resources that are kept"),
    ("clusterz", "Clusters whose objects are watched"),
    (
        "config_dump",
        "What a proxy (?proxyID=NAME.NAMESPACE) would be sent now, as Envoy dumps it",
    ),
    ("configz", "Objects of Istio's kinds as they were written"),
    ("connections", "Who is connected, and since when"),
    (
        "edsz",
        "Endpoints that a proxy (?proxyID=) would be sent now",
    ),
    ("endpointShardz", "Endpoints by Service"),
    ("endpointz", "The older name of endpointShardz"),
    ("mesh", "The mesh's configuration that is in force"),
    ("ndsz", "Names that a proxy (?proxyID=) answers by DNS"),
    ("registryz", "Services"),
    ("resourcesz", "Kinds that are watched"),
    ("syncz", "What each proxy was sent, and what it took"),
];

/// `/ready`, `/version`, `/metrics` and `/debug/…`.
pub fn router(pages: Pages) -> Router {
    let debug = Router::new()
        .route("/debug", get(index))
        .route("/debug/", get(index))
        .route("/debug/list", get(list))
        .route("/debug/adsz", get(proxies::adsz))
        .route("/debug/cachez", get(proxies::cachez))
        .route("/debug/config_dump", get(proxies::config_dump))
        .route("/debug/connections", get(proxies::connections))
        .route("/debug/edsz", get(proxies::edsz))
        .route("/debug/ndsz", get(proxies::ndsz))
        .route("/debug/syncz", get(proxies::syncz))
        .route("/debug/clusterz", get(mesh::clusterz))
        .route("/debug/configz", get(mesh::configz))
        .route("/debug/endpointShardz", get(mesh::endpoint_shards))
        .route("/debug/endpointz", get(mesh::endpoint_shards))
        .route("/debug/mesh", get(mesh::mesh))
        .route("/debug/registryz", get(mesh::registryz))
        .route("/debug/resourcesz", get(mesh::resourcesz))
        .layer(middleware::from_fn(loopback_only));
    Router::new()
        .route("/ready", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .merge(debug)
        .with_state(pages)
}

async fn loopback_only(
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if address.ip().to_canonical().is_loopback() {
        next.run(request).await
    } else {
        (
            StatusCode::UNAUTHORIZED,
            "debug pages are answered on loopback only\n",
        )
            .into_response()
    }
}

async fn ready(State(pages): State<Pages>) -> Response {
    if pages.snapshots.borrow().is_some() {
        StatusCode::OK.into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the first listing is not complete\n",
        )
            .into_response()
    }
}

async fn version() -> String {
    format!("{}\n", env!("CARGO_PKG_VERSION"))
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ([(CONTENT_TYPE_HEADER, CONTENT_TYPE)], pages.metrics.text()).into_response()
}

async fn list() -> Json<Value> {
    Json(PAGES.iter().map(|(name, _)| Value::from(*name)).collect())
}

async fn index() -> Html<String> {
    let rows: String = PAGES
        .iter()
        .map(|(name, what)| {
            format!("<tr><td><a href=\"/debug/{name}\">{name}</a></td><td>{what}</td></tr>\n")
        })
        .collect();
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><title>Debug pages</title></head><body>\n<table>\n{rows}</table>\n</body></html>\n"
    ))
}

#[cfg(test)]
mod tests;
