//! The TCP proxy: one downstream connection to one upstream connection.
//!
//! In order: the network filters decide ([`crate::filters::network`]), a cluster is drawn, a host
//! picked, a connection made (and made again elsewhere, up to `max_connect_attempts`), metadata
//! exchanged where negotiated, then bytes copied until both sides are done. One report. Follows
//! `envoy.extensions.filters.network.tcp_proxy.v3`.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use crate::{
    balance::{self, Pick, PickFacts},
    config::Config,
    connection::Connection,
    endpoint::LiveEndpoint,
    filters::network,
    inspect::{is_timeout, within},
    listener::LiveTcp,
    peers,
    report::{Finished, metadata, opened::Opened},
    route::draw,
    tls::Stream,
    upstream::{
        breaker::{Guard, Resource},
        cluster::LiveCluster,
        connect::connect,
        connected::{ConnectOptions, Connected},
        metrics::{Count, Level},
        original_destination, outlier,
        pool::UpstreamConnection,
        reset::ResetReason,
    },
    waiting,
    worker::Worker,
};
use proxy_config::{
    ClusterName,
    access_log::AccessLog,
    cluster::Discovery,
    filter::NetworkFilter,
    metadata::Metadata,
    tcp_proxy::{Tunnel, WeightedTcpCluster},
};
use telemetry::record::{Attempted, Kind, Record, ResponseFlags};

pub mod copy;
pub mod metadata_exchange;
mod tunnel;

/// The state of one proxied connection.
struct Session {
    worker: Arc<Worker>,
    connection: Arc<Connection>,
    terminal: Arc<LiveTcp>,
    /// The version of configuration that was in force when the connection came.
    config: Arc<Config>,
    cluster: Option<Arc<LiveCluster>>,
    /// The host of the last attempt.
    host: Option<Arc<LiveEndpoint>>,
    started: Instant,
    record: Record,
    /// What counts it, once it is open.
    opened: Option<Opened>,
}

/// A connection to an upstream, with what counts it.
struct Upstream {
    connected: Connected,
    host: Arc<LiveEndpoint>,
    cluster: Arc<LiveCluster>,
    _place: Guard,
}

/// Proxies one connection to its end.
pub async fn run(
    mut stream: Stream,
    worker: Arc<Worker>,
    connection: Arc<Connection>,
    terminal: Arc<LiveTcp>,
) {
    let mut record = connection.record(worker.live.clock.wall());
    record.kind = Kind::Tcp;
    let (config, started) = (worker.live.config(), worker.live.clock.now());
    let mut session = Session {
        worker,
        connection,
        terminal,
        config,
        cluster: None,
        host: None,
        started,
        record,
        opened: None,
    };
    if session.exchange_metadata(&mut stream).await.is_ok()
        && let Some(upstream) = session.connect().await
    {
        session.pass(stream, upstream).await;
    }
    session.report();
}

impl Session {
    /// The server's part of the metadata exchange; the client sends first.
    async fn exchange_metadata(&mut self, stream: &mut Stream) -> io::Result<()> {
        let filters = &self.connection.chain.config.network_filters;
        let wanted = filters
            .iter()
            .any(|filter| matches!(filter, NetworkFilter::MetadataExchange));
        let negotiated = self
            .connection
            .downstream
            .tls
            .as_ref()
            .is_some_and(|tls| tls.info.alpn.as_deref() == Some(metadata_exchange::ALPN));
        if !wanted || !negotiated {
            return Ok(());
        }
        let exchange = async {
            let peer = metadata_exchange::receive(stream).await?;
            metadata_exchange::send(stream, &self.worker.live.own).await?;
            Ok(peer)
        };
        let limit = self.connection.chain.silence_limit();
        let exchanged = within(limit, exchange).await;
        if exchanged.as_ref().is_err_and(is_timeout) {
            self.terminal.metrics.idled();
        }
        self.record.downstream_peer = exchanged?;
        Ok(())
    }

