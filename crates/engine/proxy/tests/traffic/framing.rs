//! Where messages end, on both sides and in both versions of HTTP: what is whole arrives whole, and
//! what is cut looks cut.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use proxy_config::{cluster::UpstreamProtocol, listener::Terminal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{backend, client, config::*, proxy::Proxy};

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;

fn over_http2(name: &str, address: SocketAddr) -> proxy_config::Cluster {
    cluster_with(name, &[address], |c| {
        c.http.protocol = UpstreamProtocol::Http2
    })
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What an HTTP/2 client sends.
struct Frames {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Frames {
    /// Reads the client's preface.
    async fn new(mut stream: TcpStream) -> Self {
        stream.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// The stream of the next request, once its head is there; `None`: the client closed.
    async fn request(&mut self) -> Option<u32> {
        loop {
            while let Some(&[high, middle, low, kind, _, a, b, c, d]) = self.read.first_chunk() {
                let length = u32::from_be_bytes([0, high, middle, low]);
                let end = FRAME_HEADER_BYTES + usize::try_from(length).unwrap();
                if self.read.len() < end {
                    break;
                }
                self.read.drain(..end);
                if kind == HEADERS {
                    return Some(u32::from_be_bytes([a, b, c, d]));
                }
            }
            if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// Every method, with a length, without one, and without a body, from both versions of HTTP to
/// both.
#[tokio::test]
async fn a_body_goes_upstream_whatever_the_method_and_however_its_length_is_told() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let backend = backend::serve(move |_, request| {
        let noted = noted.clone();
        async move {
            let line = format!("{} {:?}", request.method(), request.version());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            noted.lock().push(format!("{line} {}", body.escape_ascii()));
            backend::text("")
        }
    })
    .await;
    let routes = vec![
        route(
            proxy_config::route::PathMatch::Prefix("/one".into()),
            proxy_config::route::RouteAction::Forward(Arc::new(forward("one"))),
        ),
        to("two"),
    ];
    let clusters = vec![
        cluster("one", &[backend.address]),
        over_http2("two", backend.address),
    ];
    let proxy = Proxy::start(vec![http_listener("in", routes)], clusters).await;
    let address = proxy.address("in");
    for (path, upstream) in [("/one", "HTTP/1.1"), ("/two", "HTTP/2.0")] {
        for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT"] {
            for (framing, sent) in [
                (
                    "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                    "hello",
                ),
                ("content-length: 5\r\n\r\nhello", "hello"),
                ("\r\n", ""),
            ] {
                let expected = format!("{method} {upstream} {sent}");
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{framing}");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut head = [0; 15];
                stream.read_exact(&mut head).await.unwrap();
                assert_eq!(&head, b"HTTP/1.1 200 OK", "{request}");
                assert_eq!(seen.lock().pop().as_ref(), Some(&expected), "{request}");
            }
            for (length, sent) in [(None, "hello"), (Some("5"), "hello"), (Some("0"), "")] {
                let expected = format!("{method} {upstream} {sent}");
                let frames = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(
                    Bytes::from_static(sent.as_bytes()),
                ))]);
                let mut request = Request::new(BodyExt::boxed(StreamBody::new(frames)));
                *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
                *request.uri_mut() = format!("http://a{path}").parse().unwrap();
                if let Some(length) = length {
                    let length = HeaderValue::from_static(length);
                    request.headers_mut().insert("content-length", length);
                }
                let mut sender = client::http2::<BoxBody<Bytes, Infallible>>(address).await;
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK);
                assert_eq!(
                    seen.lock().pop().as_ref(),
                    Some(&expected),
                    "HTTP/2 {length:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_is_refused_and_made_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let address = backend::raw(move |stream| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            if number > 0 {
                let answer = service_fn(|_| async { Ok::<_, Infallible>(backend::text("again")) });
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                return;
            }
            let mut frames = Frames::new(stream).await;
            frames.request().await.unwrap();
            let goodbye = [frame(SETTINGS, 0, 0, &[]), frame(GOAWAY, 0, 0, &[0; 8])].concat();
            frames.stream.write_all(&goodbye).await.unwrap();
            // Until the other side closes.
            while frames.request().await.is_some() {}
        });
    })
    .await;
    let route = to_with("b", |rules| rules.retry = retry("refused-stream", 1));
    let proxy = Proxy::start(
        vec![http_listener("in", vec![route])],
        vec![over_http2("b", address)],
    )
    .await;
    let (head, body) = client::get(proxy.address("in"), "/").await;
    assert_eq!((head.status(), &*body), (StatusCode::OK, "again"));
    assert_eq!(proxy.record(0).await.attempts, 2);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// RFC 9113 §8.1 lets a server reset with NO_ERROR only after a whole answer.
