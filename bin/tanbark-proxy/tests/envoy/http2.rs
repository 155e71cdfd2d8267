//! HTTP/2 on both sides, frame by frame as far as that can be seen.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    backend::{Orders, Seen, describe, short},
    case::{Http2, Step},
    client::Duplex,
};

fn headers<'a>(lines: impl IntoIterator<Item = &'a String>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("NAME: VALUE");
        map.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        );
    }
    map
}

fn lines(map: &HeaderMap, indent: &str) -> String {
    let mut lines: Vec<String> = map
        .iter()
        .map(|(name, value)| {
            format!(
                "{indent}{name}: {}\n",
                String::from_utf8_lossy(value.as_bytes())
            )
        })
        .collect();
    lines.sort();
    lines.concat()
}

/// One request; what came back, or how the stream ended.
pub async fn request<S: Duplex + 'static>(
    stream: S,
    wanted: &Http2,
    step: &Step,
) -> std::io::Result<String> {
    let (send, connection) = match h2::client::handshake(stream).await {
        Ok(made) => made,
        Err(error) => return Ok(format!("no HTTP/2: {}\n", reason(&error))),
    };
    let driver = tokio::spawn(connection);
    let text = match exchange(send, wanted, step).await {
        Ok(text) => text,
        Err(error) => format!("ended: {}\n", reason(&error)),
    };
    driver.abort();
    Ok(text)
}

fn reason(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_go_away() => format!("GOAWAY {reason:?}"),
        Some(reason) => format!("RST_STREAM {reason:?}"),
        None => "the connection".into(),
    }
}

async fn exchange(
    send: h2::client::SendRequest<Bytes>,
    wanted: &Http2,
    step: &Step,
) -> Result<String, h2::Error> {
    let (pseudo, plain): (Vec<&String>, Vec<&String>) = wanted
        .headers
        .iter()
        .partition(|line| line.starts_with(':'));
    let field = |name: &str| {
        let found = pseudo
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.map(str::to_owned)
    };
    let method: Method = field(":method")
        .as_deref()
        .unwrap_or("GET")
        .parse()
        .expect("a method");
    let authority = field(":authority").unwrap_or_else(|| "a.test".into());
    let is_connect = method == Method::CONNECT && field(":protocol").is_none();
    let uri = if is_connect {
        authority
    } else {
        let scheme = field(":scheme").unwrap_or_else(|| "http".into());
        let path = field(":path").unwrap_or_else(|| "/".into());
        format!("{scheme}://{authority}{path}")
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().expect("a URI");
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers(plain);
    let mut send = send.ready().await?;
    if let Some(protocol) = field(":protocol") {
        // The other side must have said that it may be asked.
        let wait = async {
            while !send.is_extended_connect_protocol_enabled() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(1), wait)
            .await
            .is_err()
        {
            return Ok("no extended CONNECT\n".into());
        }
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from(protocol.as_str()));
    }
    let whole = wanted.body.is_none() && wanted.trailers.is_empty() && step.tunnel.is_none();
    let (response, mut body) = send.send_request(request, whole)?;
    // An answer that comes early ends the stream before all of the request is sent: what came back tells, not what could not be sent.
    if let Some(bytes) = &wanted.body {
        let ends = wanted.trailers.is_empty();
        let _ = body.send_data(Bytes::from(bytes.clone()), ends);
    }
    if !wanted.trailers.is_empty() {
        let _ = body.send_trailers(headers(&wanted.trailers));
    }
    let response = response.await?;
    let mut text = format!("{:?} {}\n", response.version(), response.status().as_u16());
    text += &lines(response.headers(), "  ");
    let mut incoming = response.into_body();
    if let Some(bytes) = &step.tunnel {
        body.send_data(Bytes::from(bytes.clone()), false)?;
        let mut got = Vec::new();
        while got.len() < bytes.len() {
            match incoming.data().await {
                Some(data) => got.extend_from_slice(&data?),
                None => break,
            }
        }
        return Ok(text + &format!("tunnel: {}\n", String::from_utf8_lossy(&got)));
    }
    Ok(text + &rest(&mut incoming).await)
}

