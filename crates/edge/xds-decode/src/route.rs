//! `envoy.config.route.v3.RouteConfiguration` → `RouteTable`.
//!
//! What cannot be read answers 503 in its place: a route for what it matches; a route without
//! readable criteria for all that no route before it takes, as nobody knows what it was to match; a
//! virtual host for its domains; a table for everything.

use std::sync::Arc;

use proxy_config::{
    Refused, RouteTable, RouteTableName,
    header::HeaderOperations,
    metadata::Metadata,
    route::{PathMatch, RequireTls, Route, RouteAction, RouteMatch, VirtualHost},
};
use wire_envoy::pb::{
    self,
    route::{route::Action, virtual_host::TlsRequirementType},
};

use crate::{
    context::Cx,
    filter::{cors, http},
    header::{self, Lists},
    judgement::{enumerated, take},
    metadata,
    reject::{Refusal, Within, each},
    scalar, tls,
};

mod forward;
mod matching;
mod mirror;
mod redirect;
mod retry;
mod target;

/// What an inline table without a name is called; Envoy allows it there only.
const UNNAMED: &str = "(inline)";
/// Envoy's default for the body of a direct answer.
const DIRECT_BODY_BYTES: u32 = 4096;

pub(crate) fn table(
    cx: &mut Cx,
    value: pb::route::RouteConfiguration,
) -> Result<RouteTable, Refusal> {
    if value.name.is_empty() {
        return Err(Refusal::missing("name"));
    }
    inline_table(cx, value)
}

pub(crate) fn inline_table(
    cx: &mut Cx,
    value: pb::route::RouteConfiguration,
) -> Result<RouteTable, Refusal> {
    let bare = pb::route::RouteConfiguration {
        name: value.name.clone(),
        virtual_hosts: vec![pb::route::VirtualHost {
            name: value.name.clone(),
            domains: vec!["*".into()],
            ..Default::default()
        }],
        ..Default::default()
    };
    whole_table(cx, value).or_else(|refusal| {
        let Ok(bare) = whole_table(&mut Cx::default(), bare) else {
            return Err(refusal);
        };
        let refused = cx.refuse(bare.name.as_str(), refusal, "its requests are answered 503");
        let hosts = bare.virtual_hosts.iter();
        Ok(RouteTable {
            virtual_hosts: hosts.map(|host| refusing_host(host, &refused)).collect(),
            ..bare
        })
    })
}

fn refusing_host(host: &VirtualHost, refused: &Arc<Refused>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        routes: [refusing_route(every_request(), refused)].into(),
        ..host.clone()
    })
}

fn refusing_route(matches: RouteMatch, refused: &Arc<Refused>) -> Arc<Route> {
    Arc::new(Route {
        name: refused.name.clone(),
        matches,
        action: RouteAction::Refused(refused.clone()),
        headers: HeaderOperations::default(),
        decorator: None,
        decorator_propagate: true,
        metadata: Metadata::default(),
        filters: Arc::from([]),
        stat_prefix: None,
    })
}

fn every_request() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix("".into()),
        case_sensitive: true,
        headers: Arc::from([]),
        query: Arc::from([]),
        runtime_fraction: None,
        grpc_only: false,
        metadata: Arc::from([]),
        tls: None,
    }
}

