//! One request through bookinfo is one trace: a client's and a server's span for each hop, told to a Zipkin collector in the mesh.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use acceptance::{Mesh, Proxy};
use serde_json::Value;
use testkit::{echo, eventually, service};

const MESH: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    enableTracing: true
    extensionProviders:
    - name: collector
      zipkin: {service: collector.default.svc.cluster.local, port: 8000}
";
const EVERYTHING_IS_TRACED: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: everything, namespace: istio-system}
spec:
  tracing:
  - providers: [{name: collector}]
    randomSamplingPercentage: 100
";
const ALL_TO_V3: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v3}
";
/// Keeps the spans that it is told and gives them back as one list.
const COLLECTOR: &str = r#"exec python3 -u -c '
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
spans = []
class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def body(self):
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body
    def do_POST(self):
        spans.extend(json.loads(self.body()))
        self.answer(202, b"")
    def do_GET(self):
        self.answer(200, json.dumps(spans).encode())
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("", 8080), Collector).serve_forever()
'"#;

fn text<'a>(span: &'a Value, path: &str) -> &'a str {
    span.pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The service that a span is about, without its namespace.
fn service_of(span: &Value) -> &str {
    let name = text(span, "/localEndpoint/serviceName");
    name.split('.').next().unwrap_or_default()
}

/// The spans of the trace that `request_id` belongs to.
fn trace_of(mesh: &Mesh, request_id: &str) -> Vec<Value> {
    let told = mesh.request(&["deploy/collector-v1"], "http://127.0.0.1:8080/", &[]);
    let spans: Vec<Value> = serde_json::from_str(&told.body).unwrap_or_default();
    let is_ours = |span: &&Value| text(span, "/tags/guid:x-request-id") == request_id;
    let traces: BTreeSet<String> = spans
        .iter()
        .filter(is_ours)
        .map(|span| text(span, "/traceId").to_owned())
        .collect();
    spans
        .into_iter()
        .filter(|span| traces.contains(text(span, "/traceId")))
        .collect()
}

/// Service, kind and operation of each span.
fn shapes(trace: &[Value]) -> BTreeSet<(String, String, String)> {
    let shape = |span: &Value| {
        let (kind, name) = (text(span, "/kind"), text(span, "/name"));
        (
            service_of(span).to_owned(),
            kind.to_owned(),
            name.to_owned(),
        )
    };
    trace.iter().map(shape).collect()
}

fn one_request_is_one_trace(proxy: Proxy) {
    let collector = echo("collector").without_sidecar().shell(COLLECTOR).yaml()
        + &service("default", "collector", &[("app", "collector")]);
    let mesh = Mesh::builder()
        .proxy(proxy)
        .sample("demo")
        .file("demo/mesh.yaml", MESH)
        .file("telemetry.yaml", EVERYTHING_IS_TRACED)
        .file("reviews.yaml", ALL_TO_V3)
        .file("collector.yaml", &collector)
        .start();
    let url = format!(
        "http://{}/productpage",
        mesh.published("istio-system", "istio-ingressgateway", 80)
    );
    let page = "productpage.default.svc.cluster.local:9080/productpage";
    let call = "router outbound|9080||productpage.default.svc.cluster.local; egress";
    let mut wanted = BTreeSet::from(
        [
            ("istio-ingressgateway", "SERVER", page),
            ("istio-ingressgateway", "CLIENT", call),
            ("productpage", "SERVER", page),
        ]
        .map(|(at, kind, operation)| (at.to_owned(), kind.to_owned(), operation.to_owned())),
    );
    wanted.extend(
        [
            ("productpage", "CLIENT", "details"),
            ("details", "SERVER", "details"),
            ("productpage", "CLIENT", "reviews"),
            ("reviews", "SERVER", "reviews"),
            ("reviews", "CLIENT", "ratings"),
            ("ratings", "SERVER", "ratings"),
        ]
        .map(|(at, kind, to)| {
            let operation = format!("{to}.default.svc.cluster.local:9080/*");
            (at.to_owned(), kind.to_owned(), operation)
        }),
    );
    // The first requests may find proxies that do not know the collector yet.
    let trace = eventually("one whole trace", Duration::from_secs(40), || {
        let answer = mesh.request_from_outside(&url, &[]);
        if answer.status != 200 {
            return Err(format!("{answer:?}"));
        }
        eventually_whole(&mesh, &wanted)
    });
    hops_belong_together(&trace);
    tags_are_istios(&trace);
}

