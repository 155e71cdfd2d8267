//! VirtualService: hosts, and how requests for them are routed (reference rows TM-001 … TM-025).
//!
//! Every rule of Istio's validation that needs nothing but the object itself is here. Whether destinations, gateways and
//! delegates exist is asked when a snapshot is built.

use std::sync::Arc;

use mesh_model::Host;
use mesh_model::VirtualService;
use mesh_model::virtual_service::{
    GatewayRef, HttpMatch, HttpRoute, L4Match, TcpRoute, TlsMatch, TlsRoute, WeightedDestination,
};
use wire_kube::istio::virtual_service as wire;

use crate::cx::Cx;
use crate::problem::{Severity, code};
use crate::value::{export_to, labels, network, text};

mod destination;
mod gateway_refs;
mod grpc_status;
mod http;
mod matches;

use destination::{check_weights, destination};
use gateway_refs::gateway_refs;

pub(crate) use http::retries_of;

pub fn parse(cx: &mut Cx, spec: wire::VirtualService) -> Option<VirtualService> {
    let wire::VirtualService {
        hosts,
        gateways,
        http,
        tls,
        tcp,
        export_to: export,
    } = spec;
    let is_delegate = hosts.is_empty();
    if is_delegate
        && (http.is_empty() || !gateways.is_empty() || !tls.is_empty() || !tcp.is_empty())
    {
        cx.error_at("hosts", "at least one host is needed; only a delegate has none, and it has nothing but http and exportTo");
    }
    if http.is_empty() && tls.is_empty() && tcp.is_empty() {
        cx.error("one of http, tls and tcp is needed");
    }
    let hosts = cx.collect("hosts", &hosts, |cx, host| virtual_host(cx, host));
    report_duplicates(cx, "hosts", &hosts);
    let gateways = gateway_refs(cx, &gateways);
    let on_mesh = gateways.is_empty() || gateways.contains(&GatewayRef::Mesh);
    if on_mesh && hosts.iter().any(|host| host.as_str() == "*") {
        cx.error_at(
            "hosts",
            "`*` cannot stand for every host of the mesh: name a gateway, or give a host",
        );
    }
    let http = cx.collect("http", http, |cx, route| {
        http::route(cx, route, is_delegate)
    });
    check_order(cx, &http);
    let tls = cx.collect("tls", tls, |cx, route| tls_route(cx, route, &hosts));
    let tcp = cx.collect("tcp", tcp, tcp_route);
    let export_to = export_to(
        cx,
        "exportTo",
        &export,
        &cx.mesh.default_virtual_service_export_to,
    );
    let gateways = if gateways.is_empty() {
        vec![GatewayRef::Mesh]
    } else {
        gateways
    };
    Some(VirtualService {
        meta: cx.meta.clone(),
        hosts: hosts.into(),
        gateways: gateways.into(),
        http: http.into_iter().map(Arc::new).collect(),
        tls: tls.into(),
        tcp: tcp.into(),
        export_to,
    })
}

fn virtual_host(cx: &mut Cx, text: &str) -> Option<Host> {
    if text.is_empty() {
        cx.error("a host must not be empty");
        return None;
    }
    cx.host(text)
}

fn report_duplicates(cx: &mut Cx, field: &str, hosts: &[Host]) {
    for (index, host) in hosts.iter().enumerate() {
        if hosts.iter().take(index).any(|before| before == host) {
            cx.error_at(field, format!("{host} is listed twice"));
        }
    }
}

/// A route without a match takes every request: nothing behind it is ever reached.
fn check_order(cx: &mut Cx, http: &[HttpRoute]) {
    let takes_all = |route: &HttpRoute| {
        route.matches.is_empty() || route.matches.contains(&HttpMatch::default())
    };
    let Some(last_reached) = http.iter().position(takes_all) else {
        return;
    };
    let message = format!("is never reached: spec.http[{last_reached}] takes every request");
    cx.each("http", http.iter().enumerate(), |cx, (index, _)| {
        if index > last_reached {
            cx.report(Severity::Warning, code::UNREACHABLE_RULE, message.as_str());
        }
    });
}

