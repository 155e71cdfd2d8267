//! A listener at run time: its chains with their TLS contexts and compiled terminals, and the
//! signal to drain.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use parking_lot::Mutex;
use proxy_config::{
    FilterChain, HttpConnectionManager, Listener,
    access_log::AccessLogSink,
    filter::{HttpFilterKind, TcpTerminal, alpn::Alpn},
    http_connection_manager::RouteSource,
    listener::{ChainMatch, ListenAddress, Terminal},
    metadata::Metadata,
    tracing::CustomTagValue,
};
use stdx::{Drain, DrainTrigger, drain};
use telemetry::access_log::Needs;

use crate::{
    filters::{LiveFilters, network::LiveNetworkFilters},
    headers::text,
    inspect::MAX_SILENCE,
    makers::Makers,
    problem::PublishProblem,
    report::downstream::{self, HttpMetrics, ListenerMetrics, TcpMetrics},
    route::LiveRouteTable,
    tls::LiveServerTls,
};

/// One version of a listener. Chains whose configuration did not change pass from version to
/// version, with their connections.
pub struct LiveListener {
    pub id: u64,
    pub config: Arc<Listener>,
    /// In the order of the configuration.
    pub chains: Box<[Arc<LiveChain>]>,
    pub default_chain: Option<Arc<LiveChain>>,
    pub metrics: Arc<ListenerMetrics>,
}

/// One filter chain. Connections hold the chain that took them; when no listener has it any more,
/// it drains.
pub struct LiveChain {
    pub config: Arc<FilterChain>,
    /// `None`: plaintext.
    pub tls: Option<LiveServerTls>,
    pub terminal: LiveTerminal,
    pub network_filters: LiveNetworkFilters,
    trigger: Mutex<Option<DrainTrigger>>,
    draining: Drain,
}

pub enum LiveTerminal {
    Http(Arc<LiveHttp>),
    Tcp(Arc<LiveTcp>),
    Close,
}

/// A TCP proxy with its series.
pub struct LiveTcp {
    pub config: Arc<TcpTerminal>,
    pub metrics: TcpMetrics,
}

/// A connection manager with its inline routes compiled.
pub struct LiveHttp {
    pub config: Arc<HttpConnectionManager>,
    /// `None`: the routes are found by name in `Config::routes`.
    pub inline_routes: Option<Arc<LiveRouteTable>>,
    pub filters: LiveFilters,
    pub metrics: Arc<HttpMetrics>,
    /// Headers of responses and trailers that logs and the like read, so that no others are kept.
    pub needs: Needs,
    /// The router must not add `x-envoy-…` headers.
    pub suppresses_envoy_headers: bool,
    /// `server` of responses.
    pub server_name: http::HeaderValue,
    /// Istio's ALPN override, when the manager has one.
    pub alpn: Option<Arc<Alpn>>,
}

impl LiveListener {
    pub(crate) fn new(
        config: Arc<Listener>,
        old: Option<&LiveListener>,
        makers: Makers<'_>,
        problems: &mut Vec<PublishProblem>,
    ) -> Self {
        let prefix = downstream::prefix(&config);
        let mut chain = |chain: &Arc<FilterChain>| {
            if let Some(kept) =
                old.and_then(|old| old.all_chains().find(|kept| kept.config == *chain))
            {
                return kept.clone();
            }
            let (made, trouble) = LiveChain::new(chain.clone(), &prefix, makers);
            problems.extend(trouble.into_iter().map(|problem| PublishProblem {
                kind: "listener",
                name: config.name.shared(),
                problem: format!("filter chain {}: {problem}", chain.name),
            }));
            Arc::new(made)
        };
        let chains: Box<[_]> = config.chains.iter().map(&mut chain).collect();
        let default_chain = config.default_chain.as_ref().map(&mut chain);
        Self {
            id: makers.ids.next(),
            chains,
            default_chain,
            metrics: Arc::new(ListenerMetrics::new(makers.stats, &config)),
            config,
        }
    }

    /// Tells the connections to finish, but for those of chains that `successor` took over.
    pub(crate) fn drain_but_for(&self, successor: Option<&LiveListener>) {
        for chain in self.all_chains() {
            let kept =
                successor.is_some_and(|s| s.all_chains().any(|other| Arc::ptr_eq(other, chain)));
            if !kept {
                chain.drain();
            }
        }
    }

    pub fn all_chains(&self) -> impl Iterator<Item = &Arc<LiveChain>> {
        self.chains.iter().chain(self.default_chain.as_ref())
    }

    /// The socket addresses it has (or would have, if it does not bind).
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.config
            .addresses
            .iter()
            .filter_map(|address| match address {
                ListenAddress::Socket(address) => Some(*address),
                ListenAddress::Pipe(_) => None,
            })
    }
}

