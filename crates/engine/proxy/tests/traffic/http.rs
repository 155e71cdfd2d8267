//! Requests that go well.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use proxy_config::{cluster::UpstreamProtocol, header::*, matcher::Fraction, route::*};
use tokio_stream::wrappers::ReceiverStream;

use crate::{backend, client, config::*, proxy::Proxy};

#[tokio::test]
async fn keep_alive_requests_share_one_upstream_connection() {
    let backend = backend::echo().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut connection = client::http1(proxy.address("in")).await;
    for _ in 0..3 {
        let (head, body) = client::read(
            connection
                .send_request(client::request("GET", "/x?y=1"))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(head.status(), StatusCode::OK);
        assert_eq!(head.headers()["server"], "istio-envoy");
        assert!(head.headers().contains_key("x-envoy-upstream-service-time"));
        assert!(body.starts_with("GET /x?y=1 HTTP/1.1\n"), "{body}");
        for header in [
            "host: a.test",
            "x-forwarded-proto: http",
            "x-envoy-attempt-count: 1",
            "x-request-id: ",
        ] {
            assert!(body.contains(header), "{header} in {body}");
        }
    }
    assert_eq!((backend.requests(), backend.connections()), (3, 1));
    let record = proxy.record(2).await;
    assert_eq!((record.status, record.attempts), (Some(200), 1));
    assert_eq!(
        record.response_code_details.as_deref(),
        Some("via_upstream")
    );
    assert_eq!(record.upstream_cluster.as_deref(), Some("b"));
    assert!(record.flags.is_empty());
    assert_eq!(proxy.counter("cluster.b.upstream_rq_2xx"), 3);
}

#[tokio::test]
async fn a_body_passes_both_ways_whole() {
    let backend = backend::serve(|_, request| async move {
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        backend::text(bytes)
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let sent: String = "0123456789abcdef".repeat(40_000);
    let request = Request::post("/")
        .header("host", "a.test")
        .body(Full::new(Bytes::from(sent.clone())))
        .unwrap();
    let (_, body) = client::send(proxy.address("in"), request).await;
    assert!(
        body == sent,
        "{} bytes came back of {}",
        body.len(),
        sent.len()
    );
    let record = proxy.record(0).await;
    assert_eq!(
        (record.bytes.received, record.bytes.sent),
        (sent.len() as u64, sent.len() as u64)
    );
}

#[tokio::test]
async fn http2_without_tls_goes_to_http2_and_to_http1() {
    let backend = backend::echo().await;
    let h2 = cluster_with("two", &[backend.address], |c| {
        c.http.protocol = UpstreamProtocol::Http2
    });
    let h1 = cluster("one", &[backend.address]);
    let by_path = |path: &str, cluster: &str| {
        let RouteAction::Forward(rules) = to(cluster).action else {
            unreachable!()
        };
        route(PathMatch::Prefix(path.into()), RouteAction::Forward(rules))
    };
    let proxy = Proxy::start(
        vec![http_listener(
            "in",
            vec![by_path("/two", "two"), by_path("/one", "one")],
        )],
        vec![h1, h2],
    )
    .await;
    let mut connection = client::http2::<client::Body>(proxy.address("in")).await;
    for (path, version) in [
        ("/two", "HTTP/2.0"),
        ("/one", "HTTP/1.1"),
        ("/two", "HTTP/2.0"),
    ] {
        let request = Request::get(format!("http://a.test{path}"))
            .body(client::Body::default())
            .unwrap();
        let (head, body) = client::read(connection.send_request(request).await.unwrap()).await;
        assert_eq!(
            (head.status(), head.version()),
            (StatusCode::OK, http::Version::HTTP_2)
        );
        assert!(body.lines().next().unwrap().ends_with(version), "{body}");
    }
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn grpc_trailers_and_messages_pass() {
    let backend = backend::serve(|_, request| async move {
        let collected = request.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        for _ in 0..3 {
            sender
                .send(Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 1, 9]))))
                .await
                .unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        let mut answer = Response::new(StreamBody::new(ReceiverStream::new(receiver)).boxed());
        answer
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        answer
    })
    .await;
    let cluster = cluster_with("b", &[backend.address], |c| {
        c.http.protocol = UpstreamProtocol::Http2
    });
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![cluster]).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut connection = client::http2(proxy.address("in")).await;
    let body = StreamBody::new(ReceiverStream::new(receiver));
    let request = Request::post("http://a.test/s/m")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    sender
        .send(Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[
            0, 0, 0, 0, 1, 7,
        ]))))
        .await
        .unwrap();
    sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
    drop(sender);
    let collected = connection
        .send_request(request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "5");
    assert_eq!(collected.to_bytes().len(), 18);
    let record = proxy.record(0).await;
    assert!(record.is_grpc);
    assert_eq!(
        (
            record.grpc_status,
            record.request_messages,
            record.response_messages
        ),
        (Some(5), 1, 3)
    );
}

