//! Routing by VirtualService: weights, header match, timeout, retries, rewrite, redirect, mirror and CORS, seen at both ends.
//!
//! One mesh per proxy; each rule has a Service of its own over the same echoes, so that they do not disturb each other.

use std::time::Duration;

use acceptance::{CLIENT, Mesh, Proxy, assert_share, base};
use serde_json::Value;
use testkit::{echo, eventually, service};

const RULES: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: weights}
spec:
  host: weights
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: weights}
spec:
  hosts: [weights]
  http:
  - match:
    - headers: {end-user: {exact: jason}}
    route:
    - destination: {host: weights, subset: v3}
  - route:
    - {destination: {host: weights, subset: v1}, weight: 80}
    - {destination: {host: weights, subset: v2}, weight: 10}
    - {destination: {host: weights, subset: v3}, weight: 10}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: timeout}
spec:
  hosts: [timeout]
  http:
  - timeout: 1s
    route:
    - destination: {host: timeout}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: retried}
spec:
  hosts: [retried]
  http:
  - retries: {attempts: 3, retryOn: "503"}
    route:
    - destination: {host: retried}
---
# A refused connection leaves its endpoint idle, so least request would draw it again and again while the other one is busy; in turn, a retry is at the other.
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: half}
spec:
  host: half
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rewritten}
spec:
  hosts: [rewritten]
  http:
  - match:
    - uri: {prefix: /old}
    rewrite: {uri: /anything/new, authority: other.example}
    route:
    - destination: {host: rewritten}
      headers:
        request: {set: {x-added: "yes"}, remove: [x-unwanted]}
        response: {add: {x-answered: "by-rule"}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: redirected}
spec:
  hosts: [redirected]
  http:
  - match:
    - uri: {prefix: /old}
    redirect: {uri: /new, authority: other.example, port: 443, scheme: https, redirectCode: 308}
  - route:
    - destination: {host: redirected}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mirrored}
spec:
  hosts: [mirrored]
  http:
  - route:
    - destination: {host: mirrored, port: {number: 8000}}
    mirror: {host: shadow, port: {number: 8000}}
    mirrorPercentage: {value: 100}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cors}
spec:
  hosts: [cors]
  http:
  - match:
    - uri: {prefix: /local}
    corsPolicy:
      allowOrigins: [{exact: "https://good.example"}]
      unmatchedPreflights: IGNORE
    route:
    - destination: {host: cors}
  - corsPolicy:
      allowOrigins: [{exact: "https://good.example"}]
      allowMethods: [GET, PUT]
      allowHeaders: [x-a]
      exposeHeaders: [x-b]
      maxAge: 60s
      allowCredentials: true
    route:
    - destination: {host: cors}
"#;

fn mesh(proxy: Proxy) -> Mesh {
    let mut yaml = base();
    for version in ["v1", "v2", "v3"] {
        yaml += &echo("echo").version(version).yaml();
    }
    yaml += &echo("shadow").with_service();
    for name in [
        "weights",
        "timeout",
        "retried",
        "failing",
        "rewritten",
        "redirected",
        "mirrored",
        "cors",
    ] {
        yaml += &service("default", name, &[("app", "echo")]);
    }
    // Two endpoints of which one refuses connections, by itself and not by a proxy before it.
    yaml += &echo("answers")
        .label("pool", "half")
        .without_sidecar()
        .yaml();
    yaml += &echo("refuses")
        .label("pool", "half")
        .without_sidecar()
        .shell("trap exit TERM; while true; do sleep 1; done")
        .yaml();
    yaml += &service("default", "half", &[("pool", "half")]);
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .file("rules.yaml", RULES)
        .start();
    for host in ["weights", "timeout", "retried", "failing", "half"] {
        mesh.wait_for_status(CLIENT, &format!("http://{host}:8000/get"), &[], 200);
    }
    mesh
}