async fn rest(incoming: &mut h2::RecvStream) -> String {
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        match data {
            Ok(data) => {
                let _ = incoming.flow_control().release_capacity(data.len());
                body.extend_from_slice(&data);
            }
            Err(error) => {
                return format!("  -- {} bytes, then {}\n", body.len(), reason(&error));
            }
        }
    }
    let mut text = String::new();
    if !body.is_empty() {
        let shown = String::from_utf8_lossy(&body);
        text += &format!("  -- {} bytes: {}\n", body.len(), short(&shown));
    }
    match incoming.trailers().await {
        Ok(Some(trailers)) => text += &lines(&trailers, "  trailer "),
        Ok(None) => {}
        Err(error) => text += &format!("  then {}\n", reason(&error)),
    }
    text
}

/// Serves a connection whose first bytes were read already.
pub async fn serve<S>(stream: S, read: Vec<u8>, name: &str, seen: Arc<Seen>) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Replayed {
        read,
        at: 0,
        stream,
    };
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return Ok(());
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (name, seen) = (name.to_owned(), seen.clone());
        let orders = request.headers().get("x-do").cloned();
        let orders = orders
            .as_ref()
            .and_then(|o| o.to_str().ok())
            .unwrap_or_default();
        let orders = Orders::of(orders, seen.arrived());
        if orders.has("goaway") {
            connection.graceful_shutdown();
        }
        if orders.has("reset") {
            seen.note(format!("{name} resets"));
        }
        tokio::spawn(async move {
            let _ = answer(request, respond, orders, &name, &seen).await;
        });
    }
    Ok(())
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    orders: Orders,
    name: &str,
    seen: &Seen,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    if orders.has("refuse") {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        return Ok(());
    }
    if orders.has("reset") {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let protocol = head
        .extensions
        .get::<h2::ext::Protocol>()
        .map(|p| p.as_str().to_owned());
    let mut text = format!("{} {} HTTP/2", head.method, head.uri);
    if let Some(protocol) = &protocol {
        text += &format!(" :protocol={protocol}");
    }
    text += "\n";
    text += &lines(&head.headers, "");
    if head.method == Method::CONNECT {
        seen.note(describe(name, &text, ""));
        let mut send = respond.send_response(Response::new(()), false)?;
        while let Some(data) = body.data().await {
            let data = data?;
            let _ = body.flow_control().release_capacity(data.len());
            send.send_data(data.to_ascii_uppercase().into(), false)?;
        }
        return Ok(());
    }
    let rest = rest(&mut body).await;
    seen.note(describe(name, &text, rest.trim().trim_start_matches("-- ")));
    tokio::time::sleep(Duration::from_millis(orders.delay)).await;
    if orders.has("hang") {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(());
    *response.status_mut() = orders.status.unwrap_or(200).try_into().expect("a status");
    for (name, value) in &orders.headers {
        response.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            value.parse().expect("a value"),
        );
    }
    let body = orders.body.clone().unwrap_or_else(|| b"hello\n".to_vec());
    let only_head = body.is_empty() && orders.trailers.is_empty();
    let mut send = respond.send_response(response, only_head)?;
    if only_head {
        return Ok(());
    }
    tokio::time::sleep(Duration::from_millis(orders.pause)).await;
    send.send_data(
        body.into(),
        orders.trailers.is_empty() && !orders.has("half"),
    )?;
    if orders.has("half") {
        send.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    if !orders.trailers.is_empty() {
        let trailers: Vec<String> = orders
            .trailers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        send.send_trailers(headers(&trailers))?;
    }
    Ok(())
}

/// A stream that first gives back what was read from it.
struct Replayed<S> {
    read: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.at < self.read.len() {
            let n = (self.read.len() - self.at).min(out.remaining());
            let at = self.at;
            out.put_slice(&self.read[at..at + n]);
            self.at += n;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
