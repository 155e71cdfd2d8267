//! Sockets and accepted connections: the outermost loop of a worker.
//!
//! [`run`] keeps one socket for each address of each listener that binds, and opens and closes
//! sockets as configuration changes; workers share addresses by SO_REUSEPORT. An accepted
//! connection is taken through original destination (and with it perhaps another listener),
//! listener filters, chain match, TLS handshake and network filters to its terminal. When a
//! listener goes away its socket closes at once and its connections drain; when the proxy drains,
//! all of them do.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proxy_config::{
    ListenerName,
    http_connection_manager::CodecType,
    listener::{ListenAddress, ListenerFilterKind},
};
use socket2::{Domain, Protocol, Socket, Type};
use stdx::{Clock, Drain, DrainTrigger, drain};
use telemetry::record::{Kind, Record, ResponseFlags};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;

use crate::{
    chain::{ConnectionFacts, match_chain},
    codec,
    config::Config,
    connection::Connection,
    downstream::Downstream,
    filters::network::{self, Verdict},
    inspect,
    listener::{LiveChain, LiveListener, LiveTerminal},
    report::{
        Finished,
        downstream::{HttpCount, ListenerCount, OpenConnection},
    },
    tcp,
    tls::{self, Secured, Stream},
    upstream::connect::original_destination,
    waiting,
    worker::Worker,
};

/// Connections that wait to be accepted where the configuration names no number: as many as the
/// kernel lets (`net.core.somaxconn`, mostly 4096), like Envoy. Beyond it a client's handshake
/// waits a second to be sent again.
const BACKLOG: i32 = i32::MAX;
/// How long to wait before an address that could not be bound is tried again.
const REBIND_PAUSE: Duration = Duration::from_secs(1);

/// Serves until `drain` starts and connections have ended (or the drain time is over).
pub async fn run(worker: Arc<Worker>, drain: Drain) {
    let mut versions = worker.live.subscribe();
    let mut sockets = Sockets::default();
    let id = worker.live.ids.next();
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(worker.settings.max_connections));
    let mut draining = drain.clone();
    let mut housekeeping = tokio::time::interval(Duration::from_secs(1));
    loop {
        let version = worker.live.config().version;
        let complete = sockets.follow(&worker, &connections, &places);
        worker.live.note_opened(id, version);
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { break },
            () = &mut draining => break,
            _ = housekeeping.tick() => keep_house(&worker),
            () = tokio::time::sleep(REBIND_PAUSE), if !complete => {}
        }
    }
    sockets.close_all().await;
    for listener in worker.live.config().listeners.values() {
        listener.drain_but_for(None);
    }
    connections.close();
    let _ = tokio::time::timeout(worker.settings.drain_time, connections.wait()).await;
}

/// Ends what lasted too long: idle upstream connections, pools and hosts that nobody uses.
fn keep_house(worker: &Worker) {
    let config = worker.live.config();
    let now = worker.live.clock.now();
    worker
        .pools
        .sweep(now, |cluster, host| config.has(cluster, host));
    config.clusters.values().for_each(|cluster| cluster.sweep());
    worker.live.tend();
}

type SocketKey = (ListenerName, ListenAddress);

#[derive(Default)]
struct Sockets {
    /// Each with what stops the task that accepts from it.
    open: HashMap<SocketKey, DrainTrigger>,
    /// What could not be opened, and was told.
    failed: HashSet<SocketKey>,
    /// The tasks that accept; each ends when it is stopped.
    accepting: TaskTracker,
}

