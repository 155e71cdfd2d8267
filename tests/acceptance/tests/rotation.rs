//! Under load: a new certificate every minute for three minutes, and a control plane that is killed and away for one. No request may notice.
//!
//! The load is light and the tests are long, so both proxies' meshes run at the same time. `TANBARK_TEST_SECONDS` is another length of the
//! load; certificates then change three times in it.

use std::{collections::BTreeSet, time::Duration};

use acceptance::{CLIENT, Mesh, Proxy, mesh_settings_and_namespace};
use serde_json::Value;
use testkit::{echo, echo_program, eventually, holds_for};

const URL: &str = "http://server:8000/get";
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

/// Runs a scenario with our proxy and with a stock Envoy, side by side.
fn with_both_proxies(scenario: fn(Proxy)) {
    let envoy = std::thread::Builder::new()
        .name("with Envoy".into())
        .spawn(move || scenario(Proxy::Envoy))
        .expect("a thread");
    scenario(Proxy::Tanbark);
    if let Err(failure) = envoy.join() {
        std::panic::resume_unwind(failure);
    }
}

fn new_certificates(proxy: Proxy) {
    let time = seconds(180);
    // A certificate is renewed at half of its life.
    let life = format!("proxyMetadata: {{SECRET_TTL: {}s}}", time.as_secs() * 2 / 3);
    let short_lived = |name| echo(name).annotation("proxy.istio.io/config", &life);
    let yaml = mesh_settings_and_namespace()
        + &short_lived("client").yaml()
        + &short_lived("server").with_service();
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .start();
    mesh.wait_for_status(CLIENT, URL, &[], 200);
    let load = Load::start(&mesh, time);
    let mut serials = BTreeSet::new();
    holds_for("the load goes on", time, || {
        serials.extend(serial(&mesh, &["deploy/server-v1"]));
        Ok::<(), ()>(())
    });
    load.no_request_failed(Duration::from_secs(30));
    assert!(
        serials.len() >= 3,
        "too few certificates in {time:?}: {serials:?}"
    );
    mesh.assert_no_nack();
}

#[test]
fn certificates_change_under_load() {
    with_both_proxies(new_certificates);
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

/// Kills the control plane's process, and waits until the runtime has started it again.
fn die_without_farewell(mesh: &Mesh) {
    // The first process of a container only waits for the program, its child.
    mesh.exec(ISTIOD, &["/bin/sh", "-c", "kill -KILL 2"]);
    eventually("the control plane is back", Duration::from_secs(20), || {
        let pods = mesh.objects("pods");
        let istiod = pods
            .iter()
            .filter(|pod| pod["metadata"]["namespace"] == "istio-system")
            .map(|pod| pod["status"]["containerStatuses"][0].clone())
            .find(|status| status["restartCount"] == 1 && status["ready"] == true);
        istiod.map(|_| ()).ok_or(pods)
    });
}

fn the_control_plane_is_away(proxy: Proxy) {
    let yaml = acceptance::base() + &echo("server").with_service() + &echo("other").with_service();
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .start();
    mesh.wait_for_status(CLIENT, URL, &[], 200);
    mesh.wait_for_status(CLIENT, "http://other:8000/get", &[], 200);
    let away = seconds(60);
    let load = Load::start(&mesh, away + Duration::from_secs(10));
    die_without_farewell(&mesh);
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
fn the_control_plane_is_killed_under_load() {
    with_both_proxies(the_control_plane_is_away);
}
