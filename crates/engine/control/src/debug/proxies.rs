//! Pages about connected proxies: who they are, how far they have come, and what each is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire_envoy::{Descriptors, JsonError, Names, pb::Any, type_url as urls};
use xds_encode::{Client, ClientKind, View};
use xds_protocol::{Resource, TypeStatus};

use super::pages::Pages;
use crate::proxies::ProxyStatus;

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// Which proxy a page is about: `<pod>.<namespace>` or the node's id.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    #[serde(rename = "proxyID")]
    proxy_id: Option<String>,
}

/// What each proxy was sent and what it took, in istiod's form; `rejected` and `lastRejection` are
/// ours.
pub(super) async fn syncz(State(pages): State<Pages>) -> Json<Value> {
    let proxies = pages.proxies.list();
    Json(proxies.iter().map(|(_, proxy)| sync_row(proxy)).collect())
}

fn sync_row(proxy: &ProxyStatus) -> Value {
    let client = &proxy.client;
    let mut row = Map::new();
    row.insert("cluster_id".into(), json!(&*client.cluster_id));
    row.insert("proxy".into(), json!(proxy.name));
    row.insert("proxy_type".into(), json!(kind_of(client)));
    row.insert("istio_version".into(), json!(&*client.version));
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
    let resources: Map<_, _> = proxy
        .types
        .iter()
        .map(|(type_url, status)| (type_url.clone(), type_row(status)))
        .collect();
    row.insert("resources".into(), resources.into());
    Value::Object(row)
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

fn kind_of(client: &Client) -> &'static str {
    match client.kind {
        ClientKind::Sidecar => "sidecar",
        ClientKind::Gateway => "router",
    }
}

pub(super) async fn connections(State(pages): State<Pages>) -> Json<Value> {
    let proxies = pages.proxies.list();
    let rows = proxies
        .iter()
        .map(|(number, proxy)| connection(*number, proxy));
    let clients: Vec<Value> = rows.map(Value::Object).collect();
    Json(json!({"totalClients": clients.len(), "clients": clients}))
}

