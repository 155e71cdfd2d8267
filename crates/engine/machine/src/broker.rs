//! The window between the namespaces and the machine: the inner process asks, the outer one opens a
//! socket and passes it.
//!
//! Both ends hold one end of a `SOCK_SEQPACKET` pair; each packet is one JSON message, with at most
//! one descriptor. The inner process can ask for a TCP listener on 127.0.0.1, for a TCP connection,
//! and for a connected UDP socket; nothing else of the machine's network is reachable. It also
//! tells the outer one that it is up or why it is not; the outer one tells it to stop.
//!
//! No request keeps the outer process waiting: a connection is passed while it is still being made,
//! and whoever asked waits for it.
//!
//! The end of the pair is the end of the other process.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::error::{Context, Error, Result};
use crate::outside::is_outside;

/// Largest packet; a message is far shorter.
const MAX_PACKET_BYTES: usize = 16_384;

/// A socket of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostSocket {
    /// A TCP listener on 127.0.0.1; port 0 lets the kernel choose.
    Listen {
        /// The port.
        port: u16,
    },
    /// A TCP connection, on its way.
    Connect {
        /// The peer.
        address: SocketAddr,
    },
    /// The same on behalf of a pod: only to where pods may go ([`is_outside`]).
    Egress {
        /// The peer.
        address: SocketAddrV4,
    },
    /// A UDP socket connected to a peer.
    Datagram {
        /// The peer.
        address: SocketAddr,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToHost {
    Open { id: u64, socket: HostSocket },
    Started,
    Failed { message: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToMachine {
    Opened { id: u64 },
    Refused { id: u64, errno: i32 },
    Stop,
}

/// How the inner process is, as the outer one knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not heard from yet.
    Starting,
    /// The local API answers.
    Started,
    /// It could not start.
    Failed(String),
    /// It is gone.
    Gone,
}

/// The two ends: (outer, inner).
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .context(|| "make the broker's socket pair".into())
}

/// The outer process's end.
#[derive(Debug, Clone)]
pub struct Host {
    socket: Arc<OwnedFd>,
    progress: watch::Receiver<Progress>,
}

impl Host {
    /// Serves requests on a thread of its own until the inner process ends.
    pub fn serve(socket: OwnedFd) -> Result<Self> {
        let socket = Arc::new(socket);
        let (tell, progress) = watch::channel(Progress::Starting);
        let served = socket.clone();
        // task: serves the inner process's wishes; ends when the inner process has
        std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || serve_requests(&served, &tell))
            .context(|| "start the broker thread".into())?;
        Ok(Self { socket, progress })
    }

    /// How the inner process is.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Asks the inner process to end its pods and itself.
    pub fn stop(&self) {
        let _ = send(&self.socket, &ToMachine::Stop, None);
    }
}

fn serve_requests(socket: &Arc<OwnedFd>, tell: &watch::Sender<Progress>) {
    while let Ok(Some((message, _))) = receive::<ToHost>(socket) {
        match message {
            ToHost::Started => {
                let _ = tell.send(Progress::Started);
            }
            ToHost::Failed { message } => {
                let _ = tell.send(Progress::Failed(message));
            }
            ToHost::Open { id, socket: wanted } => answer(socket, id, open(wanted)),
        }
    }
    tell.send_if_modified(|progress| match progress {
        Progress::Failed(_) => false,
        _ => {
            *progress = Progress::Gone;
            true
        }
    });
}

fn open(wanted: HostSocket) -> io::Result<OwnedFd> {
    match wanted {
        HostSocket::Listen { port } => {
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(OwnedFd::from)
        }
        HostSocket::Connect { address } => begin_to_connect(address),
        HostSocket::Egress { address } if is_outside(*address.ip()) => {
            begin_to_connect(address.into())
        }
        HostSocket::Egress { .. } => Err(io::Error::from_raw_os_error(libc::ENETUNREACH)),
        HostSocket::Datagram { address } => {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            Ok(socket.into())
        }
    }
}

/// A socket whose connection is being made; an error is one that is known at once, such as an
/// unreachable network.
fn begin_to_connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn answer(socket: &OwnedFd, id: u64, result: io::Result<OwnedFd>) {
    let sent = match result {
        Ok(descriptor) => send(
            socket,
            &ToMachine::Opened { id },
            Some(descriptor.as_raw_fd()),
        ),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            send(socket, &ToMachine::Refused { id, errno }, None)
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "the inner process took no answer");
    }
}

/// The inner process's end.
#[derive(Debug)]
pub struct Broker {
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
    stop: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Waiting {
    last_id: u64,
    answers: HashMap<u64, oneshot::Sender<io::Result<OwnedFd>>>,
}

impl Broker {
    /// Takes the inherited end and reads answers on a thread of its own.
    pub fn start(socket: OwnedFd) -> Result<Arc<Self>> {
        let broker = Arc::new(Self {
            socket,
            waiting: Mutex::default(),
            stop: watch::channel(false).0,
        });
        let reader = broker.clone();
        // task: reads the outer process's answers; ends with the outer process
        std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || reader.read_answers())
            .context(|| "start the broker thread".into())?;
        Ok(broker)
    }

