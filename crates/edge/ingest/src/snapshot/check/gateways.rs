//! Gateways: do their workloads and secrets exist; do two claim the same port and host?

use std::collections::BTreeMap;

use mesh_model::gateway::{ServerCertificates, ServerTls, TerminateMode, TerminateTls};
use mesh_model::object::Text;
use mesh_model::{Credential, Gateway};
use wire_kube::kinds::Kind;

use super::{Findings, in_force};
use crate::Domain;
use crate::problem::{Severity, code};
use crate::snapshot::Key;

pub(super) fn check(findings: &mut Findings) {
    let gateways: Vec<(&Key, &Gateway)> = in_force(findings.store, Kind::Gateway)
        .into_iter()
        .filter_map(|(key, domain)| match domain {
            Domain::Gateway(gateway) => Some((key, &**gateway)),
            _ => None,
        })
        .collect();
    for (key, gateway) in &gateways {
        findings.check_selector(key, "spec.selector", None, &gateway.selector);
        credentials(findings, key, gateway);
    }
    conflicts(findings, &gateways);
}

/// Secrets are looked for where the gateway's workloads run.
fn credentials(findings: &mut Findings, key: &Key, gateway: &Gateway) {
    let workloads = findings
        .snapshot
        .workloads
        .values()
        .filter(|w| gateway.selector.selects(&w.labels));
    let mut namespaces: Vec<Text> = workloads.map(|w| w.namespace.clone()).collect();
    namespaces.sort();
    namespaces.dedup();
    for (index, server) in gateway.servers.iter().enumerate() {
        let ServerTls::Terminate(tls) = &server.tls else {
            continue;
        };
        let ServerCertificates::Credentials(names) = &tls.certificates else {
            continue;
        };
        for name in names.iter() {
            for namespace in &namespaces {
                let path = format!("spec.servers[{index}].tls.credentialName");
                if let Err((code, message)) = usable(findings, namespace, name, tls) {
                    findings.add(key, Severity::Error, code, path, message);
                }
            }
        }
    }
}

fn usable(
    findings: &Findings,
    namespace: &Text,
    name: &Text,
    tls: &TerminateTls,
) -> Result<(), (&'static str, String)> {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (namespace.into(), name.into()),
        None => (namespace.clone(), name.clone()),
    };
    let find = |name: Text| -> Option<&Credential> {
        findings
            .snapshot
            .credentials
            .get(&(namespace.clone(), name))
            .map(|c| &**c)
    };
    let Some(credential) = find(name.clone()) else {
        let exists = findings.store.entries.contains_key(&Key {
            kind: Kind::Secret,
            namespace: namespace.clone(),
            name: name.clone(),
        });
        return Err(match exists {
            true => (
                code::GATEWAY_CREDENTIAL,
                format!(
                    "Secret {namespace}/{name} holds no usable certificate: this server cannot take TLS connections"
                ),
            ),
            false => (
                code::REFERENCE_NOT_FOUND,
                format!(
                    "no Secret {namespace}/{name} exists (it belongs into the namespace of the gateway's pods): this server cannot take TLS connections"
                ),
            ),
        });
    };
    if credential.certificate.is_none() {
        return Err((
            code::GATEWAY_CREDENTIAL,
            format!(
                "Secret {namespace}/{name} holds no certificate with its key: this server cannot take TLS connections"
            ),
        ));
    }
    let wants_clients = matches!(
        tls.mode,
        TerminateMode::Mutual | TerminateMode::OptionalMutual
    );
    let apart = tls
        .ca_credential_name
        .clone()
        .unwrap_or_else(|| format!("{name}-cacert").into());
    let has_ca = credential.ca_pem.is_some() || find(apart).is_some_and(|c| c.ca_pem.is_some());
    if wants_clients && !has_ca && tls.ca_file.is_none() {
        return Err((
            code::GATEWAY_CREDENTIAL,
            format!(
                "mode MUTUAL needs a CA: put ca.crt into Secret {namespace}/{name}, or into {name}-cacert"
            ),
        ));
    }
    Ok(())
}

/// The same workloads, port and host in two Gateways: the oldest is asked first.
fn conflicts(findings: &mut Findings, gateways: &[(&Key, &Gateway)]) {
    let mut sorted: Vec<_> = gateways.to_vec();
    sorted.sort_by_key(|(_, gateway)| gateway.meta.precedence());
    let mut claimed: BTreeMap<(String, u16, Option<Text>, Text), &Key> = BTreeMap::new();
    for (key, gateway) in sorted {
        let selector: Vec<String> = gateway
            .selector
            .0
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let selector = selector.join(",");
        for (index, server) in gateway.servers.iter().enumerate() {
            for host in server.hosts.iter() {
                let claim = (
                    selector.clone(),
                    server.port.number,
                    host.namespace.clone(),
                    host.host.shared(),
                );
                match claimed.get(&claim) {
                    Some(first) if *first != key => {
                        let message = format!(
                            "{first} has port {} and host {} for the same workloads too and is older",
                            server.port.number, host.host
                        );
                        findings.add(
                            key,
                            Severity::Error,
                            code::GATEWAY_CONFLICT,
                            format!("spec.servers[{index}].hosts"),
                            message,
                        );
                    }
                    Some(_) => {}
                    None => {
                        claimed.insert(claim, key);
                    }
                }
            }
        }
    }
}
