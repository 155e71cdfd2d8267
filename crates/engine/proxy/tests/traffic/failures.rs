//! Requests that fail, and what client and record are told.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use proxy_config::cluster::UpstreamProtocol;
use telemetry::record::ResponseFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{backend, client, config::*, proxy::Proxy};

async fn one(
    routes: Vec<proxy_config::route::Route>,
    clusters: Vec<proxy_config::Cluster>,
) -> (
    StatusCode,
    String,
    telemetry::record::Record,
    http::HeaderMap,
) {
    let proxy = Proxy::start(vec![http_listener("in", routes)], clusters).await;
    let (head, body) = client::get(proxy.address("in"), "/").await;
    (
        head.status(),
        body,
        proxy.record(0).await,
        head.headers().clone(),
    )
}

#[tokio::test]
async fn no_route_is_404_nr() {
    let (status, body, record, _) = one(vec![], vec![]).await;
    assert_eq!((status, &*body), (StatusCode::NOT_FOUND, ""));
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("NR".into(), Some("route_not_found"))
    );
}

#[tokio::test]
async fn no_cluster_is_503_nc() {
    let (status, body, record, _) = one(vec![to("missing")], vec![]).await;
    assert_eq!((status, &*body), (StatusCode::SERVICE_UNAVAILABLE, ""));
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("NC".into(), Some("cluster_not_found"))
    );
}

#[tokio::test]
async fn no_endpoint_is_503_uh() {
    let (status, body, record, _) = one(vec![to("b")], vec![cluster("b", &[])]).await;
    assert_eq!(
        (status, &*body),
        (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream")
    );
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("UH".into(), Some("no_healthy_upstream"))
    );
}

#[tokio::test]
async fn a_refused_connection_is_503_uf() {
    let (status, body, record, _) = one(
        vec![to("b")],
        vec![cluster("b", &[backend::nobody().await])],
    )
    .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body,
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    );
    assert_eq!(record.flags, ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
    assert_eq!(
        record.response_code_details.as_deref(),
        Some(
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        )
    );
    assert_eq!(
        record.upstream_transport_failure_reason.as_deref(),
        Some("delayed connect error: Connection refused")
    );
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_503_uc() {
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
        });
    })
    .await;
    let (status, body, record, _) = one(vec![to("b")], vec![cluster("b", &[address])]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body,
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
    );
    assert_eq!(record.flags.to_string(), "UC");
    assert_eq!(
        record.response_code_details.as_deref(),
        Some("upstream_reset_before_response_started{connection_termination}")
    );
}

#[tokio::test]
async fn a_slow_answer_is_504_ut() {
    let backend = backend::serve(|_, _| async {
        std::future::pending::<()>().await;
        backend::text("")
    })
    .await;
    let route = to_with("b", |rules| rules.timeout = Some(Duration::from_millis(50)));
    let (status, body, record, _) = one(vec![route], vec![cluster("b", &[backend.address])]).await;
    assert_eq!(
        (status, &*body),
        (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout")
    );
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("UT".into(), Some("response_timeout"))
    );
}

#[tokio::test]
async fn a_full_breaker_is_503_uo() {
    let backend = backend::echo().await;
    let cluster = cluster_with("b", &[backend.address], |c| {
        c.circuit_breakers.default.max_pending_requests = 0
    });
    let (status, body, record, headers) = one(vec![to("b")], vec![cluster]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body,
        "upstream connect error or disconnect/reset before headers. reset reason: overflow"
    );
    assert_eq!(headers["x-envoy-overloaded"], "true");
    assert_eq!(record.flags.to_string(), "UO");
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn requests_beyond_the_connection_limit_wait_their_turn() {
    let answering = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = answering.clone();
    let backend = backend::serve(move |_, _| {
        let gate = gate.clone();
        async move {
            let _place = gate.acquire().await.unwrap();
            backend::text("done")
        }
    })
    .await;
    let cluster = cluster_with("b", &[backend.address], |c| {
        c.circuit_breakers.default.max_connections = 1
    });
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![cluster]).await;
    let address = proxy.address("in");
    let asking = tokio::spawn(futures_util::future::join_all(
        (0..5).map(move |_| client::get(address, "/")),
    ));
    crate::proxy::until(|| {
        backend.requests() == 1 && proxy.counter("cluster.b.upstream_rq_pending_active") == 4
    })
    .await;
    answering.add_permits(1);
    let answers = asking.await.unwrap();
    assert!(
        answers
            .iter()
            .all(|(head, body)| head.status() == StatusCode::OK && body == "done")
    );
    assert_eq!((backend.requests(), backend.connections()), (5, 1));
}

