//! The way out: TCP from pods to addresses outside of the mesh goes on from the machine's own network.
//!
//! The runtime's namespaces have no link to the machine, so packets to the world have nowhere to go. A rule of the Services'
//! table ([`crate::rules::services`]) brings such connections to a listener on the bridge instead. For each, the address that
//! the pod meant is asked of the kernel, the broker opens a connection to it from the machine, and bytes are copied both ways:
//! the end of one direction is passed on alone, a reset is passed on as a reset.
//!
//! The pod's handshake is complete before the other side is asked, so a refused or unanswered connection is one that is reset.
//! Where pods may not go ([`is_outside`]) is not brought here at all and unreachable at once. UDP and ICMP have no way out.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::broker::{Broker, HostSocket};
use crate::error::{Context as _, Result};
use crate::network::BRIDGE_ADDRESS;

/// Where pods cannot go by this way: what is the mesh's own, what no other machine can be, the machine's loopback, and what
/// tells a machine's credentials to whoever asks (link-local addresses and the other metadata services of clouds): a sample
/// application is not to become the person who tries it.
pub const NOT_OUTSIDE: [Ipv4Net; 9] = [
    range([0, 0, 0, 0], 8),
    range([10, 96, 0, 0], 16),
    range([10, 244, 0, 0], 16),
    range([100, 100, 100, 200], 32),
    range([127, 0, 0, 0], 8),
    range([168, 63, 129, 16], 32),
    range([169, 254, 0, 0], 16),
    range([192, 0, 0, 192], 32),
    range([224, 0, 0, 0], 3),
];
/// Connections at the same time; more are reset.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a connection may take to be made; Istio's default for clusters.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is asked after this time whether its other end still lives: a pod can go without a word.
const KEEPALIVE: Duration = Duration::from_secs(60);

const fn range([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

/// Whether pods may open connections to this address of the machine's network.
pub fn is_outside(address: Ipv4Addr) -> bool {
    !NOT_OUTSIDE.iter().any(|range| range.contains(&address))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_the_loopback_and_metadata_services_are_not_outside() {
        for address in [
            "0.0.0.0",
            "10.96.0.10",
            "10.244.0.1",
            "100.100.100.200",
            "127.0.0.53",
            "168.63.129.16",
            "169.254.169.254",
            "192.0.0.192",
            "224.0.0.1",
            "240.240.0.1",
            "255.255.255.255",
        ] {
            assert!(
                !is_outside(address.parse().expect("an address")),
                "{address}"
            );
        }
        for address in ["1.1.1.1", "10.0.0.1", "192.0.2.1", "192.168.1.1"] {
            assert!(
                is_outside(address.parse().expect("an address")),
                "{address}"
            );
        }
    }
}
