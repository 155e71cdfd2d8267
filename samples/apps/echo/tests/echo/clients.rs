//! The load, WebSocket and gRPC clients against the server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::server::{Server, program};

/// Runs a client to its end: exit code and the last line it printed.
async fn run(arguments: Vec<String>) -> (i32, Value) {
    let output = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        program(&arguments).output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text
        .lines()
        .last()
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (
        output.status.code().unwrap(),
        serde_json::from_str(last).unwrap(),
    )
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn load_counts_statuses_and_tallies() {
    let server = Server::start_with(&["serve", "--http", "0"], &[("SERVICE_VERSION", "v3")]);
    let url = format!("http://{}", server.at("http"));
    let (code, report) = run(words(&format!(
        "load {url}/hello -n 200 -c 5 --tally x-echo-version --tally-body v3 --expect 200"
    )))
    .await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        (report["requests"].clone(), report["statuses"].clone()),
        (json!(200), json!({"200": 200}))
    );
    assert_eq!(
        (
            report["headers"]["x-echo-version"].clone(),
            report["bodies"]["v3"].clone()
        ),
        (json!({"v3": 200}), json!(200))
    );
    assert_eq!(report["connections"], 5);
    assert!(report["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    assert_eq!(server.get("/counters").await.json()["paths"]["/hello"], 200);

    let (code, report) = run(words(&format!(
        "load {url}/status/418 -n 3 --fresh-connections --expect 200"
    )))
    .await;
    assert_eq!(
        (
            code,
            report["statuses"].clone(),
            report["connections"].clone()
        ),
        (1, json!({"418": 3}), json!(3))
    );
    assert_eq!(report["failed_bodies"], json!({"I'm a teapot!": 3}));
}

#[tokio::test]
async fn load_keeps_rate_and_duration() {
    let server = Server::start(&["serve", "--http", "0"]);
    let url = format!("http://{}/get", server.at("http"));
    let (_, report) = run(words(&format!("load {url} -q 100 -z 500ms -c 4"))).await;
    let requests = report["requests"].as_u64().unwrap();
    assert!((30..=54).contains(&requests), "{report}");
}

#[tokio::test]
async fn load_reports_errors_by_their_words() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (code, report) = run(words(&format!("load http://{nobody}/ -n 2 --expect 200"))).await;
    assert_eq!((code, report["statuses"].clone()), (1, json!({})));
    let (text, count) = report["errors"].as_object().unwrap().iter().next().unwrap();
    assert!(
        text.starts_with("connect: Connection refused") && count == 2,
        "{report}"
    );
    let server = Server::start(&["serve", "--http", "0"]);
    let (_, report) = run(words(&format!(
        "load http://{}/delay/5 -n 1 --timeout 50ms",
        server.at("http")
    )))
    .await;
    assert_eq!(report["errors"], json!({"no answer within 50 ms": 1}));
}

#[tokio::test]
async fn grpc_calls_report_codes_and_replies() {
    let server = Server::start(&["serve", "--http", "0", "--grpc", "0"]);
    for kind in ["http", "grpc"] {
        let url = format!("http://{}", server.at(kind));
        let (code, report) = run(words(&format!(
            "grpc-call {url} -n 2 --message hi -H x-a:b --expect OK"
        )))
        .await;
        assert_eq!(
            (code, report["codes"].clone()),
            (0, json!({"OK": 2})),
            "{report}"
        );
        assert_eq!(
            (
                report["reply"]["message"].clone(),
                report["reply"]["headers"]["x-a"].clone()
            ),
            (json!("hi"), json!("b"))
        );
        let (code, report) = run(words(&format!("grpc-call {url} --status 14 --expect OK"))).await;
        assert_eq!(
            (code, report["codes"].clone()),
            (1, json!({"UNAVAILABLE": 1}))
        );
    }
    let counted =
        server.get("/counters").await.json()["paths"]["/tanbark.echo.v1.Echo/Unary"].clone();
    assert_eq!(counted, 6);
}

#[tokio::test]
async fn unknown_grpc_methods_are_unimplemented() {
    let server = Server::start(&["serve", "--http", "0", "--grpc", "0"]);
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let request = http::Request::post(format!("http://{}/no.Service/Method", server.at("grpc")))
        .header("content-type", "application/grpc");
    let answer = client
        .request(request.body(http_body_util::Empty::new()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["grpc-status"]),
        (200, &"12".parse().unwrap())
    );
}

/// Starts a holding client and waits until its connections are open.
fn hold(arguments: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let arguments = words(arguments);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut client = program(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let opened: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(opened, json!({"event": "open", "opened": 5, "failed": 0}));
    (client, output)
}

fn end(mut client: Child, mut output: BufReader<std::process::ChildStdout>) -> (i32, Value) {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    (
        client.wait().unwrap().code().unwrap(),
        serde_json::from_str(&line).unwrap(),
    )
}

#[test]
fn held_connections_that_stay_are_reported_whole() {
    let server = Server::start(&["serve", "--http", "0", "--grpc", "0"]);
    for (verb, url) in [
        (
            "ws-hold",
            format!("ws://{}/websocket/echo", server.at("http")),
        ),
        ("grpc-hold", format!("http://{}", server.at("grpc"))),
    ] {
        let (client, output) = hold(&format!("{verb} {url} -n 5 -z 300ms --interval 50ms"));
        let (code, report) = end(client, output);
        assert_eq!(
            (code, report["held"].clone(), report["breaks"].clone()),
            (0, json!(5), json!([])),
            "{verb} {report}"
        );
        assert!(
            report["messages"].as_u64().unwrap() >= 10,
            "{verb} {report}"
        );
    }
}

#[test]
fn held_connections_that_break_are_reported_each() {
    for (verb, scheme, path) in [
        ("ws-hold", "ws", "/websocket/echo"),
        ("grpc-hold", "http", ""),
    ] {
        let server = Server::start(&["serve", "--http", "0"]);
        let url = format!("{scheme}://{}{path}", server.at("http"));
        let (client, output) = hold(&format!("{verb} {url} -n 5 -z 1s --interval 50ms"));
        drop(server);
        let (code, report) = end(client, output);
        assert_eq!(
            (
                code,
                report["held"].clone(),
                report["breaks"].as_array().unwrap().len()
            ),
            (1, json!(0), 5),
            "{verb} {report}"
        );
    }
}
