//! `tanbark proxy`: the local API on a loopback port, for kubectl, k9s and istioctl, which know no
//! Unix sockets.
//!
//! Each connection is HTTP/1.1 and each of its requests goes over a connection of its own to the
//! API's socket; upgrades (`exec`) become bytes in both directions. The socket is its user's alone,
//! and so is the port: see [`guard`].

mod guard;
mod relay;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::kubeconfig::PORT;
use crate::output;
use crate::session::Session;

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take.
const HEAD: std::time::Duration = std::time::Duration::from_secs(30);

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark proxy &\n  tanbark kubeconfig --write shop.yaml && KUBECONFIG=shop.yaml kubectl get pods -A\n  kubectl --server=http://127.0.0.1:8001 get pods -A";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Port on loopback; 0 takes a free one, which the first line names
    #[arg(short, long, default_value_t = PORT)]
    port: u16,
    /// Address of this machine's loopback; others are refused
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let Args { port, address } = args;
    refuse_other(address)?;
    // Nothing to serve is told now, not by each request.
    let api = session.api()?;
    api.client().summary().await?;
    let listener = TcpListener::bind(SocketAddr::new(address, port))
        .await
        .with_context(|| {
            format!("cannot listen on {address}:{port}: choose another one with `--port N`")
        })?;
    let local = listener.local_addr()?;
    // kubectl's words.
    output::say(&format!("Starting to serve on {local}"));
    tokio::select! {
        result = serve(&listener, local, session.state()?.socket()) => result.map(|()| ExitCode::SUCCESS),
        result = stop() => result.map(|()| ExitCode::SUCCESS),
    }
}

fn refuse_other(address: IpAddr) -> Result<()> {
    if !address.is_loopback() {
        bail!(
            "--address {address}: the API has no passwords, so it is served on loopback only (127.0.0.1 or ::1); from elsewhere use `ssh -L {PORT}:127.0.0.1:{PORT} HOST`"
        );
    }
    Ok(())
}

/// Ends with Ctrl-C or SIGTERM.
async fn stop() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for signals"),
        _ = terminate.recv() => Ok(()),
    }
}

async fn serve(listener: &TcpListener, local: SocketAddr, socket: PathBuf) -> Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await?;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                output::note(&format!("a connection was not accepted: {error}"));
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        if !guard::is_own(peer, local) {
            output::note(&format!(
                "refused a connection of another user of this machine ({peer})"
            ));
            continue;
        }
        // task: one connection of a client; ends with it or the program
        tokio::spawn(connection(stream, local, socket.clone(), Arc::new(place)));
    }
}

/// Serves one connection; the place is given back when it and what it was upgraded to have ended.
async fn connection(
    stream: TcpStream,
    local: SocketAddr,
    socket: PathBuf,
    place: Arc<OwnedSemaphorePermit>,
) {
    let socket = Arc::new(socket);
    let service = hyper::service::service_fn(move |request| {
        let (socket, place) = (socket.clone(), place.clone());
        async move {
            Ok::<_, std::convert::Infallible>(relay::answer(request, local, &socket, place).await)
        }
    });
    // A client that goes away in the middle is nobody's concern.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_served() {
        for (address, fine) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("::", false),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(refuse_other(address).is_ok(), fine, "{address}");
        }
    }
}
