//! Answers shaped by the request, and the counters.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn a_request_chooses_its_answer() {
    let server = Server::start_with(&["serve", "--http", "0"], &[("SERVICE_VERSION", "v2")]);
    let start = Instant::now();
    let answer = server
        .get("/echo?status=503&delay=30ms&size=40000&header=x-a:%20b")
        .await;
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(
        (answer.status, answer.body.len()),
        (StatusCode::SERVICE_UNAVAILABLE, 40_000)
    );
    assert_eq!(
        (&answer.headers["x-a"], &answer.headers["content-length"]),
        (&"b".parse().unwrap(), &"40000".parse().unwrap())
    );
    assert_eq!(
        (
            &answer.headers["x-echo-hostname"],
            &answer.headers["x-echo-version"]
        ),
        (&"pod-1".parse().unwrap(), &"v2".parse().unwrap())
    );
    assert_eq!(
        server
            .send("GET", "/get", &[("x-echo-status", "429")], "")
            .await
            .status,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(
        server
            .send("GET", "/get", &[("x-echo-nonsense", "1")], "")
            .await
            .status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn first_attempts_fail_by_request_id() {
    let server = Server::start(&["serve", "--http", "0"]);
    let mut statuses = Vec::new();
    for id in ["a", "a", "a", "b"] {
        let headers = [("x-request-id", id), ("x-echo-fail-first", "2")];
        statuses.push(
            server
                .send("GET", "/get", &headers, "")
                .await
                .status
                .as_u16(),
        );
    }
    assert_eq!(statuses, [503, 503, 200, 503]);
}

#[tokio::test]
async fn asked_to_abort_it_answers_nothing() {
    let server = Server::start(&["serve", "--http", "0"]);
    for h2 in [false, true] {
        assert!(
            server
                .try_send(h2, "GET", "/get", &[("x-echo-abort", "true")], "")
                .await
                .is_err()
        );
    }
    assert_eq!(server.get("/get").await.status, StatusCode::OK);
}

#[tokio::test]
async fn counters_count_each_path() {
    let server = Server::start(&["serve", "--http", "0"]);
    for path in ["/get", "/get?x=1", "/status/503"] {
        server.get(path).await;
    }
    let counters = server.get("/counters").await.json();
    assert_eq!(
        (counters["requests"].clone(), counters["paths"].clone()),
        (json!(3), json!({"/get": 2, "/status/503": 1}))
    );
    assert_eq!(
        server.send("DELETE", "/counters", &[], "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(server.get("/counters").await.json()["paths"], json!({}));
}

#[tokio::test]
async fn hello_says_version_and_instance() {
    let server = Server::start_with(&["hello", "--http", "0"], &[("SERVICE_VERSION", "v1")]);
    assert_eq!(
        server.get("/hello").await.text(),
        "Hello version: v1, instance: pod-1\n"
    );
    assert_eq!(server.get("/health").await.text(), "Helloworld is healthy");
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    let server = Server::start(&["serve", "--http", "0"]);
    let answer = server.try_send(true, "GET", "/get", &[], "").await.unwrap();
    assert_eq!(
        (answer.status, answer.version),
        (StatusCode::OK, http::Version::HTTP_2)
    );
    assert_eq!(
        answer.json()["headers"]["Host"],
        json!([server.at("http").to_string()])
    );
}
