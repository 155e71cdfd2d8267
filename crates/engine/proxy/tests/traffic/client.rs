//! HTTP clients for tests.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

pub type Body = Full<Bytes>;

/// A keep-alive HTTP/1.1 connection.
pub async fn http1(address: SocketAddr) -> http1::SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

/// An HTTP/2 connection without TLS.
pub async fn http2<B>(address: SocketAddr) -> http2::SendRequest<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "a.test")
        .body(Body::default())
        .unwrap()
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> (Response<()>, String) {
    send(address, request("GET", path)).await
}

pub async fn send(address: SocketAddr, request: Request<Body>) -> (Response<()>, String) {
    let mut sender = http1(address).await;
    read(sender.send_request(request).await.unwrap()).await
}

pub async fn read(response: Response<hyper::body::Incoming>) -> (Response<()>, String) {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (
        Response::from_parts(head, ()),
        String::from_utf8(bytes.to_vec()).unwrap(),
    )
}
