//! Listeners and connections of all kinds, and their orderly end.
//!
//! Each listening port is printed as `KIND listening on ADDRESS` once it accepts, so that a test that asked for port 0 learns the number;
//! `ready` follows when all do. On SIGTERM or SIGINT ports close, HTTP connections finish the requests they have (HTTP/2 by GOAWAY),
//! WebSockets are closed with 1001, and what remains after the drain time is dropped. At most [`MAX_CONNECTIONS`] at once; more wait in the
//! kernel's accept queue.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::connection::{Abort, Connection, Scheme};
use crate::counters::Counters;
use crate::http;
use crate::server::{Echo, Settings};
use crate::shape::Failures;
use crate::tcp::{self, Conversation};

/// Connections served at the same time.
const MAX_CONNECTIONS: usize = 20_000;
/// Longest TLS handshake, and longest wait for a request's head.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What to listen on.
#[derive(Default)]
pub struct Plan {
    pub http: Vec<SocketAddr>,
    pub grpc: Vec<SocketAddr>,
    pub tcp: Vec<SocketAddr>,
    pub tls: Vec<SocketAddr>,
    /// Needed where `tls` names a port.
    pub acceptor: Option<TlsAcceptor>,
    /// How TCP ports, and TLS ports without ALPN, behave.
    pub line: Conversation,
}

/// How a server ends after the signal.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// New connections are still taken.
    pub linger: Duration,
    /// After that, requests under way may finish.
    pub drain: Duration,
}

/// What a listener does with its connections.
#[derive(Clone)]
enum Kind {
    Http(Router),
    Tcp,
    Tls(TlsAcceptor, Router),
}

/// What all connections share.
struct Shared {
    line: Conversation,
    counters: Arc<Counters>,
    stop: CancellationToken,
}

/// Serves until a signal, then ends as told.
pub async fn serve(plan: Plan, settings: Settings, ending: Ending) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let counters = Arc::new(Counters::default());
    let upgraded = TaskTracker::new();
    let router = http::router(Echo {
        settings: settings.clone(),
        counters: counters.clone(),
        failures: Failures::default(),
        stop: stop.clone(),
        upgraded: upgraded.clone(),
    });
    let grpc = http::grpc_router(&settings, counters.clone());
    let shared = Arc::new(Shared {
        line: plan.line,
        counters,
        stop: stop.clone(),
    });
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));

    let mut listeners = Vec::new();
    for address in plan.http {
        listeners.push((bind("http", address).await?, Kind::Http(router.clone())));
    }
    for address in plan.grpc {
        listeners.push((bind("grpc", address).await?, Kind::Http(grpc.clone())));
    }
    for address in plan.tcp {
        listeners.push((bind("tcp", address).await?, Kind::Tcp));
    }
    for address in plan.tls {
        let acceptor = plan
            .acceptor
            .clone()
            .context("a TLS port needs a certificate")?;
        listeners.push((
            bind("tls", address).await?,
            Kind::Tls(acceptor, router.clone()),
        ));
    }
    if listeners.is_empty() {
        bail!("no port to listen on: give at least one of --http, --grpc, --tcp, --tls");
    }
    println!("ready");
    let mut accepting = JoinSet::new();
    for (listener, kind) in listeners {
        accepting.spawn(accept(listener, kind, shared.clone(), limit.clone()));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::time::sleep(ending.linger).await;
    stop.cancel();
    let drained = tokio::time::timeout(ending.drain, async {
        while accepting.join_next().await.is_some() {}
        upgraded.close();
        upgraded.wait().await;
    });
    if drained.await.is_err() {
        println!(
            "stopping with connections open: they took longer than {} s",
            ending.drain.as_secs()
        );
    }
    Ok(())
}

async fn bind(kind: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    println!("{kind} listening on {}", listener.local_addr()?);
    Ok(listener)
}

/// Accepts until the stop, then closes the port and waits for its connections.
async fn accept(listener: TcpListener, kind: Kind, shared: Arc<Shared>, limit: Arc<Semaphore>) {
    let stop = &shared.stop;
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            // Finished tasks are taken out as they end, so that the set holds the open connections only.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Ok((stream, peer)) = accepted else {
            continue;
        };
        let (kind, shared) = (kind.clone(), shared.clone());
        connections.spawn(async move {
            shared.counters.connection_opened();
            connection(stream, peer, kind, &shared).await;
            shared.counters.connection_closed();
            drop(permit);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, peer: SocketAddr, kind: Kind, shared: &Shared) {
    // Answers are small and wanted at once.
    let _ = stream.set_nodelay(true);
    match kind {
        Kind::Http(router) => {
            speak_http(
                stream,
                Connection {
                    peer,
                    scheme: Scheme::Http,
                },
                router,
                shared,
            )
            .await
        }
        Kind::Tcp => until_stop(tcp::converse(stream, &shared.line), shared).await,
        Kind::Tls(acceptor, router) => {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await
            else {
                return;
            };
            if stream.get_ref().1.alpn_protocol().is_some() {
                speak_http(
                    stream,
                    Connection {
                        peer,
                        scheme: Scheme::Https,
                    },
                    router,
                    shared,
                )
                .await;
            } else {
                until_stop(tcp::converse(stream, &shared.line), shared).await;
            }
        }
    }
}

async fn until_stop(conversation: impl Future<Output = std::io::Result<()>>, shared: &Shared) {
    tokio::select! {
        // How a peer leaves is its own affair.
        _ = conversation => {}
        () = shared.stop.cancelled() => {}
    }
}

async fn speak_http<S>(stream: S, from: Connection, router: Router, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Some(Duration::from_secs(3600)));
    builder
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(1_000);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(from);
        let router = router.clone();
        async move {
            let response = router
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {});
            // An error here makes hyper drop the connection (HTTP/1.1) or reset the stream (HTTP/2) without an answer.
            if response.extensions().get::<Abort>().is_some() {
                Err("asked to abort")
            } else {
                Ok(response)
            }
        }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shared.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // A broken connection is the peer's affair; here it only has to end.
    let _ = connection.await;
}