impl Sockets {
    /// Opens what is new and closes what is gone; `false`: something could not be opened yet.
    fn follow(
        &mut self,
        worker: &Arc<Worker>,
        connections: &TaskTracker,
        places: &Arc<Semaphore>,
    ) -> bool {
        let config = worker.live.config();
        let is_wanted = |(name, address): &SocketKey| {
            config
                .listeners
                .get(name)
                .is_some_and(|l| l.config.bind_to_port && l.config.addresses.contains(address))
        };
        self.failed.retain(is_wanted);
        self.open.retain(|key, stop| {
            let wanted = is_wanted(key);
            if !wanted {
                stop.start();
            }
            wanted
        });
        let mut complete = true;
        for listener in config
            .listeners
            .values()
            .filter(|listener| listener.config.bind_to_port)
        {
            for address in listener.config.addresses.iter() {
                let key = (listener.config.name.clone(), address.clone());
                if self.open.contains_key(&key) {
                    continue;
                }
                match bind(address, listener) {
                    Ok(socket) => {
                        worker.note_bound(&listener.config.name, &socket);
                        let (stop, stopping) = drain::channel();
                        let accepting = Accepting {
                            listener: listener.clone(),
                            worker: worker.clone(),
                            connections: connections.clone(),
                            places: places.clone(),
                        };
                        self.accepting.spawn(accepting.run(socket, stopping));
                        self.failed.remove(&key);
                        self.open.insert(key, stop);
                    }
                    Err(error) => {
                        complete = false;
                        if self.failed.insert(key) {
                            tracing::warn!(listener = %listener.config.name, ?address, %error, "cannot listen; trying again");
                        }
                    }
                }
            }
        }
        complete
    }

    /// Stops the tasks that accept, and waits until they have taken what waits and closed their
    /// sockets.
    async fn close_all(&mut self) {
        self.open.drain().for_each(|(_, stop)| stop.start());
        self.accepting.close();
        self.accepting.wait().await;
    }
}

fn bind(address: &ListenAddress, listener: &LiveListener) -> io::Result<TcpListener> {
    let address = match address {
        ListenAddress::Socket(address) => *address,
        ListenAddress::Pipe(_) => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "listening on Unix sockets is not supported",
            ));
        }
    };
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if listener.config.transparent {
        match address.ip() {
            IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    socket.bind(&address.into())?;
    socket.listen(
        listener
            .config
            .tcp_backlog
            .and_then(|backlog| i32::try_from(backlog).ok())
            .unwrap_or(BACKLOG),
    )?;
    TcpListener::from_std(socket.into())
}

/// Takes connections from one socket.
struct Accepting {
    /// As it was when the socket was opened.
    listener: Arc<LiveListener>,
    worker: Arc<Worker>,
    connections: TaskTracker,
    places: Arc<Semaphore>,
}

impl Accepting {
    /// Accepts until it is stopped, and then what the kernel has taken already: closing a socket
    /// resets those.
    async fn run(self, socket: TcpListener, mut stop: Drain) {
        loop {
            // At the limit connections wait in the kernel's queue.
            let place = tokio::select! {
                biased;
                () = &mut stop => break,
                place = self.places.clone().acquire_owned() => place,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.take(stream, place),
                Err(error) => {
                    tracing::warn!(listener = %self.listener.config.name, %error, "cannot accept");
                    // Out of file descriptors, for instance: trying again at once would only spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // The runtime may not have heard of all; the kernel knows.
        let Ok(socket) = socket.into_std() else {
            return;
        };
        while let Ok(place) = self.places.clone().try_acquire_owned() {
            let stream = socket.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream)
            });
            match stream {
                Ok(stream) => self.take(stream, place),
                Err(_) => return,
            }
        }
    }

    /// The listener's current version takes the connection; the last one does when it is gone.
    fn take(&self, stream: TcpStream, place: OwnedSemaphorePermit) {
        let worker = self.worker.clone();
        let config = worker.live.config();
        let current = config.listeners.get(&self.listener.config.name);
        let listener = current.unwrap_or(&self.listener).clone();
        self.connections.spawn(async move {
            // A connection that breaks off is its own affair.
            let _ = handle(stream, listener, config, worker).await;
            drop(place);
        });
    }
}

/// Takes one connection from accept to its end.
async fn handle(
    stream: TcpStream,
    listener: Arc<LiveListener>,
    config: Arc<Config>,
    worker: Arc<Worker>,
) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let (direct_local, direct_source) = (stream.local_addr()?, stream.peer_addr()?);
    let original = wants_original_destination(&listener)
        .then(|| original_destination(&stream))
        .flatten();
    let destination = original.unwrap_or(direct_local);
    let listener = hand_over(&config, listener, direct_local, destination);
    let _open = OpenConnection::new(&listener.metrics);
    let mut facts = ConnectionFacts {
        destination,
        source: direct_source,
        direct_source,
        server_name: None,
        is_tls: false,
        application_protocols: Vec::new(),
    };
    let (stream, inspected) = inspected(stream, &listener, &mut facts).await?;
    let matched =
        match_chain(&listener.config.chains, &facts).and_then(|at| listener.chains.get(at));
    let Some(chain) = matched.or(listener.default_chain.as_ref()).cloned() else {
        return no_chain(&worker, listener, facts, direct_local, &config);
    };
    let mut downstream = Downstream {
        id: Connection::next_id(),
        direction: listener.config.direction,
        destination_restored: original.is_some() || inspected.destination_restored,
        facts,
        direct_local,
        tls: None,
        accepted: worker.live.clock.now(),
    };
    if let Some(context) = &chain.tls {
        let limit = chain.config.transport_socket_connect_timeout;
        waiting::for_secrets(&worker.live, context, limit).await;
    }
    let (stream, tls) = secure(stream, &listener, &chain, &*worker.live.clock).await?;
    downstream.tls = tls;
    let connection = Arc::new(Connection::new(downstream, listener, chain));
    let judged = network::Judged {
        filters: &connection.chain.config.network_filters,
        live: &connection.chain.network_filters,
        downstream: &connection.downstream,
        clock: &*worker.live.clock,
        rng: &*worker.live.rng,
    };
    match network::on_connection(&judged) {
        Verdict::Continue => terminal(stream, connection, worker).await,
        Verdict::Close { flags, details } => {
            refused(&worker, &connection, &config, flags, |record| {
                record.connection_termination_details = Some(details.into())
            });
            Ok(())
        }
    }
}

