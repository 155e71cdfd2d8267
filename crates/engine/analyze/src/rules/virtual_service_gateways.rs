//! Do the Gateways of a VirtualService exist, and do they serve its hosts?

use ingest::{Domain, Key, Severity, code};
use mesh_model::virtual_service::GatewayRef;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "virtual_service_gateways",
    codes: &[
        (code::REFERENCE_NOT_FOUND, Severity::Error),
        (code::HOST_NOT_IN_GATEWAY, Severity::Warning),
    ],
    docs: "A VirtualService names a Gateway that does not exist, or has a host that no server of its Gateways serves for its namespace: requests for it get 404.",
    reads: &[Source::Objects(Kind::Gateway)],
    units: Units::Each {
        kinds: &[Kind::VirtualService],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::VirtualService(vs) = domain else {
        return;
    };
    let mut servers = Vec::new();
    let mut named = false;
    for gateway in vs.gateways.iter() {
        let GatewayRef::Named { namespace, name } = gateway else {
            continue;
        };
        let Some(found) = cx.gateway(namespace, name) else {
            let message = format!("no Gateway {namespace}/{name} exists");
            cx.say(key, code::REFERENCE_NOT_FOUND, "spec.gateways", message);
            continue;
        };
        named = true;
        servers.extend(found.servers.iter().flat_map(|s| s.hosts.iter()));
    }
    if !named || vs.gateways.contains(&GatewayRef::Mesh) {
        return;
    }
    for host in vs.hosts.iter() {
        let served = servers.iter().any(|s| {
            s.namespace.as_ref().is_none_or(|n| *n == key.namespace)
                && (s.host.covers(host.as_str()) || host.covers(s.host.as_str()))
        });
        if !served {
            let message = format!("no server of its gateways has the host {host}");
            cx.say(key, code::HOST_NOT_IN_GATEWAY, "spec.hosts", message);
        }
    }
}
