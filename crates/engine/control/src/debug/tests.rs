use std::{net::IpAddr, sync::Arc, time::SystemTime};

use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use mesh_model::Snapshot;
use serde_json::json;
use tokio::sync::watch;
use wire_envoy::{pb::core::Node, type_url as urls};
use xds_encode::Client;
use xds_protocol::TypeStatus;

use super::*;
use crate::{
    metrics::Metrics,
    proxies::{Proxies, ProxyStatus},
};

fn client() -> Client {
    let node = Node {
        id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".into(),
        ..Node::default()
    };
    Client::from_node(&node).expect("a node")
}

fn snapshot() -> Arc<Snapshot> {
    let mut store = ingest::Store::new(ingest::default_mesh());
    store.apply(Arc::new(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}})));
    store.build()
}

async fn page(path: &str) -> Value {
    let (code, body) = get_from("127.0.0.1", path, Some(snapshot())).await;
    assert_eq!(code, StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

async fn get_from(
    caller: &str,
    path: &str,
    snapshot: Option<Arc<Snapshot>>,
) -> (StatusCode, String) {
    let proxies = Arc::new(Proxies::default());
    let status = ProxyStatus {
        name: "web-1.shop".into(),
        client: Arc::new(client()),
        metadata: json!({"ISTIO_VERSION": "1.31"}),
        address: "10.0.0.1:4711".parse().ok(),
        connected_at: SystemTime::UNIX_EPOCH,
        types: [(
            urls::CLUSTER.to_owned(),
            TypeStatus {
                sent_nonce: "n2".into(),
                acknowledged_nonce: "n1".into(),
                rejected: 1,
                last_rejection: Some("bad".into()),
                ..Default::default()
            },
        )]
        .into(),
        watches: [(
            urls::ENDPOINT.to_owned(),
            vec!["outbound|80||web.shop.svc.cluster.local".to_owned()],
        )]
        .into(),
    };
    let _member = proxies.join(status);
    let (_publish, snapshots) = watch::channel(snapshot);
    let (_objects, objects) = watch::channel(Arc::from([Arc::new(json!({"kind": "Sidecar"}))]));
    let app = router(Pages {
        proxies: proxies.clone(),
        metrics: Metrics::new(Arc::new(stdx::SystemClock)),
        snapshots,
        objects,
        generator: Arc::default(),
    });
    let address: IpAddr = caller.parse().expect("an address");
    let mut request = Request::get(path)
        .body(axum::body::Body::empty())
        .expect("a request");
    request
        .extensions_mut()
        .insert(ConnectInfo(SocketAddr::new(address, 1)));
    let response = app.oneshot(request).await.expect("an answer");
    let code = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn debug_pages_are_for_loopback_only_in_either_family() {
    let known = PAGES.iter().map(|(name, _)| format!("/debug/{name}"));
    let free = known.filter(|path| {
        !["config_dump", "edsz", "ndsz"]
            .iter()
            .any(|p| path.ends_with(p))
    });
    for path in free.chain(["/debug/list".into(), "/debug/".into()]) {
        for (caller, code) in [
            ("127.0.0.1", 200),
            ("::1", 200),
            ("::ffff:127.0.0.1", 200),
            ("10.0.0.7", 401),
            ("::ffff:10.0.0.7", 401),
        ] {
            let (got, body) = get_from(caller, &path, None).await;
            assert_eq!(got.as_u16(), code, "{caller} {path}: {body}");
        }
    }
}

#[tokio::test]
async fn readiness_waits_for_the_first_snapshot_and_is_for_everyone() {
    assert_eq!(
        get_from("10.0.0.7", "/ready", None).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let snapshot = ingest::Store::new(ingest::default_mesh()).build();
    assert_eq!(
        get_from("10.0.0.7", "/ready", Some(snapshot)).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn syncz_has_istiods_columns_and_the_last_rejection() {
    let (_, body) = get_from("127.0.0.1", "/debug/syncz", None).await;
    let rows: Value = serde_json::from_str(&body).expect("JSON");
    let row = &rows[0];
    assert_eq!(
        (row["proxy"].as_str(), row["proxy_type"].as_str()),
        (Some("web-1.shop"), Some("sidecar"))
    );
    assert_eq!(
        (row["cluster_sent"].as_str(), row["cluster_acked"].as_str()),
        (Some("n2"), Some("n1"))
    );
    assert_eq!(row["resources"][urls::CLUSTER]["lastRejection"], "bad");
}

#[tokio::test]
async fn metrics_have_istiods_bare_names() {
    let metrics = Metrics::new(Arc::new(stdx::SystemClock));
    metrics.authority.csr_count.inc();
    metrics
        .streams
        .pushes
        .get_or_create(&crate::metrics::type_label(urls::CLUSTER))
        .inc();
    let text = metrics.text();
    for line in [
        "citadel_server_csr_count 1",
        "pilot_xds_pushes{type=\"cds\"} 1",
        "# TYPE pilot_xds_pushes counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert_eq!(
        get_from("10.0.0.7", "/metrics", None).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_config_dump_shows_what_a_proxy_is_sent() {
    let dump = page("/debug/config_dump?proxyID=web-1.shop").await;
    let section = |name: &str| {
        let kind = format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump");
        let configs = dump["configs"].as_array().expect("sections");
        configs
            .iter()
            .find(|section| section["@type"] == kind.as_str())
            .cloned()
            .unwrap_or_else(|| panic!("{name} in {dump:#}"))
    };
    let names = |list: &Value, path: &str| -> Vec<String> {
        let items = list.as_array().cloned().unwrap_or_default();
        let name = |item: &Value| item.pointer(path)?.as_str().map(str::to_owned);
        items.iter().filter_map(name).collect()
    };
    let cluster = "outbound|80||web.shop.svc.cluster.local".to_owned();
    assert!(
        names(
            &section("Clusters")["dynamicActiveClusters"],
            "/cluster/name"
        )
        .contains(&cluster)
    );
    let listeners = names(&section("Listeners")["dynamicListeners"], "/name");
    assert!(
        listeners.contains(&"virtualInbound".to_owned()),
        "{listeners:?}"
    );
    let endpoints = &section("Endpoints")["dynamicEndpointConfigs"];
    assert_eq!(
        names(endpoints, "/endpointConfig/clusterName"),
        std::slice::from_ref(&cluster)
    );
    let edsz = page("/debug/edsz?proxyID=web-1.shop").await;
    assert_eq!(names(&edsz["configs"], "/clusterName"), [cluster]);
    for (path, code) in [
        ("/debug/config_dump", StatusCode::BAD_REQUEST),
        ("/debug/config_dump?proxyID=x.y", StatusCode::NOT_FOUND),
        ("/debug/edsz", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(
            get_from("::1", path, Some(snapshot())).await.0,
            code,
            "{path}"
        );
    }
}

#[tokio::test]
async fn services_endpoints_and_connections_have_istiods_shape() {
    let registry = page("/debug/registryz").await;
    assert_eq!(
        (
            registry[0]["hostname"].as_str(),
            registry[0]["defaultAddress"].as_str(),
            registry[0]["Attributes"]["Namespace"].as_str(),
            registry[0]["ports"][0]["protocol"].as_str(),
        ),
        (
            Some("web.shop.svc.cluster.local"),
            Some("10.96.0.9"),
            Some("shop"),
            Some("HTTP")
        )
    );
    let connections = page("/debug/connections").await;
    let client = &connections["clients"][0];
    assert_eq!(
        (
            client["connectionId"].as_str(),
            client["connectedAt"].as_str(),
            client["address"].as_str()
        ),
        (
            Some("web-1.shop-1"),
            Some("1970-01-01T00:00:00Z"),
            Some("10.0.0.1:4711")
        )
    );
    let adsz = page("/debug/adsz").await;
    assert_eq!(adsz["clients"][0]["metadata"]["ISTIO_VERSION"], "1.31");
    assert_eq!(
        adsz["clients"][0]["watches"][urls::ENDPOINT][0],
        "outbound|80||web.shop.svc.cluster.local"
    );
    let mesh = page("/debug/mesh").await;
    assert_eq!(
        (mesh["rootNamespace"].as_str(), mesh["trustDomain"].as_str()),
        (Some("istio-system"), Some("cluster.local"))
    );
    assert_eq!(page("/debug/configz").await[0]["kind"], "Sidecar");
    let list = page("/debug/list").await;
    assert!(list.as_array().expect("a list").contains(&json!("syncz")));
}
