//! Do the Services of a Gateway's workloads have its ports?

use ingest::{Domain, Key, Severity, code};
use mesh_model::Service;
use mesh_model::service::TargetPort;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "gateway_ports",
    codes: &[(code::GATEWAY_PORT, Severity::Warning)],
    docs: "A server's port is no port, and no target port, of any Service that selects the Gateway's workloads, so nobody can reach it through one. Silent while there is no such Service.",
    reads: &[Source::Workloads, Source::Services],
    units: Units::Each {
        kinds: &[Kind::Gateway],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::Gateway(gateway) = domain else {
        return;
    };
    let mut services: Vec<&Service> = Vec::new();
    for namespace in cx.selected_in(None, &gateway.selector) {
        let workloads: Vec<_> = cx
            .workloads(&namespace)
            .filter(|(_, labels)| gateway.selector.selects(labels))
            .map(|(_, labels)| labels)
            .collect();
        for labels in workloads {
            let found = cx.services_of(&namespace, labels);
            services.extend(found.into_iter().map(|service| &**service));
        }
    }
    if services.is_empty() {
        return;
    }
    for (index, server) in gateway.servers.iter().enumerate() {
        let number = server.port.number;
        if !services.iter().any(|service| exposes(service, number)) {
            let message = format!(
                "no Service of the gateway's workloads has port {number}: nobody can reach this server through one"
            );
            let path = format!("spec.servers[{index}].port.number");
            cx.say(key, code::GATEWAY_PORT, path, message);
        }
    }
}

/// A name may stand for any port of the containers.
fn exposes(service: &Service, number: u16) -> bool {
    service.ports.iter().any(|port| {
        port.port.number == number
            || match &port.target {
                TargetPort::Number(target) => *target == number,
                TargetPort::Named(_) => true,
            }
    })
}
