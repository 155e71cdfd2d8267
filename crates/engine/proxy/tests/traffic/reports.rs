//! What becomes of finished requests and connections: metrics, access logs, spans.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxy::{
    Live,
    peers::Own,
    publish::Update,
    report::{
        log_files::LogFiles,
        reports::{ExportedSpan, Reports, Shared},
    },
};
use proxy_config::{
    ClusterName, Listener,
    access_log::{AccessLog, AccessLogSink},
    bootstrap::Node,
    filter::{HttpFilterKind, NetworkFilter, istio_stats::IstioStats, peer_metadata::PeerMetadata},
    http_connection_manager::RouteSource,
    listener::{Terminal, TrafficDirection},
    metadata::Value,
    route::{PathMatch, RouteAction},
    tracing::{CustomTag, CustomTagValue, Tracing, TracingProvider},
};
use telemetry::{
    access_log::{Environment, Filter, Format},
    istio_metrics::{self, IstioMetrics},
    record::ResponseFlags,
    trace::SpanKind,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::{
    backend, client,
    config::*,
    mutual_tls,
    proxy::{DEADLINE, Proxy, Records, until, update},
};

/// A proxy with the real reporter.
struct Reporting {
    proxy: Proxy,
    shared: Arc<Shared>,
    spans: mpsc::Receiver<ExportedSpan>,
}

async fn reporting(live: Live, update: Update) -> Reporting {
    let live = Arc::new(live);
    let (sender, spans) = mpsc::channel(16);
    let shared = Arc::new(Shared {
        files: LogFiles::new(live.stats.counter("access_log_file.lines_dropped")),
        metrics: IstioMetrics::new(istio_metrics::Options::default()),
        rng: live.rng.clone(),
        spans: sender,
        spans_dropped: live.stats.counter("tracing.spans_dropped"),
        node: node("client"),
        variables: [("CITY".to_owned(), "Basel".to_owned())].into(),
    });
    let reporter = Arc::new(Reports::new(shared.clone(), live.own.peer.clone()));
    let proxy = Proxy::reporting(live, update, reporter, Arc::new(Records::default())).await;
    Reporting {
        proxy,
        shared,
        spans,
    }
}

fn node(workload: &str) -> Node {
    let text = |text: &str| Value::String(text.into());
    let labels = Value::Struct(Arc::new(
        [
            (Arc::from("app"), text(workload)),
            (Arc::from("version"), text("v1")),
        ]
        .into(),
    ));
    let fields = [
        ("NAMESPACE", text("default")),
        ("WORKLOAD_NAME", text(workload)),
        ("CLUSTER_ID", text("Kubernetes")),
        ("LABELS", labels),
    ];
    Node {
        id: format!("sidecar~10.0.0.1~{workload}.default~default.svc.cluster.local").into(),
        cluster: format!("{workload}.default").into(),
        metadata: Value::Struct(Arc::new(
            fields
                .into_iter()
                .map(|(key, value)| (Arc::from(key), value))
                .collect(),
        )),
        locality: Default::default(),
    }
}

fn named(workload: &str) -> Live {
    let plain = Live::default();
    Live::new(
        plain.clock.clone(),
        plain.rng.clone(),
        plain.stats.clone(),
        Own::new(&node(workload)),
    )
}

fn statistics() -> HttpFilterKind {
    HttpFilterKind::IstioStats(Arc::default())
}

impl Reporting {
    fn text(&self) -> String {
        let mut text = String::new();
        self.shared.metrics.prometheus(&mut text);
        text
    }

    /// The one series of a metric, once it is there.
    async fn series(&self, metric: &str) -> String {
        let find = || {
            let text = self.text();
            let lines: Vec<String> = text
                .lines()
                .filter(|line| line.starts_with(&format!("{metric}{{")))
                .map(str::to_owned)
                .collect();
            lines
        };
        until(|| !find().is_empty()).await;
        let lines = find();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.into_iter().next().unwrap()
    }

    async fn span(&mut self) -> ExportedSpan {
        tokio::time::timeout(DEADLINE, self.spans.recv())
            .await
            .expect("a span comes in time")
            .unwrap()
    }
}

fn has(series: &str, labels: &[(&str, &str)], value: &str) {
    for (name, wanted) in labels {
        assert!(
            series.contains(&format!("{name}=\"{wanted}\"")),
            "{name}={wanted} in {series}"
        );
    }
    assert!(
        series.ends_with(&format!("}} {value}")),
        "{value} in {series}"
    );
}

#[tokio::test]
async fn one_request_is_counted_once_on_each_side_with_both_principals() {
    let ca = mutual_tls::authority();
    let backend = backend::echo().await;
    let discover = PeerMetadata {
        discover_downstream: true,
        propagate_downstream: true,
        ..PeerMetadata::default()
    };
    let filters = vec![
        mutual_tls::filter("mx", HttpFilterKind::PeerMetadata(Arc::new(discover))),
        mutual_tls::filter("stats", statistics()),
    ];
    let terminal = mutual_tls::with_filters(vec![to("inbound|9080||")], filters, true);
    let inbound = mutual_tls::inbound(true, terminal, &["h2", "http/1.1"]);
    let service = |c: &mut proxy_config::Cluster| {
        let text = |text: &str| Value::String(text.into());
        let fields = [
            ("host", text("server.default.svc.cluster.local")),
            ("name", text("server")),
            ("namespace", text("default")),
        ];
        let entry = Value::Struct(Arc::new(
            fields
                .into_iter()
                .map(|(key, value)| (Arc::from(key), value))
                .collect(),
        ));
        let istio = Value::Struct(Arc::new(
            [(Arc::from("services"), Value::List(Arc::from([entry])))].into(),
        ));
        c.metadata =
            proxy_config::metadata::Metadata(Arc::new([(Arc::from("istio"), istio)].into()));
    };
    let app = cluster_with("inbound|9080||", &[backend.address], service);
    let server = reporting(
        mutual_tls::live(&ca, "server"),
        update(vec![inbound], vec![app]),
    )
    .await;
    let tell = PeerMetadata {
        discover_upstream: true,
        propagate_upstream: true,
        ..PeerMetadata::default()
    };
    let filters = vec![
        mutual_tls::filter("mx", HttpFilterKind::PeerMetadata(Arc::new(tell))),
        mutual_tls::filter("stats", statistics()),
    ];
    let terminal = mutual_tls::with_filters(
        vec![to("outbound|9080||server.default.svc.cluster.local")],
        filters,
        false,
    );
    let upstream = cluster_with(
        "outbound|9080||server.default.svc.cluster.local",
        &[server.proxy.address("inbound")],
        |c| {
            service(c);
            c.transport = mutual_tls::upstream_tls("server");
        },
    );
    let client = reporting(
        mutual_tls::live(&ca, "client"),
        update(vec![listener("outbound", terminal)], vec![upstream]),
    )
    .await;
    let (head, _) = client::get(client.proxy.address("outbound"), "/").await;
    assert_eq!(head.status(), 200);

    let both = [
        ("source_workload", "client"),
        ("destination_workload", "server"),
        ("source_workload_namespace", "default"),
        (
            "source_principal",
            "spiffe://cluster.local/ns/default/sa/client",
        ),
        (
            "destination_principal",
            "spiffe://cluster.local/ns/default/sa/server",
        ),
        ("destination_service", "server.default.svc.cluster.local"),
        ("destination_service_name", "server"),
        ("destination_service_namespace", "default"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("response_flags", "-"),
    ];
    let source = client.series("istio_requests_total").await;
    has(&source, &both, "1");
    has(
        &source,
        &[
            ("reporter", "source"),
            ("connection_security_policy", "unknown"),
        ],
        "1",
    );
    let destination = server.series("istio_requests_total").await;
    has(&destination, &both, "1");
    has(
        &destination,
        &[
            ("reporter", "destination"),
            ("connection_security_policy", "mutual_tls"),
        ],
        "1",
    );
    for metric in ["istio_request_bytes_sum", "istio_response_bytes_sum"] {
        let line = server.series(metric).await;
        let bytes: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(bytes > 50.0, "headers count, too: {line}");
    }
}

#[tokio::test]
async fn catch_alls_have_names_of_their_own() {
    let backend = backend::echo().await;
    let mut allow = to("PassthroughCluster");
    allow.name = "allow_any".into();
    let refuse = RouteAction::DirectResponse {
        status: http::StatusCode::BAD_GATEWAY,
        body: Default::default(),
    };
    let mut block = route(PathMatch::Prefix("/blocked".into()), refuse);
    block.name = "block_all".into();
    for (path, status, name) in [
        ("/", "200", "PassthroughCluster"),
        ("/blocked", "502", "BlackHoleCluster"),
    ] {
        let terminal = mutual_tls::with_filters(
            vec![block.clone(), allow.clone()],
            vec![mutual_tls::filter("stats", statistics())],
            false,
        );
        let update = update(
            vec![listener("out", terminal)],
            vec![cluster("PassthroughCluster", &[backend.address])],
        );
        let reporting = reporting(named("client"), update).await;
        client::get(reporting.proxy.address("out"), path).await;
        let labels = [
            ("destination_service_name", name),
            ("destination_service", "a.test"),
            ("destination_workload", "unknown"),
            ("source_workload", "client"),
            ("source_app", "client"),
            ("source_version", "v1"),
            ("response_code", status),
        ];
        has(
            &reporting.series("istio_requests_total").await,
            &labels,
            "1",
        );
    }
}

fn tcp_listener(cluster: &str, interval: Duration) -> Listener {
    let mut listener = listener("out", tcp(cluster));
    let mut chain = (*listener.chains[0]).clone();
    let stats = IstioStats {
        tcp_reporting_interval: Some(interval),
        ..IstioStats::default()
    };
    chain.network_filters = Arc::from([NetworkFilter::IstioStats(Arc::new(stats))]);
    listener.chains = Arc::from([Arc::new(chain)]);
    listener
}

#[tokio::test]
async fn tcp_bytes_are_counted_while_the_connection_is_open() {
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move {
            let mut word = [0; 4];
            while stream.read_exact(&mut word).await.is_ok() {
                stream.write_all(b"answer").await.unwrap();
            }
        });
    })
    .await;
    let update = update(
        vec![tcp_listener(
            "outbound|9000||tcp.default.svc.cluster.local",
            Duration::from_millis(5),
        )],
        vec![cluster(
            "outbound|9000||tcp.default.svc.cluster.local",
            &[address],
        )],
    );
    let reporting = reporting(named("client"), update).await;
    let mut stream = TcpStream::connect(reporting.proxy.address("out"))
        .await
        .unwrap();
    let counted = |metric: &str, value: &str| {
        let text = reporting.text();
        let mut lines = text.lines().filter(|line| line.starts_with(metric));
        lines.next().is_some_and(|line| {
            line.contains("request_protocol=\"tcp\"") && line.ends_with(&format!("}} {value}"))
        })
    };
    for round in 1..=2 {
        stream.write_all(b"word").await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        until(|| counted("istio_tcp_received_bytes_total", &(4 * round).to_string())).await;
        until(|| counted("istio_tcp_sent_bytes_total", &(6 * round).to_string())).await;
        assert!(
            counted("istio_tcp_connections_opened_total", "1")
                && counted("istio_tcp_connections_closed_total", "0")
        );
    }
    drop(stream);
    until(|| counted("istio_tcp_connections_closed_total", "1")).await;
    assert!(
        counted("istio_tcp_received_bytes_total", "8")
            && counted("istio_tcp_connections_opened_total", "1")
    );
}