/// Requests for `path` that any of the echoes got.
fn hits(mesh: &Mesh, path: &str) -> u64 {
    ["v1", "v2", "v3"]
        .iter()
        .map(|version| {
            mesh.counters(&[&format!("deploy/echo-{version}")])["paths"][path]
                .as_u64()
                .unwrap_or(0)
        })
        .sum()
}

fn count(report: &Value, header: &str, value: &str) -> u64 {
    report["headers"][header][value].as_u64().unwrap_or(0)
}

fn header(body: &str, name: &str) -> Option<String> {
    let prefix = format!("{name}:");
    body.lines()
        .find(|line| line.to_ascii_lowercase().starts_with(&prefix))
        .map(|line| line[prefix.len()..].trim().to_owned())
}

fn weights_and_header_match(mesh: &Mesh) {
    const DRAWS: u64 = 20_000;
    let report = mesh.load(
        CLIENT,
        &[
            "http://weights:8000/get",
            "-n",
            &DRAWS.to_string(),
            "-c",
            "8",
            "--tally",
            "x-echo-version",
            "--expect",
            "200",
        ],
    );
    assert_eq!(report["statuses"]["200"], DRAWS, "{report}");
    for (version, share) in [("v1", 80.0), ("v2", 10.0), ("v3", 10.0)] {
        let came = count(&report, "x-echo-version", version);
        assert_share(version, came, DRAWS, share);
    }
    let report = mesh.load(
        CLIENT,
        &[
            "http://weights:8000/get",
            "-n",
            "50",
            "-H",
            "end-user: jason",
            "--tally",
            "x-echo-version",
        ],
    );
    assert_eq!(count(&report, "x-echo-version", "v3"), 50, "{report}");
}

fn a_timeout_answers_504(mesh: &Mesh) {
    let answer = mesh.request(
        CLIENT,
        "http://timeout:8000/timed",
        &["-H", "x-echo-delay: 5s"],
    );
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (504, "upstream request timeout")
    );
    // A timer may fire by a rounded millisecond early.
    assert!((0.95..1.5).contains(&answer.time), "{answer:?}");
    let line = mesh.wait_for_log(CLIENT, &["/timed", " 504 "]);
    assert!(line.contains(" 504 UT response_timeout "), "{line}");
}

