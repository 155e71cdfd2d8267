//! Do two Gateways of the same workloads present the same certificate?

use ingest::{Domain, Key, Severity, code};
use mesh_model::gateway::{ServerCertificates, ServerTls};
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Units};

pub(super) const RULE: Rule = Rule {
    name: "gateway_certificates",
    codes: &[(code::DUPLICATE_CERTIFICATE, Severity::Warning)],
    docs: "Two Gateways with the same selector present the same certificate. A client that has an HTTP/2 connection for a host of one reuses it for a host of the other, for which that connection has no routes. Put the servers into one Gateway, or use a certificate for each.",
    reads: &[],
    units: Units::Claims {
        kinds: &[Kind::Gateway],
        claims,
        check,
    },
};

/// Selector and credential of each server that ends TLS.
fn claims(_key: &Key, domain: &Domain) -> Vec<String> {
    let Domain::Gateway(gateway) = domain else {
        return Vec::new();
    };
    let selector: Vec<String> = gateway
        .selector
        .0
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let selector = selector.join(",");
    let names = gateway
        .servers
        .iter()
        .filter_map(|server| match &server.tls {
            ServerTls::Terminate(tls) => match &tls.certificates {
                ServerCertificates::Credentials(names) => Some(names),
                _ => None,
            },
            _ => None,
        });
    names
        .flat_map(|names| names.iter())
        .map(|name| format!("{selector} {name}"))
        .collect()
}

fn check(cx: &mut Cx, claim: &str, objects: &[(&Key, &Domain)]) {
    let name = claim.rsplit(' ').next().unwrap_or_default();
    for (key, _) in objects {
        let others: Vec<String> = objects
            .iter()
            .filter(|(other, _)| other != key)
            .map(|(other, _)| other.to_string())
            .collect();
        let message = format!(
            "{} has servers with the certificate {name} for the same workloads: clients that reuse an HTTP/2 connection for hosts of both may get 404",
            others.join(" and ")
        );
        cx.say(key, code::DUPLICATE_CERTIFICATE, "spec.servers", message);
    }
}