#[tokio::test]
async fn a_tcp_connection_without_upstream_is_opened_and_closed() {
    let nothing = cluster("BlackHoleCluster", &[]);
    let reporting = reporting(
        named("client"),
        update(
            vec![tcp_listener("BlackHoleCluster", Duration::from_secs(5))],
            vec![nothing],
        ),
    )
    .await;
    let mut stream = TcpStream::connect(reporting.proxy.address("out"))
        .await
        .unwrap();
    // Closed, cleanly or not.
    let _ = stream.read(&mut [0]).await;
    for metric in [
        "istio_tcp_connections_opened_total",
        "istio_tcp_connections_closed_total",
    ] {
        let labels = [
            ("destination_service_name", "BlackHoleCluster"),
            ("response_flags", "UH"),
            ("reporter", "source"),
        ];
        has(&reporting.series(metric).await, &labels, "1");
    }
}

fn log(path: &std::path::Path, filter: Option<Filter>, format: &str) -> Arc<[AccessLog]> {
    let format = Format::parse(format, &Environment::default(), false).unwrap();
    let sink = AccessLogSink::File {
        path: path.to_str().unwrap().into(),
        format: Arc::new(format),
    };
    Arc::from([AccessLog {
        name: "file".into(),
        filter,
        sink,
    }])
}

