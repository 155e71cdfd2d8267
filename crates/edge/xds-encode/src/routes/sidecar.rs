//! Virtual hosts of a sidecar's outbound port (rows TM-020 … TM-023).
//!
//! For each service: the rule with its exact host, else with the longest wildcard, the oldest of several. Services without a rule get a
//! default route. A rule for hosts that are no service counts on port 80 only. What no host matches passes through, or is refused with 502.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{
    Service, VirtualService, object::Text, service::Resolution, sidecar::OutboundMode,
    virtual_service::GatewayRef,
};
use wire_envoy::pb::route::{
    DirectResponseAction, Route, RouteAction, RouteMatch, VirtualHost, route::Action,
    route_action::ClusterSpecifier, route_match::PathSpecifier,
};

use super::{
    Role, RouteInputs, actions, hashing, retries,
    virtual_service::{Scope, http_routes},
};
use crate::names;

pub(super) fn virtual_hosts(inputs: &RouteInputs) -> Vec<VirtualHost> {
    let Role::Sidecar {
        port,
        services,
        aliases,
        is_for_one_service,
        outbound,
    } = &inputs.role
    else {
        return Vec::new();
    };
    let mut hosts: BTreeMap<String, VirtualHost> = BTreeMap::new();
    let mut taken: BTreeSet<Text> = BTreeSet::new();
    for rule in inputs.virtual_services.iter() {
        add_rule(inputs, rule, &mut hosts, &mut taken);
    }
    for service in services
        .iter()
        .filter(|service| !taken.contains(service.host.as_str()))
    {
        let routes = vec![default_route(inputs, service, *port)];
        hosts
            .entry(format!("{}:{port}", service.host))
            .or_insert_with(|| host(inputs, service, *port, routes, aliases));
    }
    let mut found: Vec<VirtualHost> = hosts.into_values().collect();
    if *is_for_one_service {
        found.truncate(1);
        found
            .iter_mut()
            .for_each(|host| host.domains = vec!["*".to_owned()]);
        return found;
    }
    without_duplicates(&mut found);
    if !found
        .iter()
        .any(|host| host.domains.iter().any(|domain| domain == "*"))
    {
        found.push(rest(*outbound));
    }
    found
}

/// Adds what a rule says about the services of this port, and about hosts that are none.
fn add_rule(
    inputs: &RouteInputs,
    rule: &Arc<VirtualService>,
    hosts: &mut BTreeMap<String, VirtualHost>,
    taken: &mut BTreeSet<Text>,
) {
    let Role::Sidecar {
        port,
        services,
        aliases,
        is_for_one_service,
        ..
    } = &inputs.role
    else {
        return;
    };
    let scope = Scope {
        inputs,
        port: *port,
        gateways: &[GatewayRef::Mesh],
        is_tls: false,
    };
    let routes = http_routes(&scope, rule);
    if routes.is_empty() {
        return;
    }
    for wanted in rule.hosts.iter() {
        let mut is_a_service = false;
        for service in services
            .iter()
            .filter(|service| wanted.covers(service.host.as_str()))
        {
            is_a_service = true;
            if winner(inputs, service).is_some_and(|winner| Arc::ptr_eq(winner, rule))
                && taken.insert(service.host.shared())
            {
                hosts.insert(
                    format!("{}:{port}", service.host),
                    host(inputs, service, *port, routes.clone(), aliases),
                );
            }
        }
        if !is_a_service && *port == 80 && !is_for_one_service {
            let name = format!("{wanted}:{port}");
            hosts.entry(name.clone()).or_insert_with(|| {
                actions::virtual_host(name, vec![wanted.to_string()], routes.clone())
            });
        }
    }
}