fn retries_are_counted_at_the_upstream(mesh: &Mesh) {
    let refused = mesh.load(
        CLIENT,
        &[
            "http://half:8000/get",
            "-n",
            "100",
            "-c",
            "2",
            "--fresh-connections",
            "--expect",
            "200",
        ],
    );
    assert_eq!(refused["statuses"]["200"], 100, "{refused}");
    // Without a rule, an answer of 503 is an answer.
    let answer = mesh.request(CLIENT, "http://failing:8000/status/503?plain", &[]);
    assert_eq!((answer.status, hits(mesh, "/status/503")), (503, 1));
    let answer = mesh.request(
        CLIENT,
        "http://retried:8000/anything/retried",
        &["-H", "x-echo-status: 503"],
    );
    assert_eq!((answer.status, hits(mesh, "/anything/retried")), (503, 4));
    let line = mesh.wait_for_log(CLIENT, &["/anything/retried"]);
    assert!(line.contains(" 503 URX "), "{line}");
    // The third attempt is answered; the key is counted in each echo, so the first three may fail at three different ones.
    let answer = mesh.request(
        CLIENT,
        "http://retried:8000/anything/twice",
        &["-H", "x-echo-fail-first: 1"],
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(hits(mesh, "/anything/twice") >= 2);
}

fn paths_and_headers_are_rewritten(mesh: &Mesh) {
    let answer = mesh.request(
        CLIENT,
        "http://rewritten:8000/old/page?q=1",
        &["-i", "-H", "x-unwanted: 1"],
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer
            .body
            .contains("http://other.example/anything/new/page?q=1"),
        "{}",
        answer.body
    );
    let lower = answer.body.to_ascii_lowercase();
    assert!(
        lower.contains("x-added") && !lower.contains("x-unwanted"),
        "{}",
        answer.body
    );
    assert_eq!(
        header(&answer.body, "x-answered").as_deref(),
        Some("by-rule")
    );
    assert_eq!(
        mesh.request(CLIENT, "http://rewritten:8000/other", &[])
            .status,
        404
    );
    mesh.wait_for_log(CLIENT, &["/other", " 404 NR route_not_found "]);
}

fn a_redirect_names_the_new_place(mesh: &Mesh) {
    let answer = mesh.request(CLIENT, "http://redirected:8000/old/page", &["-i"]);
    assert_eq!(answer.status, 308);
    assert_eq!(
        header(&answer.body, "location").as_deref(),
        Some("https://other.example/new")
    );
    assert_eq!(
        mesh.request(CLIENT, "http://redirected:8000/get", &[])
            .status,
        200
    );
}

fn mirrored_requests_reach_both(mesh: &Mesh) {
    let report = mesh.load(
        CLIENT,
        &[
            "http://mirrored:8000/anything/mirrored",
            "-n",
            "200",
            "-c",
            "2",
            "--expect",
            "200",
        ],
    );
    assert_eq!(report["statuses"]["200"], 200, "{report}");
    assert_eq!(hits(mesh, "/anything/mirrored"), 200);
    eventually(
        "the shadow gets all of them",
        Duration::from_secs(10),
        || match mesh.counters(&["deploy/shadow-v1"])["paths"]["/anything/mirrored"].as_u64() {
            Some(200) => Ok(()),
            other => Err(other),
        },
    );
}

fn cors_is_answered_for_known_origins(mesh: &Mesh) {
    let preflight = |path: &str, origin: &str| {
        let (origin, url) = (
            format!("origin: {origin}"),
            format!("http://cors:8000{path}"),
        );
        mesh.request(
            CLIENT,
            &url,
            &[
                "-i",
                "-X",
                "OPTIONS",
                "-H",
                &origin,
                "-H",
                "access-control-request-method: PUT",
            ],
        )
    };
    let good = preflight("/anything/cors", "https://good.example");
    assert_eq!(
        (good.status, hits(mesh, "/anything/cors")),
        (200, 0),
        "a preflight of a known origin is answered by the proxy: {good:?}"
    );
    for (name, value) in [
        ("access-control-allow-origin", "https://good.example"),
        ("access-control-allow-methods", "GET,PUT"),
        ("access-control-allow-headers", "x-a"),
        ("access-control-max-age", "60"),
        ("access-control-allow-credentials", "true"),
    ] {
        assert_eq!(
            header(&good.body, name).as_deref(),
            Some(value),
            "{}",
            good.body
        );
    }
    let other = preflight("/anything/cors", "https://bad.example");
    assert_eq!(
        hits(mesh, "/anything/cors"),
        1,
        "a preflight of another origin is forwarded: {other:?}"
    );
    assert_eq!(header(&other.body, "access-control-allow-origin"), None);
    let ignored = preflight("/local/x", "https://bad.example");
    assert_eq!(hits(mesh, "/local/x"), 0, "{ignored:?}");
    let simple = mesh.request(
        CLIENT,
        "http://cors:8000/anything/simple",
        &["-i", "-H", "origin: https://good.example"],
    );
    assert_eq!(
        header(&simple.body, "access-control-allow-origin").as_deref(),
        Some("https://good.example")
    );
    assert_eq!(
        header(&simple.body, "access-control-expose-headers").as_deref(),
        Some("x-b")
    );
}

fn routing(proxy: Proxy) {
    let mesh = mesh(proxy);
    a_timeout_answers_504(&mesh);
    retries_are_counted_at_the_upstream(&mesh);
    paths_and_headers_are_rewritten(&mesh);
    a_redirect_names_the_new_place(&mesh);
    mirrored_requests_reach_both(&mesh);
    cors_is_answered_for_known_origins(&mesh);
    weights_and_header_match(&mesh);
    mesh.assert_no_nack();
}

#[test]
fn with_our_proxy() {
    routing(Proxy::Tanbark);
}

#[test]
fn with_envoy() {
    routing(Proxy::Envoy);
}
