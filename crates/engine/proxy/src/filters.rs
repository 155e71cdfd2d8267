//! The HTTP filters of a connection manager, in order on the way in and in reverse on the way back.
//!
//! A filter is a file with `on_request(config, &mut Exchange) -> Flow` and, where it has something to do there, `on_response`. Filters see the
//! route already (per-route configuration overrides theirs); the router itself is `exchange::forward`. A filter that answers is not an error.
//! What a filter keeps between requests is its `State`, made with the connection manager and shared by all workers ([`LiveFilters`]).
//! To add one: a variant in `proxy_config::filter::HttpFilterKind`, a file here, and the matches below.

use std::sync::Arc;

use proxy_config::{
    HttpConnectionManager,
    filter::{HttpFilter, HttpFilterKind, PerRouteConfig, PerRouteFilter},
    metadata::{Metadata, Value},
};
use telemetry::stats::Store;

use crate::exchange::{Exchange, reply::Reply};

pub mod cors;
pub mod fault;
pub mod local_rate_limit;
pub mod network;
pub mod peer_metadata;
pub mod rbac;
pub mod refused;

/// What a filter decided about a request.
#[expect(clippy::large_enum_variant, reason = "passed on at once, never stored")]
pub enum Flow {
    Continue,
    Respond(Reply),
}

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
            | HttpFilterKind::GrpcStats { .. }
            | HttpFilterKind::GrpcWeb
            | HttpFilterKind::Refused(_)
            | HttpFilterKind::Router(_) => LiveFilter::Stateless,
        };
        Self(http.filters.iter().map(live).collect())
    }
}

/// Runs the filters until one answers.
pub async fn on_request(x: &mut Exchange) -> Flow {
    let http = x.http.clone();
    for (filter, state) in http.config.filters.iter().zip(&http.filters.0) {
        x.filters_entered += 1;
        if is_disabled(x, filter) {
            continue;
        }
        let flow = match (&filter.kind, state) {
            (HttpFilterKind::PeerMetadata(config), _) => peer_metadata::on_request(config, x),
            (HttpFilterKind::Rbac(config), LiveFilter::Rbac(state)) => {
                rbac::on_request(&filter.name, config, state, x)
            }
            (HttpFilterKind::Fault(config), LiveFilter::Fault(state)) => {
                fault::on_request(&filter.name, config, state, x).await
            }
            (HttpFilterKind::Cors, LiveFilter::Cors(state)) => {
                cors::on_request(&filter.name, state, x)
            }
            (HttpFilterKind::LocalRateLimit(config), _) => {
                local_rate_limit::on_request(&filter.name, config, x)
            }
            (HttpFilterKind::Refused(config), _) => refused::on_request(config, x),
            // Read by the router (ALPN), by the report (statistics) or by the bodies (gRPC).
            (
                HttpFilterKind::Alpn(_)
                | HttpFilterKind::IstioStats(_)
                | HttpFilterKind::GrpcStats { .. }
                | HttpFilterKind::GrpcWeb
                | HttpFilterKind::Router(_),
                _,
            ) => Flow::Continue,
            // The states were made from this very list; if one were not, the request must not slip past a filter.
            (HttpFilterKind::Rbac(_) | HttpFilterKind::Fault(_) | HttpFilterKind::Cors, _) => {
                Flow::Respond(Reply::local(
                    x,
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
pub fn on_response(x: &mut Exchange, reply: &mut Reply) {
    let filters = x.http.config.filters.clone();
    let entered = filters.get(..x.filters_entered).unwrap_or_default();
    for filter in entered.iter().rev() {
        if is_disabled(x, filter) {
            continue;
        }
        match &filter.kind {
            HttpFilterKind::PeerMetadata(config) => peer_metadata::on_response(config, x, reply),
            HttpFilterKind::Cors => cors::on_response(x, reply),
            HttpFilterKind::LocalRateLimit(_) => local_rate_limit::on_response(x, reply),
            HttpFilterKind::Rbac(_)
            | HttpFilterKind::Fault(_)
            | HttpFilterKind::Alpn(_)
            | HttpFilterKind::IstioStats(_)
            | HttpFilterKind::GrpcStats { .. }
            | HttpFilterKind::GrpcWeb
            | HttpFilterKind::Refused(_)
            | HttpFilterKind::Router(_) => {}
        }
    }
}

/// Adds fields to a filter's dynamic metadata.
fn note(
    metadata: &mut Metadata,
    filter: &str,
    fields: impl IntoIterator<Item = (Arc<str>, Value)>,
) {
    let all = Arc::make_mut(&mut metadata.0);
    match all.get_mut(filter) {
        Some(Value::Struct(known)) => Arc::make_mut(known).extend(fields),
        _ => drop(all.insert(
            Arc::from(filter),
            Value::Struct(Arc::new(fields.into_iter().collect())),
        )),
    }
}

/// What the route says about a filter: the most specific of weighted cluster, route, virtual host and table.
pub fn per_route<'x>(x: &'x Exchange, name: &str) -> Option<&'x PerRouteConfig> {
    let matched = x.route.as_ref()?;
    let of = |filters: &'x Arc<[PerRouteFilter]>| {
        filters
            .iter()
            .find(|filter| *filter.name == *name)
            .map(|filter| &filter.config)
    };
    x.weighted_cluster()
        .and_then(|weighted| of(&weighted.filters))
        .or_else(|| of(&matched.route.filters))
        .or_else(|| of(&matched.virtual_host.filters))
        .or_else(|| of(&matched.table.filters))
}

fn is_disabled(x: &Exchange, filter: &HttpFilter) -> bool {
    match per_route(x, &filter.name) {
        Some(PerRouteConfig::Disabled) => true,
        Some(_) => false,
        None => filter.disabled,
    }
}