/// The newest trace, once all of its spans have been told; proxies tell them within a second or so (Envoy: five).
fn eventually_whole(
    mesh: &Mesh,
    wanted: &BTreeSet<(String, String, String)>,
) -> Result<Vec<Value>, String> {
    let deadline = Instant::now() + Duration::from_secs(8);
    loop {
        let trace = newest_trace(mesh);
        let shapes = shapes(&trace);
        if wanted.is_subset(&shapes) {
            return Ok(trace);
        }
        if Instant::now() > deadline {
            let told = mesh.request(&["deploy/collector-v1"], "http://127.0.0.1:8080/", &[]);
            let spans: Vec<Value> = serde_json::from_str(&told.body).unwrap_or_default();
            let services: BTreeSet<&str> = spans.iter().map(service_of).collect();
            return Err(format!("{shapes:#?} of spans from {services:?}"));
        }
    }
}

/// The trace of the gateway's newest span.
fn newest_trace(mesh: &Mesh) -> Vec<Value> {
    let told = mesh.request(&["deploy/collector-v1"], "http://127.0.0.1:8080/", &[]);
    let spans: Vec<Value> = serde_json::from_str(&told.body).unwrap_or_default();
    let of_gateway = spans
        .iter()
        .filter(|span| service_of(span) == "istio-ingressgateway");
    let newest = of_gateway.max_by_key(|span| span["timestamp"].as_u64());
    newest.map_or_else(Vec::new, |span| {
        trace_of(mesh, text(span, "/tags/guid:x-request-id"))
    })
}

/// Each server's span is the child of the client's span of the same hop, or shares its id, and has the same operation.
fn hops_belong_together(trace: &[Value]) {
    let clients = || trace.iter().filter(|span| text(span, "/kind") == "CLIENT");
    let is_called = |span: &&Value| {
        text(span, "/kind") == "SERVER" && service_of(span) != "istio-ingressgateway"
    };
    for server in trace.iter().filter(is_called) {
        let parent = clients().find(|client| {
            let id = text(client, "/id");
            id == text(server, "/parentId") || id == text(server, "/id")
        });
        let parent = parent.unwrap_or_else(|| panic!("no client's span for {server:#}"));
        // A gateway's call to a host has a name of its own.
        if !text(parent, "/name").starts_with("router ") {
            assert_eq!(text(parent, "/name"), text(server, "/name"), "{trace:#?}");
        }
        assert_eq!(text(parent, "/traceId").len(), 32, "128-bit ids");
    }
    assert!(
        trace.iter().any(|span| span.get("parentId").is_none()),
        "a root: {trace:#?}"
    );
}

fn tags_are_istios(trace: &[Value]) {
    const ALL: [&str; 11] = [
        "component",
        "http.protocol",
        "http.status_code",
        "upstream_cluster",
        "upstream_cluster.name",
        "peer.address",
        "response_flags",
        "istio.canonical_service",
        "istio.canonical_revision",
        "istio.mesh_id",
        "istio.namespace",
    ];
    /// Not those of a gateway's call to a host.
    const OWN: [&str; 8] = [
        "node_id",
        "guid:x-request-id",
        "http.method",
        "http.url",
        "request_size",
        "response_size",
        "user_agent",
        "downstream_cluster",
    ];
    for span in trace {
        let tag = |name: &str| span["tags"][name].as_str().unwrap_or_default().to_owned();
        let is_own = !text(span, "/name").starts_with("router ");
        for (names, expected) in [(&ALL[..], true), (&OWN, is_own)] {
            for name in names {
                assert_eq!(!tag(name).is_empty(), expected, "{name} in {span:#}");
            }
        }
        assert_eq!(
            (
                tag("component"),
                tag("http.status_code"),
                tag("response_flags")
            ),
            ("proxy".into(), "200".into(), "-".into()),
            "{span:#}"
        );
        assert_eq!(tag("istio.canonical_service"), service_of(span), "{span:#}");
    }
}

#[test]
fn one_request_is_one_trace_with_our_proxy() {
    one_request_is_one_trace(Proxy::Tanbark);
}

#[test]
fn one_request_is_one_trace_with_envoy() {
    one_request_is_one_trace(Proxy::Envoy);
}