#[tokio::test]
async fn an_answer_that_is_reset_without_an_error_is_not_whole() {
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move {
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            let mut frames = Frames::new(stream).await;
            while let Some(id) = frames.request().await {
                // `:status: 200` has a place in the table of RFC 7541.
                let half = [
                    frame(HEADERS, END_HEADERS, id, &[0x88]),
                    frame(DATA, 0, id, b"half of it"),
                    frame(RST_STREAM, 0, id, &[0; 4]),
                ];
                frames.stream.write_all(&half.concat()).await.unwrap();
            }
        });
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![over_http2("b", address)],
    )
    .await;
    let mut sender = client::http1(proxy.address("in")).await;
    let answer = sender.send_request(client::request("GET", "/")).await;
    let answer = answer.unwrap().into_body().collect().await;
    assert!(answer.is_err(), "HTTP/1: {answer:?}");
    let mut sender = client::http2::<client::Body>(proxy.address("in")).await;
    let request = Request::get("http://a/")
        .body(client::Body::default())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let answer = answer.into_body().collect().await;
    assert!(answer.is_err(), "HTTP/2: {answer:?}");
    for at in 0..2 {
        let record = proxy.record(at).await;
        assert_eq!(record.flags.to_string(), "UR");
        assert_eq!(
            record.response_code_details.as_deref(),
            Some("upstream_reset_after_response_started{remote_reset}")
        );
    }
}

/// Envoy lets 60 KiB pass; the HTTP library's own limit is 16 KB, beyond which it drops what is
/// left of trailers.
#[tokio::test]
async fn heads_and_trailers_of_an_http2_upstream_may_be_large() {
    const BYTES: usize = 58_000;
    let backend = backend::serve(|_, _| async {
        let large = HeaderValue::from_str(&"d".repeat(BYTES)).unwrap();
        let trailers = HeaderMap::from_iter([
            ("x-details".parse().unwrap(), large.clone()),
            ("x-last".parse().unwrap(), HeaderValue::from_static("7")),
        ]);
        let frames = [
            Frame::data(Bytes::from_static(b"hello")),
            Frame::trailers(trailers),
        ];
        let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
        let mut answer = Response::new(BodyExt::boxed(StreamBody::new(frames)));
        answer.headers_mut().insert("x-large", large);
        answer
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![over_http2("b", backend.address)],
    )
    .await;
    let stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a/")
        .body(client::Body::default())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-large"].len(), BYTES);
    let body = answer.into_body().collect().await.unwrap();
    let trailers = body.trailers().unwrap();
    assert_eq!(
        (trailers["x-details"].len(), &trailers["x-last"]),
        (BYTES, &HeaderValue::from_static("7"))
    );
}

/// An upstream that answers each of its connections with these bytes, again and again, and how many
/// connections there were.
async fn answers(bytes: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let address = backend::raw(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut read = [0; 4096];
            while stream.read(&mut read).await.is_ok_and(|read| read > 0) {
                if stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
        });
    })
    .await;
    (address, connections)
}