/// The lines of a log, once there is one.
async fn lines(path: &std::path::Path) -> Vec<String> {
    until(|| std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))).await;
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The parts of a request's line that a test looks at.
const REQUESTS: &str = "\"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% \
\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %REQUESTED_SERVER_NAME% \
%ROUTE_NAME%\n";

#[tokio::test]
async fn requests_connections_and_refused_connections_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let (requests, connections, refused) = (
        folder.path().join("http"),
        folder.path().join("tcp"),
        folder.path().join("nr"),
    );
    let backend = backend::echo().await;
    let mut manager = http(RouteSource::Inline(Arc::new(table(
        "inline",
        vec![host(&["*"], vec![to("b")])],
    ))));
    manager.access_logs = log(&requests, None, REQUESTS);
    let Terminal::Tcp(plain) = tcp("b") else {
        panic!()
    };
    let mut plain = (*plain).clone();
    plain.proxy.access_logs = log(
        &connections,
        None,
        "%RESPONSE_FLAGS% %BYTES_SENT% %UPSTREAM_CLUSTER_RAW% %RESPONSE_CODE%\n",
    );
    let mut closed = listener("closed", tcp("b"));
    let mut never = (*closed.chains[0]).clone();
    never.matches.destination_port = Some(1);
    closed.chains = Arc::from([Arc::new(never)]);
    let only_nr = Some(Filter::ResponseFlag(ResponseFlags::NO_ROUTE_FOUND));
    closed.access_logs = log(
        &refused,
        only_nr,
        "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DOWNSTREAM_LOCAL_ADDRESS%\n",
    );
    let listeners = vec![
        listener("http", Terminal::Http(Arc::new(manager))),
        listener("tcp", Terminal::Tcp(Arc::new(plain))),
        closed,
    ];
    let reporting = reporting(
        named("client"),
        update(listeners, vec![cluster("b", &[backend.address])]),
    )
    .await;

    client::get(reporting.proxy.address("http"), "/a?b=c").await;
    let line = lines(&requests).await.remove(0);
    assert!(
        line.contains("\"GET /a?b=c HTTP/1.1\" 200 - via_upstream - \"-\" 0 "),
        "{line}"
    );
    assert!(
        line.contains(&format!("\"a.test\" \"{}\" b 127.0.0.1:", backend.address))
            && line.ends_with(" - default"),
        "{line}"
    );

    client::get(reporting.proxy.address("tcp"), "/").await;
    let line = lines(&connections).await.remove(0);
    let sent: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(
        sent > 50 && line.starts_with("- ") && line.ends_with(" b 0"),
        "{line}"
    );

    let address: SocketAddr = reporting.proxy.address("closed");
    let _ = TcpStream::connect(address)
        .await
        .unwrap()
        .read(&mut [0])
        .await;
    assert_eq!(
        lines(&refused).await,
        [format!("NR filter_chain_not_found {address}")]
    );
}

