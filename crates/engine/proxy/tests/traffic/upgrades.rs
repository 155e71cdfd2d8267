//! WebSocket and CONNECT.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proxy_config::{
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

use crate::{backend, config::*, proxy::Proxy};

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
