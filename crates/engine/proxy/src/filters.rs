//! The HTTP filters of a connection manager, in order on the way in and in reverse on the way back.
//!
//! A filter is a file with `on_request(…, &mut Request) -> Flow` and, where it has something to do
//! there, `on_response`. It sees the [`Request`] and what it is run with ([`Run`]), and has no
//! handle on anything else. The route is chosen already, and its per-route configuration overrides
//! the filter's; the router itself is `exchange::forward`. A filter that answers is not an error.
//! What a filter keeps between requests is its `State`, made with the connection manager and shared
//! by all workers ([`LiveFilters`]). To add one: a variant in
//! `proxy_config::filter::HttpFilterKind`, a file here, and the matches below.

use std::sync::Arc;

use http::response::Parts;
use proxy_config::{
    HttpConnectionManager,
    filter::{HttpFilter, HttpFilterKind, PerRouteConfig},
};
use stdx::{Clock, Rng};
use telemetry::stats::Store;

use crate::{
    filters::{
        flow::{Flow, Run, per_route},
        local_rate_limit::Registry,
    },
    local_reply::LocalReply,
    peers::{Own, PeerCache},
    request::Request,
};

pub mod cors;
pub mod fault;
pub mod flow;
pub mod local_rate_limit;
pub mod network;
pub mod peer_metadata;
pub mod rbac;
pub mod refused;

/// The states of a connection manager's filters, in the order of its configuration.
pub struct LiveFilters(Box<[LiveFilter]>);

enum LiveFilter {
    Rbac(Box<rbac::State>),
    Fault(Arc<fault::State>),
    Cors(cors::State),
    Stateless,
}

impl LiveFilters {
    pub fn new(http: &HttpConnectionManager, stats: &Store) -> Self {
        // Istio ends the name with `;`, which is no part of it.
        let prefix = format!("http.{}.", http.stat_prefix.trim_end_matches(';'));
        let live = |filter: &HttpFilter| match &filter.kind {
            HttpFilterKind::Rbac(config) => {
                LiveFilter::Rbac(Box::new(rbac::State::new(stats, &prefix, config)))
            }
            HttpFilterKind::Fault(_) => {
                LiveFilter::Fault(Arc::new(fault::State::new(stats, &prefix)))
            }
            HttpFilterKind::Cors => LiveFilter::Cors(cors::State::new(stats, &prefix)),
            HttpFilterKind::PeerMetadata(_)
            | HttpFilterKind::IstioStats(_)
            | HttpFilterKind::Alpn(_)
            | HttpFilterKind::LocalRateLimit(_)
            | HttpFilterKind::GrpcStats
            | HttpFilterKind::Refused(_)
            | HttpFilterKind::Router(_) => LiveFilter::Stateless,
        };
        Self(http.filters.iter().map(live).collect())
    }
}

/// The filters of a connection manager and what they may use.
pub struct Chain<'a> {
    pub filters: &'a [HttpFilter],
    pub live: &'a LiveFilters,
    pub rate_limits: &'a Registry,
    /// This proxy, as it tells its peers.
    pub own: &'a Own,
    pub peers: &'a PeerCache,
    pub clock: &'a dyn Clock,
    pub rng: &'a dyn Rng,
}

/// Runs the filters until one answers.
pub async fn on_request(chain: &Chain<'_>, request: &mut Request) -> Flow {
    for (filter, state) in chain.filters.iter().zip(&chain.live.0) {
        request.filters_entered += 1;
        if is_disabled(request, filter) {
            continue;
        }
        let run = Run {
            name: &filter.name,
            now: chain.clock.now(),
            rng: chain.rng,
        };
        let flow = match (&filter.kind, state) {
            (HttpFilterKind::PeerMetadata(config), _) => {
                peer_metadata::on_request(config, chain.own, chain.peers, request)
            }
            (HttpFilterKind::Rbac(config), LiveFilter::Rbac(state)) => {
                rbac::on_request(run, config, state, request)
            }
            (HttpFilterKind::Fault(config), LiveFilter::Fault(state)) => {
                fault::on_request(run, config, state, request).await
            }
            (HttpFilterKind::Cors, LiveFilter::Cors(state)) => {
                cors::on_request(run, state, request)
            }
            (HttpFilterKind::LocalRateLimit(config), _) => {
                local_rate_limit::on_request(run, config, chain.rate_limits, request)
            }
            (HttpFilterKind::Refused(config), _) => refused::on_request(config, request),
            // Read by the router (ALPN), by the report (statistics) or by the bodies (gRPC).
            (
                HttpFilterKind::Alpn(_)
                | HttpFilterKind::IstioStats(_)
                | HttpFilterKind::GrpcStats
                | HttpFilterKind::Router(_),
                _,
            ) => Flow::Continue,
            // The states were made from this very list; if one were not, the request must not slip
            // past a filter.
            (HttpFilterKind::Rbac(_) | HttpFilterKind::Fault(_) | HttpFilterKind::Cors, _) => {
                Flow::Respond(LocalReply::new(
                    request,
                    http::StatusCode::INTERNAL_SERVER_ERROR,
                    "",
                    "filter_without_state",
                ))
            }
        };
        if let Flow::Respond(reply) = flow {
            return Flow::Respond(reply);
        }
    }
    Flow::Continue
}

/// Runs the filters that saw the request, last first.
pub fn on_response(chain: &Chain<'_>, request: &mut Request, head: &mut Parts) {
    let entered = chain
        .filters
        .get(..request.filters_entered)
        .unwrap_or_default();
    for filter in entered.iter().rev() {
        if is_disabled(request, filter) {
            continue;
        }
        match &filter.kind {
            HttpFilterKind::PeerMetadata(config) => {
                peer_metadata::on_response(config, chain.own, chain.peers, (request, head))
            }
            HttpFilterKind::Cors => cors::on_response(request, head),
            HttpFilterKind::LocalRateLimit(_) => local_rate_limit::on_response(request, head),
            HttpFilterKind::Rbac(_)
            | HttpFilterKind::Fault(_)
            | HttpFilterKind::Alpn(_)
            | HttpFilterKind::IstioStats(_)
            | HttpFilterKind::GrpcStats
            | HttpFilterKind::Refused(_)
            | HttpFilterKind::Router(_) => {}
        }
    }
}

fn is_disabled(request: &Request, filter: &HttpFilter) -> bool {
    match per_route(request, &filter.name) {
        Some(PerRouteConfig::Disabled) => true,
        Some(_) => false,
        None => filter.disabled,
    }
}
