//! Do two Gateways claim the same port and host of the same workloads?

use ingest::{Domain, Key, Severity, code};
use mesh_model::Gateway;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Units};

pub(super) const RULE: Rule = Rule {
    name: "gateway_conflicts",
    codes: &[(code::GATEWAY_CONFLICT, Severity::Error)],
    docs: "Two Gateways with the same selector have a server with the same port and host. The oldest is asked first; the other one's server may get no requests.",
    reads: &[],
    units: Units::Claims {
        kinds: &[Kind::Gateway],
        claims,
        check,
    },
};

/// Selector, port, namespace and host of each host of each server, with the server's place in the
/// list.
fn places(gateway: &Gateway) -> impl Iterator<Item = (usize, String)> {
    let selector: Vec<String> = gateway
        .selector
        .0
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let selector = selector.join(",");
    gateway
        .servers
        .iter()
        .enumerate()
        .flat_map(move |(index, server)| {
            let selector = selector.clone();
            server.hosts.iter().map(move |host| {
                let namespace = host.namespace.as_deref().unwrap_or("*");
                let port = server.port.number;
                (
                    index,
                    format!("{selector} {port} {namespace}/{}", host.host),
                )
            })
        })
}

fn claims(_key: &Key, domain: &Domain) -> Vec<String> {
    match domain {
        Domain::Gateway(gateway) => places(gateway).map(|(_, place)| place).collect(),
        _ => Vec::new(),
    }
}

fn check(cx: &mut Cx, claim: &str, objects: &[(&Key, &Domain)]) {
    let mut gateways: Vec<(&Key, &Gateway)> = objects
        .iter()
        .filter_map(|(key, domain)| match domain {
            Domain::Gateway(gateway) => Some((*key, &**gateway)),
            _ => None,
        })
        .collect();
    gateways.sort_by_key(|(_, gateway)| gateway.meta.precedence());
    let Some((first, _)) = gateways.first().copied() else {
        return;
    };
    for (key, gateway) in gateways.iter().skip(1) {
        for (index, _) in places(gateway).filter(|(_, place)| place == claim) {
            let Some(server) = gateway.servers.get(index) else {
                continue;
            };
            let host = claim.rsplit('/').next().unwrap_or_default();
            let message = format!(
                "{first} has port {} and host {host} for the same workloads too and is older",
                server.port.number
            );
            let path = format!("spec.servers[{index}].hosts");
            cx.say(key, code::GATEWAY_CONFLICT, path, message);
        }
    }
}