fn tracing(provider: Option<TracingProvider>, sampling: f64) -> Tracing {
    let tag = |name: &str, value| CustomTag {
        name: name.into(),
        value,
    };
    Tracing {
        client_sampling: 100.0,
        random_sampling: sampling,
        overall_sampling: 100.0,
        max_path_tag_length: 256,
        custom_tags: Arc::from([
            tag(
                "city",
                CustomTagValue::Environment {
                    name: "CITY".into(),
                    default: "?".into(),
                },
            ),
            tag(
                "user",
                CustomTagValue::RequestHeader {
                    name: http::HeaderName::from_static("end-user"),
                    default: "".into(),
                },
            ),
            tag(
                "code",
                CustomTagValue::Format(Arc::new(
                    Format::parse("%RESPONSE_CODE%", &Environment::default(), false).unwrap(),
                )),
            ),
        ]),
        provider: provider.map(Arc::new),
        spawn_upstream_span: false,
    }
}

fn otlp() -> TracingProvider {
    TracingProvider::OpenTelemetryGrpc {
        cluster: ClusterName::parse("outbound|4317||otel").unwrap(),
        timeout: None,
        service_name: "client.default".into(),
    }
}

async fn traced(tracing: Tracing, direction: TrafficDirection, backend: SocketAddr) -> Reporting {
    let mut decorated = to("b");
    decorated.decorator = Some("b.default.svc.cluster.local:80/*".into());
    let mut manager = http(RouteSource::Inline(Arc::new(table(
        "inline",
        vec![host(&["*"], vec![decorated])],
    ))));
    manager.tracing = Some(Arc::new(tracing));
    let mut entry = listener("in", Terminal::Http(Arc::new(manager)));
    entry.direction = direction;
    reporting(
        named("client"),
        update(vec![entry], vec![cluster("b", &[backend])]),
    )
    .await
}

