//! A worker's connections to endpoints: kept, lent, and made when needed.
//!
//! One [`Pool`] for each endpoint and way of speaking to it (HTTP version, ALPN, SNI). HTTP/1
//! connections are lent to one request at a time, last used first; HTTP/2 connections carry many. A
//! request that finds no connection takes a place in the pending queue and one connection more is
//! made, unless the circuit breakers say no; whichever connection is ready first serves the request
//! that waits longest. When connecting fails, all that wait are told, as Envoy does. Everything
//! here belongs to one worker: its locks are never contended. A connection that dies is noticed by
//! the task that drives it. [`Pools::sweep`] drops a pool once it has neither a connection nor a
//! request: names and addresses that clients choose make pools (`auto_sni`, original destinations),
//! so none may outlive its use.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use foldhash::fast::RandomState;
use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use telemetry::record::{Protocol, TlsInfo};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::{
    body::RequestBody,
    endpoint::LiveEndpoint,
    upstream::{
        breaker::{Breaker, Guard, Resource},
        cluster::LiveCluster,
        connect::connect,
        connected::{ConnectError, ConnectOptions, ConnectTimes},
        handshake::{ClientSender, ConnectionFacts, Handshake, HttpVersion, client_handshake},
        in_flight::InFlight,
        metrics::{Count, Level},
        reset::{ResetReason, reset_reason},
        shrink,
    },
};

/// How a pool's connections speak; different ones never mix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    pub version: HttpVersion,
    pub alpn: Option<Arc<[Arc<str>]>>,
    pub server_name: Option<Arc<str>>,
    pub high_priority: bool,
    /// Connections with a PROXY protocol header belong to one downstream connection's addresses.
    pub downstream: Option<(SocketAddr, SocketAddr)>,
}

impl PoolKey {
    /// As the cluster says, with nothing of a request's own.
    pub fn new(version: HttpVersion) -> Self {
        Self {
            version,
            alpn: None,
            server_name: None,
            high_priority: false,
            downstream: None,
        }
    }
}

/// All pools of one worker.
#[derive(Default)]
pub struct Pools {
    pools: Mutex<HashMap<Identity, Arc<Pool>, RandomState>>,
    /// The tasks that make and drive connections; each ends with its connection.
    tasks: TaskTracker,
}

/// What tells one pool from another.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    /// `HostState::id`.
    host: u64,
    cluster: u64,
    /// Where the endpoint's transport is in memory, which the pool keeps there: an endpoint whose
    /// transport changed is another endpoint as far as connections go.
    transport: usize,
    key: PoolKey,
}

/// The connections to one endpoint that speak one way.
pub struct Pool {
    key: PoolKey,
    cluster: Arc<LiveCluster>,
    endpoint: Arc<LiveEndpoint>,
    breaker: Arc<Breaker>,
    state: Mutex<State>,
    tasks: TaskTracker,
    /// Among the pools that the cluster may have (`max_connection_pools`).
    _place: Guard,
}

#[derive(Default)]
struct State {
    /// Last used last.
    idle: Vec<Idle>,
    shared: Vec<Arc<Shared>>,
    /// By number, so that the first waits longest. A request that gives up takes itself out.
    waiting: BTreeMap<u64, oneshot::Sender<Result<Lease, ConnectError>>>,
    /// The number of the next one to wait.
    next_number: u64,
    connecting: usize,
    /// Connections that are made and not yet closed.
    open: usize,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    connection: Arc<UpstreamConnection>,
    since: Instant,
}

/// An HTTP/2 connection.
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    connection: Arc<UpstreamConnection>,
    active: AtomicU32,
    /// Streams that the peer allows, as it last said.
    allowed: Arc<AtomicUsize>,
}

/// Facts about one upstream connection.
pub struct UpstreamConnection {
    pub id: u64,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub tls: Option<Arc<TlsInfo>>,
    pub protocol: Protocol,
    pub times: ConnectTimes,
    pub created: Instant,
    requests: AtomicU32,
    last_used: Mutex<Instant>,
    /// Takes no further request.
    retired: AtomicBool,
}

/// A connection lent to one request.
pub struct Lease {
    pub connection: Arc<UpstreamConnection>,
    pool: Arc<Pool>,
    sender: Sender,
    /// What counts the request as under way; goes with the lease.
    in_flight: Option<InFlight>,
}