    /// Becomes true when the outer process asks to stop or is gone.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Tells the outer process that the local API answers.
    pub fn tell_started(&self) {
        let _ = send(&self.socket, &ToHost::Started, None);
    }

    /// Tells the outer process why there will be no start.
    pub fn tell_failed(&self, error: &Error) {
        let _ = send(
            &self.socket,
            &ToHost::Failed {
                message: error.to_string(),
            },
            None,
        );
    }

    /// Opens a socket in the machine's own network.
    ///
    /// # Errors
    /// The kernel's answer there, such as `AddrInUse`.
    pub async fn open(&self, socket: HostSocket) -> io::Result<OwnedFd> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting.lock();
            waiting.last_id += 1;
            let id = waiting.last_id;
            waiting.answers.insert(id, sender);
            id
        };
        if let Err(error) = send(&self.socket, &ToHost::Open { id, socket }, None) {
            self.waiting.lock().answers.remove(&id);
            return Err(error);
        }
        receiver
            .await
            .unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EPIPE)))
    }

    /// Opens a TCP connection in the machine's own network ([`HostSocket::Connect`] or
    /// [`HostSocket::Egress`]) and waits for it.
    ///
    /// # Errors
    /// The kernel's answer there, such as `ConnectionRefused`; `TimedOut` when there is none within
    /// `patience`.
    pub async fn connect(&self, socket: HostSocket, patience: Duration) -> io::Result<TcpStream> {
        let connect = async {
            let stream = std::net::TcpStream::from(self.open(socket).await?);
            stream.set_nonblocking(true)?;
            let stream = TcpStream::from_std(stream)?;
            stream.writable().await?;
            match stream.take_error()? {
                Some(error) => Err(error),
                None => Ok(stream),
            }
        };
        timeout(patience, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn read_answers(&self) {
        while let Ok(Some((message, descriptor))) = receive::<ToMachine>(&self.socket) {
            let (id, result) = match (message, descriptor) {
                (ToMachine::Stop, _) => {
                    self.stop.send_replace(true);
                    continue;
                }
                (ToMachine::Opened { id }, Some(descriptor)) => (id, Ok(descriptor)),
                (ToMachine::Opened { id }, None) => {
                    (id, Err(io::Error::from_raw_os_error(libc::EMFILE)))
                }
                (ToMachine::Refused { id, errno }, _) => {
                    (id, Err(io::Error::from_raw_os_error(errno)))
                }
            };
            if let Some(sender) = self.waiting.lock().answers.remove(&id) {
                let _ = sender.send(result);
            }
        }
        self.waiting.lock().answers.clear();
        self.stop.send_replace(true);
    }
}

fn send(socket: &OwnedFd, message: &impl Serialize, descriptor: Option<RawFd>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    let descriptors: Vec<RawFd> = descriptor.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() {
        &[]
    } else {
        &rights[..]
    };
    let parts = [io::IoSlice::new(&bytes)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &parts,
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// `None` at the end of the pair; a message that does not parse is an error.
fn receive<T: for<'de> Deserialize<'de>>(
    socket: &OwnedFd,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut bytes = vec![0_u8; MAX_PACKET_BYTES];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let (length, descriptor) = loop {
        let mut parts = [io::IoSliceMut::new(&mut bytes)];
        match recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(message) => {
                let mut descriptor = None;
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = part {
                        // SAFETY: the kernel has just made these descriptors for us; each is owned
                        // exactly once.
                        let mut owned = raw
                            .into_iter()
                            .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
                        descriptor = owned.next_back();
                    }
                }
                break (message.bytes, descriptor);
            }
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(bytes.get(..length).unwrap_or_default())
        .map_err(io::Error::other)?;
    Ok(Some((message, descriptor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_of_the_host_is_passed_and_a_used_port_is_refused() {
        let (outer, inner) = pair().expect("a pair");
        let host = Host::serve(outer).expect("the host's end");
        let broker = Broker::start(inner).expect("the machine's end");
        let first = broker
            .open(HostSocket::Listen { port: 0 })
            .await
            .expect("a listener");
        let listener = std::net::TcpListener::from(first);
        let port = listener.local_addr().expect("its address").port();
        let second = broker
            .open(HostSocket::Listen { port })
            .await
            .expect_err("the port is in use");
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);

        let address = listener.local_addr().expect("its address");
        let patience = Duration::from_secs(5);
        let connection = broker
            .connect(HostSocket::Connect { address }, patience)
            .await
            .expect("a connection");
        let (_, peer) = listener.accept().expect("the other end");
        assert_eq!(connection.local_addr().expect("its address"), peer);
        let SocketAddr::V4(address) = address else {
            panic!("{address} is not IPv4");
        };
        let refused = broker
            .connect(HostSocket::Egress { address }, patience)
            .await
            .expect_err("the machine's loopback is no way out for pods");
        assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable);
        drop(listener);
        let address = address.into();
        let refused = broker
            .connect(HostSocket::Connect { address }, patience)
            .await
            .expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        broker.tell_started();
        let mut progress = host.progress();
        progress
            .wait_for(|progress| *progress == Progress::Started)
            .await
            .expect("progress");
        host.stop();
        broker.stop().wait_for(|stop| *stop).await.expect("stop");
    }
}
