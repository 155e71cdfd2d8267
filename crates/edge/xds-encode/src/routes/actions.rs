//! What a route does: forward, redirect, answer; retries, mirrors, headers, faults, CORS (rows TM-004 … TM-016, TM-024).

use std::sync::Arc;

use mesh_model::{
    VirtualService,
    matching::Millionths,
    object::Text,
    virtual_service::{
        AbortStatus, CorsPolicy, Destination, FaultInjection, HeaderChanges, Headers,
        HttpDestination, HttpRedirect, HttpRoute, RedirectPort,
    },
};
use serde_json::json;
use wire_envoy::pb::{
    self, Any, core,
    envoy::extensions::filters::{
        common::fault::v3 as common_fault,
        http::{cors::v3 as cors, fault::v3 as fault},
    },
    matcher::RegexMatchAndSubstitute,
    route::{
        Decorator, DirectResponseAction, RedirectAction, Route, RouteAction, RouteMatch,
        VirtualHost, WeightedCluster,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        route::Action,
        route_action::{ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy},
        route_match::PathSpecifier,
        weighted_cluster::{ClusterWeight, cluster_weight},
    },
};

use super::{hashing::hash_policies, matches, retries, virtual_service::Scope};
use crate::{names::OutboundName, packed, wire};

pub(super) fn named(name: &str, matching: RouteMatch, action: Action) -> Route {
    Route {
        name: name.to_owned(),
        r#match: Some(matching),
        action: Some(action),
        ..Default::default()
    }
}

pub(super) fn virtual_host(name: String, domains: Vec<String>, routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name,
        domains,
        routes,
        include_request_attempt_count: true,
        ..Default::default()
    }
}

pub(super) fn decorator(operation: String) -> Decorator {
    Decorator {
        operation,
        ..Default::default()
    }
}

/// Istio sets no timeout unless a rule does.
pub(super) fn without_timeout() -> RouteAction {
    with_timeout(std::time::Duration::ZERO)
}

fn with_timeout(timeout: std::time::Duration) -> RouteAction {
    #[allow(
        deprecated,
        reason = "the limit that gRPC deadlines have in every proxy"
    )]
    RouteAction {
        timeout: Some(wire::duration(timeout)),
        max_grpc_timeout: Some(wire::duration(timeout)),
        ..Default::default()
    }
}

/// Forwards to one cluster, or to several by weight.
pub(super) fn forward(
    scope: &Scope<'_>,
    rule: &HttpRoute,
    destinations: &Arc<[HttpDestination]>,
    route: &mut Route,
) {
    let inputs = scope.inputs;
    let hashes: Vec<HashPolicy> = destinations
        .iter()
        .flat_map(|to| destination_hashes(scope, &to.destination))
        .collect();
    let mut action = with_timeout(rule.timeout.unwrap_or_default());
    action.retry_policy = match &rule.retries {
        Some(own) => retries::of_rule(own, !hashes.is_empty()),
        None => retries::default_retries(&inputs.mesh, !hashes.is_empty()),
    };
    action.hash_policy = hashes;
    action.request_mirror_policies = rule
        .mirrors
        .iter()
        .map(|mirror| mirrored(scope, &mirror.destination, mirror.share))
        .collect();
    let mut authority = host_of(&rule.headers.request);
    change_route(&rule.headers, route);
    match destinations.as_ref() {
        [single] => {
            action.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster(
                scope,
                &single.destination,
            )));
            authority = host_of(&single.headers.request).or(authority);
            change_route(&single.headers, route);
        }
        several => {
            let clusters = several.iter().map(|to| weighted(scope, to)).collect();
            action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters,
                ..Default::default()
            }));
        }
    }
    if let Some(rewrite) = &rule.rewrite {
        authority = rewrite.authority.clone().or(authority);
        action.prefix_rewrite = rewrite.uri.as_deref().unwrap_or_default().to_owned();
        action.regex_rewrite =
            rewrite
                .uri_regex
                .as_ref()
                .map(|(pattern, substitution)| RegexMatchAndSubstitute {
                    pattern: Some(wire::regex(&**pattern)),
                    substitution: substitution.to_string(),
                });
    }
    action.host_rewrite_specifier =
        authority.map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_string()));
    route.action = Some(Action::Route(action));
}

/// Adds changes of both directions to those that a route has.
fn change_route(headers: &Headers, route: &mut Route) {
    let Headers { request, response } = headers;
    change_headers(
        request,
        &mut route.request_headers_to_add,
        &mut route.request_headers_to_remove,
    );
    change_headers(
        response,
        &mut route.response_headers_to_add,
        &mut route.response_headers_to_remove,
    );
}

