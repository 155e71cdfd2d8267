//! The listener all four services share: HTTP/1.1 and HTTP/2, one line per request on standard output, an orderly end.
//!
//! On SIGTERM or SIGINT it stops accepting, lets requests under way finish for at most [`DRAIN`], then returns. `/health` is not logged.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long requests under way may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves `router` until a signal; prints `NAME listening on ADDRESS` once connections are accepted.
pub async fn serve(name: &str, address: SocketAddr, router: Router) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    println!("{name} listening on {}", listener.local_addr()?);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut until = stopped.clone();
    let server = axum::serve(listener, router.layer(middleware::from_fn(log)))
        .with_graceful_shutdown(async move {
            // The sender lives as long as this function: an error here can only mean the end as well.
            let _ = until.wait_for(|stop| *stop).await;
        });
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => return Ok(ended??),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.send_replace(true);
    match tokio::time::timeout(DRAIN, &mut server).await {
        Ok(ended) => Ok(ended??),
        Err(_) => {
            println!(
                "{name} stops with requests under way: they took longer than {} s",
                DRAIN.as_secs()
            );
            server.abort();
            Ok(())
        }
    }
}

async fn log(request: Request, next: Next) -> Response {
    if request.uri().path() == "/health" {
        return next.run(request).await;
    }
    let start = Instant::now();
    let line = format!("{} {}", request.method(), request.uri());
    let response = next.run(request).await;
    println!(
        "{line} {} {} ms",
        response.status().as_u16(),
        start.elapsed().as_millis()
    );
    response
}