/// A request that waits for a connection: its place in the queue, until it has one or gives up.
struct Waiting {
    pool: Arc<Pool>,
    number: u64,
    receiver: oneshot::Receiver<Result<Lease, ConnectError>>,
    _place: Guard,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let metrics = &self.pool.cluster.metrics;
        metrics.lower(Level::RqPendingActive);
        let waited = self.pool.state.lock().waiting.remove(&self.number);
        // A connection that came in the same moment goes to whoever waits next.
        let unused = match self.receiver.try_recv() {
            Ok(Ok(lease)) => Some(lease),
            Ok(Err(_)) | Err(_) => None,
        };
        if waited.is_some() || unused.is_some() {
            metrics.count(Count::RqCancelled);
        }
        if let Some(lease) = unused {
            lease.give_up();
        }
    }
}

enum Sender {
    /// `None` once it went back or was given up.
    Http1(Option<http1::SendRequest<RequestBody>>),
    Http2(Arc<Shared>),
}

/// A request that got no answer.
#[derive(Debug)]
pub struct SendError {
    pub reset: ResetReason,
    /// The request, when nothing of it was written.
    pub unsent: Option<Box<http::Request<RequestBody>>>,
}

/// Why no connection was lent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// A circuit breaker is full.
    #[error("overflow")]
    Overflow,
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Pools {
    /// The pool for an endpoint, made when there is none; `None`: the cluster has as many as it may
    /// (`max_connection_pools`).
    pub fn pool(
        &self,
        cluster: &Arc<LiveCluster>,
        endpoint: &Arc<LiveEndpoint>,
        key: PoolKey,
    ) -> Option<Arc<Pool>> {
        let identity = Identity {
            host: endpoint.state.id,
            cluster: cluster.id,
            transport: Arc::as_ptr(&endpoint.transport).addr(),
            key: key.clone(),
        };
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(&identity) {
            return Some(pool.clone());
        }
        let breaker = cluster.breaker(key.high_priority).clone();
        let place = breaker.enter(Resource::ConnectionPools).or_else(|| {
            pools.retain(|_, pool| pool.cluster.id != cluster.id || pool.is_in_use());
            breaker.enter(Resource::ConnectionPools)
        });
        let Some(place) = place else {
            cluster.metrics.count(Count::CxPoolOverflow);
            return None;
        };
        let pool = Arc::new(Pool {
            breaker,
            key,
            cluster: cluster.clone(),
            endpoint: endpoint.clone(),
            state: Mutex::default(),
            tasks: self.tasks.clone(),
            _place: place,
        });
        pools.insert(identity, pool.clone());
        Some(pool)
    }

    /// Closes connections that idled too long or whose cluster or endpoint is gone, and forgets
    /// pools that nobody uses. Called about once a second.
    pub fn sweep(&self, now: Instant, is_current: impl Fn(&LiveCluster, &LiveEndpoint) -> bool) {
        let mut pools = self.pools.lock();
        pools.retain(|_, pool| {
            let current = is_current(&pool.cluster, &pool.endpoint);
            pool.state.lock().expire(&pool.cluster, now, current);
            pool.is_in_use()
        });
        shrink(&mut pools);
    }

    /// Pools now.
    pub fn count(&self) -> usize {
        self.pools.lock().len()
    }

    /// Requests that wait for a connection now.
    pub fn waiting(&self) -> usize {
        self.pools
            .lock()
            .values()
            .map(|pool| pool.state.lock().waiting.len())
            .sum()
    }

    /// Connections open now, for tests and the admin page.
    pub fn open_connections(&self) -> usize {
        self.pools
            .lock()
            .values()
            .map(|pool| pool.state.lock().open)
            .sum()
    }
}

