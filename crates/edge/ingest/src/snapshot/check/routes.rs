//! VirtualServices: do destinations, subsets, ports, gateways and delegates exist; does a host have one owner?

use std::collections::BTreeMap;

use mesh_model::object::Labels;
use mesh_model::virtual_service::{GatewayRef, HttpAction, HttpRoute, VirtualService};
use mesh_model::{Host, Service};
use serde_json::Value;
use wire_kube::kinds::Kind;

use super::{Findings, in_force};
use crate::Domain;
use crate::problem::{Severity, code};
use crate::snapshot::Key;
use crate::snapshot::delegates::together;

pub(super) fn check(findings: &mut Findings) {
    let store = findings.store;
    for (key, domain) in in_force(store, Kind::VirtualService) {
        let Domain::VirtualService(vs) = domain else {
            continue;
        };
        if let Some(object) = store.object(key) {
            destinations(findings, key, object);
        }
        gateways(findings, key, vs);
        delegates(findings, key, vs);
    }
    one_owner(findings);
}

/// Walks the object as it was written, so that paths are exact.
fn destinations(findings: &mut Findings, key: &Key, object: &Value) {
    for protocol in ["http", "tls", "tcp"] {
        for (index, route) in items(object.pointer(&format!("/spec/{protocol}"))) {
            let base = format!("spec.{protocol}[{index}]");
            for (entry, weighted) in items(route.get("route")) {
                destination(
                    findings,
                    key,
                    &format!("{base}.route[{entry}].destination"),
                    weighted.get("destination"),
                );
            }
            destination(
                findings,
                key,
                &format!("{base}.mirror"),
                route.get("mirror"),
            );
            for (entry, mirror) in items(route.get("mirrors")) {
                destination(
                    findings,
                    key,
                    &format!("{base}.mirrors[{entry}].destination"),
                    mirror.get("destination"),
                );
            }
        }
    }
}

fn items(value: Option<&Value>) -> impl Iterator<Item = (usize, &Value)> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
}

fn destination(findings: &mut Findings, key: &Key, path: &str, value: Option<&Value>) {
    let Some(value) = value else { return };
    let text = |name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
    };
    let Some(host) = text("host").and_then(|h| Host::parse(h).ok()) else {
        return;
    };
    let snapshot = findings.snapshot;
    let host = host.qualified(&key.namespace, &snapshot.mesh.cluster_domain);
    let Some(service) = snapshot.service(host.as_str(), &key.namespace) else {
        let message = format!(
            "no service {host} can be seen from namespace {}: requests get 503",
            key.namespace
        );
        findings.add(
            key,
            Severity::Error,
            code::REFERENCE_NOT_FOUND,
            format!("{path}.host"),
            message,
        );
        return;
    };
    if let Some(subset) = text("subset") {
        let rule = snapshot.destination_rule(
            &key.namespace,
            &Labels::default(),
            host.as_str(),
            service.namespace(),
        );
        if !rule.is_some_and(|rule| rule.subsets.iter().any(|s| &*s.name == subset)) {
            let message =
                format!("no DestinationRule for {host} has a subset {subset}: requests get 503");
            findings.add(
                key,
                Severity::Error,
                code::REFERENCE_NOT_FOUND,
                format!("{path}.subset"),
                message,
            );
        }
    }
    port(findings, key, path, value, &host, service);
}

