//! Upstreams: HTTP servers that answer by a function, and raw ones.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};

pub type Answer = Response<BoxBody<Bytes, Infallible>>;

pub struct Backend {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    pub connections: Arc<AtomicUsize>,
}

impl Backend {
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub fn text(body: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(body.into()).boxed())
}

pub fn status(code: u16) -> Answer {
    let mut answer = text(format!("status {code}"));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
    answer
}

/// An HTTP/1 and HTTP/2 server; the function sees each request and its number, from 0.
pub async fn serve<F, R>(answer: F) -> Backend
where
    F: Fn(usize, Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let answer = Arc::new(answer);
    let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = requests.clone();
    let accept = {
        let connections = connections.clone();
        move |stream: TcpStream| {
            connections.fetch_add(1, Ordering::SeqCst);
            let (answer, counted) = (answer.clone(), counted.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let response = answer(counted.fetch_add(1, Ordering::SeqCst), request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    };
    Backend {
        address: raw(accept).await,
        requests,
        connections,
    }
}

/// Answers every request with a description of it.
pub async fn echo() -> Backend {
    serve(|_, request| async move {
        let (head, body) = request.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let mut lines = vec![format!("{} {} {:?}", head.method, head.uri, head.version)];
        lines.extend(
            head.headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())),
        );
        lines.extend(
            trailers
                .iter()
                .map(|(name, value)| format!("trailer {name}: {}", value.to_str().unwrap())),
        );
        lines.push(String::from_utf8(collected.to_bytes().to_vec()).unwrap());
        text(lines.join("\n"))
    })
    .await
}

/// A TCP server that hands each connection to a function.
pub async fn raw(accept: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accept(stream);
        }
    });
    address
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}