#[tokio::test]
async fn a_grpc_failure_is_a_grpc_status() {
    let cluster = cluster_with("b", &[], |c| c.http.protocol = UpstreamProtocol::Http2);
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![cluster]).await;
    let mut connection = client::http2::<client::Body>(proxy.address("in")).await;
    let request = http::Request::post("http://a.test/s/m")
        .header("content-type", "application/grpc")
        .body(client::Body::default())
        .unwrap();
    let (head, _) = client::read(connection.send_request(request).await.unwrap()).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(
        (
            &head.headers()["grpc-status"],
            &head.headers()["grpc-message"]
        ),
        (
            &"14".parse().unwrap(),
            &"no healthy upstream".parse().unwrap()
        )
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded_as_dc() {
    let backend = backend::serve(|_, _| async {
        std::future::pending::<()>().await;
        backend::text("")
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut stream = tokio::net::TcpStream::connect(proxy.address("in"))
        .await
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    crate::proxy::until(|| backend.requests() == 1).await;
    drop(stream);
    let record = proxy.record(0).await;
    assert_eq!(
        (record.flags.to_string(), record.status),
        ("DC".into(), None)
    );
    assert_eq!(
        record.response_code_details.as_deref(),
        Some("downstream_remote_disconnect")
    );
}

#[tokio::test]
async fn what_hosts_and_versions_are_refused() {
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![]).await;
    for (head, answer) in [
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", "426"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(proxy.address("in"))
            .await
            .unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line[9..], answer.as_bytes(), "{head}");
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_in_the_body_breaks_the_downstream() {
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
                .await;
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
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    assert!(String::from_utf8_lossy(&all).ends_with("only this"));
    let record = proxy.record(0).await;
    assert_eq!(record.flags.to_string(), "UPE");
    assert_eq!(
        record.response_code_details.as_deref(),
        Some("upstream_reset_after_response_started{protocol_error}")
    );
}

#[tokio::test]
async fn a_request_that_takes_longer_than_any_may_is_504() {
    let backend = backend::serve(|_, _| async {
        std::future::pending::<()>().await;
        backend::text("")
    })
    .await;
    let route = to_with("b", |rules| {
        rules.max_stream_duration.max = Some(Duration::from_millis(50))
    });
    let (status, body, record, _) = one(vec![route], vec![cluster("b", &[backend.address])]).await;
    assert_eq!(
        (status, &*body),
        (StatusCode::GATEWAY_TIMEOUT, "downstream duration timeout")
    );
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("-".into(), Some("max_duration_timeout"))
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_503_df_and_one_that_does_is_reached() {
    use proxy_config::cluster::{Discovery, DnsFamily, DnsRefresh};
    let backend = backend::echo().await;
    let refresh = DnsRefresh {
        rate: Duration::from_secs(60),
        respect_ttl: false,
        family: DnsFamily::V4Preferred,
    };
    let cluster = cluster_with("b", &[], |c| {
        c.discovery = Discovery::DynamicForward { refresh }
    });
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![cluster]).await;
    for (authority, expected) in [
        (format!("localhost:{}", backend.address.port()), 200),
        ("nowhere.invalid".to_owned(), 503),
    ] {
        let request = http::Request::get("/")
            .header("host", &authority)
            .body(client::Body::default())
            .unwrap();
        let (head, _) = client::send(proxy.address("in"), request).await;
        assert_eq!(head.status().as_u16(), expected, "{authority}");
    }
    assert_eq!(proxy.record(1).await.flags.to_string(), "DF");
}

#[tokio::test]
async fn a_response_that_stops_is_cut_off_by_the_routes_timeout() {
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
                .await;
            std::future::pending::<()>().await;
        });
    })
    .await;
    for (timeout, idle, flags) in [(Some(50), None, "UT"), (None, Some(50), "SI")] {
        let route = to_with("b", |rules| {
            rules.timeout = timeout.map(Duration::from_millis);
            rules.idle_timeout = idle.map(Duration::from_millis);
        });
        let proxy = Proxy::start(
            vec![http_listener("in", vec![route])],
            vec![cluster("b", &[address])],
        )
        .await;
        let mut stream = tokio::net::TcpStream::connect(proxy.address("in"))
            .await
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        assert!(String::from_utf8_lossy(&all).ends_with("only this"));
        assert_eq!(proxy.record(0).await.flags.to_string(), flags);
    }
}