fn whole_table(cx: &mut Cx, value: pb::route::RouteConfiguration) -> Result<RouteTable, Refusal> {
    take!(cx, value => pb::route::RouteConfiguration {
        read {
            name, virtual_hosts, response_headers_to_add, response_headers_to_remove, request_headers_to_add,
            request_headers_to_remove, most_specific_header_mutations_wins, max_direct_response_body_size_bytes,
            request_mirror_policies, ignore_port_in_host_matching, typed_per_filter_config,
        }
        ignore "a cluster that is missing answers 503 until it comes" { validate_clusters }
        ignore "no supported filter reads it" { metadata }
        reject "virtual hosts come with their table" { vhds }
        reject "is not supported" { internal_only_headers, vhost_header, ignore_path_parameters_in_path_matching, route_specifiers }
        reject "clusters are named by routes" { cluster_specifier_plugins }
    });
    let direct_limit = scalar::count_or(max_direct_response_body_size_bytes, DIRECT_BODY_BYTES);
    let lists = Lists {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    let name = if name.is_empty() { UNNAMED } else { &name };
    let table = RouteTable {
        name: RouteTableName::parse(name).map_err(|e| Refusal::at("name", e.to_string()))?,
        virtual_hosts: cx.each("virtual_hosts", virtual_hosts, |cx, h| {
            virtual_host(cx, direct_limit, h)
        })?,
        headers: header::operations(cx, lists)?,
        ignore_port_in_host: ignore_port_in_host_matching,
        most_specific_header_mutations_wins,
        filters: http::per_route(cx, typed_per_filter_config)?,
        mirrors: mirror::mirrors(cx, request_mirror_policies)?,
    };
    unique_domains(&table)?;
    Ok(table)
}

/// A domain belongs to one virtual host; a second claim is an error in Envoy too.
fn unique_domains(table: &RouteTable) -> Result<(), Refusal> {
    let mut seen = std::collections::HashSet::new();
    for (index, host) in table.virtual_hosts.iter().enumerate() {
        if let Some(domain) = host.domains.iter().find(|domain| !seen.insert(&***domain)) {
            return Err(Refusal::at(
                "domains",
                format!("{domain} belongs to another virtual host"),
            ))
            .within_item("virtual_hosts", index);
        }
    }
    Ok(())
}

fn virtual_host(
    cx: &mut Cx,
    direct_limit: u32,
    value: pb::route::VirtualHost,
) -> Result<Arc<VirtualHost>, Refusal> {
    let bare = pb::route::VirtualHost {
        name: value.name.clone(),
        domains: value.domains.clone(),
        ..Default::default()
    };
    whole_host(cx, direct_limit, value)
        .map(Arc::new)
        .or_else(|refusal| {
            let Ok(bare) = whole_host(&mut Cx::default(), direct_limit, bare) else {
                return Err(refusal);
            };
            let cost = "requests for its domains are answered 503";
            let refused = cx.refuse(&bare.name, refusal, cost);
            Ok(refusing_host(&bare, &refused))
        })
}

fn whole_host(
    cx: &mut Cx,
    direct_limit: u32,
    value: pb::route::VirtualHost,
) -> Result<VirtualHost, Refusal> {
    take!(cx, value => pb::route::VirtualHost {
        read {
            name, domains, routes, require_tls, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, cors, typed_per_filter_config, include_request_attempt_count,
            include_attempt_count_in_response, retry_policy, request_mirror_policies, metadata,
        }
        ignore "statistics only" { virtual_clusters }
        ignore "is a header for the upstream only when it retries by timeout" { include_is_timeout_retry_header }
        ignore "bodies for retries are held up to the connection's limit" { per_request_buffer_limit_bytes, request_body_buffer_limit }
        leave "an attempt that times out is retried, not doubled" { hedge_policy }
        reject "routes are matched in order" { matcher, route_specifiers }
        reject "the rate limit service is not supported" { rate_limits }
        reject "is not supported" { retry_policy_typed_config }
    });
    if domains.is_empty() {
        return Err(Refusal::missing("domains"));
    }
    let lists = Lists {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    Ok(VirtualHost {
        name: name.into(),
        domains: each("domains", domains, domain)?,
        routes: cx.each("routes", routes, |cx, r| route(cx, direct_limit, r))?,
        headers: header::operations(cx, lists)?,
        include_request_attempt_count,
        include_attempt_count_in_response,
        require_tls: match enumerated!(require_tls => TlsRequirementType, "require_tls")? {
            TlsRequirementType::None => RequireTls::No,
            TlsRequirementType::All => RequireTls::All,
            TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
        },
        cors: cors
            .map(|c| cors::legacy(cx, c))
            .transpose()
            .within("cors")?
            .map(Arc::new),
        retry: retry_policy
            .map(|p| retry::policy(cx, p))
            .transpose()
            .within("retry_policy")?
            .map(Arc::new),
        filters: http::per_route(cx, typed_per_filter_config)?,
        mirrors: mirror::mirrors(cx, request_mirror_policies)?,
        metadata: metadata::metadata(cx, metadata).within("metadata")?,
    })
}

/// A wildcard stands at one end.
fn domain(text: String) -> Result<Arc<str>, Refusal> {
    let middle = text
        .strip_prefix('*')
        .or_else(|| text.strip_suffix('*'))
        .unwrap_or(&text);
    if text.is_empty() || middle.contains('*') {
        return Err(Refusal::new(format!("{text:?} is no domain")));
    }
    Ok(text.to_ascii_lowercase().into())
}

fn route(cx: &mut Cx, direct_limit: u32, value: pb::route::Route) -> Result<Arc<Route>, Refusal> {
    let (name, criteria) = (value.name.clone(), value.r#match.clone());
    Ok(match whole_route(cx, direct_limit, value) {
        Ok(route) => Arc::new(route),
        Err(refusal) => {
            let matches = criteria.and_then(|m| matching::matches(&mut Cx::default(), m).ok());
            let cost = match &matches {
                Some(_) => "requests that it matches are answered 503",
                None => "requests that no route before it takes are answered 503",
            };
            let refused = cx.refuse(&name, refusal, cost);
            refusing_route(matches.unwrap_or_else(every_request), &refused)
        }
    })
}

fn whole_route(cx: &mut Cx, direct_limit: u32, value: pb::route::Route) -> Result<Route, Refusal> {
    take!(cx, value => pb::route::Route {
        read {
            name, r#match, metadata, decorator, typed_per_filter_config, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, stat_prefix, action,
        }
        ignore "bodies for retries are held up to the connection's limit" { per_request_buffer_limit_bytes, request_body_buffer_limit }
        leave "the connection manager's tracing holds for all routes" { tracing }
        reject "is not supported" { route_specifiers }
    });
    let lists = Lists {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    let pb::route::Decorator {
        operation,
        propagate,
    } = decorator.unwrap_or_default();
    Ok(Route {
        name: name.into(),
        matches: matching::matches(cx, r#match.ok_or_else(|| Refusal::missing("match"))?)
            .within("match")?,
        action: route_action(cx, direct_limit, action)?,
        headers: header::operations(cx, lists)?,
        decorator: scalar::text(operation),
        decorator_propagate: scalar::flag_or(propagate, true),
        metadata: metadata::metadata(cx, metadata).within("metadata")?,
        filters: http::per_route(cx, typed_per_filter_config)?,
        stat_prefix: scalar::text(stat_prefix),
    })
}

fn route_action(
    cx: &mut Cx,
    direct_limit: u32,
    value: Option<Action>,
) -> Result<RouteAction, Refusal> {
    Ok(match value.ok_or_else(|| Refusal::missing("action"))? {
        Action::Route(action) => {
            RouteAction::Forward(Arc::new(forward::forward(cx, action).within("route")?))
        }
        Action::Redirect(action) => {
            RouteAction::Redirect(Arc::new(redirect::redirect(action).within("redirect")?))
        }
        Action::DirectResponse(response) => {
            direct(cx, direct_limit, response).within("direct_response")?
        }
        Action::NonForwardingAction(_) => RouteAction::NonForwarding,
        Action::FilterAction(_) => return Err(Refusal::at("filter_action", "is not supported")),
    })
}

fn direct(
    cx: &mut Cx,
    limit: u32,
    value: pb::route::DirectResponseAction,
) -> Result<RouteAction, Refusal> {
    take!(cx, value => pb::route::DirectResponseAction {
        read { status, body }
        reject "bodies are sent as they are" { body_format }
    });
    let body = body
        .map(tls::inline)
        .transpose()
        .within("body")?
        .unwrap_or_default();
    if body.len() as u64 > u64::from(limit) {
        return Err(Refusal::at(
            "body",
            format!("has {} bytes, more than {limit}", body.len()),
        ));
    }
    Ok(RouteAction::DirectResponse {
        status: scalar::status("status", status)?,
        body: body.into(),
    })
}

#[cfg(test)]
mod tests;
