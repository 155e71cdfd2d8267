//! Attempts that are made again.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{backend, client, config::*, proxy::Proxy};

#[tokio::test]
async fn a_failed_attempt_is_made_again_with_the_whole_body() {
    let backend = backend::serve(|at, request| async move {
        let attempt = request.headers()["x-envoy-attempt-count"].clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if at < 2 {
            backend::status(503)
        } else {
            backend::text([attempt.as_bytes(), b" ", &body].concat())
        }
    })
    .await;
    let route = to_with("b", |rules| rules.retry = retry("gateway-error", 2));
    let proxy = Proxy::start(
        vec![http_listener("in", vec![route])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let body = "x".repeat(100_000);
    let request = Request::post("/")
        .header("host", "a.test")
        .body(Full::new(Bytes::from(body.clone())))
        .unwrap();
    let (head, answer) = client::send(proxy.address("in"), request).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert!(answer == format!("3 {body}"), "{} bytes", answer.len());
    assert_eq!(backend.requests(), 3);
    assert_eq!(proxy.record(0).await.attempts, 3);
    assert_eq!(proxy.counter("cluster.b.upstream_rq_retry"), 2);
}

#[tokio::test]
async fn used_up_retries_are_flagged_urx() {
    let backend = backend::serve(|_, _| async { backend::status(503) }).await;
    let route = to_with("b", |rules| rules.retry = retry("5xx", 2));
    let proxy = Proxy::start(
        vec![http_listener("in", vec![route])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let (head, body) = client::get(proxy.address("in"), "/").await;
    assert_eq!(
        (head.status(), &*body),
        (StatusCode::SERVICE_UNAVAILABLE, "status 503")
    );
    assert_eq!(backend.requests(), 3);
    let record = proxy.record(0).await;
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("URX".into(), Some("via_upstream"))
    );
}

#[tokio::test]
async fn a_host_that_refuses_is_left_for_another() {
    let backend = backend::echo().await;
    let route = to_with("b", |rules| rules.retry = retry("connect-failure", 2));
    let cluster = cluster("b", &[backend::nobody().await, backend.address]);
    let proxy = Proxy::start(vec![http_listener("in", vec![route])], vec![cluster]).await;
    for _ in 0..4 {
        let (head, _) = client::get(proxy.address("in"), "/").await;
        assert_eq!(head.status(), StatusCode::OK);
    }
    assert_eq!(backend.requests(), 4);
}

#[tokio::test]
async fn refused_everywhere_tells_both_flags() {
    let route = to_with("b", |rules| rules.retry = retry("connect-failure", 2));
    let proxy = Proxy::start(
        vec![http_listener("in", vec![route])],
        vec![cluster("b", &[backend::nobody().await])],
    )
    .await;
    let (head, body) = client::get(proxy.address("in"), "/").await;
    assert_eq!(head.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        body.contains("retried and the latest reset reason: remote connection failure"),
        "{body}"
    );
    let record = proxy.record(0).await;
    assert_eq!(
        (record.flags.to_string(), record.attempts),
        ("URX,UF".into(), 3)
    );
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_made_again() {
    let backend = backend::serve(|at, _| async move {
        if at == 0 {
            std::future::pending::<()>().await;
        }
        backend::text("second")
    })
    .await;
    let route = to_with("b", |rules| {
        let mut policy = retry("5xx", 1).unwrap();
        std::sync::Arc::make_mut(&mut policy).per_try_timeout = Some(Duration::from_millis(50));
        rules.retry = Some(policy);
    });
    let proxy = Proxy::start(
        vec![http_listener("in", vec![route])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let (head, body) = client::get(proxy.address("in"), "/").await;
    assert_eq!((head.status(), &*body), (StatusCode::OK, "second"));
    assert_eq!(proxy.counter("cluster.b.upstream_rq_per_try_timeout"), 1);
}

#[tokio::test]
async fn an_idle_connection_that_the_upstream_closed_costs_no_request() {
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            // Closes although it did not say so.
        });
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[address])],
    )
    .await;
    let mut connection = client::http1(proxy.address("in")).await;
    for _ in 0..20 {
        connection.ready().await.unwrap();
        let (head, body) = client::read(
            connection
                .send_request(client::request("GET", "/"))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!((head.status(), &*body), (StatusCode::OK, "ok"));
        crate::proxy::until(|| proxy.worker.pools.open_connections() == 0).await;
    }
}