fn port(
    findings: &mut Findings,
    key: &Key,
    path: &str,
    value: &Value,
    host: &Host,
    service: &Service,
) {
    let numbers = || {
        service
            .ports
            .iter()
            .map(|p| p.port.number.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match value.pointer("/port/number").and_then(Value::as_u64) {
        None if service.ports.len() > 1 => {
            let message = format!(
                "{host} has several ports ({}): say which by port.number",
                numbers()
            );
            findings.add(
                key,
                Severity::Error,
                code::DESTINATION_PORT_REQUIRED,
                path,
                message,
            );
        }
        Some(number)
            if service.alias_of.is_none()
                && !service
                    .ports
                    .iter()
                    .any(|p| u64::from(p.port.number) == number) =>
        {
            let message = format!("{host} has no port {number}; it has {}", numbers());
            findings.add(
                key,
                Severity::Error,
                code::REFERENCE_NOT_FOUND,
                format!("{path}.port.number"),
                message,
            );
        }
        _ => {}
    }
}

fn gateways(findings: &mut Findings, key: &Key, vs: &VirtualService) {
    let snapshot = findings.snapshot;
    let mut servers = Vec::new();
    let mut named = false;
    for gateway in vs.gateways.iter() {
        let GatewayRef::Named { namespace, name } = gateway else {
            continue;
        };
        let found = snapshot
            .gateways
            .get(namespace)
            .and_then(|list| list.iter().find(|g| g.meta.object.name == *name));
        let Some(found) = found else {
            let message = format!("no Gateway {namespace}/{name} exists");
            findings.add(
                key,
                Severity::Error,
                code::REFERENCE_NOT_FOUND,
                "spec.gateways",
                message,
            );
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
            findings.add(
                key,
                Severity::Warning,
                code::HOST_NOT_IN_GATEWAY,
                "spec.hosts",
                format!("no server of its gateways has the host {host}"),
            );
        }
    }
}

fn delegates(findings: &mut Findings, key: &Key, vs: &VirtualService) {
    let store = findings.store;
    for (index, route) in vs.http.iter().enumerate() {
        let HttpAction::Delegate { namespace, name } = &route.action else {
            continue;
        };
        let path = format!("spec.http[{index}].delegate");
        let message = match store.good(Kind::VirtualService, namespace, name) {
            Some(Domain::VirtualService(delegate)) if !delegate.hosts.is_empty() => {
                format!("VirtualService {namespace}/{name} has hosts, so it is no delegate")
            }
            Some(Domain::VirtualService(delegate))
                if !delegate.export_to.includes(&key.namespace) =>
            {
                format!(
                    "VirtualService {namespace}/{name} is not exported to namespace {}: this route is left out",
                    key.namespace
                )
            }
            Some(Domain::VirtualService(delegate)) => {
                routes_outside(findings, key, index, route, delegate);
                continue;
            }
            _ => format!("no VirtualService {namespace}/{name} exists: this route is left out"),
        };
        findings.add(
            key,
            Severity::Error,
            code::REFERENCE_NOT_FOUND,
            path,
            message,
        );
    }
}

/// Routes of a delegate that ask for what its root does not hand over.
fn routes_outside(
    findings: &mut Findings,
    root: &Key,
    index: usize,
    route: &HttpRoute,
    delegate: &VirtualService,
) {
    let key = Key {
        kind: Kind::VirtualService,
        namespace: delegate.meta.object.namespace.clone(),
        name: delegate.meta.object.name.clone(),
    };
    for (number, inner) in delegate.http.iter().enumerate() {
        if together(route, inner).is_none() {
            let message = format!(
                "lies outside of what {root} hands over by spec.http[{index}].match: this route is left out"
            );
            findings.add(
                &key,
                Severity::Warning,
                code::UNREACHABLE_RULE,
                format!("spec.http[{number}].match"),
                message,
            );
        }
    }
}

/// Of several VirtualServices for one host in the mesh, the oldest holds for whoever sees them all.
fn one_owner(findings: &mut Findings) {
    let store = findings.store;
    let mut by_host: BTreeMap<Host, Vec<(&Key, &VirtualService)>> = BTreeMap::new();
    for (key, domain) in in_force(store, Kind::VirtualService) {
        let Domain::VirtualService(vs) = domain else {
            continue;
        };
        if vs.gateways.contains(&GatewayRef::Mesh) {
            for host in vs.hosts.iter() {
                by_host.entry(host.clone()).or_default().push((key, vs));
            }
        }
    }
    for (host, mut claims) in by_host {
        claims.sort_by_key(|(_, vs)| vs.meta.precedence());
        let Some((winner, first)) = claims.first().copied() else {
            continue;
        };
        for (key, vs) in claims.iter().skip(1) {
            let meets = first.export_to.includes(&key.namespace)
                || vs.export_to.includes(&winner.namespace);
            if meets {
                let message = format!(
                    "{winner} is for host {host} too and is older, so it holds and this one does not: put the routes into one"
                );
                findings.add(
                    key,
                    Severity::Error,
                    code::MESH_HOST_CONFLICT,
                    "spec.hosts",
                    message,
                );
            }
        }
    }
}
