//! WebSocket and CONNECT.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proxy::Update;
use proxy_config::{
    ListenerName,
    cluster::UpstreamProtocol,
    http_connection_manager::RouteSource,
    listener::Terminal,
    route::{PathMatch, RouteAction},
    tcp_proxy::Tunnel,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    backend,
    config::*,
    proxy::{DEADLINE, Proxy, until},
};

/// Answers upgrades and CONNECTs, then echoes in capitals.
async fn shouting() -> backend::Backend {
    backend::serve(|_, mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(stream) = upgrade.await else { return };
            let mut stream = TokioIo::new(stream);
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.unwrap();
            word.make_ascii_uppercase();
            stream.write_all(&word).await.unwrap();
        });
        let mut answer = Response::new(Empty::new().boxed());
        if let Some(kind) = request.headers().get(header::UPGRADE) {
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            answer.headers_mut().insert(header::UPGRADE, kind.clone());
            answer
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        answer
    })
    .await
}

async fn converse(proxy: &Proxy, head: &str) -> (String, String) {
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        answer.extend(byte);
    }
    stream.write_all(b"hello").await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    (String::from_utf8(answer).unwrap(), heard)
}

#[tokio::test]
async fn a_websocket_passes() {
    let backend = shouting().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let head = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";
    let (answer, heard) = converse(&proxy, head).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("upgrade: websocket"), "{answer}");
    assert_eq!(heard, "HELLO");
    let record = proxy.record(0).await;
    assert_eq!(
        (record.status, record.bytes.received, record.bytes.sent),
        (Some(101), 5, 5)
    );
}

#[tokio::test]
async fn a_connect_passes() {
    let backend = shouting().await;
    let route = route(
        PathMatch::Connect,
        RouteAction::Forward(Arc::new(forward("b"))),
    );
    let proxy = Proxy::start(
        vec![http_listener("in", vec![route])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let (answer, heard) = converse(
        &proxy,
        "CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(heard, "HELLO");
}

#[tokio::test]
async fn an_upgrade_that_is_not_allowed_is_refused() {
    let backend = shouting().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n")
        .await
        .unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line[9..], b"403");
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_websocket_crosses_http2_between_two_proxies() {
    let backend = shouting().await;
    let mut manager = http(RouteSource::Inline(Arc::new(table(
        "inline",
        vec![host(&["*"], vec![to("app")])],
    ))));
    manager.http2.allow_connect = true;
    let entry = listener("in", Terminal::Http(Arc::new(manager)));
    let inner = Proxy::start(vec![entry], vec![cluster("app", &[backend.address])]).await;
    let next = cluster_with("next", &[inner.address("in")], |c| {
        c.http.protocol = UpstreamProtocol::Http2
    });
    let outer = Proxy::start(vec![http_listener("in", vec![to("next")])], vec![next]).await;
    // The peer's settings must have come before it can be asked.
    let (status, _) = crate::client::get(outer.address("in"), "/").await;
    assert_eq!(status.status(), StatusCode::OK);
    let head = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let (answer, heard) = converse(&outer, head).await;
    assert!(
        answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: websocket"),
        "{answer}"
    );
    assert_eq!(heard, "HELLO");
    assert_eq!(inner.record(1).await.protocol.unwrap().as_str(), "HTTP/2");
}

#[tokio::test]
async fn tcp_passes_through_another_proxy_by_connect() {
    let backend = shouting().await;
    let Terminal::Tcp(terminal) = tcp("b") else {
        unreachable!()
    };
    let mut terminal = (*terminal).clone();
    terminal.proxy.tunnel = Some(Tunnel {
        hostname: "far.test:443".into(),
        use_post: false,
    });
    let entry = listener("in", Terminal::Tcp(Arc::new(terminal)));
    let proxy = Proxy::start(vec![entry], vec![cluster("b", &[backend.address])]).await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "HELLO");
    assert_eq!(backend.requests(), 1);
}

/// Answers upgrades, then sends back what it gets, for ever.
async fn repeating() -> backend::Backend {
    backend::serve(|_, mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(stream) = upgrade.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let mut answer = Response::new(Empty::new().boxed());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        answer
    })
    .await
}

/// A WebSocket that is open through the proxy.
async fn websocket(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    echoes(&mut stream).await;
    stream
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
}

fn open_connections(proxy: &Proxy) -> u64 {
    let config = proxy.live.config();
    let listeners = config.listeners.values();
    listeners.map(|listener| listener.metrics.active()).sum()
}

#[tokio::test]
async fn a_tunnel_is_a_connection_of_its_listener_as_long_as_it_lasts() {
    let backend = repeating().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut tunnel = websocket(&proxy).await;
    // Others come and go meanwhile.
    for _ in 0..3 {
        websocket(&proxy).await;
    }
    until(|| open_connections(&proxy) == 1).await;
    echoes(&mut tunnel).await;
    assert_eq!(open_connections(&proxy), 1);
    drop(tunnel);
    until(|| open_connections(&proxy) == 0).await;
    assert_eq!(proxy.counter("http.test.downstream_cx_active"), 0);
}

#[tokio::test]
async fn a_tunnel_lasts_over_the_drain_time_and_no_longer() {
    let backend = repeating().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut tunnel = websocket(&proxy).await;
    let began = Instant::now();
    proxy.drain.start();
    // The harness' drain time is half a second.
    while began.elapsed() < Duration::from_millis(300) {
        echoes(&mut tunnel).await;
    }
    assert!(!proxy.task.is_finished());
    proxy.task.await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_tunnel_ends_when_its_filter_chain_has_gone() {
    let backend = repeating().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut tunnel = websocket(&proxy).await;
    let mut update = Update::default();
    update.listeners.removed = vec![ListenerName::parse("in").unwrap()];
    proxy.live.publish(update);
    let began = Instant::now();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(DEADLINE, tunnel.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the tunnel is closed");
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    let record = proxy.record(0).await;
    assert_eq!(
        (record.status, record.response_code_details.as_deref()),
        (Some(101), Some("downstream_local_disconnect"))
    );
    assert_eq!((record.bytes.received, record.bytes.sent), (4, 4));
}
