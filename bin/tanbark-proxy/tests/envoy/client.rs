//! The downstream's side of a step: what is sent, and what comes back as text.

use std::{net::SocketAddr, time::Duration};

use identity::{IdentityHandle, tls::ClientTls};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    backend::{find, header, more, read_chunked, read_length, short},
    case::{Step, TlsSketch},
    http2,
};

/// How long a whole step may take; longer than any time limit in the cases.
const PATIENCE: Duration = Duration::from_secs(8);

pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Does one step and tells what came back.
pub async fn run(step: &Step, address: SocketAddr, identity: &IdentityHandle) -> String {
    match timeout(PATIENCE, attempt(step, address, identity)).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => format!("client: {}", plain(&error)),
        Err(_) => "client: nothing came in time".to_owned(),
    }
}

/// How a connection broke off is a matter of timing; that it did is not.
fn plain(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::InvalidData => "TLS refused",
        _ => "closed",
    }
}

async fn attempt(
    step: &Step,
    address: SocketAddr,
    identity: &IdentityHandle,
) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(step.prefix.as_bytes()).await?;
    match &step.tls {
        None => over(step, stream).await,
        Some(tls) => {
            let stream = secure(stream, tls, identity).await?;
            let text = match &stream.get_ref().1.alpn_protocol() {
                Some(alpn) => format!("alpn {}\n", String::from_utf8_lossy(alpn)),
                None => String::new(),
            };
            Ok(text + &over(step, stream).await?)
        }
    }
}

async fn secure(
    stream: TcpStream,
    tls: &TlsSketch,
    identity: &IdentityHandle,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let alpn = tls.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let mut wanted = ClientTls::workload(identity.clone(), Vec::new(), tls.sni.clone(), alpn);
    if !tls.certificate {
        wanted.presented = None;
    }
    wanted.resumption = false;
    let config = identity::tls::client_config(&wanted).expect("a client's settings");
    tokio_rustls::TlsConnector::from(config.rustls.clone())
        .connect(config.server_name.clone(), stream)
        .await
}

async fn over<S: Duplex + 'static>(step: &Step, mut stream: S) -> std::io::Result<String> {
    if let Some(request) = &step.h2 {
        return http2::request(stream, request, step).await;
    }
    if let Some(bytes) = &step.tcp {
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = vec![0; bytes.len()];
        let mut read = 0;
        while read < answer.len() {
            // Closed is closed, in order or not.
            match stream.read(&mut answer[read..]).await {
                Ok(0) | Err(_) => break,
                Ok(n) => read += n,
            }
        }
        return Ok(format!("{:?}", String::from_utf8_lossy(&answer[..read])));
    }
    let mut text = String::new();
    let mut buffer = Vec::new();
    for request in &step.send {
        let request = complete(request);
        stream.write_all(request.as_bytes()).await?;
        let method = request.split(' ').next().unwrap_or_default().to_owned();
        for _ in 0..step.responses {
            text += &response(&mut stream, &mut buffer, &method).await?;
        }
    }
    if let Some(raw) = &step.raw {
        // A proxy that has seen enough may close before it has read all.
        let written = stream.write_all(raw.as_bytes()).await;
        let method = raw.split(' ').next().unwrap_or_default().to_owned();
        for _ in 0..step.responses {
            match response(&mut stream, &mut buffer, &method).await {
                Ok(answer) => text += &answer,
                Err(error) => {
                    written?;
                    return Err(error);
                }
            }
        }
    }
    if let Some(bytes) = &step.tunnel {
        stream.write_all(bytes.as_bytes()).await?;
        text += &format!(
            "tunnel: {}\n",
            read_length(&mut stream, &mut buffer, bytes.len()).await?
        );
    }
    if step.close {
        // However it does it.
        while matches!(more(&mut stream, &mut buffer).await, Ok(true)) {}
        text += &format!("closed, {} bytes more\n", buffer.len());
    }
    Ok(text)
}

/// Adds what a request nearly always has: version, host, length.
fn complete(request: &str) -> String {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let mut lines: Vec<String> = head.trim_end().lines().map(str::to_owned).collect();
    if !lines[0].contains(" HTTP/") {
        lines[0] += " HTTP/1.1";
    }
    let has = |name: &str| header(head, name).is_some();
    let no_host = lines.iter().position(|line| line == "nohost");
    if let Some(at) = no_host {
        lines.remove(at);
    } else if !has("host") {
        lines.insert(1, "Host: a.test".into());
    }
    let body = body.strip_suffix('\n').unwrap_or(body);
    let chunked = has("transfer-encoding");
    if !body.is_empty() && !has("content-length") && !chunked {
        lines.push(format!("Content-Length: {}", body.len()));
    }
    let body = if chunked {
        body.replace('\n', "\r\n") + "\r\n\r\n"
    } else {
        body.to_owned()
    };
    lines.join("\r\n") + "\r\n\r\n" + &body
}

/// One response, with the 1xx before it.
async fn response<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    method: &str,
) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let Some(end) = find(buffer, b"\r\n\r\n") else {
            if !more(stream, buffer).await.unwrap_or(false) {
                // In order or not.
                let rest = match buffer.len() {
                    0 => "client: closed".to_owned(),
                    rest => format!("client: closed after {rest} bytes\n"),
                };
                return Ok(text + &rest);
            }
            continue;
        };
        let head: Vec<u8> = buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().lines();
        let first = lines.next().unwrap_or_default();
        let mut headers: Vec<&str> = lines.collect();
        headers.sort();
        text += &format!("{first}\n");
        for line in &headers {
            text += &format!("  {line}\n");
        }
        let status: u16 = first.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let bare = method == "HEAD"
            || status == 101
            || status == 204
            || status == 304
            || (method == "CONNECT" && status == 200);
        if bare {
            return Ok(text);
        }
        return Ok(text + &body(stream, buffer, &head).await?);
    }
}

async fn body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    head: &str,
) -> std::io::Result<String> {
    if header(head, "transfer-encoding").is_some() {
        return Ok(format!("  -- {}\n", read_chunked(stream, buffer).await?));
    }
    match header(head, "content-length").and_then(|n| n.parse().ok()) {
        Some(0) => Ok(String::new()),
        Some(length) => {
            let body = read_length(stream, buffer, length).await?;
            Ok(format!("  -- {} bytes: {}\n", body.len(), short(&body)))
        }
        None => {
            while matches!(more(stream, buffer).await, Ok(true)) {}
            let body = String::from_utf8_lossy(&std::mem::take(buffer)).into_owned();
            Ok(format!(
                "  -- until the end, {} bytes: {}\n",
                body.len(),
                short(&body)
            ))
        }
    }
}
