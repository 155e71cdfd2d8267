//! One request on its way: its state, filled in the order in which the data path asks for it.
//!
//! [`Exchange`] is made when a request's head was read and ends in exactly one report: when the last byte of the response was handed to
//! the downstream's codec, or when it is dropped before that because the downstream went away. Filters see and change it; [`forward`]
//! carries it to an upstream; [`reply`] is what answers it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, request::Parts, uri::PathAndQuery};
use proxy_config::{
    matcher::HeaderView,
    metadata::Metadata,
    route::{Forward, RouteAction, WeightedCluster},
};
use telemetry::record::{Protocol, Record};

use crate::{
    body::RequestSource,
    config::Config,
    connection::Connection,
    endpoint::LiveEndpoint,
    grpc::is_grpc,
    headers::trace::Trace,
    listener::LiveHttp,
    route::{Matched, RouteFacts, split_path},
    upstream::cluster::LiveCluster,
    worker::Worker,
};

pub mod attempt;
pub mod finish;
pub mod forward;
pub mod mirror;
pub mod plan;
pub mod refusal;
pub mod reply;
pub mod upgrade;

/// The state of one request.
pub struct Exchange {
    pub worker: Arc<Worker>,
    pub connection: Arc<Connection>,
    pub http: Arc<LiveHttp>,
    /// The one version of configuration that this request sees.
    pub config: Arc<Config>,
    pub started: Instant,
    /// When the filters let it pass: limits of the route count from here, or from the end of the request if that is later.
    pub routed: Instant,
    /// The request's head as it will go upstream: filters and header operations change it in place. Host is in `authority`.
    pub head: Parts,
    pub authority: HeaderValue,
    pub scheme: &'static str,
    /// `:scheme` of HTTP/2.
    pub scheme_told: Option<&'static str>,
    /// `x-forwarded-proto` says that the client came by TLS.
    pub is_https: bool,
    pub body: RequestSource,
    /// A WebSocket or other upgrade, or CONNECT, that the connection manager lets pass.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// `websocket` and the like; `None` for a plain CONNECT and where nothing is upgraded.
    pub upgrade_kind: Option<Arc<str>>,
    pub route: Option<Matched>,
    pub cluster: Option<Arc<LiveCluster>>,
    /// The host of the last attempt.
    pub host: Option<Arc<LiveEndpoint>>,
    /// Position of the weighted cluster that was drawn.
    pub weighted: Option<usize>,
    /// What filters told about the request, by filter name.
    pub metadata: Metadata,
    /// Position of the next filter to see the response, counted from the end of those that saw the request.
    pub filters_entered: usize,
    pub is_grpc: bool,
    /// One random number for all decisions of the route (fractions, weights), so that they agree.
    pub random: u64,
    /// Whether it comes from where `x-envoy-…` headers are trusted.
    pub is_internal: bool,
    /// HTTP/1.0 asked for that.
    pub keeps_alive: bool,
    /// The connection ends with the answer, as what follows the request's head is not to be trusted.
    pub closes: bool,
    /// `grpc-timeout`, `x-envoy-…` and the route's timeout, once known.
    pub timeout: Option<Duration>,
    /// Of one attempt.
    pub per_try_timeout: Option<Duration>,
    /// A timeout is answered 204.
    pub is_timeout_empty: bool,
    /// When it must have ended, whatever the upstream does.
    pub longest: Option<Instant>,
    pub record: Record,
    pub trace: Trace,
    /// The reporters have the record.
    pub(super) reported: bool,
}

