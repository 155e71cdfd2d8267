use std::net::IpAddr;

use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::proxies::ProxyStatus;

async fn get_from(
    caller: &str,
    path: &str,
    snapshot: Option<Arc<Snapshot>>,
) -> (StatusCode, String) {
    let proxies = Arc::new(Proxies::default());
    let status = ProxyStatus {
        node: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".into(),
        name: "web-1.shop".into(),
        version: "1.31".into(),
        cluster: "Kubernetes".into(),
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
    };
    let _member = proxies.join(status);
    let (_publish, snapshots) = watch::channel(snapshot);
    let app = router(Pages {
        proxies: proxies.clone(),
        metrics: Metrics::default(),
        snapshots,
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
    for path in [
        "/debug/syncz",
        "/debug/connections",
        "/debug/registryz",
        "/debug/list",
    ] {
        for (caller, code) in [
            ("127.0.0.1", 200),
            ("::1", 200),
            ("::ffff:127.0.0.1", 200),
            ("10.0.0.7", 401),
            ("::ffff:10.0.0.7", 401),
        ] {
            let (got, body) = get_from(caller, path, None).await;
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
    let metrics = Metrics::default();
    metrics.csr_count.inc();
    metrics
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