impl State {
    fn expire(&mut self, cluster: &LiveCluster, now: Instant, current: bool) {
        let http = &cluster.config.http;
        let idle_too_long = |since: Instant| {
            http.idle_timeout
                .is_some_and(|limit| now.saturating_duration_since(since) >= limit)
        };
        let too_old = |c: &UpstreamConnection| {
            http.max_connection_duration
                .is_some_and(|limit| now.saturating_duration_since(c.created) >= limit)
        };
        self.idle.retain(|idle| {
            current
                && !idle_too_long(idle.since)
                && !too_old(&idle.connection)
                && !idle.sender.is_closed()
        });
        // Dropping the last sender of an HTTP/2 connection lets its streams end and then closes it.
        self.shared.retain(|shared| {
            let unused = shared.active.load(Ordering::Relaxed) == 0;
            let idle = unused && idle_too_long(*shared.connection.last_used.lock());
            current && !idle && !too_old(&shared.connection) && !shared.sender.is_closed()
        });
    }
}

impl Pool {
    pub fn endpoint(&self) -> &Arc<LiveEndpoint> {
        &self.endpoint
    }

    /// Whether it has a connection or makes one, or somebody holds it who may be about to ask it
    /// for one.
    fn is_in_use(self: &Arc<Self>) -> bool {
        let state = self.state.lock();
        let has_work = state.open + state.connecting > 0 || !state.waiting.is_empty();
        has_work || Arc::strong_count(self) > 1
    }

    /// Lends a connection: one that is free, or the first that becomes so.
    pub async fn acquire(self: &Arc<Self>) -> Result<Lease, AcquireError> {
        let metrics = &self.cluster.metrics;
        let mut waiting = {
            let mut state = self.state.lock();
            if let Some(lease) = self.free(&mut state) {
                return Ok(lease);
            }
            let place = self
                .breaker
                .enter(Resource::PendingRequests)
                .ok_or(AcquireError::Overflow)?;
            let (sender, receiver) = oneshot::channel();
            let number = state.next_number;
            state.next_number += 1;
            state.waiting.insert(number, sender);
            metrics.count(Count::RqPendingTotal);
            metrics.raise(Level::RqPendingActive);
            self.grow(&mut state);
            Waiting {
                pool: self.clone(),
                number,
                receiver,
                _place: place,
            }
        };
        match (&mut waiting.receiver).await {
            Ok(result) => Ok(result?),
            // The pool went away with its worker.
            Err(_) => Err(AcquireError::Overflow),
        }
    }

    fn free(self: &Arc<Self>, state: &mut State) -> Option<Lease> {
        while let Some(idle) = state.idle.pop() {
            if !idle.sender.is_closed() && !idle.connection.retired.load(Ordering::Relaxed) {
                return Some(self.lease(Sender::Http1(Some(idle.sender)), idle.connection));
            }
        }
        state.shared.retain(|shared| {
            !shared.sender.is_closed() && !shared.connection.retired.load(Ordering::Relaxed)
        });
        let shared = state
            .shared
            .iter()
            .find(|shared| shared.has_room(&self.cluster))?
            .clone();
        let connection = shared.connection.clone();
        Some(self.lease(Sender::Http2(shared), connection))
    }

    fn lease(self: &Arc<Self>, sender: Sender, connection: Arc<UpstreamConnection>) -> Lease {
        if let Sender::Http2(shared) = &sender {
            shared.active.fetch_add(1, Ordering::Relaxed);
        }
        let requests = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if self
            .cluster
            .config
            .http
            .max_requests_per_connection
            .is_some_and(|limit| requests >= limit)
        {
            connection.retired.store(true, Ordering::Relaxed);
        }
        Lease {
            connection,
            pool: self.clone(),
            sender,
            in_flight: None,
        }
    }

    /// Starts connections for those who wait, as far as the circuit breaker lets it.
    fn grow(self: &Arc<Self>, state: &mut State) {
        let wanted = match self.key.version {
            HttpVersion::Http1 => state.waiting.len(),
            // One HTTP/2 connection can serve all who wait; a negotiated one is taken to be that
            // until it is known.
            HttpVersion::Http2 | HttpVersion::Negotiated => usize::from(!state.waiting.is_empty()),
        };
        while state.connecting < wanted {
            let place = match self.breaker.enter(Resource::Connections) {
                Some(place) => place,
                None if state.open + state.connecting == 0 => {
                    self.breaker.enter_beyond_limit(Resource::Connections)
                }
                None => {
                    self.cluster.metrics.count(Count::CxOverflow);
                    break;
                }
            };
            state.connecting += 1;
            self.cluster.metrics.connection_started();
            self.tasks.spawn(self.clone().make(place));
        }
    }

