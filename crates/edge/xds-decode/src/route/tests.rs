use std::time::Duration;

use proxy_config::{
    RouteTable,
    route::{HostRewrite, PathMatch, PathRewrite, RouteAction, Target},
};

use crate::{
    reject::Reject,
    testing::{decode, parts, refused},
};

fn table(yaml: &str) -> Result<RouteTable, Reject> {
    decode(yaml, super::table)
}

fn route(yaml: &str) -> Result<RouteTable, Reject> {
    table(&format!(
        "{{name: t, virtual_hosts: [{{name: h, domains: ['*'], routes: [{yaml}]}}]}}"
    ))
}

fn forward(fields: &str) -> Result<std::sync::Arc<proxy_config::route::Forward>, Reject> {
    let table = route(&format!("{{match: {{prefix: /}}, route: {{{fields}}}}}"))?;
    match &table.virtual_hosts[0].routes[0].action {
        RouteAction::Forward(forward) => Ok(forward.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_timeout_of_zero_is_none_and_an_absent_one_is_envoys() {
    assert_eq!(
        forward("cluster: c").expect("decoded").timeout,
        Some(Duration::from_secs(15))
    );
    let none = forward(
        "cluster: c, timeout: 0s, max_stream_duration: {max_stream_duration: 0s, grpc_timeout_header_max: 0s}",
    );
    let none = none.expect("decoded");
    assert_eq!(
        (none.timeout, none.max_stream_duration.max),
        (None, Some(Duration::ZERO))
    );
    assert_eq!(
        none.max_stream_duration.grpc_timeout_header_max,
        Some(Duration::ZERO)
    );
    let older = forward("cluster: c, max_grpc_timeout: 5s").expect("decoded");
    let call = older.grpc_timeout.expect("heeded");
    assert_eq!((call.max, call.offset), (Duration::from_secs(5), None));
    let newer = forward("cluster: c, timeout: 5s, max_stream_duration: {max_stream_duration: 9s}");
    assert_eq!(
        newer.expect("decoded").timeout,
        None,
        "the newer limits replace the older ones"
    );
}

#[test]
fn weights_are_relative_to_their_sum() {
    let found = forward(
        "weighted_clusters: {clusters: [{name: a, weight: 80}, {name: b, weight: 10}, {name: c, weight: 10}]}",
    );
    let Target::Weighted {
        clusters,
        total_weight,
    } = &found.expect("decoded").target
    else {
        panic!("another target")
    };
    assert_eq!((clusters.len(), *total_weight), (3, 100));
    let zero = forward("weighted_clusters: {clusters: [{name: a, weight: 0}]}");
    assert_eq!(
        refused(zero).0,
        "virtual_hosts[0].routes[0].route.weighted_clusters.clusters"
    );
    assert!(
        forward(
            "weighted_clusters: {clusters: [{name: a, weight: 4294967295}, {name: b, weight: 1}]}"
        )
        .is_err()
    );
    assert_eq!(
        refused(forward("timeout: 1s")).0,
        "virtual_hosts[0].routes[0].route.cluster_specifier"
    );
}

#[test]
fn rewrites_and_redirects() {
    let found = forward(r"{cluster: c, regex_rewrite: {pattern: {regex: '^/a/(\d+)'}, substitution: '/b/\1'}, auto_host_rewrite: true}"
        .trim_matches(['{', '}']))
        .expect("decoded");
    let PathRewrite::Regex(regex) = &found.path_rewrite else {
        panic!("another rewrite")
    };
    assert_eq!(regex.apply("/a/7/c"), "/b/7/c");
    assert_eq!(found.host_rewrite, HostRewrite::Auto);
    let found = route(
        "{match: {path: /x}, redirect: {https_redirect: true, response_code: TEMPORARY_REDIRECT, port_redirect: 8443}}",
    );
    let table = found.expect("decoded");
    let RouteAction::Redirect(redirect) = &table.virtual_hosts[0].routes[0].action else {
        panic!("another action")
    };
    assert_eq!((redirect.status.as_u16(), redirect.port), (307, Some(8443)));
}

#[test]
fn paths_are_matched_in_six_ways() {
    let path = |yaml: &str| {
        route(&format!(
            "{{match: {{{yaml}}}, direct_response: {{status: 200}}}}"
        ))
    };
    let found = path("path_separated_prefix: /a/b").expect("decoded");
    assert_eq!(
        found.virtual_hosts[0].routes[0].matches.path,
        PathMatch::SeparatedPrefix("/a/b".into())
    );
    assert_eq!(
        refused(path("path_separated_prefix: /a/")).0,
        "virtual_hosts[0].routes[0].match.path_separated_prefix"
    );
    assert!(matches!(
        path("connect_matcher: {}").expect("decoded").virtual_hosts[0].routes[0]
            .matches
            .path,
        PathMatch::Connect
    ));
    assert_eq!(
        refused(path("safe_regex: {regex: '('}")).0,
        "virtual_hosts[0].routes[0].match.safe_regex.regex"
    );
    assert_eq!(
        refused(path("case_sensitive: true")).0,
        "virtual_hosts[0].routes[0].match.path_specifier"
    );
}

#[test]
fn retries_have_envoys_defaults() {
    let found = forward(
        "cluster: c, retry_policy: {retry_on: 'connect-failure,unavailable,novel', retry_host_predicate: [{name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}",
    );
    let found = found.expect("decoded");
    let retry = found.retry.as_ref().expect("given");
    assert!(retry.on.connect_failure && retry.on.grpc_unavailable && retry.skip_previous_hosts);
    assert_eq!(
        (retry.num_retries, retry.host_selection_max_attempts),
        (1, 1)
    );
    assert_eq!(
        (retry.back_off.base, retry.back_off.max),
        (Duration::from_millis(25), Duration::from_millis(250))
    );
}

#[test]
fn a_domain_belongs_to_one_host() {
    let found = table(
        "{name: t, virtual_hosts: [{name: a, domains: [A.com]}, {name: b, domains: [a.com]}]}",
    );
    let (field, reason) = refused(found);
    assert_eq!(
        (field.as_str(), reason.as_str()),
        (
            "virtual_hosts[1].domains",
            "a.com belongs to another virtual host"
        )
    );
    assert_eq!(
        refused(table(
            "{name: t, virtual_hosts: [{name: a, domains: ['a.*.com']}]}"
        ))
        .0,
        "virtual_hosts[0].domains[0]"
    );
    assert_eq!(refused(table("{}")).0, "name");
}

#[test]
fn direct_answers_are_bounded() {
    let found =
        route("{match: {prefix: /}, direct_response: {status: 418, body: {inline_string: tea}}}")
            .expect("decoded");
    assert!(
        matches!(&found.virtual_hosts[0].routes[0].action, RouteAction::DirectResponse { status, body } if status.as_u16() == 418 && body == "tea")
    );
    let long = "x".repeat(4097);
    let refusal = refused(route(&format!(
        "{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {long}}}}}}}"
    )));
    assert_eq!(refusal.0, "virtual_hosts[0].routes[0].direct_response.body");
    assert!(route("{match: {prefix: /}, direct_response: {status: 99}}").is_err());
}

/// Each route of the only virtual host: what it matches and whether it refuses; and the fields that
/// are refused.
fn taken(routes: &str) -> (Vec<(String, bool)>, Vec<String>) {
    let yaml =
        format!("{{name: t, virtual_hosts: [{{name: h, domains: ['*'], routes: [{routes}]}}]}}");
    let (table, refused) = parts(&yaml, super::table);
    let routes = table.expect("taken").virtual_hosts[0].routes.clone();
    let told = routes.iter().map(|route| {
        let refuses = matches!(route.action, RouteAction::Refused(_));
        (format!("{:?}", route.matches.path), refuses)
    });
    (
        told.collect(),
        refused.into_iter().map(|r| r.field).collect(),
    )
}

#[test]
fn an_unreadable_route_answers_what_it_matches() {
    let wasm = "typed_per_filter_config: {f: {'@type': type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm}}";
    let (routes, refused) = taken(&format!(
        "{{match: {{prefix: /a}}, route: {{cluster: c}}, {wasm}}}, {{match: {{prefix: /}}, route: {{cluster: c}}}}"
    ));
    assert_eq!(
        refused,
        ["virtual_hosts[0].routes[0].typed_per_filter_config[f]"]
    );
    assert_eq!(
        routes,
        [
            ("Prefix(\"/a\")".to_owned(), true),
            ("Prefix(\"/\")".to_owned(), false)
        ]
    );
}

#[test]
fn a_route_without_readable_criteria_answers_all_that_is_left() {
    let (routes, refused) = taken(
        "{match: {prefix: /a}, route: {cluster: c}}, {match: {safe_regex: {regex: '('}}, route: {cluster: c}}, \
         {match: {prefix: /}, route: {cluster: c}}",
    );
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(routes[1], ("Prefix(\"\")".to_owned(), true));
    assert!(!routes[0].1);
}

#[test]
fn an_unreadable_virtual_host_answers_for_its_domains_and_an_unreadable_table_for_all() {
    let (table, refused) = parts(
        "{name: t, virtual_hosts: [{name: a, domains: [a], rate_limits: [{}]}, {name: b, domains: [b]}]}",
        super::table,
    );
    let table = table.expect("taken");
    assert_eq!(refused[0].field, "virtual_hosts[0].rate_limits");
    assert!(matches!(
        table.virtual_hosts[0].routes[0].action,
        RouteAction::Refused(_)
    ));
    assert!(table.virtual_hosts[1].routes.is_empty());
    let (table, refused) = parts(
        "{name: t, vhost_header: x, virtual_hosts: [{name: b, domains: [b]}]}",
        super::table,
    );
    let table = table.expect("taken");
    assert_eq!(refused[0].field, "vhost_header");
    assert_eq!(&*table.virtual_hosts[0].domains[0], "*");
    assert!(matches!(
        table.virtual_hosts[0].routes[0].action,
        RouteAction::Refused(_)
    ));
}
