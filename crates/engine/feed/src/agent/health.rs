//! Port 15020: readiness, and Envoy's statistics with the agent's own in one page.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use stdx::Clock;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{FeedError, status::Status};

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// The largest page of Envoy's that is carried on.
const PAGE_BYTES: usize = 64 << 20;
/// A call of Envoy's admin port that takes longer has failed.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy is ready when these say so: Istio's rule.
const READY_QUERY: &str = "/stats?usedonly&filter=%5E(server.state%7Ccluster_manager.cds.update_success%7Clistener_manager.lds.update_success%7Clistener_manager.workers_started)%24";

#[derive(Clone)]
pub(super) struct Health {
    pub admin_port: u16,
    pub status: Arc<Status>,
    pub clock: Arc<dyn Clock>,
}

pub(super) fn listen(port: u16) -> Result<TcpListener, FeedError> {
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|error| FeedError::File {
        path: format!("port {port}"),
        error,
    })
}

pub(super) async fn serve(listener: TcpListener, health: Health) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let health = health.clone();
        // task: one connection to the agent's health port; holds one of CONNECTIONS places, ends
        // with its client
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let health = health.clone();
                async move { Ok::<_, std::convert::Infallible>(health.answer(request).await) }
            });
            let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            server
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10));
            // A client that goes away is no event.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(slot);
        });
    }
}

impl Health {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz/ready") => match self.ready().await {
                Ok(()) => reply(StatusCode::OK, String::new()),
                Err(why) => reply(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            (&Method::GET, "/stats/prometheus" | "/metrics") => {
                let own = self.status.prometheus(self.clock.wall());
                let envoy = self
                    .admin(Method::GET, "/stats/prometheus")
                    .await
                    .unwrap_or_default();
                reply(StatusCode::OK, envoy + &own)
            }
            _ => reply(StatusCode::NOT_FOUND, String::new()),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        let stats = self
            .admin(Method::GET, READY_QUERY)
            .await
            .map_err(|e| format!("Envoy does not answer: {e}"))?;
        let value = |name: &str| {
            stats
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(key, _)| *key == name)
                .map(|(_, v)| v.trim())
        };
        let received = |name| value(name).is_some_and(|v| v != "0");
        if !received("cluster_manager.cds.update_success")
            || !received("listener_manager.lds.update_success")
        {
            return Err("configuration has not been received".into());
        }
        if value("server.state") != Some("0")
            || value("listener_manager.workers_started") != Some("1")
        {
            return Err("Envoy is not live".into());
        }
        Ok(())
    }

    async fn admin(&self, method: Method, path: &str) -> io::Result<String> {
        let call = admin(self.admin_port, method, path);
        tokio::time::timeout(ADMIN_TIMEOUT, call)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// One call of Envoy's admin page.
pub(super) async fn admin(port: u16, method: Method, path: &str) -> io::Result<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Full::<Bytes>::default());
    let request = request.map_err(io::Error::other)?;
    let call = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), PAGE_BYTES)
            .collect()
            .await
            .map_err(io::Error::other)?;
        if !status.is_success() {
            return Err(io::Error::other(format!("status {status}")));
        }
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    let driven = async {
        // The call sees any failure of the connection itself.
        let _ = connection.await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        answer = call => answer,
        () = driven => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

fn reply(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, text);
    response
}
