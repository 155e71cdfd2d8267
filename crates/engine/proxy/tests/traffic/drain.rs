//! A proxy that goes: nobody who was served, or was about to be, loses a request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use proxy_config::{http_connection_manager::RouteSource, listener::Terminal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    backend, client,
    config::*,
    proxy::{DEADLINE, Proxy, until},
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// Until the proxy takes no new connections.
async fn refuses(proxy: &Proxy) {
    let address = proxy.address("in");
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
}

/// The connection stays open: for a time in which it would have been closed, nothing is read, not even the end.
async fn stays_open(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
    assert!(read.is_err(), "{read:?}");
}

/// Reads until what was read contains `text`.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&all).contains(text) {
            assert!(
                stream.read_buf(&mut all).await.unwrap() > 0,
                "closed: {all:?}"
            );
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect(text);
    String::from_utf8(all).unwrap()
}

/// A backend whose answers' bodies the test sends; each answer's head comes at once.
async fn streaming() -> (
    backend::Backend,
    mpsc::Receiver<mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>>,
) {
    let (answers, began) = mpsc::channel(8);
    let answers = Arc::new(Mutex::new(answers));
    let backend = backend::serve(move |_, _| {
        let answers = answers.clone();
        async move {
            let (sender, frames) = mpsc::channel(8);
            answers.lock().await.send(sender).await.unwrap();
            Response::new(StreamBody::new(ReceiverStream::new(frames)).boxed())
        }
    })
    .await;
    (backend, began)
}

#[tokio::test]
async fn a_request_on_an_idle_connection_is_answered_and_told_that_it_is_the_last() {
    let backend = backend::echo().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut idle = TcpStream::connect(proxy.address("in")).await.unwrap();
    idle.write_all(REQUEST).await.unwrap();
    let first = read_until(&mut idle, "host: a.test").await;
    assert!(!first.contains("connection: close"), "{first}");
    proxy.drain.start();
    refuses(&proxy).await;
    stays_open(&mut idle).await;
    idle.write_all(REQUEST).await.unwrap();
    let mut last = String::new();
    idle.read_to_string(&mut last).await.unwrap();
    assert!(last.starts_with("HTTP/1.1 200 OK"), "{last}");
    assert!(last.contains("connection: close"), "{last}");
}

#[tokio::test]
async fn an_answer_that_began_before_the_drain_is_followed_by_one_that_says_so() {
    let (backend, mut began) = streaming().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let body = began.recv().await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(!head.contains("connection: close"), "{head}");
    proxy.drain.start();
    refuses(&proxy).await;
    body.send(Ok(Frame::data("first".into()))).await.unwrap();
    drop(body);
    read_until(&mut stream, "0\r\n\r\n").await;
    stays_open(&mut stream).await;
    stream.write_all(REQUEST).await.unwrap();
    drop(began.recv().await.unwrap());
    let mut last = String::new();
    stream.read_to_string(&mut last).await.unwrap();
    assert!(last.starts_with("HTTP/1.1 200 OK"), "{last}");
    assert!(last.contains("connection: close"), "{last}");
}

#[tokio::test]
async fn connections_that_wait_to_be_accepted_are_served() {
    let backend = backend::echo().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    // Without a turn of the runtime the kernel has them, and the proxy does not.
    let waiting: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect(proxy.address("in")).unwrap())
        .collect();
    proxy.drain.start();
    for stream in waiting {
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn http2_says_goodbye_and_lets_streams_end() {
    let (backend, mut began) = streaming().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut connection = client::http2::<client::Body>(proxy.address("in")).await;
    let request = http::Request::get("http://a.test/")
        .body(client::Body::default())
        .unwrap();
    let answer = connection.send_request(request).await.unwrap();
    let body = began.recv().await.unwrap();
    proxy.drain.start();
    refuses(&proxy).await;
    body.send(Ok(Frame::data("whole".into()))).await.unwrap();
    drop(body);
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "whole"
    );
    until(|| connection.is_closed()).await;
}

#[tokio::test]
async fn an_answer_may_last_longer_than_a_connection_may_idle() {
    for is_http2 in [false, true] {
        let (backend, mut began) = streaming().await;
        let mut manager = http(RouteSource::Inline(Arc::new(table(
            "inline",
            vec![host(&["*"], vec![to("b")])],
        ))));
        manager.timeouts.idle = Some(Duration::from_millis(30));
        manager.timeouts.drain = Some(Duration::from_millis(30));
        let entry = listener("in", Terminal::Http(Arc::new(manager)));
        let proxy = Proxy::start(vec![entry], vec![cluster("b", &[backend.address])]).await;
        let request = http::Request::get("http://a.test/")
            .header("host", "a.test")
            .body(client::Body::default())
            .unwrap();
        let answer = if is_http2 {
            client::http2(proxy.address("in"))
                .await
                .send_request(request)
                .await
        } else {
            client::http1(proxy.address("in"))
                .await
                .send_request(request)
                .await
        };
        let body = began.recv().await.unwrap();
        let answer = tokio::spawn(answer.unwrap().into_body().collect());
        for _ in 0..20 {
            body.send(Ok(Frame::data("x".into()))).await.unwrap();
            // As long as several times the idle time, with a sign of life in each.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(body);
        let whole = answer.await.unwrap().unwrap().to_bytes();
        assert_eq!(whole, "x".repeat(20), "HTTP/2: {is_http2}");
    }
}