fn weighted(cx: &mut Cx, route: Vec<wire::RouteDestination>) -> Vec<WeightedDestination> {
    if route.is_empty() {
        cx.error_at("route", "at least one destination is needed");
    }
    let weights: Vec<i32> = route.iter().map(|r| r.weight).collect();
    let weights = check_weights(cx, &weights);
    let destinations = cx.each("route", route, |cx, entry| {
        let wire::RouteDestination {
            destination: to,
            weight: _,
        } = entry;
        destination(cx, to)
    });
    let pairs = destinations.into_iter().zip(weights);
    pairs
        .filter(|(_, weight)| *weight > 0)
        .filter_map(|(destination, weight)| {
            Some(WeightedDestination {
                destination: destination?,
                weight,
            })
        })
        .collect()
}

fn tls_route(cx: &mut Cx, value: wire::TlsRoute, hosts: &[Host]) -> Option<TlsRoute> {
    let wire::TlsRoute { r#match, route } = value;
    if r#match.is_empty() {
        cx.error_at("match", "a TLS route needs at least one match");
    }
    let matches = cx.collect("match", r#match, |cx, value| tls_match(cx, value, hosts));
    let route = weighted(cx, route);
    Some(TlsRoute {
        matches: matches.into(),
        route: route.into(),
    })
}

fn tls_match(cx: &mut Cx, value: wire::TlsMatchAttributes, hosts: &[Host]) -> Option<TlsMatch> {
    let wire::TlsMatchAttributes {
        sni_hosts,
        destination_subnets,
        port,
        source_labels,
        gateways,
        source_namespace,
    } = value;
    if sni_hosts.is_empty() {
        cx.error_at("sniHosts", "at least one host is needed");
    }
    let sni_hosts = cx.collect("sniHosts", &sni_hosts, |cx, name| {
        let host = match Host::parse(name) {
            Ok(host) => host,
            Err(e) => {
                cx.error(e.to_string());
                return None;
            }
        };
        let within = hosts.iter().any(|h| {
            h.covers(host.as_str())
                || h.covers(
                    host.qualified(cx.namespace(), &cx.mesh.cluster_domain)
                        .as_str(),
                )
        });
        if !within {
            cx.error(format!(
                "{host} must be one of the hosts of this VirtualService, or covered by one"
            ));
        }
        Some(host)
    });
    let l4 = l4_match(
        cx,
        destination_subnets,
        port,
        source_labels,
        gateways,
        source_namespace,
    )?;
    Some(TlsMatch {
        sni_hosts: sni_hosts.into(),
        l4,
    })
}

fn tcp_route(cx: &mut Cx, value: wire::TcpRoute) -> Option<TcpRoute> {
    let wire::TcpRoute { r#match, route } = value;
    let matches = cx.collect("match", r#match, |cx, value| {
        let wire::L4MatchAttributes {
            destination_subnets,
            port,
            source_subnet,
            source_labels,
            gateways,
            source_namespace,
        } = value;
        cx.unsupported("sourceSubnet", !source_subnet.is_empty());
        l4_match(
            cx,
            destination_subnets,
            port,
            source_labels,
            gateways,
            source_namespace,
        )
    });
    let route = weighted(cx, route);
    Some(TcpRoute {
        matches: matches.into(),
        route: route.into(),
    })
}

fn l4_match(
    cx: &mut Cx,
    destination_subnets: Vec<String>,
    port: Option<u32>,
    source_labels: std::collections::BTreeMap<String, String>,
    gateways: Vec<String>,
    source_namespace: String,
) -> Option<L4Match> {
    let subnets = cx.collect("destinationSubnets", &destination_subnets, |cx, subnet| {
        network(cx, subnet)
    });
    let port = match port {
        None => None,
        Some(number) => Some(cx.within("port", |cx| cx.port_number(number))?),
    };
    let gateways = gateway_refs(cx, &gateways);
    Some(L4Match {
        destination_subnets: subnets.into(),
        port,
        source_labels: labels(&source_labels),
        source_namespace: text(&source_namespace),
        gateways: gateways.into(),
    })
}