#[tokio::test]
async fn direct_answers_redirects_and_rewrites() {
    let backend = backend::echo().await;
    let direct = RouteAction::DirectResponse {
        status: StatusCode::IM_A_TEAPOT,
        body: "tea".into(),
    };
    let redirect = RouteAction::Redirect(Arc::new(Redirect {
        host: Some("new.test".into()),
        port: None,
        scheme: RedirectScheme::Https,
        path: RedirectPath::Prefix("/there".into()),
        status: StatusCode::PERMANENT_REDIRECT,
        strip_query: false,
    }));
    let mut rewrite = forward("b");
    rewrite.path_rewrite = PathRewrite::Prefix("/new".into());
    rewrite.host_rewrite = HostRewrite::Literal("b.internal".into());
    let mut rewritten = route(
        PathMatch::Prefix("/old".into()),
        RouteAction::Forward(Arc::new(rewrite)),
    );
    rewritten.headers.request = Arc::from([HeaderOperation::Set {
        name: HeaderName::from_static("x-added"),
        value: HeaderValueFormat::Literal(HeaderValue::from_static("yes")),
        mode: AppendMode::OverwriteOrAdd,
        keep_empty: false,
    }]);
    rewritten.headers.response = Arc::from([HeaderOperation::Set {
        name: HeaderName::from_static("x-answer"),
        value: HeaderValueFormat::Literal(HeaderValue::from_static("also")),
        mode: AppendMode::OverwriteOrAdd,
        keep_empty: false,
    }]);
    let routes = vec![
        route(PathMatch::Exact("/tea".into()), direct),
        route(PathMatch::Prefix("/here".into()), redirect),
        rewritten,
    ];
    let proxy = Proxy::start(
        vec![http_listener("in", routes)],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let address = proxy.address("in");
    let (head, body) = client::get(address, "/tea").await;
    assert_eq!((head.status(), &*body), (StatusCode::IM_A_TEAPOT, "tea"));
    let (head, _) = client::get(address, "/here/x?q").await;
    assert_eq!(head.status(), StatusCode::PERMANENT_REDIRECT);
    assert_eq!(head.headers()["location"], "https://new.test/there/x?q");
    let (head, body) = client::get(address, "/old/x?q=1").await;
    assert_eq!(head.headers()["x-answer"], "also");
    for line in [
        "GET /new/x?q=1 HTTP/1.1",
        "host: b.internal",
        "x-added: yes",
        "x-envoy-original-path: /old/x?q=1",
    ] {
        assert!(body.contains(line), "{line} in {body}");
    }
    assert_eq!(
        proxy.record(0).await.response_code_details.as_deref(),
        Some("direct_response")
    );
    assert_eq!(
        proxy.record(2).await.original_path.unwrap().as_str(),
        "/old/x?q=1"
    );
}

#[tokio::test]
async fn headers_of_the_hop_and_of_envoy_are_not_taken_from_outside() {
    let backend = backend::echo().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let request = Request::get("/a/../b")
        .header("host", "a.test")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers, gzip")
        .header("x-envoy-max-retries", "100")
        .header("x-request-id", "mine")
        .body(client::Body::default())
        .unwrap();
    let (_, body) = client::send(proxy.address("in"), request).await;
    assert!(body.starts_with("GET /b "), "{body}");
    for absent in ["x-hop", "keep-alive", "x-envoy-max-retries", "gzip"] {
        assert!(!body.contains(absent), "{absent} in {body}");
    }
    assert!(
        body.contains("te: trailers") && body.contains("x-request-id: mine"),
        "{body}"
    );
}

#[tokio::test]
async fn a_mirror_gets_the_request_and_the_client_does_not_wait() {
    let (backend, mirror) = (backend::echo().await, backend::echo().await);
    let route = to_with("b", |rules| {
        rules.mirrors = Arc::from([MirrorPolicy {
            target: Target::Cluster(proxy_config::ClusterName::parse("m").unwrap()),
            fraction: Fraction::ALL,
            disable_shadow_host_suffix: true,
        }]);
    });
    let clusters = vec![
        cluster("b", &[backend.address]),
        cluster("m", &[mirror.address]),
    ];
    let proxy = Proxy::start(vec![http_listener("in", vec![route])], clusters).await;
    let request = Request::post("/p")
        .header("host", "a.test")
        .body(Full::new(Bytes::from("copied")))
        .unwrap();
    let (head, body) = client::send(proxy.address("in"), request).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert!(body.ends_with("copied"));
    crate::proxy::until(|| mirror.requests() == 1).await;
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn a_body_waits_for_the_upstreams_continue() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (seen, mut heard) = tokio::sync::mpsc::channel(1);
    let address = backend::raw(move |mut stream| {
        let seen = seen.clone();
        tokio::spawn(async move {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).to_lowercase();
            seen.send(head).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"body");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
        });
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[address])],
    )
    .await;
    let mut stream = tokio::net::TcpStream::connect(proxy.address("in"))
        .await
        .unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n",
        )
        .await
        .unwrap();
    let head = heard.recv().await.unwrap();
    assert!(
        head.contains("expect: 100-continue") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    stream.write_all(b"body").await.unwrap();
    let mut rest = vec![0; 4096];
    let mut text = String::new();
    while !text.contains("200 OK") {
        let length = stream.read(&mut rest).await.unwrap();
        assert!(length > 0, "{text}");
        text += &String::from_utf8_lossy(&rest[..length]);
    }
}

#[tokio::test]
async fn a_connection_ends_after_the_requests_it_may_have() {
    let backend = backend::echo().await;
    let mut manager = http(proxy_config::http_connection_manager::RouteSource::Inline(
        Arc::new(table("inline", vec![host(&["*"], vec![to("b")])])),
    ));
    manager.max_requests_per_connection = Some(2);
    let entry = listener(
        "in",
        proxy_config::listener::Terminal::Http(Arc::new(manager)),
    );
    let one_each = cluster_with("b", &[backend.address], |c| {
        c.http.max_requests_per_connection = Some(1)
    });
    let proxy = Proxy::start(vec![entry], vec![one_each]).await;
    let mut connection = client::http1(proxy.address("in")).await;
    for _ in 0..2 {
        connection.ready().await.unwrap();
        let (head, _) = client::read(
            connection
                .send_request(client::request("GET", "/"))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(head.status(), StatusCode::OK);
    }
    assert!(
        tokio::time::timeout(Duration::from_secs(5), connection.ready())
            .await
            .unwrap()
            .is_err()
    );
    assert_eq!(
        backend.connections(),
        2,
        "upstream connections take one request each"
    );
}