    /// Makes one connection and drives it to its end.
    async fn make(self: Arc<Self>, place: Guard) {
        let options = ConnectOptions {
            alpn: self.key.alpn.clone(),
            server_name: self.key.server_name.clone(),
            downstream: self.key.downstream,
        };
        let made = match connect(&self.cluster, &self.endpoint, &options).await {
            Ok(connected) => {
                client_handshake(connected, self.key.version, &self.cluster.config.http).await
            }
            Err(error) => Err(error),
        };
        match made {
            Err(error) => self.failed(error),
            Ok(handshake) => {
                let Handshake {
                    sender,
                    facts,
                    driver,
                } = handshake;
                let connection = Arc::new(UpstreamConnection::new(facts, self.cluster.clock.now()));
                self.endpoint
                    .state
                    .active_connections
                    .fetch_add(1, Ordering::Relaxed);
                self.cluster.metrics.count(match connection.protocol {
                    Protocol::Http2 | Protocol::Http3 => Count::CxHttp2Total,
                    Protocol::Http10 | Protocol::Http11 => Count::CxHttp1Total,
                });
                self.cluster.metrics.connected(&connection.times);
                self.ready(sender, connection.clone());
                driver.await;
                connection.retired.store(true, Ordering::Relaxed);
                let now = self.cluster.clock.now();
                self.cluster.metrics.disconnected(&connection.times, now);
                self.cluster.metrics.connection_closed();
                self.endpoint
                    .state
                    .active_connections
                    .fetch_sub(1, Ordering::Relaxed);
                self.closed(&connection, place);
            }
        }
    }

    fn failed(self: &Arc<Self>, error: ConnectError) {
        self.cluster.metrics.connect_failed(error.kind);
        let waiting = {
            let mut state = self.state.lock();
            state.connecting = state.connecting.saturating_sub(1);
            std::mem::take(&mut state.waiting)
        };
        for request in waiting.into_values() {
            self.cluster.metrics.count(Count::RqPendingFailureEject);
            // A request that gave up waiting needs no answer.
            let _ = request.send(Err(error.clone()));
        }
    }

    fn ready(self: &Arc<Self>, sender: ClientSender, connection: Arc<UpstreamConnection>) {
        let mut state = self.state.lock();
        state.connecting = state.connecting.saturating_sub(1);
        state.open += 1;
        match sender {
            ClientSender::Http1(sender) => {
                self.give_back(&mut state, sender, connection);
                // Negotiation may have given HTTP/1 where one connection was expected to do for
                // all.
                if self.key.version == HttpVersion::Negotiated && !state.waiting.is_empty() {
                    self.grow(&mut state);
                }
            }
            ClientSender::Http2 { sender, allowed } => {
                state.shared.push(Arc::new(Shared {
                    sender,
                    connection,
                    active: AtomicU32::new(0),
                    allowed,
                }));
                self.serve_waiting(&mut state);
            }
        }
    }

    fn serve_waiting(self: &Arc<Self>, state: &mut State) {
        while let Some((number, request)) = state.waiting.pop_first() {
            match self.free(state) {
                Some(lease) => {
                    // It may have given up in between. Dropping its lease here would take the lock
                    // that we hold.
                    if let Err(Ok(mut lease)) = request.send(Ok(lease)) {
                        lease.disarm();
                    }
                }
                None => {
                    state.waiting.insert(number, request);
                    self.grow(state);
                    return;
                }
            }
        }
    }

    /// A connection is free: the request that waits longest gets it.
    fn give_back(
        self: &Arc<Self>,
        state: &mut State,
        sender: http1::SendRequest<RequestBody>,
        connection: Arc<UpstreamConnection>,
    ) {
        let mut sender = sender;
        while let Some((_, request)) = state.waiting.pop_first() {
            let lease = self.lease(Sender::Http1(Some(sender)), connection.clone());
            match request.send(Ok(lease)) {
                Ok(()) => return,
                Err(Ok(mut lease)) => match lease.take_http1() {
                    Some(back) => sender = back,
                    None => return,
                },
                Err(Err(_)) => return,
            }
        }
        state.idle.push(Idle {
            sender,
            connection,
            since: self.cluster.clock.now(),
        });
    }