/// The rule that holds for a service.
fn winner<'a>(inputs: &'a RouteInputs, service: &Service) -> Option<&'a Arc<VirtualService>> {
    let best_host = |rule: &VirtualService| {
        rule.hosts
            .iter()
            .filter(|host| host.covers(service.host.as_str()))
            .map(|host| host.specificity())
            .min()
    };
    inputs
        .virtual_services
        .iter()
        .filter_map(|rule| Some((best_host(rule)?, rule)))
        .min_by_key(|(specificity, _)| *specificity)
        .map(|(_, rule)| rule)
}

fn default_route(inputs: &RouteInputs, service: &Service, port: u16) -> Route {
    let hashes = hashing::hash_policies(inputs, service.host.as_str(), None, port);
    let name = names::OutboundName::new(service.host.as_str(), None, port);
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(name.to_string())),
        retry_policy: retries::default_retries(&inputs.mesh, !hashes.is_empty()),
        hash_policy: hashes,
        ..actions::without_timeout()
    };
    let mut route = actions::named("default", all(), Action::Route(action));
    route.decorator = Some(actions::decorator(format!("{}:{port}/*", service.host)));
    route
}

fn all() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    }
}

/// Unmatched hosts.
fn rest(outbound: OutboundMode) -> VirtualHost {
    let (name, action) = match outbound {
        OutboundMode::AllowAny => {
            let cluster = Some(ClusterSpecifier::Cluster(names::PASSTHROUGH.to_owned()));
            (
                "allow_any",
                Action::Route(RouteAction {
                    cluster_specifier: cluster,
                    ..actions::without_timeout()
                }),
            )
        }
        OutboundMode::RegistryOnly => (
            "block_all",
            Action::DirectResponse(DirectResponseAction {
                status: 502,
                ..Default::default()
            }),
        ),
    };
    actions::virtual_host(
        name.to_owned(),
        vec!["*".to_owned()],
        vec![actions::named(name, all(), action)],
    )
}

fn host(
    inputs: &RouteInputs,
    service: &Service,
    port: u16,
    routes: Vec<Route>,
    aliases: &BTreeMap<Text, Vec<Text>>,
) -> VirtualHost {
    let mut found = domains(inputs, service.host.as_str());
    if service.resolution == Resolution::Passthrough && &*service.meta.object.kind == "Service" {
        let pods: Vec<String> = found.iter().map(|domain| format!("*.{domain}")).collect();
        found.extend(pods);
    }
    found.extend(
        service
            .addresses
            .iter()
            .filter(|net| net.prefix_len() == net.max_prefix_len())
            .map(|net| bracketed(net.addr())),
    );
    found.extend(
        aliases
            .get(service.host.as_str())
            .into_iter()
            .flatten()
            .flat_map(|alias| domains(inputs, alias)),
    );
    actions::virtual_host(format!("{}:{port}", service.host), found, routes)
}

fn bracketed(address: std::net::IpAddr) -> String {
    if address.is_ipv6() {
        format!("[{address}]")
    } else {
        address.to_string()
    }
}

/// Every way to say a host: as it is, with a final dot, and what a resolver's search list makes of short names of cluster services.
fn domains(inputs: &RouteInputs, host: &str) -> Vec<String> {
    let mut found = vec![host.to_owned(), format!("{host}.")];
    let suffix = format!(".svc.{}", inputs.mesh.cluster_domain);
    let Some((name, namespace)) = host
        .strip_suffix(suffix.as_str())
        .and_then(|short| short.rsplit_once('.'))
    else {
        return found;
    };
    if namespace == &*inputs.client.namespace {
        found.extend([
            name.to_owned(),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}"),
        ]);
    } else {
        found.extend([
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
        ]);
    }
    found
}

/// A domain may be in one virtual host only; the first keeps it.
fn without_duplicates(hosts: &mut Vec<VirtualHost>) {
    let mut seen = BTreeSet::new();
    for host in hosts.iter_mut() {
        host.domains.retain(|domain| seen.insert(domain.clone()));
    }
    hosts.retain(|host| !host.domains.is_empty());
}