#[tokio::test]
async fn an_answer_with_a_body_that_it_must_not_have_poisons_no_other_request() {
    let (address, connections) = answers(
        b"HTTP/1.1 204 No Content\r\ncontent-length: 38\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[address])],
    )
    .await;
    for at in 0..3 {
        let (head, _) = client::get(proxy.address("in"), "/").await;
        assert_eq!(head.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(proxy.record(at).await.flags.to_string(), "UPE");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_answer_that_breaks_at_once_still_has_a_head() {
    let (address, _) =
        answers(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[address])],
    )
    .await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
    assert!(answer.ends_with("\r\n\r\n"), "no last chunk: {answer:?}");
    let record = proxy.record(0).await;
    assert_eq!(record.flags.to_string(), "UPE");
}

/// A client that uploads reads the answer, and no reset takes it away.
#[tokio::test]
async fn an_answer_before_the_end_of_a_request_arrives() {
    let mut manager = http(proxy_config::http_connection_manager::RouteSource::Inline(
        Arc::new(table("inline", vec![host(&["*"], vec![])])),
    ));
    manager.timeouts.delayed_close = Some(Duration::from_secs(10));
    let entry = listener("in", Terminal::Http(Arc::new(manager)));
    let proxy = Proxy::start(vec![entry], vec![]).await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // More than the sockets' buffers hold, long after the answer.
    for _ in 0..20_000 {
        let written = stream.write_all(&[b'x'; 1024]).await;
        assert!(
            written.is_ok(),
            "a client that uploads is read from: {written:?}"
        );
    }
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    assert!(read.is_ok(), "{read:?} after {answer:?}");
    assert!(
        answer.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_head_above_the_limit_is_refused_on_both_versions() {
    let backend = backend::echo().await;
    let mut entry = http_listener("in", vec![to("b")]);
    let mut chain = (*entry.chains[0]).clone();
    if let Terminal::Http(http) = &mut chain.terminal {
        Arc::make_mut(http).max_request_headers_kb = 2;
    }
    entry.chains = Arc::from([Arc::new(chain)]);
    let proxy = Proxy::start(vec![entry], vec![cluster("b", &[backend.address])]).await;
    for (bytes, expected) in [
        (1900, StatusCode::OK),
        (2048, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let mut request = client::request("GET", "/");
        let value = HeaderValue::from_str(&"v".repeat(bytes)).unwrap();
        request.headers_mut().insert("x", value.clone());
        let (head, _) = client::send(proxy.address("in"), request).await;
        assert_eq!(head.status(), expected, "HTTP/1, {bytes} bytes");
        let mut sender = client::http2::<client::Body>(proxy.address("in")).await;
        let mut request = Request::get("http://a/").body(Full::default()).unwrap();
        request.headers_mut().insert("x", value);
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), expected, "HTTP/2, {bytes} bytes");
    }
}

/// Nobody sent the end of this request, so no upstream may take it for whole.
#[tokio::test]
async fn a_request_that_is_reset_without_an_error_is_not_whole() {
    let (told, mut bodies) = tokio::sync::mpsc::channel(1);
    let backend = backend::serve(move |_, request| {
        let told = told.clone();
        async move {
            let body = request.into_body().collect().await;
            told.send(body.map(|body| body.to_bytes())).await.unwrap();
            backend::text("")
        }
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    // POST, http and / have places in the table of RFC 7541; the authority is a literal.
    let head = [0x83, 0x86, 0x84, 0x01, 0x01, b'a'];
    let part = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &head),
        frame(DATA, 0, 1, b"half of it"),
    ];
    stream.write_all(&part.concat()).await.unwrap();
    crate::proxy::until(|| backend.requests() == 1).await;
    stream
        .write_all(&frame(RST_STREAM, 0, 1, &[0; 4]))
        .await
        .unwrap();
    let body = bodies.recv().await.unwrap();
    assert!(body.is_err(), "{body:?}");
}