/// The cluster of a destination; without a port, the service's only one or the one that the request came for.
fn cluster(scope: &Scope<'_>, to: &Destination) -> String {
    OutboundName::new(
        to.host.as_str(),
        to.subset.as_deref(),
        destination_port(scope, to),
    )
    .to_string()
}

fn destination_port(scope: &Scope<'_>, to: &Destination) -> u16 {
    to.port
        .or_else(|| scope.inputs.single_ports.get(to.host.as_str()).copied())
        .unwrap_or(scope.port)
}

fn weighted(scope: &Scope<'_>, to: &HttpDestination) -> ClusterWeight {
    let mut weight = ClusterWeight {
        name: cluster(scope, &to.destination),
        weight: Some(wire::number(to.weight)),
        ..Default::default()
    };
    change_headers(
        &to.headers.request,
        &mut weight.request_headers_to_add,
        &mut weight.request_headers_to_remove,
    );
    change_headers(
        &to.headers.response,
        &mut weight.response_headers_to_add,
        &mut weight.response_headers_to_remove,
    );
    weight.host_rewrite_specifier = host_of(&to.headers.request)
        .map(|host| cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.to_string()));
    weight
}

fn mirrored(scope: &Scope<'_>, to: &Destination, share: Millionths) -> RequestMirrorPolicy {
    let fraction = if share == Millionths::ALL {
        wire::always()
    } else {
        wire::millionths(share)
    };
    RequestMirrorPolicy {
        cluster: cluster(scope, to),
        runtime_fraction: Some(core::RuntimeFractionalPercent {
            default_value: Some(fraction),
            ..Default::default()
        }),
        trace_sampled: Some(wire::boolean(false)),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

/// The Host that header changes ask for; setting wins over adding.
fn host_of(changes: &HeaderChanges) -> Option<Text> {
    changes
        .set
        .iter()
        .chain(changes.add.iter())
        .find(|(name, _)| is_host(name))
        .map(|(_, value)| value.clone())
}

fn change_headers(
    changes: &HeaderChanges,
    add: &mut Vec<core::HeaderValueOption>,
    remove: &mut Vec<String>,
) {
    use core::header_value_option::HeaderAppendAction::{
        AppendIfExistsOrAdd, OverwriteIfExistsOrAdd,
    };
    for (list, action) in [
        (&changes.set, OverwriteIfExistsOrAdd),
        (&changes.add, AppendIfExistsOrAdd),
    ] {
        let mut sorted: Vec<&(Text, Text)> =
            list.iter().filter(|(name, _)| !is_host(name)).collect();
        sorted.sort_by_key(|(name, _)| name.clone());
        add.extend(
            sorted
                .into_iter()
                .map(|(name, value)| core::HeaderValueOption {
                    header: Some(core::HeaderValue {
                        key: name.to_string(),
                        value: value.to_string(),
                        ..Default::default()
                    }),
                    append_action: action.into(),
                    ..Default::default()
                }),
        );
    }
    remove.extend(changes.remove.iter().map(Text::to_string));
}

fn destination_hashes(scope: &Scope<'_>, to: &Destination) -> Vec<HashPolicy> {
    hash_policies(
        scope.inputs,
        to.host.as_str(),
        to.subset.as_deref(),
        destination_port(scope, to),
    )
}

pub(super) fn redirect(scope: &Scope<'_>, redirect: &HttpRedirect, route: &mut Route) {
    let default_port = if scope.is_tls { 443 } else { 80 };
    let scheme_port = match redirect.scheme.as_deref() {
        Some("https") => 443,
        Some("http") => 80,
        _ => default_port,
    };
    let port = match redirect.port {
        None => 0,
        // The scheme's own port is not written into the answer.
        Some(RedirectPort::Number(port)) if port == scheme_port => 0,
        Some(RedirectPort::Number(port)) => port,
        Some(RedirectPort::FromRequest) if scope.port == default_port => 0,
        Some(RedirectPort::FromRequest) => scope.port,
        Some(RedirectPort::FromProtocolDefault) => scheme_port,
    };
    let code = match redirect.code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = match (&redirect.uri, &redirect.prefix_rewrite) {
        (Some(uri), _) => Some(PathRewriteSpecifier::PathRedirect(uri.to_string())),
        (None, Some(prefix)) => Some(PathRewriteSpecifier::PrefixRewrite(prefix.to_string())),
        (None, None) => None,
    };
    route.action = Some(Action::Redirect(RedirectAction {
        host_redirect: redirect.authority.as_deref().unwrap_or_default().to_owned(),
        port_redirect: port.into(),
        response_code: code.into(),
        scheme_rewrite_specifier: redirect
            .scheme
            .as_ref()
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
        path_rewrite_specifier: path,
        ..Default::default()
    }));
}

pub(super) fn respond(status: u16, body: &[u8], route: &mut Route) {
    let is_readable = |text: &&str| {
        !text
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    };
    let source = match std::str::from_utf8(body).ok().filter(is_readable) {
        Some(text) => core::data_source::Specifier::InlineString(text.to_owned()),
        None => core::data_source::Specifier::InlineBytes(body.to_vec()),
    };
    let body = (!body.is_empty()).then(|| core::DataSource {
        specifier: Some(source),
        ..Default::default()
    });
    route.action = Some(Action::DirectResponse(DirectResponseAction {
        status: status.into(),
        body,
        ..Default::default()
    }));
}

/// What routes of every action have: where they are from, their operation's name, faults and CORS.
pub(super) fn finish(
    scope: &Scope<'_>,
    rule: &VirtualService,
    http: &HttpRoute,
    route: &mut Route,
) {
    if !matches!(route.action, Some(Action::Route(_))) {
        change_headers(
            &http.headers.response,
            &mut route.response_headers_to_add,
            &mut route.response_headers_to_remove,
        );
    }
    route.metadata = Some(wire::metadata([(
        "istio",
        json!({"config": wire::config_path(&rule.meta)}),
    )]));
    route.decorator = Some(decorator(operation(route, rule.meta.name(), scope.port)));
    if let Some(injection) = &http.fault {
        route.typed_per_filter_config.insert(
            "envoy.filters.http.fault".to_owned(),
            fault_config(injection),
        );
    }
    if let Some(policy) = &http.cors {
        route
            .typed_per_filter_config
            .insert("envoy.filters.http.cors".to_owned(), cors_config(policy));
    }
}

/// `host:port/path*`, with the rule's name for the host where there are several destinations or none.
fn operation(route: &Route, rule: &str, port: u16) -> String {
    let path = match route
        .r#match
        .as_ref()
        .and_then(|matching| matching.path_specifier.as_ref())
    {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let single = match &route.action {
        Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name)),
            ..
        })) => OutboundName::parse(name),
        _ => None,
    };
    match single {
        Some((name, _)) => format!("{}:{}{path}", name.host, name.port),
        None => format!("{rule}:{port}{path}"),
    }
}