impl Exchange {
    pub fn new(
        worker: Arc<Worker>,
        connection: Arc<Connection>,
        http: Arc<LiveHttp>,
        head: Parts,
        body: RequestSource,
        record: Record,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Box<Self> {
        let config = worker.live.config();
        let started = worker.live.clock.now();
        let random = worker.live.rng.u64();
        let is_grpc = is_grpc(&head.headers);
        Box::new(Self {
            worker,
            connection,
            http,
            config,
            started,
            routed: started,
            head,
            authority: HeaderValue::from_static(""),
            scheme: "http",
            scheme_told: None,
            is_https: false,
            body,
            upgrade,
            upgrade_kind: None,
            route: None,
            cluster: None,
            host: None,
            weighted: None,
            metadata: Metadata::default(),
            filters_entered: 0,
            is_grpc,
            random,
            is_internal: false,
            keeps_alive: false,
            closes: false,
            timeout: None,
            per_try_timeout: None,
            is_timeout_empty: false,
            longest: None,
            record,
            trace: Trace::default(),
            reported: false,
        })
    }

    /// The request's path with its query.
    pub fn path(&self) -> &str {
        self.head
            .uri
            .path_and_query()
            .map_or("", PathAndQuery::as_str)
    }

    /// The head as matchers see it.
    pub fn view(&self) -> HeaderView<'_> {
        HeaderView {
            headers: &self.head.headers,
            authority: self.authority.to_str().unwrap_or_default(),
            method: self.head.method.as_str(),
            path: self.path(),
            scheme: self.scheme,
            protocol: self
                .head
                .extensions
                .get::<hyper::ext::Protocol>()
                .map_or("", |protocol| protocol.as_str()),
            status: None,
        }
    }

    /// What routes can look at.
    pub fn route_facts(&self) -> RouteFacts<'_> {
        let mutual = self
            .connection
            .tls
            .as_ref()
            .is_some_and(|tls| tls.info.mutual);
        RouteFacts {
            head: self.view(),
            metadata: &self.metadata,
            is_connect: self.head.method == http::Method::CONNECT
                && self.head.extensions.get::<hyper::ext::Protocol>().is_none(),
            is_grpc: self.is_grpc,
            certificate: (mutual, mutual),
            random: self.random,
        }
    }

    /// The route's forwarding rules, when it forwards.
    pub fn forward_rules(&self) -> Option<&Arc<Forward>> {
        match &self.route.as_ref()?.route.action {
            RouteAction::Forward(forward) => Some(forward),
            RouteAction::Redirect(_)
            | RouteAction::DirectResponse { .. }
            | RouteAction::Refused(_)
            | RouteAction::NonForwarding => None,
        }
    }

    /// The weighted cluster that was drawn.
    pub fn weighted_cluster(&self) -> Option<&WeightedCluster> {
        match &self.forward_rules()?.target {
            proxy_config::route::Target::Weighted { clusters, .. } => clusters.get(self.weighted?),
            _ => None,
        }
    }

    /// Whether the connection manager and the route let an upgrade of this kind pass.
    pub fn allows_upgrade(&self, kind: &str) -> bool {
        let of_route = self.forward_rules().and_then(|f| {
            f.upgrades
                .iter()
                .find(|u| u.kind.eq_ignore_ascii_case(kind))
        });
        let of_manager = self
            .http
            .config
            .upgrades
            .iter()
            .find(|u| u.kind.eq_ignore_ascii_case(kind));
        of_route
            .or(of_manager)
            .is_some_and(|upgrade| upgrade.enabled)
    }

    /// The path without its query.
    pub fn path_only(&self) -> &str {
        split_path(self.path()).0
    }

    /// The downstream's HTTP version.
    pub fn protocol(&self) -> Protocol {
        protocol(self.head.version)
    }

    /// Time since the request began.
    pub fn elapsed(&self) -> Duration {
        self.worker
            .live
            .clock
            .now()
            .saturating_duration_since(self.started)
    }

    /// How long neither side may be silent; `None`: for ever.
    pub fn stream_idle_timeout(&self) -> Option<Duration> {
        self.forward_rules()
            .and_then(|rules| rules.idle_timeout)
            .or(self.http.config.timeouts.stream_idle)
            .filter(|limit| !limit.is_zero())
    }

    pub fn is_reported(&self) -> bool {
        self.reported
    }
}

/// hyper's version as the record has it.
pub fn protocol(version: http::Version) -> Protocol {
    match version {
        http::Version::HTTP_09 | http::Version::HTTP_10 => Protocol::Http10,
        http::Version::HTTP_2 => Protocol::Http2,
        http::Version::HTTP_3 => Protocol::Http3,
        _ => Protocol::Http11,
    }
}
