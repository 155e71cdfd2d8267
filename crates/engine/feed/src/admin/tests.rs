//! The pages over loopback sockets.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Empty, Full};
use telemetry::istio_metrics;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

use super::*;
use crate::fixture;

const DEADLINE: Duration = Duration::from_secs(10);
const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

struct Doors {
    admin: Arc<Admin>,
    commands: mpsc::Receiver<Command>,
}

fn doors() -> Doors {
    doors_with(None)
}

fn doors_with(application: Option<Application>) -> Doors {
    let listeners = "  listeners:
  - name: virtualInbound
    address: {socket_address: {address: 127.0.0.1, port_value: 15006}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: x
          cluster: x
";
    let resources = fixture::cluster(REVIEWS, "10.0.0.7:9080".parse().unwrap()) + listeners;
    let (sender, commands) = mpsc::channel(4);
    let admin = Admin {
        live: fixture::live(&resources),
        status: Arc::new(Status::default()),
        metrics: IstioMetrics::new(istio_metrics::Options::default()),
        bootstrap: bootstrap(&resources),
        identity: None,
        started: Instant::now(),
        version: "1.2.3".to_owned(),
        commands: sender,
        set_log_level: Box::new(|directives| directives.starts_with("debug").then_some(())),
        loggers: Mutex::new(Loggers::new("info")),
        workers: 2,
        shown_updates: Mutex::default(),
        failing: AtomicBool::new(false),
        application,
    };
    Doors {
        admin: Arc::new(admin),
        commands,
    }
}

/// As the program would have read it.
fn bootstrap(resources: &str) -> Bootstrap {
    let text = format!("node: {{id: n, cluster: c}}\nstatic_resources:\n{resources}");
    Descriptors::load().unwrap().from_yaml(&text).unwrap()
}

impl Doors {
    /// Opens a door and asks for one page.
    async fn ask(&self, door: Door, method: Method, page: &str) -> (u16, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(self.admin.clone().serve(listener, door));
        let answer = timeout(DEADLINE, ask(address, method, page)).await.unwrap();
        serving.abort();
        answer
    }

    async fn get(&self, door: Door, page: &str) -> (u16, String) {
        self.ask(door, Method::GET, page).await
    }
}

async fn ask(address: SocketAddr, method: Method, page: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(page)
        .header("host", "localhost")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_says_why_not() {
    let doors = doors();
    for door in [Door::Health, Door::Agent] {
        let (status, why) = doors.get(door, "/healthz/ready").await;
        assert_eq!(
            (status, &*why),
            (503, "waiting for the first configuration\n")
        );
    }
    assert_eq!(
        doors.get(Door::Admin, "/ready").await,
        (503, "PRE_INITIALIZING\n".to_owned())
    );
    doors.admin.status.identity_is_not_needed();
    doors.admin.status.configuration_is_live();
    // Published is not open yet: a connection would be refused until both workers have their
    // sockets.
    doors.admin.live.note_opened(1, u64::MAX);
    assert_eq!(doors.get(Door::Health, "/healthz/ready").await.0, 503);
    doors.admin.live.note_opened(2, u64::MAX);
    assert_eq!(
        doors.get(Door::Health, "/healthz/ready").await,
        (200, String::new())
    );
    assert_eq!(
        doors.get(Door::Admin, "/ready").await,
        (200, "LIVE\n".to_owned())
    );
    assert_eq!(
        doors
            .ask(Door::Admin, Method::POST, "/healthcheck/fail")
            .await
            .0,
        200
    );
    assert_eq!(doors.get(Door::Health, "/healthz/ready").await.0, 503);
    assert_eq!(
        doors.get(Door::Admin, "/ready").await,
        (503, "DRAINING\n".to_owned())
    );
    assert_eq!(
        doors
            .ask(Door::Admin, Method::POST, "/healthcheck/ok")
            .await
            .0,
        200
    );
    assert_eq!(doors.get(Door::Health, "/healthz/ready").await.0, 200);
}

#[tokio::test]
async fn clusters_as_text_and_json() {
    let doors = doors();
    let (status, text) = doors.get(Door::Admin, "/clusters").await;
    assert_eq!(status, 200);
    for line in [
        format!("{REVIEWS}::observability_name::{REVIEWS};"),
        format!("{REVIEWS}::default_priority::max_connections::1024"),
        format!("{REVIEWS}::10.0.0.7:9080::health_flags::healthy"),
        format!("{REVIEWS}::10.0.0.7:9080::region::r"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    let (_, json) = doors.get(Door::Admin, "/clusters?format=json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let host = &json["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(json["cluster_statuses"][0]["name"], REVIEWS);
    assert_eq!(host["address"]["socket_address"]["port_value"], 9080);
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
}

#[tokio::test]
async fn listeners_as_text_and_json() {
    let doors = doors();
    assert_eq!(
        doors.get(Door::Admin, "/listeners").await.1,
        "virtualInbound::127.0.0.1:15006\n"
    );
    let (_, json) = doors.get(Door::Admin, "/listeners?format=json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["listener_statuses"][0]["local_address"]["socket_address"]["port_value"],
        15006
    );
}

#[tokio::test]
async fn pages_that_change_something_want_a_post() {
    let mut doors = doors();
    for page in [
        "/logging?level=debug",
        "/reset_counters",
        "/drain_listeners",
        "/healthcheck/fail",
        "/quitquitquit",
    ] {
        assert_eq!(doors.get(Door::Admin, page).await.0, 405, "{page}");
    }
    assert_eq!(doors.get(Door::Agent, "/quitquitquit").await.0, 405);
    assert!(doors.commands.try_recv().is_err());
    assert_eq!(
        doors
            .ask(Door::Admin, Method::POST, "/logging?level=debug")
            .await
            .0,
        200
    );
    assert_eq!(
        doors
            .ask(Door::Admin, Method::POST, "/logging?level=loud")
            .await
            .0,
        400
    );
    assert_eq!(
        doors
            .ask(Door::Admin, Method::POST, "/drain_listeners")
            .await
            .0,
        200
    );
    assert_eq!(
        doors
            .ask(Door::Agent, Method::POST, "/quitquitquit")
            .await
            .0,
        200
    );
    assert_eq!(
        (doors.commands.try_recv(), doors.commands.try_recv()),
        (Ok(Command::Drain), Ok(Command::Quit))
    );
}

#[test]
fn only_this_machine_may_end_or_drain_the_proxy() {
    let here: SocketAddr = "127.0.0.1:5".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:5".parse().unwrap();
    let elsewhere: SocketAddr = "10.0.0.1:5".parse().unwrap();
    for (door, page) in [(Door::Agent, "/quitquitquit"), (Door::Agent, "/drain")] {
        assert!(
            may_ask(door, page, here) && may_ask(door, page, mapped),
            "{page}"
        );
        assert!(!may_ask(door, page, elsewhere), "{page}");
    }
    for (door, page) in [
        (Door::Health, "/healthz/ready"),
        (Door::Agent, "/stats/prometheus"),
        (Door::Metrics, "/stats/prometheus"),
    ] {
        assert!(may_ask(door, page, elsewhere), "{page}");
    }
}

#[tokio::test]
async fn statistics_in_three_forms() {
    let doors = doors();
    doors
        .admin
        .live
        .stats
        .counter("cluster.a;.upstream_rq_pending_overflow")
        .add(3);
    let (_, text) = doors
        .get(Door::Admin, "/stats?filter=pending_overflow$")
        .await;
    assert!(
        text.lines()
            .any(|line| line == "cluster.a;.upstream_rq_pending_overflow: 3"),
        "{text}"
    );
    let (_, text) = doors.get(Door::Admin, "/stats").await;
    for line in [
        format!("cluster.{REVIEWS};.membership_total: 1"),
        format!("cluster.{REVIEWS};.membership_healthy: 1"),
        format!("cluster.{REVIEWS};.circuit_breakers.default.cx_open: 0"),
        "cluster_manager.active_clusters: 1".to_owned(),
        "listener_manager.total_listeners_active: 1".to_owned(),
        "listener.127.0.0.1_15006.downstream_cx_active: 0".to_owned(),
        "server.concurrency: 2".to_owned(),
        "server.version: 1002003".to_owned(),
        "control_plane.connected_state: 0".to_owned(),
        "cluster.xds-grpc;.upstream_cx_active: 0".to_owned(),
        "cluster.xds-grpc;.upstream_cx_connect_fail: 0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    let (_, json) = doors
        .get(Door::Admin, "/stats?format=json&filter=^server.live$")
        .await;
    assert_eq!(json, r#"{"stats":[{"name":"server.live","value":0}]}"#);
    let (_, prometheus) = doors.get(Door::Metrics, "/stats/prometheus").await;
    assert!(
        prometheus.contains(&format!(
            "envoy_cluster_membership_total{{cluster_name=\"{REVIEWS}\"}} 1"
        )),
        "{prometheus}"
    );
    assert!(prometheus.contains("istio_build{component=\"proxy\""));
    assert_eq!(doors.get(Door::Admin, "/stats?filter=(").await.0, 400);
    assert_eq!(
        doors
            .ask(Door::Admin, Method::POST, "/reset_counters")
            .await
            .0,
        200
    );
    assert!(
        doors
            .get(Door::Admin, "/stats?filter=pending_overflow$")
            .await
            .1
            .contains("cluster.a;.upstream_rq_pending_overflow: 0")
    );
}

#[tokio::test]
async fn updates_of_the_configuration_are_counted_once() {
    let doors = doors();
    doors
        .admin
        .status
        .with_type(wire_envoy::type_url::CLUSTER, |state| {
            (state.updates, state.rejected) = (3, 1)
        });
    for _ in 0..2 {
        let (_, text) = doors.get(Door::Admin, "/stats?filter=cds.update").await;
        assert!(
            text.contains("cluster_manager.cds.update_success: 2\n")
                && text.contains("cluster_manager.cds.update_rejected: 1\n"),
            "{text}"
        );
    }
    doors
        .ask(Door::Admin, Method::POST, "/reset_counters")
        .await;
    doors
        .admin
        .status
        .with_type(wire_envoy::type_url::CLUSTER, |state| state.updates = 4);
    let (_, text) = doors
        .get(Door::Admin, "/stats?filter=cds.update_success")
        .await;
    assert_eq!(text, "cluster_manager.cds.update_success: 1\n");
}

#[tokio::test]
async fn the_application_s_metrics_are_merged() {
    let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = application.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = application.accept().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.uri().path(), "/own");
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(
                b"own_metric 1\n",
            ))))
        });
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    let doors = doors_with(Some(Application {
        port,
        path: "/own".to_owned(),
    }));
    let (_, merged) = doors.get(Door::Agent, "/stats/prometheus").await;
    assert!(
        merged.contains("own_metric 1\n")
            && merged.contains("istio_agent_pilot_xds_connect_attempts"),
        "{merged}"
    );
    let (_, alone) = doors.get(Door::Metrics, "/stats/prometheus").await;
    assert!(!alone.contains("own_metric") && !alone.contains("istio_agent_"));
    let (status, gone) = doors.get(Door::Agent, "/stats/prometheus").await;
    assert!(
        status == 200
            && gone.contains(&format!(
                "# the application's metrics on port {port} could not be read"
            ))
            && gone.contains("istio_agent_scrapes_total 2\n")
            && gone.contains("istio_agent_scrape_failures_total{type=\"application\"} 1\n"),
        "{gone}"
    );
    let connected = gone
        .lines()
        .filter(|line| line.starts_with("# TYPE envoy_control_plane_connected_state "));
    assert_eq!(connected.count(), 1, "no metric is declared twice: {gone}");
}

#[tokio::test]
async fn a_door_has_its_own_pages_only() {
    let doors = doors();
    assert_eq!(doors.get(Door::Health, "/stats").await.0, 404);
    assert_eq!(doors.get(Door::Metrics, "/config_dump").await.0, 404);
    assert_eq!(doors.get(Door::Agent, "/config_dump").await.0, 404);
    let (status, info) = doors.get(Door::Admin, "/server_info").await;
    assert!(
        status == 200 && info.contains("\"version\": \"tanbark-proxy/1.2.3\""),
        "{info}"
    );
    assert_eq!(doors.get(Door::Admin, "/nothing").await.0, 404);
    assert_eq!(doors.get(Door::Admin, "/config_dump").await.0, 200);
}

#[tokio::test]
async fn levels_are_set_by_logger() {
    let doors = doors();
    let post = |page: &'static str| doors.ask(Door::Admin, Method::POST, page);
    let (status, list) = post("/logging").await;
    assert!(
        status == 200 && list.contains("  upstream: info\n"),
        "{list}"
    );
    assert_eq!(post("/logging?level=debug").await.0, 200);
    let (_, list) = post("/logging?paths=upstream:trace,http:off").await;
    assert!(
        list.contains("  upstream: trace\n") && list.contains("  admin: debug\n"),
        "{list}"
    );
    let (status, why) = post("/logging?nothing=debug").await;
    assert!(
        status == 400 && why.starts_with("error: unknown logger name"),
        "{why}"
    );
}

#[tokio::test]
async fn a_config_dump_has_every_section_and_the_bootstrap() {
    let doors = doors();
    let (_, dump) = doors.get(Door::Admin, "/config_dump?include_eds").await;
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let sections = dump["configs"].as_array().unwrap();
    let names: Vec<&str> = sections
        .iter()
        .filter_map(|section| section["@type"].as_str()?.rsplit('.').next())
        .collect();
    assert_eq!(
        names,
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "ListenersConfigDump",
            "ScopedRoutesConfigDump",
            "RoutesConfigDump",
            "EndpointsConfigDump",
            "SecretsConfigDump",
            "EcdsConfigDump",
        ]
    );
    assert_eq!(sections[0]["bootstrap"]["node"]["id"], "n");
    assert_eq!(
        sections[0]["bootstrap"]["node"]["user_agent_name"],
        "tanbark-proxy"
    );
    assert_eq!(
        sections[1]["static_clusters"][0]["cluster"]["name"],
        REVIEWS
    );
    assert_eq!(
        sections[2]["static_listeners"][0]["listener"]["@type"],
        wire_envoy::type_url::LISTENER
    );
    let page = "/config_dump?resource=static_listeners&mask=listener.name";
    let (_, part) = doors.get(Door::Admin, page).await;
    let part: serde_json::Value = serde_json::from_str(&part).unwrap();
    assert_eq!(
        part["configs"][0]["listener"],
        serde_json::json!({"name": "virtualInbound"})
    );
    assert_eq!(doors.get(Door::Admin, "/config_dump?mask=x").await.0, 400);
}

#[tokio::test]
async fn unknown_pages_and_methods_are_answered_in_envoys_words() {
    let doors = doors();
    let (status, list) = doors.get(Door::Admin, "/nosuch").await;
    assert!(
        status == 404 && list.starts_with("invalid path. admin commands are:\n"),
        "{list}"
    );
    assert_eq!(
        doors.get(Door::Admin, "/logging").await,
        (405, "Method GET not allowed, POST required.".to_owned())
    );
    for page in [
        "/runtime",
        "/init_dump",
        "/hot_restart_version",
        "/contention",
        "/help",
    ] {
        assert_eq!(doors.get(Door::Admin, page).await.0, 200, "{page}");
    }
}

#[tokio::test]
async fn a_filter_holds_for_prometheus_too() {
    let doors = doors();
    let (_, some) = doors
        .get(Door::Admin, "/stats/prometheus?filter=membership_total")
        .await;
    assert!(
        some.lines().count() == 3 && some.contains("envoy_cluster_membership_total{"),
        "{some}"
    );
    let (_, build) = doors
        .get(Door::Admin, "/stats?format=prometheus&filter=istio_build")
        .await;
    assert!(build.starts_with("# TYPE istio_build gauge\n"), "{build}");
}