    /// Chooses cluster and host and connects; notes why not.
    async fn connect(&mut self) -> Option<Upstream> {
        let (name, metadata_match) = self.choose_cluster()?;
        self.config = waiting::for_cluster(&self.worker.live, &self.config, &name, None).await;
        let Some(cluster) = self.config.cluster(name.as_str()).cloned() else {
            self.record.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        self.record.upstream_cluster = Some(cluster.config.name.shared());
        self.record.upstream_cluster_observed = cluster.config.alt_stat_name.clone();
        self.cluster = Some(cluster.clone());
        if cluster.is_dropped(self.worker.live.rng.u64()).is_some() {
            self.record.flags.insert(ResponseFlags::DROP_OVERLOAD);
            return None;
        }
        let mut tried = Vec::new();
        for attempt in 1..=self.terminal.config.proxy.max_connect_attempts.max(1) {
            let Some(host) = self.pick(&cluster, metadata_match.as_ref(), &tried) else {
                cluster.metrics.count(Count::CxNoneHealthy);
                self.record.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
                return None;
            };
            tried.push(host.state.id);
            self.record.attempts = attempt;
            let Some(place) = cluster.default_breaker.enter(Resource::Connections) else {
                cluster.metrics.count(Count::CxOverflow);
                self.record.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
                return None;
            };
            let connected = match &self.terminal.config.proxy.tunnel {
                None => self.attempt(&cluster, &host).await,
                Some(tunnel) => self.tunnel(tunnel.clone(), &cluster, &host).await,
            };
            if let Some(connected) = connected {
                return Some(Upstream {
                    connected,
                    host,
                    cluster,
                    _place: place,
                });
            }
        }
        self.record
            .flags
            .insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        None
    }

    fn choose_cluster(&mut self) -> Option<(ClusterName, Option<Metadata>)> {
        let proxy = &self.terminal.config.proxy;
        if let Some(name) = network::sni_cluster(
            &self.connection.chain.config.network_filters,
            &self.connection.downstream,
        ) {
            return Some((name, proxy.metadata_match.clone()));
        }
        let chosen = weighted(&proxy.clusters, self.worker.live.rng.u64());
        let Some(chosen) = chosen else {
            self.record.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        Some((
            chosen.name.clone(),
            chosen
                .metadata_match
                .clone()
                .or_else(|| proxy.metadata_match.clone()),
        ))
    }

    fn pick(
        &self,
        cluster: &Arc<LiveCluster>,
        metadata_match: Option<&Metadata>,
        tried: &[u64],
    ) -> Option<Arc<LiveEndpoint>> {
        let live = &self.worker.live;
        if let Discovery::OriginalDst { port_override, .. } = &cluster.config.discovery {
            return original_destination::pick(
                cluster,
                &self.connection.downstream,
                None,
                *port_override,
            );
        }
        let hash = self
            .terminal
            .config
            .proxy
            .hash_policy
            .as_ref()
            .and_then(|policy| balance::hash::of_connection(policy, &self.connection.downstream));
        let facts = PickFacts {
            hash,
            metadata_match,
            tried,
            selection_attempts: 5,
        };
        match cluster.pick(&facts, &*live.rng) {
            Pick::Host(host) => Some(host),
            Pick::NoHealthyHost => None,
        }
    }

    async fn attempt(
        &mut self,
        cluster: &Arc<LiveCluster>,
        host: &Arc<LiveEndpoint>,
    ) -> Option<Connected> {
        let metrics = &cluster.metrics;
        metrics.count(Count::CxTotal);
        metrics.count(Count::RqPendingTotal);
        self.record.timings.upstream_connect_start = Some(self.elapsed());
        let facts = &self.connection.downstream.facts;
        let options = ConnectOptions {
            downstream: Some((facts.source, facts.destination)),
            ..ConnectOptions::default()
        };
        let result = connect(cluster, host, &options).await;
        let outcome = if result.is_ok() {
            outlier::Outcome::LocalOriginSuccess
        } else {
            outlier::Outcome::LocalOriginFailure
        };
        outlier::report(cluster, host, outcome);
        if let Some(before) = self.record.upstream_host.take() {
            self.record.earlier_attempts.push(Attempted {
                host: Some(before),
                host_name: self.record.upstream_host_name.take(),
                connection_id: 0,
            });
        }
        self.record.upstream_host = host.record_address();
        self.record.upstream_host_name =
            Some(host.config.hostname.clone()).filter(|name| !name.is_empty());
        self.host = Some(host.clone());
        self.record.upstream_peer = peers::of_endpoint(&host.config.metadata);
        match result {
            Ok(mut connected) => {
                let times = connected.times;
                metrics.connected(&times);
                metrics.count(Count::RqTotal);
                let took = times.connected.saturating_duration_since(times.began);
                self.record.timings.upstream_connect = Some(took);
                self.record.timings.upstream_connect_complete = Some(self.elapsed());
                self.record.timings.upstream_handshake = times
                    .secured
                    .map(|done| done.saturating_duration_since(times.connected));
                self.record.upstream_connection_id = UpstreamConnection::next_id();
                self.record.upstream_local = connected.local.map(Into::into);
                self.record.upstream_remote = connected.remote.map(Into::into);
                self.record.upstream_tls = connected
                    .secured
                    .as_ref()
                    .map(|secured| secured.info.clone());
                self.tell_upstream(cluster, &mut connected).await.ok()?;
                self.record.flags = ResponseFlags::NONE;
                Some(connected)
            }
            Err(error) => {
                metrics.count(Count::CxConnectFail);
                metrics.count(Count::CxDestroy);
                metrics.count(Count::RqPendingFailureEject);
                self.record.upstream_transport_failure_reason =
                    Some(error.reason.clone()).filter(|reason| !reason.is_empty());
                self.record.flags.insert(ResetReason::from(error).flag());
                None
            }
        }
    }

    /// A connection through another proxy, which is asked by CONNECT.
    async fn tunnel(
        &mut self,
        tunnel: Tunnel,
        cluster: &Arc<LiveCluster>,
        host: &Arc<LiveEndpoint>,
    ) -> Option<Connected> {
        let opening = tunnel::open(&self.worker, &tunnel, cluster, host);
        let opened = tokio::time::timeout(cluster.config.connect_timeout, opening).await;
        match opened.unwrap_or_else(|_| Err("the proxy did not answer in time".into())) {
            Ok(connected) => {
                self.record.upstream_host = host.record_address();
                self.record.upstream_remote = connected.remote.map(Into::into);
                Some(connected)
            }
            Err(reason) => {
                self.record.upstream_transport_failure_reason = Some(reason);
                self.record
                    .flags
                    .insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                None
            }
        }
    }

    /// The client's part of the metadata exchange. What the server answers comes before its first
    /// byte.
    async fn tell_upstream(
        &mut self,
        cluster: &LiveCluster,
        connected: &mut Connected,
    ) -> io::Result<()> {
        let negotiated = connected
            .secured
            .as_ref()
            .is_some_and(|tls| tls.info.alpn.as_deref() == Some(metadata_exchange::ALPN));
        if !negotiated || !cluster.config.peer_metadata_exchange {
            return Ok(());
        }
        let exchange = async {
            metadata_exchange::send(&mut connected.stream, &self.worker.live.own).await?;
            metadata_exchange::receive(&mut connected.stream).await
        };
        // It is a part of making the connection.
        let exchanged = within(cluster.config.connect_timeout, exchange).await;
        if exchanged.as_ref().is_err_and(is_timeout) {
            cluster.metrics.count(Count::CxConnectTimeout);
        }
        self.record.upstream_peer = exchanged?.or(self.record.upstream_peer.take());
        Ok(())
    }

    async fn pass(&mut self, mut downstream: Stream, upstream: Upstream) {
        let Upstream {
            mut connected,
            host,
            cluster,
            _place,
        } = upstream;
        let proxy = &self.terminal.config.proxy;
        let limits = copy::Limits {
            buffer_bytes: self.worker.settings.tcp_buffer_bytes,
            idle: proxy.idle_timeout,
            longest: proxy.max_downstream_connection_duration,
        };
        let counts = copy::Counts::default();
        let times = connected.times;
        cluster.metrics.raise(Level::CxActive);
        host.state
            .active_connections
            .fetch_add(1, Ordering::Relaxed);
        host.state.active_requests.fetch_add(1, Ordering::Relaxed);
        let drained = async {
            self.connection.chain.draining().await;
            tokio::time::sleep(self.worker.settings.drain_time).await;
        };
        self.opened = self.worker.reporter.opened(self.finished(false));
        let counted = count_while_open(self.opened.as_mut(), &counts);
        tokio::select! {
            end = copy::both(&mut downstream, &mut connected.stream, &counts, &limits) => match end {
                // One side that broke off is no side that has said all: the other is told so.
                copy::End::UpstreamFailed => {
                    downstream.reset_on_drop();
                    self.record.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
                }
                copy::End::DownstreamFailed => {
                    connected.stream.reset_on_drop();
                    self.record.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                }
                copy::End::TooLong => self.record.flags.insert(ResponseFlags::DURATION_TIMEOUT),
                copy::End::Idle => self.terminal.metrics.idled(),
                copy::End::Complete(_) => {}
            },
            () = drained => {}
            () = counted => {}
        }
        host.state.active_requests.fetch_sub(1, Ordering::Relaxed);
        host.state
            .active_connections
            .fetch_sub(1, Ordering::Relaxed);
        cluster.metrics.lower(Level::CxActive);
        let now = self.worker.live.clock.now();
        cluster.metrics.disconnected(&times, now);
        cluster.metrics.add(Count::CxTxBytes, counts.received());
        cluster.metrics.add(Count::CxRxBytes, counts.sent());
        self.record.bytes.received = counts.received();
        self.record.bytes.sent = counts.sent();
        self.record.bytes.downstream_wire_received = counts.received();
        self.record.bytes.downstream_wire_sent = counts.sent();
    }

    fn elapsed(&self) -> std::time::Duration {
        self.worker
            .live
            .clock
            .now()
            .saturating_duration_since(self.started)
    }

    fn report(mut self) {
        self.record.timings.total = Some(self.elapsed());
        self.terminal.metrics.ended(&self.record);
        let logs = self.terminal.config.proxy.access_logs.iter();
        if logs.clone().any(AccessLog::reads_metadata) {
            let sources = metadata::Sources {
                connection: &self.connection,
                route: None,
                cluster: self.cluster.as_deref(),
                host: self.host.as_deref(),
            };
            metadata::fill(&mut self.record, &sources);
        }
        let opened = self.opened.take();
        self.worker.reporter.report(self.finished(opened.is_some()));
        if let Some(opened) = opened {
            opened.closed(self.record.bytes.sent, self.record.bytes.received);
        }
    }

    fn finished(&self, is_counted: bool) -> Finished<'_> {
        Finished {
            record: &self.record,
            connection: &self.connection,
            http: None,
            access_logs: &self.terminal.config.proxy.access_logs,
            config: &self.config,
            route: None,
            cluster: self.cluster.as_deref(),
            trace: None,
            is_counted,
        }
    }
}

/// Counts bytes at the interval that statistics want; never ends.
async fn count_while_open(opened: Option<&mut Opened>, counts: &copy::Counts) {
    let Some(opened) = opened else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(opened.interval()).await;
        opened.passed(counts.sent(), counts.received());
    }
}

/// Draws one by weight.
fn weighted(clusters: &[WeightedTcpCluster], random: u64) -> Option<&WeightedTcpCluster> {
    let total = clusters
        .iter()
        .fold(0u32, |total, cluster| total.saturating_add(cluster.weight));
    clusters.get(draw(
        clusters.iter().map(|cluster| cluster.weight),
        total,
        random,
    )?)
}
