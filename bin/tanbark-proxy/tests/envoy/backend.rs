//! Upstream servers. They write down what they got and obey the header `x-do`.
//!
//! `x-do` is a list of orders, separated by `;`. With `|` in it, the first part is for the first request that the step sends to any upstream, the
//! second for the second, and so on; the last part holds for all that follow. Orders:
//! `status=N`, `header=NAME:VALUE`, `body=TEXT`, `bytes=N`, `chunked`, `trailer=NAME:VALUE`, `delay=MS`, `pause=MS` (between head and body),
//! `close` (with the header), `end` (close after the answer, without a word), `reset`, `half` (breaks off in the body), `hang`, `continue`,
//! `early-hints`, `noread` (answers before it reads the body), `raw=TEXT` (with `\r`, `\n`), `goaway`, `refuse` (REFUSED_STREAM).

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{case::BackendKind, http2};

/// What all backends of a run share.
#[derive(Default)]
pub struct Seen(Mutex<State>);

#[derive(Default)]
struct State {
    requests: Vec<String>,
    /// Requests of this step.
    count: usize,
}

pub struct Backends {
    pub addresses: Vec<(String, SocketAddr)>,
    pub seen: Arc<Seen>,
    /// Ends with the run.
    _tasks: JoinSet<()>,
}

impl Seen {
    /// Notes a request; its number within the step.
    pub fn arrived(&self) -> usize {
        let mut state = self.0.lock().expect("no panic before");
        state.count += 1;
        state.count - 1
    }

    pub fn note(&self, text: String) {
        self.0.lock().expect("no panic before").requests.push(text);
    }

    pub fn len(&self) -> usize {
        self.0.lock().expect("no panic before").requests.len()
    }

    /// What was noted since the last call.
    pub fn take(&self) -> Vec<String> {
        let mut state = self.0.lock().expect("no panic before");
        state.count = 0;
        let mut requests = std::mem::take(&mut state.requests);
        requests.sort();
        requests
    }
}

/// Orders for one request.
#[derive(Debug, Default, Clone)]
pub struct Orders {
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    pub trailers: Vec<(String, String)>,
    pub delay: u64,
    pub pause: u64,
    pub words: Vec<String>,
    pub raw: Option<String>,
}

impl Orders {
    pub fn of(header: &str, number: usize) -> Self {
        let parts: Vec<&str> = header.split('|').collect();
        let part = parts.get(number).or(parts.last()).copied().unwrap_or("");
        let mut orders = Self::default();
        let pair = |text: &str| {
            let (name, value) = text.split_once(':').expect("NAME:VALUE");
            (name.to_owned(), value.to_owned())
        };
        for order in part
            .split(';')
            .map(str::trim)
            .filter(|order| !order.is_empty())
        {
            match order.split_once('=') {
                Some(("status", n)) => orders.status = n.parse().ok(),
                Some(("header", text)) => orders.headers.push(pair(text)),
                Some(("trailer", text)) => orders.trailers.push(pair(text)),
                Some(("body", text)) => orders.body = Some(text.as_bytes().to_vec()),
                Some(("bytes", n)) => orders.body = Some(vec![b'x'; n.parse().expect("a number")]),
                Some(("delay", n)) => orders.delay = n.parse().expect("milliseconds"),
                Some(("pause", n)) => orders.pause = n.parse().expect("milliseconds"),
                Some(("raw", text)) => {
                    orders.raw = Some(text.replace("\\r", "\r").replace("\\n", "\n"));
                }
                _ => orders.words.push(order.to_owned()),
            }
        }
        orders
    }

    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }
}

impl Backends {
    pub async fn start(kinds: Vec<(String, BackendKind)>, tls: TlsAcceptor) -> Self {
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for (name, kind) in kinds {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
            addresses.push((name.clone(), listener.local_addr().expect("its address")));
            if kind != BackendKind::Closed {
                tasks.spawn(accept(listener, name, kind, seen.clone(), tls.clone()));
            }
        }
        Self {
            addresses,
            seen,
            _tasks: tasks,
        }
    }
}