/// The connection after the listener's filters looked at its first bytes.
async fn inspected(
    mut stream: TcpStream,
    listener: &LiveListener,
    facts: &mut ConnectionFacts,
) -> io::Result<(TcpStream, inspect::Inspected)> {
    let inspected = inspect::inspect(&mut stream, &listener.config, facts).await;
    if inspected.as_ref().is_err_and(inspect::is_timeout) {
        listener.metrics.count(ListenerCount::SilentConnections);
    }
    let inspected = inspected?;
    if inspected.gave_up {
        // The runtime was told to wake us only for news; what was looked at already is to be read
        // all the same.
        stream = TcpStream::from_std(stream.into_std()?)?;
    }
    Ok((stream, inspected))
}

fn wants_original_destination(listener: &LiveListener) -> bool {
    let config = &listener.config;
    config.use_original_dst
        || config.transparent
        || config
            .listener_filters
            .iter()
            .any(|filter| filter.kind == ListenerFilterKind::OriginalDst)
}

/// `use_original_dst`: the listener for the address that the client wanted, if there is one, else the one that accepted.
fn hand_over(
    config: &Config,
    listener: Arc<LiveListener>,
    local: SocketAddr,
    destination: SocketAddr,
) -> Arc<LiveListener> {
    if !listener.config.use_original_dst || destination == local {
        return listener;
    }
    config
        .listener_for(destination)
        .filter(|found| found.id != listener.id)
        .cloned()
        .unwrap_or(listener)
}

/// The handshake, where the chain has one.
async fn secure(
    stream: TcpStream,
    listener: &LiveListener,
    chain: &LiveChain,
    clock: &dyn Clock,
) -> io::Result<(Stream, Option<Secured>)> {
    let Some(context) = &chain.tls else {
        return Ok((Stream::Tcp(stream), None));
    };
    let limit = chain.config.transport_socket_connect_timeout;
    let limit = limit.unwrap_or(chain.silence_limit());
    let accepted: io::Result<(Stream, Secured)> =
        inspect::within(limit, tls::accept(context, stream, clock)).await;
    let metrics = &listener.metrics;
    metrics.count(if accepted.is_ok() {
        ListenerCount::Handshakes
    } else {
        ListenerCount::HandshakeErrors
    });
    if accepted.as_ref().is_err_and(inspect::is_timeout) {
        metrics.count(ListenerCount::HandshakeTimeouts);
    }
    let (stream, secured) = accepted?;
    Ok((stream, Some(secured)))
}

