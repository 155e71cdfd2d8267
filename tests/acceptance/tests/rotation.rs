//! Under load: a new certificate every few seconds, and a control plane that is away for a while. No request may notice.
//!
//! `TANBARK_TEST_SECONDS` makes the load longer; the three minutes and one minute of the project's promise are run by `bench/`.

use std::{collections::BTreeSet, time::Duration};

use acceptance::{CLIENT, Mesh, Proxy, mesh_settings_and_namespace};
use serde_json::Value;
use testkit::{echo, echo_program, eventually, holds_for};

const URL: &str = "http://server:8000/get";
const SHORT_LIFE: (&str, &str) = ("proxy.istio.io/config", "proxyMetadata: {SECRET_TTL: 12s}");
const ISTIOD: &[&str] = &["-n", "istio-system", "deploy/istiod"];

fn seconds(usual: u64) -> Duration {
    let longer = std::env::var("TANBARK_TEST_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(longer.unwrap_or(usual))
}

/// 100 requests a second over eight connections, half of them made anew for each request so that they need a handshake.
struct Load(Vec<testkit::Background>);

impl Load {
    fn start(mesh: &Mesh, time: Duration) -> Self {
        let (program, time) = (echo_program(), format!("{}s", time.as_secs()));
        let load = |more: &[&str]| {
            mesh.start_in(
                CLIENT,
                &[
                    &[
                        &program, "load", URL, "-z", &time, "-q", "50", "-c", "4", "--expect",
                        "200",
                    ],
                    more,
                ]
                .concat(),
            )
        };
        Self(vec![load(&[]), load(&["--fresh-connections"])])
    }

    #[track_caller]
    fn no_request_failed(self, limit: Duration) {
        for load in self.0 {
            let report = load.report(limit);
            assert!(report["requests"].as_u64() > Some(100), "{report}");
            assert_eq!(
                (&report["statuses"]["200"], &report["errors"]),
                (&report["requests"], &serde_json::json!({})),
                "{report}"
            );
        }
    }
}

/// The serial number of the certificate that the pod's proxy shows now.
fn serial(mesh: &Mesh, target: &[&str]) -> Option<String> {
    let text = mesh
        .exec(target, &["curl", "-s", "http://127.0.0.1:15000/certs"])
        .stdout;
    let certs: Value = serde_json::from_str(&text).ok()?;
    let chains = certs["certificates"]
        .as_array()?
        .iter()
        .filter_map(|entry| entry["cert_chain"].as_array())
        .flatten();
    chains
        .filter_map(|certificate| certificate["serial_number"].as_str())
        .map(str::to_owned)
        .next()
}

fn certificates_change_under_load(proxy: Proxy) {
    let client = echo("client").annotation(SHORT_LIFE.0, SHORT_LIFE.1).yaml();
    let server = echo("server")
        .annotation(SHORT_LIFE.0, SHORT_LIFE.1)
        .with_service();
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file(
            "mesh.yaml",
            &(mesh_settings_and_namespace() + &client + &server),
        )
        .start();
    mesh.wait_for_status(CLIENT, URL, &[], 200);
    let time = seconds(30);
    let load = Load::start(&mesh, time);
    let mut serials = BTreeSet::new();
    holds_for("the load goes on", time, || {
        serials.extend(serial(&mesh, &["deploy/server-v1"]));
        Ok::<(), ()>(())
    });
    load.no_request_failed(Duration::from_secs(30));
    assert!(
        serials.len() as u64 >= time.as_secs() / 10,
        "too few certificates in {time:?}: {serials:?}"
    );
    mesh.assert_no_nack();
}

#[test]
fn certificates_change_under_load_with_our_proxy() {
    certificates_change_under_load(Proxy::Tanbark);
}

#[test]
fn certificates_change_under_load_with_envoy() {
    certificates_change_under_load(Proxy::Envoy);
}

const ABORT: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other}
spec:
  hosts: [other]
  http:
  - fault: {abort: {percentage: {value: 100}, httpStatus: 418}}
    route:
    - destination: {host: other, port: {number: 8000}}
";

fn the_control_plane_is_away(proxy: Proxy) {
    let yaml = acceptance::base() + &echo("server").with_service() + &echo("other").with_service();
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .start();
    mesh.wait_for_status(CLIENT, URL, &[], 200);
    mesh.wait_for_status(CLIENT, "http://other:8000/get", &[], 200);
    let away = seconds(10);
    let load = Load::start(&mesh, away + Duration::from_secs(10));
    mesh.tanbark(&[
        "scale",
        "-n",
        "istio-system",
        "deploy/istiod",
        "--replicas",
        "0",
    ])
    .ok();
    eventually("the control plane is gone", Duration::from_secs(10), || {
        let run = mesh.exec(ISTIOD, &["true"]);
        if run.code == 0 { Err(run) } else { Ok(()) }
    });
    mesh.write("other.yaml", ABORT);
    holds_for("the last configuration stays", away, || {
        match mesh.request(CLIENT, "http://other:8000/get", &[]) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer),
        }
    });
    mesh.tanbark(&[
        "scale",
        "-n",
        "istio-system",
        "deploy/istiod",
        "--replicas",
        "1",
    ])
    .ok();
    mesh.wait_for_status(CLIENT, "http://other:8000/get", &[], 418);
    load.no_request_failed(Duration::from_secs(60));
    mesh.assert_no_nack();
}

#[test]
fn the_control_plane_is_away_with_our_proxy() {
    the_control_plane_is_away(Proxy::Tanbark);
}

#[test]
fn the_control_plane_is_away_with_envoy() {
    the_control_plane_is_away(Proxy::Envoy);
}