async fn accept(
    listener: TcpListener,
    name: String,
    kind: BackendKind,
    seen: Arc<Seen>,
    tls: TlsAcceptor,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (name, seen, tls) = (name.clone(), seen.clone(), tls.clone());
        connections.spawn(async move {
            match kind {
                BackendKind::Http => drop(http(stream, &name, &seen).await),
                BackendKind::Https => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(http(stream, &name, &seen).await);
                    }
                }
                BackendKind::Echo => drop(echo(stream, &name, &seen).await),
                BackendKind::Closed => {}
            }
        });
    }
}

/// Everything in capitals; what came is noted at the end.
async fn echo(mut stream: TcpStream, name: &str, seen: &Seen) -> std::io::Result<()> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let result = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(n) => {
                all.extend_from_slice(&buffer[..n]);
                stream.write_all(&buffer[..n].to_ascii_uppercase()).await?;
            }
            Err(error) => break Err(error),
        }
    };
    seen.note(format!("{name} got {:?}", String::from_utf8_lossy(&all)));
    result
}

async fn http<S>(mut stream: S, name: &str, seen: &Arc<Seen>) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut buffer = Vec::new();
    loop {
        if !more(&mut stream, &mut buffer).await? {
            return Ok(());
        }
        if buffer.starts_with(b"PRI * HTTP/2.0") {
            return http2::serve(stream, buffer, name, seen.clone()).await;
        }
        let Some(end) = find(&buffer, b"\r\n\r\n") else {
            continue;
        };
        let head: Vec<u8> = buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let go_on = one(&mut stream, &head, &mut buffer, name, seen).await?;
        if !go_on {
            return Ok(());
        }
    }
}

async fn one<S>(
    stream: &mut S,
    head: &str,
    buffer: &mut Vec<u8>,
    name: &str,
    seen: &Seen,
) -> std::io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let field = |wanted: &str| header(head, wanted);
    let orders = Orders::of(field("x-do").unwrap_or(""), seen.arrived());
    if orders.has("continue") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    if orders.has("early-hints") {
        stream
            .write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")
            .await?;
    }
    let is_connect = head.starts_with("CONNECT ");
    let upgrades = field("upgrade").is_some() && orders.status.is_none();
    let body = if orders.has("noread") || is_connect {
        String::from("(not read)")
    } else if field("transfer-encoding").is_some() {
        let body = read_chunked(stream, buffer).await;
        body?
    } else {
        let length = field("content-length").and_then(|n| n.parse().ok());
        let body = read_length(stream, buffer, length.unwrap_or(0)).await?;
        if body.is_empty() {
            body
        } else {
            format!("{} bytes: {}", body.len(), short(&body))
        }
    };
    seen.note(describe(name, head, &body));
    tokio::time::sleep(Duration::from_millis(orders.delay)).await;
    if orders.has("reset") {
        return Ok(false);
    }
    if orders.has("hang") {
        // Until the other side goes away.
        while more(stream, buffer).await? {}
        return Ok(false);
    }
    if let Some(raw) = &orders.raw {
        stream.write_all(raw.as_bytes()).await?;
        return Ok(!orders.has("end"));
    }
    if (upgrades || is_connect) && !orders.has("refuse") {
        return tunnel(stream, buffer, field("upgrade")).await;
    }
    answer(stream, &orders, head.starts_with("HEAD ")).await
}