async fn terminal(
    stream: Stream,
    connection: Arc<Connection>,
    worker: Arc<Worker>,
) -> io::Result<()> {
    let chain: Arc<LiveChain> = connection.chain.clone();
    match &chain.terminal {
        LiveTerminal::Http(http) => {
            let is_http2 = match (
                speaks_http2(&stream, &connection, http.config.codec),
                &stream,
            ) {
                (Some(told), _) => told,
                (None, Stream::Tcp(tcp)) => {
                    let told = inspect::within(chain.silence_limit(), inspect::is_http2(tcp)).await;
                    if told.as_ref().is_err_and(inspect::is_timeout) {
                        http.metrics.count(HttpCount::IdleConnections);
                    }
                    told?
                }
                (None, _) => false,
            };
            codec::server::run(stream, is_http2, worker, connection, http.clone()).await;
        }
        LiveTerminal::Tcp(terminal) => tcp::run(stream, worker, connection, terminal.clone()).await,
        LiveTerminal::Close => {}
    }
    Ok(())
}

/// Whether it speaks HTTP/2, by the codec that is asked for, else by ALPN; `None`: only the first
/// bytes tell.
fn speaks_http2(stream: &Stream, connection: &Connection, codec: CodecType) -> Option<bool> {
    let alpn = connection
        .downstream
        .tls
        .as_ref()
        .and_then(|tls| tls.info.alpn.as_deref());
    match (codec, alpn, stream) {
        (CodecType::Http1, ..) => Some(false),
        (CodecType::Http2, ..) => Some(true),
        (CodecType::Auto, Some(alpn), _) => Some(alpn == "h2"),
        (CodecType::Auto, None, Stream::Tcp(_)) => None,
        // Behind TLS a client must say by ALPN that it speaks HTTP/2 (RFC 9113 §3.2).
        (CodecType::Auto, None, _) => Some(false),
    }
}

/// No chain takes the connection: it is closed, and the listener's access log says `NR`.
fn no_chain(
    worker: &Worker,
    listener: Arc<LiveListener>,
    facts: ConnectionFacts,
    direct_local: SocketAddr,
    config: &Config,
) -> io::Result<()> {
    let downstream = Downstream {
        id: Connection::next_id(),
        direction: listener.config.direction,
        destination_restored: false,
        facts,
        direct_local,
        tls: None,
        accepted: worker.live.clock.now(),
    };
    let connection = Connection::new(downstream, listener, LiveChain::none());
    connection.listener.metrics.count(ListenerCount::NoChain);
    refused(
        worker,
        &connection,
        config,
        ResponseFlags::NO_ROUTE_FOUND,
        |record| {
            record.response_code_details = Some("filter_chain_not_found".into());
        },
    );
    Ok(())
}

fn refused(
    worker: &Worker,
    connection: &Connection,
    config: &Config,
    flags: ResponseFlags,
    explain: impl FnOnce(&mut Record),
) {
    let mut record = connection.record(worker.live.clock.wall());
    record.kind = Kind::Tcp;
    record.flags = flags;
    explain(&mut record);
    worker.reporter.report(Finished {
        record: &record,
        connection,
        http: None,
        access_logs: match &connection.chain.terminal {
            // The TCP proxy was there already, only it was not asked.
            LiveTerminal::Tcp(tcp) => &tcp.config.proxy.access_logs,
            LiveTerminal::Http(_) | LiveTerminal::Close => &connection.listener.config.access_logs,
        },
        config,
        route: None,
        cluster: None,
        trace: None,
        is_counted: false,
    });
}
