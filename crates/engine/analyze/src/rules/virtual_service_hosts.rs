//! Does a host of the mesh have one VirtualService?

use ingest::{Domain, Key, Severity, code};
use mesh_model::virtual_service::{GatewayRef, VirtualService};
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Units};

pub(super) const RULE: Rule = Rule {
    name: "virtual_service_hosts",
    codes: &[(code::MESH_HOST_CONFLICT, Severity::Error)],
    docs: "Of several VirtualServices for one host in the mesh (gateway `mesh`), the oldest holds for whoever sees them all; the others have no effect there.",
    reads: &[],
    units: Units::Claims {
        kinds: &[Kind::VirtualService],
        claims,
        check,
    },
};

fn claims(_key: &Key, domain: &Domain) -> Vec<String> {
    match domain {
        Domain::VirtualService(vs) if vs.gateways.contains(&GatewayRef::Mesh) => {
            vs.hosts.iter().map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    }
}

fn check(cx: &mut Cx, host: &str, objects: &[(&Key, &Domain)]) {
    let mut owners: Vec<(&Key, &VirtualService)> = objects
        .iter()
        .filter_map(|(key, domain)| match domain {
            Domain::VirtualService(vs) => Some((*key, &**vs)),
            _ => None,
        })
        .collect();
    owners.sort_by_key(|(_, vs)| vs.meta.precedence());
    let Some((winner, first)) = owners.first().copied() else {
        return;
    };
    for (key, vs) in owners.iter().skip(1) {
        let meets =
            first.export_to.includes(&key.namespace) || vs.export_to.includes(&winner.namespace);
        if meets {
            let message = format!(
                "{winner} is for host {host} too and is older, so it holds and this one does not: put the routes into one"
            );
            cx.say(key, code::MESH_HOST_CONFLICT, "spec.hosts", message);
        }
    }
}
