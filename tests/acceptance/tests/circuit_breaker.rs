//! Circuit breaking by DestinationRule: too many connections are refused at once, and an endpoint that fails is left alone for a while.

use std::time::Duration;

use acceptance::{CLIENT, Mesh, Proxy, base};
use serde_json::Value;
use testkit::{echo, eventually, service};

/// The rule as users write it.
const LIMITS: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: httpbin
spec:
  host: httpbin
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 1
      http:
        http1MaxPendingRequests: 1
        maxRequestsPerConnection: 1
    outlierDetection:
      consecutive5xxErrors: 2
      interval: 1s
      baseEjectionTime: 30s
      maxEjectionPercent: 100
";
const EJECTION: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pair}
spec:
  host: pair
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, interval: 500ms, baseEjectionTime: 3s, maxEjectionPercent: 100}
";

fn too_many_connections_are_refused(mesh: &Mesh) {
    let url = "http://httpbin:8000/delay/0.05";
    let overflow = || mesh.stat(CLIENT, "httpbin.*upstream_rq_pending_overflow");
    mesh.wait_for_status(CLIENT, url, &[], 200);
    let single = mesh.load(CLIENT, &[url, "-n", "10", "-c", "1"]);
    assert_eq!(
        single["statuses"]["200"], 10,
        "one connection at a time is within the limits: {single}"
    );
    let before = overflow();
    let report = mesh.load(CLIENT, &[url, "-n", "60", "-c", "3"]);
    let refused = report["statuses"]["503"].as_u64().unwrap_or(0);
    assert!(
        refused > 0 && report["statuses"]["200"].as_u64().unwrap_or(0) > 0,
        "{report}"
    );
    assert_eq!(
        refused + report["statuses"]["200"].as_u64().unwrap_or(0),
        60,
        "{report}"
    );
    mesh.wait_for_log(
        CLIENT,
        &[
            "/delay/0.05",
            " 503 UO upstream_reset_before_response_started{overflow} ",
        ],
    );
    eventually(
        "the overflow is counted",
        Duration::from_secs(8),
        || match overflow() - before {
            counted if counted == refused => Ok(()),
            counted => Err((counted, refused)),
        },
    );
}

/// Which pods answered how often.
fn answers(report: &Value) -> Vec<(String, u64)> {
    let pods = report["headers"]["x-echo-hostname"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    pods.into_iter()
        .map(|(pod, count)| (pod, count.as_u64().unwrap_or(0)))
        .collect()
}

fn a_failing_endpoint_is_ejected_and_comes_back(mesh: &Mesh) {
    let load = |count: &str, wish: &str| {
        mesh.load(
            CLIENT,
            &[
                "http://pair:8000/get",
                "-n",
                count,
                "-H",
                wish,
                "-H",
                "x-echo-key: bad",
                "--tally",
                "x-echo-hostname",
            ],
        )
    };
    let wish = "x-echo-fail-first: 2";
    mesh.wait_for_status(CLIENT, "http://pair:8000/get", &[], 200);
    // The second pod uses up its failures beforehand, behind the proxy's back, so that only the first one fails.
    for _ in 0..2 {
        mesh.exec(
            &["deploy/pair-v2"],
            &[
                "curl",
                "-s",
                "-H",
                wish,
                "-H",
                "x-echo-key: bad",
                "http://127.0.0.1:8080/get",
            ],
        )
        .ok();
    }
    let report = load("20", wish);
    assert_eq!(
        report["statuses"]["503"], 2,
        "the failing endpoint is asked twice: {report}"
    );
    eventually(
        "one endpoint is ejected",
        Duration::from_secs(3),
        || match mesh.stat(CLIENT, "pair.*outlier_detection.ejections_active") {
            1 => Ok(()),
            other => Err(other),
        },
    );
    let report = load("50", wish);
    let pods = answers(&report);
    assert!(
        pods.len() == 1 && pods[0].0.starts_with("pair-v2"),
        "only the other one is asked: {report}"
    );
    eventually("the endpoint comes back", Duration::from_secs(10), || {
        let report = load("20", wish);
        assert_eq!(report["statuses"]["200"], 20, "{report}");
        if answers(&report).len() == 2 {
            Ok(())
        } else {
            Err(report)
        }
    });
}

fn circuit_breaker(proxy: Proxy, limits: &str) {
    let mut yaml =
        base() + &echo("httpbin").yaml() + &service("default", "httpbin", &[("app", "httpbin")]);
    yaml += &(echo("pair").yaml()
        + &echo("pair").version("v2").yaml()
        + &service("default", "pair", &[("app", "pair")]));
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .file("limits.yaml", limits)
        .file("ejection.yaml", EJECTION)
        .start();
    too_many_connections_are_refused(&mesh);
    a_failing_endpoint_is_ejected_and_comes_back(&mesh);
    mesh.assert_no_nack();
}

#[test]
fn with_our_proxy() {
    circuit_breaker(Proxy::Tanbark, LIMITS);
}

#[test]
fn with_envoy() {
    circuit_breaker(Proxy::Envoy, LIMITS);
}