fn connection(number: u64, proxy: &ProxyStatus) -> Map<String, Value> {
    let address = proxy.address.map(|address| address.to_string());
    let row = [
        ("connectionId", json!(format!("{}-{number}", proxy.name))),
        ("connectedAt", json!(rfc3339(proxy.connected_at))),
        ("address", json!(address.unwrap_or_default())),
    ];
    row.into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Connections, with what each proxy is and watches.
pub(super) async fn adsz(State(pages): State<Pages>) -> Json<Value> {
    let proxies = pages.proxies.list();
    let rows = proxies.iter().map(|(number, proxy)| {
        let mut row = connection(*number, proxy);
        let client = &proxy.client;
        let labels: BTreeMap<&str, &str> = client.labels.iter().collect();
        row.insert("labels".into(), json!(labels));
        row.insert("metadata".into(), proxy.metadata.clone());
        row.insert(
            "locality".into(),
            json!({
                "region": client.locality.region.as_deref(),
                "zone": client.locality.zone.as_deref(),
                "subZone": client.locality.sub_zone.as_deref(),
            }),
        );
        row.insert("watches".into(), json!(proxy.watches));
        Value::Object(row)
    });
    let clients: Vec<Value> = rows.collect();
    Json(json!({"totalClients": clients.len(), "clients": clients}))
}

/// Names of what is generated for the connected proxies, by type.
pub(super) async fn cachez(State(pages): State<Pages>) -> Json<Value> {
    let mut names: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (_, proxy) in pages.proxies.list() {
        for type_url in [urls::CLUSTER, urls::ENDPOINT, urls::ROUTE] {
            let set = resources(&pages, &proxy, type_url).unwrap_or_default();
            let found = set.iter().map(|resource| resource.name.to_string());
            names.entry(type_url).or_default().extend(found);
        }
    }
    Json(json!(names))
}

/// What the proxy is sent, in the shape of Envoy's own page. Secrets by name only.
pub(super) async fn config_dump(
    State(pages): State<Pages>,
    Query(which): Query<Which>,
) -> Response {
    about(&pages, &which, |proxy, descriptors| {
        let of = |type_url| resources(&pages, proxy, type_url).unwrap_or_default();
        let json = |resource: &Resource, type_url: &str| {
            descriptors.any_to_json(&packed(resource, type_url), Names::Camel)
        };
        let version = |type_url| {
            let status = proxy.types.get(type_url);
            status.map(|s| s.sent_version.clone()).unwrap_or_default()
        };
        let mut clusters = Vec::new();
        for resource in &of(urls::CLUSTER) {
            clusters.push(json!({"versionInfo": &*resource.version, "cluster": json(resource, urls::CLUSTER)?}));
        }
        let mut listeners = Vec::new();
        for resource in &of(urls::LISTENER) {
            let state = json!({"versionInfo": &*resource.version, "listener": json(resource, urls::LISTENER)?});
            listeners.push(json!({"name": &*resource.name, "activeState": state}));
        }
        let mut routes = Vec::new();
        for resource in &of(urls::ROUTE) {
            routes.push(json!({"versionInfo": &*resource.version, "routeConfig": json(resource, urls::ROUTE)?}));
        }
        let mut endpoints = Vec::new();
        for resource in &of(urls::ENDPOINT) {
            endpoints.push(json!({"versionInfo": &*resource.version, "endpointConfig": json(resource, urls::ENDPOINT)?}));
        }
        let secrets = of(urls::SECRET);
        let secrets = secrets
            .iter()
            .map(|secret| json!({"name": &*secret.name, "versionInfo": &*secret.version}));
        let kind = |name: &str| format!("{ADMIN}{name}ConfigDump");
        Ok(json!({"configs": [
            {"@type": kind("Bootstrap")},
            {"@type": kind("Clusters"), "versionInfo": version(urls::CLUSTER), "dynamicActiveClusters": clusters},
            {"@type": kind("Listeners"), "versionInfo": version(urls::LISTENER), "dynamicListeners": listeners},
            {"@type": kind("ScopedRoutes")},
            {"@type": kind("Routes"), "dynamicRouteConfigs": routes},
            {"@type": kind("Endpoints"), "dynamicEndpointConfigs": endpoints},
            {"@type": kind("Secrets"), "dynamicActiveSecrets": secrets.collect::<Vec<_>>()},
            {"@type": kind("Ecds")},
        ]}))
    })
}

/// The endpoints that the proxy is sent.
pub(super) async fn edsz(State(pages): State<Pages>, Query(which): Query<Which>) -> Response {
    listed(&pages, &which, urls::ENDPOINT)
}

/// The names that the proxy answers for.
pub(super) async fn ndsz(State(pages): State<Pages>, Query(which): Query<Which>) -> Response {
    listed(&pages, &which, urls::NAME_TABLE)
}

fn listed(pages: &Pages, which: &Which, type_url: &str) -> Response {
    about(pages, which, |proxy, descriptors| {
        let set = resources(pages, proxy, type_url).unwrap_or_default();
        let json = set
            .iter()
            .map(|resource| descriptors.any_to_json(&packed(resource, type_url), Names::Camel));
        Ok(json!({"configs": json.collect::<Result<Vec<_>, _>>()?}))
    })
}

fn about(
    pages: &Pages,
    which: &Which,
    page: impl FnOnce(&ProxyStatus, &Descriptors) -> Result<Value, JsonError>,
) -> Response {
    let Some(name) = which.proxy_id.as_deref().filter(|name| !name.is_empty()) else {
        let why = "You must provide a proxyID in the query string\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let Some(proxy) = pages.proxies.find(name) else {
        let why = "Proxy not connected to this Pilot instance. It may be connected to another instance.\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    match Descriptors::load().and_then(|descriptors| page(&proxy, &descriptors)) {
        Ok(page) => Json(page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// What the proxy would be sent of a type now; `None` before the first snapshot.
fn resources(pages: &Pages, proxy: &ProxyStatus, type_url: &str) -> Option<Vec<Resource>> {
    let snapshot = pages.snapshots.borrow().clone()?;
    let view = View::new(&snapshot, &proxy.client);
    let watched = proxy.watches.get(type_url).into_iter().flatten();
    let names: BTreeSet<String> = watched.cloned().collect();
    let generator = &pages.generator;
    let set = match type_url {
        urls::SECRET => generator.secrets(&names, &snapshot, &proxy.client, false),
        _ => generator.resources(type_url, &names, snapshot.version, &view),
    };
    Some(set.to_vec())
}

fn packed(resource: &Resource, type_url: &str) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: resource.body.to_vec(),
    }
}

/// In UTC; the epoch for what cannot be written.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = i128::try_from(since.as_nanos()).unwrap_or_default();
    Timestamp::from_nanosecond(nanoseconds)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}