fn fault_config(injection: &FaultInjection) -> Any {
    let delay = injection
        .delay
        .map(|(delay, share)| common_fault::FaultDelay {
            percentage: Some(wire::millionths(share)),
            fault_delay_secifier: Some(common_fault::fault_delay::FaultDelaySecifier::FixedDelay(
                wire::duration(delay),
            )),
        });
    let abort = injection.abort.map(|(status, share)| fault::FaultAbort {
        percentage: Some(wire::millionths(share)),
        error_type: Some(match status {
            AbortStatus::Http(status) => fault::fault_abort::ErrorType::HttpStatus(status.into()),
            AbortStatus::Grpc(status) => fault::fault_abort::ErrorType::GrpcStatus(status.into()),
        }),
        ..Default::default()
    });
    packed(&fault::HttpFault {
        delay,
        abort,
        ..Default::default()
    })
}

fn cors_config(policy: &CorsPolicy) -> Any {
    let joined = |list: &[Text]| list.join(",");
    packed(&cors::CorsPolicy {
        allow_origin_string_match: policy
            .allow_origins
            .iter()
            .map(|origin| matches::string(origin).unwrap_or_else(|| wire::pattern(".*")))
            .collect(),
        allow_methods: joined(&policy.allow_methods),
        allow_headers: joined(&policy.allow_headers),
        expose_headers: joined(&policy.expose_headers),
        max_age: policy
            .max_age
            .map(|age| age.as_secs().to_string())
            .unwrap_or_default(),
        allow_credentials: policy.allow_credentials.map(wire::boolean),
        filter_enabled: Some(core::RuntimeFractionalPercent {
            default_value: Some(wire::always()),
            ..Default::default()
        }),
        forward_not_matching_preflights: Some(wire::boolean(policy.forward_unmatched_preflights)),
        ..Default::default()
    })
}

/// The route of an inbound port: everything to one cluster.
pub(crate) fn inbound(cluster: &str, operation: String, is_grpc: bool) -> Route {
    let limits = pb::route::route_action::MaxStreamDuration {
        max_stream_duration: Some(pb::Duration::default()),
        grpc_timeout_header_max: Some(pb::Duration::default()),
        ..Default::default()
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(pb::Duration::default()),
        retry_policy: (!is_grpc).then(retries::inbound_retries),
        max_stream_duration: Some(limits),
        ..Default::default()
    };
    let everything = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    };
    Route {
        decorator: Some(decorator(operation)),
        ..named("default", everything, Action::Route(action))
    }
}