    fn closed(self: &Arc<Self>, connection: &Arc<UpstreamConnection>, place: Guard) {
        drop(place);
        let mut state = self.state.lock();
        state.open = state.open.saturating_sub(1);
        state
            .idle
            .retain(|idle| !Arc::ptr_eq(&idle.connection, connection));
        state
            .shared
            .retain(|shared| !Arc::ptr_eq(&shared.connection, connection));
        // There may be room for a connection that had to wait.
        self.grow(&mut state);
    }
}

impl Shared {
    fn has_room(&self, cluster: &LiveCluster) -> bool {
        let configured = cluster
            .config
            .http
            .http2
            .max_concurrent_streams
            .unwrap_or(u32::MAX);
        let allowed = usize::try_from(configured)
            .unwrap_or(usize::MAX)
            .min(self.allowed.load(Ordering::Relaxed));
        usize::try_from(self.active.load(Ordering::Relaxed)).unwrap_or(usize::MAX) < allowed
    }
}

impl UpstreamConnection {
    /// A number for a new connection.
    pub(crate) fn next_id() -> u64 {
        static IDS: AtomicU64 = AtomicU64::new(1);
        IDS.fetch_add(1, Ordering::Relaxed)
    }

    fn new(facts: ConnectionFacts, now: Instant) -> Self {
        let ConnectionFacts {
            local,
            remote,
            tls,
            protocol,
            times,
        } = facts;
        Self {
            id: Self::next_id(),
            local,
            remote,
            tls,
            protocol,
            times,
            created: now,
            requests: AtomicU32::new(0),
            last_used: Mutex::new(now),
            retired: AtomicBool::new(false),
        }
    }
}

impl Lease {
    /// Sends a request. When the connection turned out closed before anything was written, the
    /// request comes back.
    pub async fn send(
        &mut self,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<hyper::body::Incoming>, SendError> {
        let result = match &mut self.sender {
            Sender::Http1(Some(sender)) => {
                // A connection that just came back may need a turn of the loop to be ready.
                if !sender.is_ready() && sender.ready().await.is_err() {
                    return Err(SendError {
                        reset: ResetReason::ConnectionTermination,
                        unsent: Some(Box::new(request)),
                    });
                }
                sender.try_send_request(request).await
            }
            Sender::Http1(None) => {
                return Err(SendError {
                    reset: ResetReason::ConnectionTermination,
                    unsent: Some(Box::new(request)),
                });
            }
            Sender::Http2(shared) => shared.sender.clone().try_send_request(request).await,
        };
        result.map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            SendError {
                reset: reset_reason(&error.into_error()),
                unsent,
            }
        })
    }

    /// Takes the connection out of the lease without touching the pool.
    fn disarm(&mut self) {
        if let Sender::Http2(shared) = &self.sender {
            shared.active.fetch_sub(1, Ordering::Relaxed);
        }
        self.sender = Sender::Http1(None);
    }

    fn take_http1(&mut self) -> Option<http1::SendRequest<RequestBody>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.take(),
            Sender::Http2(_) => None,
        }
    }

    /// The exchange is complete on both sides: the connection may take another request. Without
    /// this call an HTTP/1 connection closes.
    pub fn release(mut self) {
        if let Some(sender) = self.take_http1()
            && !sender.is_closed()
            && !self.connection.retired.load(Ordering::Relaxed)
        {
            let pool = self.pool.clone();
            pool.give_back(&mut pool.state.lock(), sender, self.connection.clone());
        }
    }

    /// The request gave up before it had the connection: it does not count as one of the
    /// connection's.
    fn give_up(self) {
        self.connection.requests.fetch_sub(1, Ordering::Relaxed);
        self.release();
    }

    /// Keeps the request counted until the lease ends.
    pub(crate) fn hold(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    /// No further request on this connection (the peer said so, or it misbehaves).
    pub fn retire(&self) {
        self.connection.retired.store(true, Ordering::Relaxed);
    }

    pub fn cluster(&self) -> &Arc<LiveCluster> {
        &self.pool.cluster
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Sender::Http2(shared) = &self.sender {
            shared.active.fetch_sub(1, Ordering::Relaxed);
            *self.connection.last_used.lock() = self.pool.cluster.clock.now();
            let mut state = self.pool.state.lock();
            if !state.waiting.is_empty() {
                self.pool.serve_waiting(&mut state);
            }
        }
    }
}