async fn answer<S: AsyncWrite + Unpin>(
    stream: &mut S,
    orders: &Orders,
    is_head: bool,
) -> std::io::Result<bool> {
    let status = orders.status.unwrap_or(200);
    let body = orders.body.clone().unwrap_or_else(|| b"hello\n".to_vec());
    let has_body = status != 204 && status != 304;
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    for (name, value) in &orders.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if orders.has("chunked") || !orders.trailers.is_empty() {
        head += "transfer-encoding: chunked\r\n";
    } else if has_body && !orders.has("unbounded") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    if orders.has("close") {
        head += "connection: close\r\n";
    }
    stream.write_all((head + "\r\n").as_bytes()).await?;
    tokio::time::sleep(Duration::from_millis(orders.pause)).await;
    if has_body && !is_head {
        let part = if orders.has("half") {
            &body[..body.len() / 2]
        } else {
            &body[..]
        };
        if orders.has("chunked") || !orders.trailers.is_empty() {
            stream
                .write_all(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())
                .await?;
            if !orders.has("half") {
                let mut tail = String::from("0\r\n");
                for (name, value) in &orders.trailers {
                    tail += &format!("{name}: {value}\r\n");
                }
                stream.write_all((tail + "\r\n").as_bytes()).await?;
            }
        } else {
            stream.write_all(part).await?;
        }
    }
    stream.flush().await?;
    let ends = ["close", "end", "half", "unbounded"];
    Ok(!ends.iter().any(|word| orders.has(word)))
}

/// Echoes in capitals after saying yes.
async fn tunnel<S>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    kind: Option<&str>,
) -> std::io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let yes = match kind {
        Some(kind) => {
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {kind}\r\n\r\n"
            )
        }
        None => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
    };
    stream.write_all(yes.as_bytes()).await?;
    loop {
        let bytes = std::mem::take(buffer);
        stream.write_all(&bytes.to_ascii_uppercase()).await?;
        if !more(stream, buffer).await? {
            return Ok(false);
        }
    }
}

/// Request line, headers by name, body.
pub fn describe(name: &str, head: &str, body: &str) -> String {
    let mut lines = head.trim_end().lines();
    let first = lines.next().unwrap_or_default();
    let mut headers: Vec<&str> = lines.collect();
    headers.sort();
    let mut text = format!("{name} got {first}\n");
    for line in headers {
        text += &format!("    {}\n", line.trim_end());
    }
    if !body.is_empty() {
        text += &format!("    -- {body}\n");
    }
    text.trim_end().to_owned()
}

pub fn short(body: &str) -> String {
    let text: String = body.chars().take(200).collect();
    text.replace('\n', "\\n")
}

pub fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then_some(value.trim())
    })
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Reads once more; `false` at the end.
pub async fn more<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let mut part = [0; 16384];
    let n = stream.read(&mut part).await?;
    buffer.extend_from_slice(&part[..n]);
    Ok(n > 0)
}

pub async fn read_length<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    length: usize,
) -> std::io::Result<String> {
    while buffer.len() < length {
        if !more(stream, buffer).await? {
            let rest: Vec<u8> = std::mem::take(buffer);
            return Ok(format!("{} (breaks off)", String::from_utf8_lossy(&rest)));
        }
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// All chunks as one, then the trailers.
pub async fn read_chunked<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> std::io::Result<String> {
    let mut body = String::new();
    loop {
        let Some(line) = read_line(stream, buffer).await? else {
            return Ok(format!("chunks: {} (breaks off)", short(&body)));
        };
        let size = line.split(';').next().unwrap_or_default().trim().to_owned();
        let size = usize::from_str_radix(&size, 16).unwrap_or(0);
        if size == 0 {
            let mut text = format!("chunks, {} bytes: {}", body.len(), short(&body));
            while let Some(line) = read_line(stream, buffer).await? {
                if line.is_empty() {
                    break;
                }
                text += &format!("\n    trailer {line}");
            }
            return Ok(text);
        }
        let part = read_length(stream, buffer, size + 2).await?;
        if part.ends_with("(breaks off)") {
            return Ok(format!("chunks: {}{part}", short(&body)));
        }
        body += part.trim_end_matches("\r\n");
    }
}

async fn read_line<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<String>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
        }
        if !more(stream, buffer).await? {
            return Ok(None);
        }
    }
}