impl LiveChain {
    /// How long a client may say nothing while something is waited for that it must say first (a
    /// preface, a handshake): what its terminal gives an idle connection, and a limit in any case.
    pub fn silence_limit(&self) -> Duration {
        let idle = match &self.terminal {
            LiveTerminal::Http(http) => http.config.timeouts.idle,
            LiveTerminal::Tcp(tcp) => tcp.config.proxy.idle_timeout,
            LiveTerminal::Close => None,
        };
        idle.unwrap_or(MAX_SILENCE)
    }

    /// `listener`: the prefix of its listener's series.
    fn new(config: Arc<FilterChain>, listener: &str, makers: Makers<'_>) -> (Self, Option<String>) {
        let terminal = match &config.terminal {
            Terminal::Http(http) => {
                LiveTerminal::Http(Arc::new(LiveHttp::new(http.clone(), listener, makers)))
            }
            Terminal::Tcp(tcp) => LiveTerminal::Tcp(Arc::new(LiveTcp {
                metrics: TcpMetrics::new(makers.stats, &tcp.proxy.stat_prefix),
                config: tcp.clone(),
            })),
            Terminal::Close => LiveTerminal::Close,
        };
        let (tls, problem) = match &config.tls {
            None => (None, None),
            Some(tls) => {
                let (tls, problem) = makers.tls.server(tls);
                (Some(tls), problem)
            }
        };
        let (trigger, draining) = drain::channel();
        let network_filters =
            LiveNetworkFilters::new(&config.network_filters, makers.stats, makers.clock.now());
        (
            Self {
                config,
                tls,
                terminal,
                network_filters,
                trigger: Mutex::new(Some(trigger)),
                draining,
            },
            problem,
        )
    }

    /// Stands for the chain of a connection that none takes.
    pub(crate) fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<LiveChain>> = LazyLock::new(|| {
            let (trigger, draining) = drain::channel();
            let config = Arc::new(FilterChain {
                name: Arc::from(""),
                matches: ChainMatch::default(),
                tls: None,
                transport_socket_connect_timeout: None,
                network_filters: Arc::from([]),
                terminal: Terminal::Close,
                metadata: Metadata::default(),
            });
            Arc::new(LiveChain {
                config,
                tls: None,
                terminal: LiveTerminal::Close,
                network_filters: LiveNetworkFilters::none(),
                trigger: Mutex::new(Some(trigger)),
                draining,
            })
        });
        NONE.clone()
    }

    /// Tells the connections of this chain to finish.
    pub fn drain(&self) {
        if let Some(trigger) = self.trigger.lock().take() {
            trigger.start();
        }
    }

    /// Resolves when the chain is replaced or removed, or the proxy drains.
    pub fn draining(&self) -> Drain {
        self.draining.clone()
    }
}

impl LiveHttp {
    fn new(config: Arc<HttpConnectionManager>, listener: &str, makers: Makers<'_>) -> Self {
        let inline_routes = match &config.routes {
            RouteSource::Inline(table) => Some(Arc::new(LiveRouteTable::new(table.clone()))),
            RouteSource::Named(_) => None,
        };
        let filters = LiveFilters::new(&config, makers.stats);
        let alpn = config.filters.iter().find_map(|filter| match &filter.kind {
            HttpFilterKind::Alpn(alpn) if !filter.disabled => Some(alpn.clone()),
            _ => None,
        });
        let router_suppresses =
            config.filters.iter().any(|filter| matches!(&filter.kind, HttpFilterKind::Router(router) if router.suppress_envoy_headers));
        Self {
            metrics: Arc::new(HttpMetrics::new(makers.stats, &config, listener)),
            inline_routes,
            filters,
            needs: needs(&config),
            server_name: text(&config.server_name),
            suppresses_envoy_headers: router_suppresses,
            alpn,
            config,
        }
    }
}

fn needs(config: &HttpConnectionManager) -> Needs {
    let mut needs = Needs::default();
    for log in config.access_logs.iter() {
        let AccessLogSink::File { format, .. } = &log.sink;
        needs.merge(&format.needs());
        log.filter
            .iter()
            .for_each(|filter| filter.add_needs(&mut needs));
    }
    // Expressions of metrics and formats of spans' tags may read any header.
    let has_expressions = config.filters.iter().any(|filter| match &filter.kind {
        HttpFilterKind::IstioStats(stats) => stats
            .overrides
            .iter()
            .any(|change| !change.dimensions.is_empty()),
        _ => false,
    });
    let mut tags = config
        .tracing
        .iter()
        .flat_map(|tracing| tracing.custom_tags.iter());
    needs.all_headers |=
        has_expressions || tags.any(|tag| matches!(tag.value, CustomTagValue::Format(_)));
    needs
}
