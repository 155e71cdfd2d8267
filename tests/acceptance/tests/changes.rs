//! What changes while traffic flows: unrelated configuration breaks no open connection, a rolling restart loses no request.

use std::{fmt::Write as _, time::Duration};

use acceptance::{CLIENT, Mesh, Proxy, base};
use testkit::{echo, echo_program, eventually};

const CHANGES: usize = 100;

/// A Service, a rule for it and a policy that have nothing to do with the connections.
fn unrelated(number: usize) -> String {
    let mut yaml = String::new();
    let weight = number % 100;
    let _ = write!(
        yaml,
        "apiVersion: v1\nkind: Service\nmetadata: {{name: unrelated-{number}}}\nspec:\n  selector: {{app: nobody}}\n  ports: [{{name: http, port: {port}}}]\n---\n",
        port = 20_000 + number
    );
    let _ = write!(
        yaml,
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: unrelated-{number}}}\nspec:\n  hosts: [unrelated-{number}]\n  http:\n  - route:\n    \
         - {{destination: {{host: unrelated-{number}}}, weight: {weight}}}\n    - {{destination: {{host: echo, port: {{number: 8000}}}}, weight: {}}}\n",
        100 - weight
    );
    yaml
}

fn changes_break_nothing(proxy: Proxy) {
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &(base() + &echo("echo").with_service()))
        .start();
    mesh.wait_for_status(CLIENT, "http://echo:8000/get", &[], 200);
    let program = echo_program();
    // Until told to stop, so that slow machines make all changes while the connections are open.
    let mut sockets = mesh.start_in(
        CLIENT,
        &[
            &program,
            "ws-hold",
            "ws://echo:8000/websocket/echo",
            "-n",
            "50",
            "-z",
            "25s",
        ],
    );
    let mut streams = mesh.start_in(
        CLIENT,
        &[
            &program,
            "grpc-hold",
            "http://echo:9090",
            "-n",
            "50",
            "-z",
            "25s",
        ],
    );
    eventually(
        "all connections are open",
        Duration::from_secs(15),
        || match mesh.counters(&["deploy/echo-v1"])["paths"].clone() {
            paths
                if paths["/websocket/echo"] == 50
                    && paths["/tanbark.echo.v1.Echo/Bidirectional"] == 50 =>
            {
                Ok(())
            }
            paths => Err(paths),
        },
    );
    for number in 0..CHANGES {
        mesh.write("unrelated.yaml", &unrelated(number));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    // The last change has arrived before the connections end.
    let port = 20_000 + CHANGES - 1;
    mesh.wait_for_status(
        CLIENT,
        &format!("http://unrelated-{}:{port}/get", CHANGES - 1),
        &["--retry", "0"],
        503,
    );
    assert!(
        sockets.runs() && streams.runs(),
        "the changes took longer than the connections were held"
    );
    for held in [sockets, streams] {
        let report = held.report(Duration::from_secs(40));
        assert_eq!(
            (&report["opened"], &report["held"], &report["breaks"]),
            (&50.into(), &50.into(), &serde_json::json!([])),
            "{report}"
        );
    }
    mesh.assert_no_nack();
}

#[test]
fn changes_break_nothing_with_our_proxy() {
    changes_break_nothing(Proxy::Tanbark);
}

#[test]
fn changes_break_nothing_with_envoy() {
    changes_break_nothing(Proxy::Envoy);
}

fn a_rolling_restart_loses_nothing(proxy: Proxy) {
    let server = echo("server")
        .replicas(3)
        .environment("TANBARK_ECHO_LINGER", "3");
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &(base() + &server.with_service()))
        .start();
    mesh.wait_for_status(CLIENT, "http://server:8000/get", &[], 200);
    let program = echo_program();
    let load = mesh.start_in(
        CLIENT,
        &[
            &program,
            "load",
            "http://server:8000/get",
            "-z",
            "25s",
            "-q",
            "200",
            "-c",
            "8",
            "--tally",
            "x-echo-hostname",
            "--expect",
            "200",
        ],
    );
    mesh.tanbark(&["rollout", "restart", "deploy/server-v1"])
        .ok();
    mesh.tanbark(&["rollout", "status", "deploy/server-v1", "--timeout", "40s"])
        .ok();
    let report = load.report(Duration::from_secs(60));
    assert!(report["requests"].as_u64() > Some(4_000), "{report}");
    assert_eq!(
        (&report["statuses"]["200"], &report["errors"]),
        (&report["requests"], &serde_json::json!({})),
        "{report}"
    );
    let pods = report["headers"]["x-echo-hostname"]
        .as_object()
        .map_or(0, serde_json::Map::len);
    assert!(pods >= 4, "old and new pods answered: {report}");
    mesh.assert_no_nack();
}

#[test]
fn a_rolling_restart_loses_nothing_with_our_proxy() {
    a_rolling_restart_loses_nothing(Proxy::Tanbark);
}

#[test]
fn a_rolling_restart_loses_nothing_with_envoy() {
    a_rolling_restart_loses_nothing(Proxy::Envoy);
}
