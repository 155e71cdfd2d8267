//! The HTTP filters of a connection manager, in order on the way in and in reverse on the way back.
//!
//! A filter is a file with `on_request(config, &mut Exchange) -> Flow` and, where it has something to do there, `on_response`. Filters see the
//! route already (per-route configuration overrides theirs); the router itself is `exchange::forward`. A filter that answers is not an error.
//! To add one: a variant in `proxy_config::filter::HttpFilterKind`, a file here, and the two matches below.

use std::sync::Arc;

use proxy_config::filter::{HttpFilter, HttpFilterKind, PerRouteConfig, PerRouteFilter};

use crate::exchange::{Exchange, reply::Reply};

pub mod network;
pub mod peer_metadata;

/// What a filter decided about a request.
pub enum Flow {
    Continue,
    Respond(Reply),
}

/// Runs the filters until one answers.
pub async fn on_request(x: &mut Exchange) -> Flow {
    let filters = x.http.config.filters.clone();
    for filter in filters.iter() {
        x.filters_entered += 1;
        if is_disabled(x, filter) {
            continue;
        }
        let flow = match &filter.kind {
            HttpFilterKind::PeerMetadata(config) => peer_metadata::on_request(config, x),
            HttpFilterKind::Rbac(config) => refuse_until_there(x, config.rules.is_some(), "rbac"),
            HttpFilterKind::Fault(config) => refuse_until_there(x, config.abort.is_some() || config.delay.is_some(), "fault"),
            HttpFilterKind::LocalRateLimit(config) => refuse_until_there(x, config.bucket.is_some(), "local rate limit"),
            HttpFilterKind::Cors => Flow::Continue,
            // Read by the router (ALPN), by the report (statistics) or by the bodies (gRPC).
            HttpFilterKind::Alpn(_)
            | HttpFilterKind::IstioStats(_)
            | HttpFilterKind::GrpcStats { .. }
            | HttpFilterKind::GrpcWeb
            | HttpFilterKind::Router(_) => Flow::Continue,
        };
        if let Flow::Respond(reply) = flow {
            return Flow::Respond(reply);
        }
    }
    Flow::Continue
}

fn refuse_until_there(x: &mut Exchange, configured: bool, name: &str) -> Flow {
    if configured {
        let body = format!("the filter {name} is not supported");
        Flow::Respond(Reply::local(x, http::StatusCode::FORBIDDEN, body, "filter_not_supported"))
    } else {
        Flow::Continue
    }
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
            HttpFilterKind::Rbac(_)
            | HttpFilterKind::Fault(_)
            | HttpFilterKind::LocalRateLimit(_)
            | HttpFilterKind::Cors
            | HttpFilterKind::Alpn(_)
            | HttpFilterKind::IstioStats(_)
            | HttpFilterKind::GrpcStats { .. }
            | HttpFilterKind::GrpcWeb
            | HttpFilterKind::Router(_) => {}
        }
    }
}

/// What the route says about a filter: the most specific of weighted cluster, route, virtual host and table.
pub fn per_route<'x>(x: &'x Exchange, name: &str) -> Option<&'x PerRouteConfig> {
    let matched = x.route.as_ref()?;
    let of = |filters: &'x Arc<[PerRouteFilter]>| filters.iter().find(|filter| *filter.name == *name).map(|filter| &filter.config);
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
