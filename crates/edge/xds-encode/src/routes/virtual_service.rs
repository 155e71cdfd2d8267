//! HTTP routes of a VirtualService as one client sees them: only the matches that can apply to it, in order, up to the first that takes all.

use std::sync::Arc;

use mesh_model::{
    VirtualService,
    object::Labels,
    virtual_service::{GatewayRef, HttpAction, HttpMatch, HttpRoute},
};
use wire_envoy::pb::route::Route;

use super::{RouteInputs, actions, matches};

/// For which client, port and Gateways routes are made.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub inputs: &'a RouteInputs,
    /// As requests name it: the service's, or the Gateway's server's.
    pub port: u16,
    pub gateways: &'a [GatewayRef],
    /// Requests arrive by TLS.
    pub is_tls: bool,
}

/// Routes in order; empty when none applies.
pub(super) fn http_routes(scope: &Scope<'_>, rule: &Arc<VirtualService>) -> Vec<Route> {
    let mut found = Vec::new();
    for route in rule.http.iter() {
        if route.matches.is_empty() {
            found.extend(encode(scope, rule, route, None));
            break;
        }
        let mut takes_all = false;
        for matching in route
            .matches
            .iter()
            .filter(|matching| applies(scope, matching))
        {
            found.extend(encode(scope, rule, route, Some(matching)));
            takes_all = takes_all || matches::takes_all(matching);
        }
        if takes_all {
            break;
        }
    }
    found
}

fn applies(scope: &Scope<'_>, matching: &HttpMatch) -> bool {
    let client = &scope.inputs.client;
    let gateways = matching.gateways.is_empty()
        || matching
            .gateways
            .iter()
            .any(|gateway| scope.gateways.contains(gateway));
    let port = matching.port.is_none_or(|port| port == scope.port);
    gateways
        && port
        && has_labels(&matching.source_labels, &client.labels)
        && matching
            .source_namespace
            .as_ref()
            .is_none_or(|wanted| *wanted == client.namespace)
}

pub(crate) fn has_labels(wanted: &Labels, labels: &Labels) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.value(key) == Some(value))
}

fn encode(
    scope: &Scope<'_>,
    rule: &VirtualService,
    route: &HttpRoute,
    matching: Option<&HttpMatch>,
) -> Option<Route> {
    let mut encoded = Route {
        name: name(route, matching),
        r#match: Some(matches::encode(matching)),
        ..Default::default()
    };
    encoded.stat_prefix = matching
        .and_then(|matching| matching.stat_prefix.as_deref())
        .unwrap_or_default()
        .to_owned();
    match &route.action {
        HttpAction::Route(destinations) => {
            actions::forward(scope, route, destinations, &mut encoded)
        }
        HttpAction::Redirect(redirect) => actions::redirect(scope, redirect, &mut encoded),
        HttpAction::DirectResponse { status, body } => {
            actions::respond(*status, body, &mut encoded)
        }
        HttpAction::Delegate { .. } => return None,
    }
    actions::finish(scope, rule, route, &mut encoded);
    Some(encoded)
}

/// `route`, or `route.match`.
fn name(route: &HttpRoute, matching: Option<&HttpMatch>) -> String {
    let own = route.name.as_deref().unwrap_or_default();
    match matching.and_then(|matching| matching.name.as_deref()) {
        None => own.to_owned(),
        Some(matching) if own.is_empty() => matching.to_owned(),
        Some(matching) => format!("{own}.{matching}"),
    }
}