fn header<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    body.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn request(headers: &[(&'static str, &str)]) -> http::Request<client::Body> {
    let mut request = client::request("GET", "/p");
    headers.iter().for_each(|(name, value)| {
        drop(request.headers_mut().insert(*name, value.parse().unwrap()))
    });
    request
}

#[tokio::test]
async fn a_traced_request_gives_a_span_and_tells_the_upstream() {
    let backend = backend::echo().await;
    let mut reporting = traced(
        tracing(Some(otlp()), 100.0),
        TrafficDirection::Outbound,
        backend.address,
    )
    .await;
    let (_, body) = client::send(
        reporting.proxy.address("in"),
        request(&[("traceparent", PARENT), ("end-user", "jason")]),
    )
    .await;
    let ExportedSpan { span, .. } = reporting.span().await;
    assert_eq!(
        span.context.trace_id_hex().to_string(),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(span.context.parent_id, Some(0xb7ad_6b71_6920_3331));
    let told = format!(
        "00-0af7651916cd43dd8448eb211c80319c-{}-01",
        span.context.span_id_hex()
    );
    assert_eq!(header(&body, "traceparent"), Some(&*told));
    assert_eq!(
        header(&body, "x-envoy-decorator-operation"),
        Some("b.default.svc.cluster.local:80/*")
    );
    assert_eq!(
        header(&body, "x-request-id").map(|id| &id[14..15]),
        Some("9"),
        "sampled"
    );
    assert_eq!(
        (span.kind, &*span.name, &*span.service_name),
        (
            SpanKind::Client,
            "b.default.svc.cluster.local:80/*",
            "client.default"
        )
    );
    for (name, value) in [
        ("city", "Basel"),
        ("user", "jason"),
        ("code", "200"),
        ("http.status_code", "200"),
        ("upstream_cluster", "b"),
    ] {
        assert!(
            span.tags
                .iter()
                .any(|(tag, found)| tag == name && found == value),
            "{name} in {:?}",
            span.tags
        );
    }
}

#[tokio::test]
async fn the_server_s_side_takes_the_operation_from_the_header_and_keeps_it() {
    let backend = backend::echo().await;
    let mut reporting = traced(
        tracing(Some(otlp()), 100.0),
        TrafficDirection::Inbound,
        backend.address,
    )
    .await;
    let (head, body) = client::send(
        reporting.proxy.address("in"),
        request(&[("x-envoy-decorator-operation", "told:80/*")]),
    )
    .await;
    let ExportedSpan { span, .. } = reporting.span().await;
    assert_eq!(
        (span.kind, &*span.name, span.context.parent_id),
        (SpanKind::Server, "told:80/*", None)
    );
    assert_eq!(header(&body, "x-envoy-decorator-operation"), None);
    // The caller named it and keeps its name.
    assert!(!head.headers().contains_key("x-envoy-decorator-operation"));
    let address = reporting.proxy.address("in");
    let (head, _) = client::send(address, request(&[("x-envoy-decorator-operation", "")])).await;
    let ExportedSpan { span, .. } = reporting.span().await;
    assert_eq!(&*span.name, "b.default.svc.cluster.local:80/*");
    assert_eq!(
        head.headers()["x-envoy-decorator-operation"],
        "b.default.svc.cluster.local:80/*"
    );
}

#[tokio::test]
async fn the_caller_s_decision_counts_more_than_chance() {
    let backend = backend::echo().await;
    let unsampled = PARENT.replace("-01", "-00");
    let mut reporting = traced(
        tracing(Some(otlp()), 100.0),
        TrafficDirection::Outbound,
        backend.address,
    )
    .await;
    let (_, body) = client::send(
        reporting.proxy.address("in"),
        request(&[("traceparent", &unsampled)]),
    )
    .await;
    assert!(
        header(&body, "traceparent").is_some_and(|value| value.ends_with("-00")),
        "{body}"
    );
    // The next span is the next request's.
    client::send(
        reporting.proxy.address("in"),
        request(&[("traceparent", PARENT), ("end-user", "second")]),
    )
    .await;
    let ExportedSpan { span, .. } = reporting.span().await;
    assert!(
        span.tags.iter().any(|(_, value)| value == "second"),
        "{span:?}"
    );
}

#[tokio::test]
async fn without_a_collector_headers_pass_untouched() {
    let backend = backend::echo().await;
    let mut reporting = traced(
        tracing(None, 100.0),
        TrafficDirection::Outbound,
        backend.address,
    )
    .await;
    let (_, body) = client::send(
        reporting.proxy.address("in"),
        request(&[("traceparent", PARENT), ("x-b3-sampled", "1")]),
    )
    .await;
    assert_eq!(
        (header(&body, "traceparent"), header(&body, "x-b3-sampled")),
        (Some(PARENT), Some("1"))
    );
    assert!(reporting.spans.try_recv().is_err());
}

#[tokio::test]
async fn zipkin_speaks_b3_and_a_gateway_s_call_is_a_span_of_its_own() {
    let backend = backend::echo().await;
    let zipkin = TracingProvider::Zipkin {
        cluster: ClusterName::parse("zipkin").unwrap(),
        endpoint: "/api/v2/spans".into(),
        hostname: "zipkin".into(),
        trace_id_128bit: true,
        shared_span_context: false,
        w3c_too: false,
    };
    let settings = Tracing {
        spawn_upstream_span: true,
        ..tracing(Some(zipkin), 100.0)
    };
    let mut reporting = traced(settings, TrafficDirection::Outbound, backend.address).await;
    let (_, body) = client::send(
        reporting.proxy.address("in"),
        request(&[("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1")]),
    )
    .await;
    let (server, upstream) = (reporting.span().await.span, reporting.span().await.span);
    assert_eq!(
        (server.kind, upstream.kind, &*upstream.name),
        (SpanKind::Server, SpanKind::Client, "router b egress")
    );
    assert_eq!(upstream.context.parent_id, Some(server.context.span_id));
    assert_eq!(
        header(&body, "x-b3-spanid"),
        Some(&*upstream.context.span_id_hex().to_string())
    );
    assert_eq!(
        (header(&body, "x-b3-sampled"), header(&body, "traceparent")),
        (Some("1"), None)
    );
    assert!(upstream.start >= server.start && upstream.duration <= server.duration);
    let tag = |name: &str| {
        let found = upstream.tags.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(tag("peer.address"), Some(backend.address.to_string()));
    assert_eq!(tag("http.status_code").as_deref(), Some("200"));
    // The client's request is told by the proxy's own span.
    for name in ["node_id", "http.url", "user_agent", "request_size"] {
        assert_eq!(tag(name), None, "{name}");
    }
    let custom = |span: &telemetry::trace::Span| {
        let tags = span
            .tags
            .iter()
            .filter(|(name, _)| name.starts_with("istio.") || name == "tenant");
        tags.cloned().collect::<Vec<_>>()
    };
    assert_eq!(custom(&upstream), custom(&server));
}

#[tokio::test]
async fn listeners_managers_and_clusters_are_counted_under_envoy_s_names() {
    let backend = backend::echo().await;
    let mut manager = http(RouteSource::Inline(Arc::new(table(
        "inline",
        vec![host(&["*"], vec![to("outbound|80||b")])],
    ))));
    manager.stat_prefix = "outbound_0.0.0.0_80;".into();
    let upstream = cluster_with("outbound|80||b", &[backend.address], |c| {
        c.alt_stat_name = Some("outbound|80||b;".into())
    });
    let mut entry = listener("in", Terminal::Http(Arc::new(manager)));
    entry.stat_prefix = Some("0.0.0.0_80".into());
    let proxy = Proxy::with(Live::default(), update(vec![entry], vec![upstream])).await;
    client::get(proxy.address("in"), "/").await;
    proxy.record(0).await;
    proxy::report::gauges::refresh(&proxy.live);
    for (name, value) in [
        ("listener.0.0.0.0_80.downstream_cx_total", 1),
        ("http.outbound_0.0.0.0_80;.downstream_rq_total", 1),
        ("http.outbound_0.0.0.0_80;.downstream_rq_http1_total", 1),
        ("http.outbound_0.0.0.0_80;.downstream_rq_2xx", 1),
        ("http.outbound_0.0.0.0_80;.downstream_rq_active", 0),
        ("cluster.outbound|80||b;.upstream_rq_total", 1),
        ("cluster.outbound|80||b;.upstream_rq_200", 1),
        ("cluster.outbound|80||b;.upstream_cx_total", 1),
        ("cluster.outbound|80||b;.membership_healthy", 1),
        (
            "cluster.outbound|80||b;.circuit_breakers.default.rq_open",
            0,
        ),
        ("cluster_manager.cluster_added", 1),
        ("listener_manager.listener_added", 1),
    ] {
        assert_eq!(proxy.counter(name), value, "{name}");
    }
    until(|| {
        proxy.counter("listener.0.0.0.0_80.downstream_cx_active") == 0
            && proxy.counter("listener.0.0.0.0_80.downstream_cx_destroy") == 1
    })
    .await;
    let prometheus = proxy.live.stats.prometheus();
    assert!(
        prometheus.contains(
            "envoy_cluster_upstream_rq{response_code=\"200\",cluster_name=\"outbound|80||b\"} 1"
        ) || prometheus.contains(
            "envoy_cluster_upstream_rq{cluster_name=\"outbound|80||b\",response_code=\"200\"} 1"
        ),
        "{prometheus}"
    );
}
