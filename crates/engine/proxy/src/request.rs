//! One request as values: its head, what is known about it, and what was decided and told about it
//! so far.
//!
//! Filters and header code see a [`Request`] and nothing else, so what they do depends only on it,
//! on their configuration, and on the clock and random numbers that they are given. It has no
//! handles: no worker, no live cluster, no connection to write to. `exchange::Exchange` carries it
//! together with those, from the codec to the report.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, request::Parts, uri::PathAndQuery};
use proxy_config::{
    Cluster, HttpConnectionManager,
    matcher::HeaderView,
    metadata::Metadata,
    route::{Forward, RouteAction, WeightedCluster},
    tracing::TracingProvider,
};
use telemetry::{
    record::{Protocol, Record},
    trace::SpanContext,
};

use crate::{
    body::RequestSource,
    downstream::Downstream,
    grpc::is_grpc,
    route::{Matched, RouteFacts, split_path},
};

/// The state of one request.
pub struct Request {
    /// What is known about the connection that it came by.
    pub downstream: Arc<Downstream>,
    /// The configuration of the connection manager.
    pub http: Arc<HttpConnectionManager>,
    /// The router must not add `x-envoy-…` headers.
    pub suppresses_envoy_headers: bool,
    pub started: Instant,
    /// When the filters let it pass: limits of the route count from here, or from the end of the
    /// request if that is later.
    pub routed: Instant,
    /// The request's head as it will go upstream: filters and header operations change it in place.
    /// Host is in `authority`.
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
    /// The configuration of the cluster that was chosen.
    pub cluster: Option<Arc<Cluster>>,
    /// Position of the weighted cluster that was drawn.
    pub weighted: Option<usize>,
    /// What filters told about the request, by filter name.
    pub metadata: Metadata,
    /// Position of the next filter to see the response, counted from the end of those that saw the
    /// request.
    pub filters_entered: usize,
    pub is_grpc: bool,
    /// One random number for all decisions of the route (fractions, weights), so that they agree.
    pub random: u64,
    /// Whether it comes from where `x-envoy-…` headers are trusted.
    pub is_internal: bool,
    /// HTTP/1.0 asked for that.
    pub keeps_alive: bool,
    /// The connection ends with the answer, as what follows the request's head is not to be
    /// trusted.
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
}

/// What the end of the request needs to know for its spans. The span's own identity is
/// `Record::trace`.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// `None`: no collector, so no span.
    pub provider: Option<Arc<TracingProvider>>,
    /// From the route's decorator or from the sidecar on the other side.
    pub operation: Option<Arc<str>>,
    /// The request brought the operation, so the answer need not tell it.
    pub was_told: bool,
    /// The span of the call to the upstream, where it is one of its own (gateways).
    pub upstream: Option<SpanContext>,
}

/// What a request begins with, as the codec gives it.
pub struct Received {
    pub head: Parts,
    pub body: RequestSource,
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Request {
    /// A request whose head was read at `started`. `random`: for all decisions of its route.
    pub fn new(
        received: Received,
        downstream: Arc<Downstream>,
        http: Arc<HttpConnectionManager>,
        (started, random): (Instant, u64),
    ) -> Self {
        let Received {
            head,
            body,
            upgrade,
        } = received;
        Self {
            downstream,
            http,
            suppresses_envoy_headers: false,
            started,
            routed: started,
            is_grpc: is_grpc(&head.headers),
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
            weighted: None,
            metadata: Metadata::default(),
            filters_entered: 0,
            random,
            is_internal: false,
            keeps_alive: false,
            closes: false,
            timeout: None,
            per_try_timeout: None,
            is_timeout_empty: false,
            longest: None,
            record: Record::default(),
            trace: Trace::default(),
        }
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
            .downstream
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

    /// How long neither side may be silent; `None`: for ever.
    pub fn stream_idle_timeout(&self) -> Option<Duration> {
        self.forward_rules()
            .and_then(|rules| rules.idle_timeout)
            .or(self.http.timeouts.stream_idle)
            .filter(|limit| !limit.is_zero())
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
