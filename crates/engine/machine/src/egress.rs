//! The way out: TCP from pods to addresses outside of the mesh goes on from the machine's own
//! network.
//!
//! The runtime's namespaces have no link to the machine, so packets to the world have nowhere to
//! go. A rule of the Services' table ([`crate::rules::services`]) brings such connections to a
//! listener on the bridge instead. For each, the address that the pod meant is asked of the kernel,
//! the broker opens a connection to it from the machine, and bytes are copied both ways: the end of
//! one direction is passed on alone, a reset is passed on as a reset.
//!
//! The pod's handshake is complete before the other side is asked, so a refused or unanswered
//! connection is one that is reset. Where pods may not go ([`crate::outside`]) is not brought here
//! at all and unreachable at once. UDP and ICMP have no way out.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::broker::{Broker, HostSocket};
use crate::error::{Context as _, Result};
use crate::network::BRIDGE_ADDRESS;

/// Connections at the same time; more are reset.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a connection may take to be made; Istio's default for clusters.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is asked after this time whether its other end still lives: a pod can go
/// without a word.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The listener that connections to the world are brought to; its port is the kernel's choice.
pub async fn open() -> Result<TcpListener> {
    TcpListener::bind((BRIDGE_ADDRESS, 0))
        .await
        .context(|| "open the way out of the mesh".into())
}

/// Serves until the task is dropped.
pub async fn run(listener: TcpListener, broker: Arc<Broker>) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, pod)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = limit.clone().try_acquire_owned() else {
            tracing::warn!(%pod, "more than {MAX_CONNECTIONS} connections out of the mesh: this one is reset");
            let _ = stream.set_zero_linger();
            continue;
        };
        let broker = broker.clone();
        // task: one connection out of the mesh; holds one of MAX_CONNECTIONS places, ends with
        // either side
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = pass(stream, &broker).await {
                tracing::debug!(%error, %pod, "a connection out of the mesh ended");
            }
        });
    }
}

async fn pass(mut pod: TcpStream, broker: &Broker) -> io::Result<()> {
    let opened = async {
        let address = meant(&pod)?;
        broker
            .connect(HostSocket::Egress { address }, CONNECT_TIMEOUT)
            .await
    };
    let mut world = match opened.await {
        Ok(world) => world,
        Err(error) => {
            let _ = pod.set_zero_linger();
            return Err(error);
        }
    };
    for stream in [&pod, &world] {
        let _ = stream.set_nodelay(true);
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
        let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
    }
    let copied = copy_bidirectional(&mut pod, &mut world).await;
    if copied.is_err() {
        let _ = pod.set_zero_linger();
        let _ = world.set_zero_linger();
    }
    copied.map(drop)
}

/// The address that the pod connected to.
fn meant(pod: &TcpStream) -> io::Result<SocketAddrV4> {
    let address = socket2::SockRef::from(pod).original_dst_v4()?;
    address
        .as_socket_ipv4()
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