#[tokio::test]
async fn a_request_that_waits_is_pending_and_not_active() {
    let answering = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = answering.clone();
    let backend = backend::serve(move |_, _| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            backend::text("done")
        }
    })
    .await;
    // As a DestinationRule with maxConnections, http1MaxPendingRequests and maxRequestsPerConnection of 1 has it.
    let cluster = cluster_with("b", &[backend.address], |c| {
        c.circuit_breakers.default.max_connections = 1;
        c.circuit_breakers.default.max_pending_requests = 1;
        c.circuit_breakers.default.max_requests = 1;
        c.http.max_requests_per_connection = Some(1);
    });
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![cluster]).await;
    let address = proxy.address("in");
    let first = tokio::spawn(client::get(address, "/"));
    crate::proxy::until(|| backend.requests() == 1).await;
    let second = tokio::spawn(client::get(address, "/"));
    crate::proxy::until(|| proxy.counter("cluster.b.upstream_rq_pending_active") == 1).await;
    assert_eq!(proxy.counter("cluster.b.upstream_rq_active"), 1);
    assert_eq!(proxy.counter("cluster.b.upstream_rq_total"), 1);
    let (third, _) = client::get(address, "/").await;
    assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(third.headers()["x-envoy-overloaded"], "true");
    assert_eq!(proxy.record(0).await.flags.to_string(), "UO");
    assert_eq!(proxy.counter("cluster.b.upstream_rq_pending_overflow"), 1);
    answering.add_permits(2);
    for waiting in [first, second] {
        assert_eq!(waiting.await.unwrap().0.status(), StatusCode::OK);
    }
    assert_eq!((backend.requests(), backend.connections()), (2, 2));
    crate::proxy::until(|| proxy.counter("cluster.b.upstream_rq_active") == 0).await;
}

/// What a client reads that sends these bytes and then only listens.
async fn raw_answer(proxy: &Proxy, sent: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(proxy.address("in"))
        .await
        .unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.unwrap();
    String::from_utf8_lossy(&line).into_owned()
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_400_dpe() {
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![]).await;
    let answer = raw_answer(&proxy, "GET / HTTP/1.1\r\nbad header\r\n\r\n").await;
    assert_eq!(answer, "HTTP/1.1 400");
    let record = proxy.record(0).await;
    assert_eq!(
        (
            record.status,
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        (Some(400), "DPE".into(), Some("http1.codec_error"))
    );
    assert_eq!(proxy.counter("http.test.downstream_cx_protocol_error"), 1);
    assert_eq!(proxy.counter("http.test.downstream_rq_active"), 0);
}

#[tokio::test]
async fn a_request_that_does_not_come_whole_in_time_is_408() {
    let backend = backend::echo().await;
    let mut manager = http(proxy_config::http_connection_manager::RouteSource::Inline(
        Arc::new(table("inline", vec![host(&["*"], vec![to("b")])])),
    ));
    manager.timeouts.request = Some(Duration::from_millis(50));
    let terminal = proxy_config::listener::Terminal::Http(Arc::new(manager));
    let proxy = Proxy::start(
        vec![listener("in", terminal)],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let answer = raw_answer(
        &proxy,
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf",
    )
    .await;
    assert_eq!(answer, "HTTP/1.1 408");
    let details = proxy.record(0).await.response_code_details;
    assert_eq!(details.as_deref(), Some("request_overall_timeout"));
    assert_eq!(proxy.counter("http.test.downstream_rq_timeout"), 1);
    // One that comes whole has all the time of the world.
    let (head, _) = client::get(proxy.address("in"), "/").await;
    assert_eq!(head.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_the_control_plane_wants_dropped_is_503_udo() {
    use proxy_config::cluster::Discovery;
    let backend = backend::echo().await;
    let cluster = cluster_with("b", &[backend.address], |c| {
        let mut endpoints = endpoints("b", &[backend.address]);
        endpoints.drops = Arc::from([(Arc::from("all"), 1_000_000)]);
        c.discovery = Discovery::Static(Arc::new(endpoints));
    });
    let (status, body, record, headers) = one(vec![to("b")], vec![cluster]).await;
    assert_eq!(
        (status, &*body),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "unconditional drop overload"
        )
    );
    assert_eq!(headers["x-envoy-unconditional-drop-overload"], "true");
    assert_eq!(record.flags.to_string(), "UDO");
    assert_eq!(backend.requests(), 0);
}
