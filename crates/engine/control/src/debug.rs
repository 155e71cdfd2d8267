//! HTTP for people and tools: readiness, metrics, version, and the `/debug` pages that istioctl and Kiali read (reference 4.6).
//!
//! `/debug` is answered to callers on loopback only, as it tells much about the mesh; readiness and metrics are for everyone.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use mesh_model::Snapshot;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use wire_envoy::type_url as urls;
use xds_protocol::TypeStatus;

use crate::{
    metrics::{CONTENT_TYPE, Metrics},
    proxies::Proxies,
};

#[derive(Clone)]
pub struct Pages {
    pub proxies: Arc<Proxies>,
    pub metrics: Metrics,
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
}

/// `/ready`, `/version`, `/metrics` and `/debug/…`.
pub fn router(pages: Pages) -> Router {
    let debug = Router::new()
        .route("/debug/syncz", get(syncz))
        .route("/debug/connections", get(connections))
        .route("/debug/registryz", get(registryz))
        .route("/debug/list", get(list))
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
    ([("content-type", CONTENT_TYPE)], pages.metrics.text()).into_response()
}

async fn list() -> Json<Value> {
    Json(json!([
        "/debug/connections",
        "/debug/list",
        "/debug/registryz",
        "/debug/syncz"
    ]))
}

/// What each proxy was sent and what it took, in istiod's form; `rejected` and `last_rejection` are ours.
async fn syncz(State(pages): State<Pages>) -> Json<Value> {
    let proxies = pages.proxies.list();
    let rows = proxies.iter().map(|proxy| {
        let mut row = Map::new();
        row.insert("cluster_id".into(), json!(proxy.cluster));
        row.insert("proxy".into(), json!(proxy.name));
        row.insert(
            "proxy_type".into(),
            json!(proxy.node.split('~').next().unwrap_or_default()),
        );
        row.insert("istio_version".into(), json!(proxy.version));
        for (type_url, short) in [
            (urls::CLUSTER, "cluster"),
            (urls::LISTENER, "listener"),
            (urls::ROUTE, "route"),
            (urls::ENDPOINT, "endpoint"),
        ] {
            let status = proxy.types.get(type_url);
            row.insert(
                format!("{short}_sent"),
                json!(status.map(|s| &*s.sent_nonce).unwrap_or_default()),
            );
            row.insert(
                format!("{short}_acked"),
                json!(status.map(|s| &*s.acknowledged_nonce).unwrap_or_default()),
            );
        }
        row.insert(
            "resources".into(),
            proxy
                .types
                .iter()
                .map(|(type_url, status)| (type_url.clone(), type_row(status)))
                .collect::<Map<_, _>>()
                .into(),
        );
        Value::Object(row)
    });
    Json(rows.collect())
}

fn type_row(status: &TypeStatus) -> Value {
    json!({
        "sent": status.sent_nonce,
        "acked": status.acknowledged_nonce,
        "sentVersion": status.sent_version,
        "ackedVersion": status.acknowledged_version,
        "resources": status.resources,
        "rejected": status.rejected,
        "lastRejection": status.last_rejection,
    })
}

async fn connections(State(pages): State<Pages>) -> Json<Value> {
    let proxies = pages.proxies.list();
    let seconds = |at: SystemTime| {
        at.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs())
    };
    let clients: Vec<Value> = proxies.iter().map(|proxy| json!({"connectionId": proxy.node, "connectedAtSeconds": seconds(proxy.connected_at)})).collect();
    Json(json!({"totalClients": clients.len(), "clients": clients}))
}

/// Services with their ports and addresses.
async fn registryz(State(pages): State<Pages>) -> Json<Value> {
    let snapshot = pages.snapshots.borrow().clone();
    let services = snapshot
        .iter()
        .flat_map(|snapshot| snapshot.services.values())
        .flat_map(|declared| declared.iter());
    let rows = services.map(|service| {
        let ports: Vec<Value> = service.ports.iter().map(|p| json!({"name": &*p.port.name, "port": p.port.number, "protocol": p.port.protocol.as_str()})).collect();
        let addresses: Vec<String> = service.addresses.iter().map(|net| net.addr().to_string()).collect();
        json!({"hostname": service.host.as_str(), "Attributes": {"Name": &*service.name, "Namespace": service.namespace()}, "ports": ports, "addresses": addresses})
    });
    Json(rows.collect())
}

#[cfg(test)]
mod tests;
