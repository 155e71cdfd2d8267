//! One request to the API's socket and its answer back.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

use super::guard;

type Body = BoxBody<Bytes, hyper::Error>;

/// The API's answer; where there is none, a `Status` of Kubernetes that says why.
pub async fn answer(
    request: Request<Incoming>,
    local: SocketAddr,
    socket: &Path,
    place: Arc<OwnedSemaphorePermit>,
) -> Response<Body> {
    if let Some(why) = guard::refusal(request.headers(), local) {
        return status(
            StatusCode::FORBIDDEN,
            &format!("tanbark proxy refuses this request: {why}"),
        );
    }
    match pass_on(request, socket, place).await {
        Ok(response) => response,
        Err(error) => status(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("the local API does not answer: {error:#}"),
        ),
    }
}

async fn pass_on(
    mut request: Request<Incoming>,
    socket: &Path,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<Response<Body>> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| socket.display().to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // task: the connection of one request to the local API; ends with the answer's body or what it
    // was upgraded to
    tokio::spawn(connection.with_upgrades());
    let upgrades = request.headers().contains_key(header::UPGRADE);
    let client = upgrades.then(|| hyper::upgrade::on(&mut request));
    let mut response = sender.send_request(request).await?;
    if let Some(client) = client
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        let server = hyper::upgrade::on(&mut response);
        // task: the bytes of an upgraded connection; ends with either side
        tokio::spawn(async move {
            let _place = place;
            if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
    Ok(response.map(|body| body.boxed()))
}

fn status(code: StatusCode, message: &str) -> Response<Body> {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    let text = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code.as_u16()});
    let body = Full::new(Bytes::from(text.to_string()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream, UnixListener};

    /// A proxy before an API that echoes the request's first line, and upgrades where that is asked
    /// for.
    async fn proxy(folder: &Path) -> SocketAddr {
        let socket = folder.join("api.sock");
        let api = UnixListener::bind(&socket).expect("a socket");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = api.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                let head = String::from_utf8(head).expect("text").to_lowercase();
                let answer = if head.contains("upgrade: echo") {
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n".to_owned()
                } else {
                    let line = head.lines().next().expect("a line").to_owned();
                    format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{line}",
                        line.len()
                    )
                };
                stream.write_all(answer.as_bytes()).await.expect("written");
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let local = listener.local_addr().expect("an address");
        tokio::spawn(async move { super::super::serve(&listener, local, socket).await });
        local
    }

    async fn ask(local: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(local).await.expect("connected");
        let text = format!("GET /version HTTP/1.1\r\nconnection: close\r\n{head}\r\n");
        stream.write_all(text.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    #[tokio::test]
    async fn requests_are_passed_on_and_those_of_other_hosts_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = proxy(folder.path()).await;
        let answer = ask(local, &format!("host: {local}\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("get /version http/1.1"),
            "{answer}"
        );
        let answer = ask(local, "host: evil.example\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("\"reason\":\"Forbidden\""),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn an_upgraded_connection_is_bytes_both_ways() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = proxy(folder.path()).await;
        let mut stream = TcpStream::connect(local).await.expect("connected");
        let head = format!(
            "GET /exec HTTP/1.1\r\nhost: {local}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.expect("a head"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        stream.write_all(b"ping").await.expect("written");
        let mut echoed = [0; 4];
        stream.read_exact(&mut echoed).await.expect("read");
        assert_eq!(&echoed, b"ping");
    }

    #[tokio::test]
    async fn a_runtime_that_went_away_is_a_status() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = proxy(folder.path()).await;
        std::fs::remove_file(folder.path().join("api.sock")).expect("removed");
        let answer = ask(local, &format!("host: {local}\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("does not answer"),
            "{answer}"
        );
    }
}
