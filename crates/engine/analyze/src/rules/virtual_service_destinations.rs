//! Do the destinations of a VirtualService exist: service, subset, port?

use ingest::{Domain, Key, Severity, code};
use mesh_model::{Host, Service};
use serde_json::Value;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "virtual_service_destinations",
    codes: &[
        (code::REFERENCE_NOT_FOUND, Severity::Error),
        (code::DESTINATION_PORT_REQUIRED, Severity::Error),
    ],
    docs: "A route or mirror sends requests to a service that its namespace cannot see, to a subset that no DestinationRule defines, or to a port that the service does not have: such requests get 503. A destination without a port needs a service with one port.",
    reads: &[Source::Services, Source::Objects(Kind::DestinationRule)],
    units: Units::Each {
        kinds: &[Kind::VirtualService],
        check,
    },
};

/// Walks the object as it was written, so that paths are exact.
fn check(cx: &mut Cx, key: &Key, _domain: &Domain) {
    let Some(object) = cx.written(key) else {
        return;
    };
    for protocol in ["http", "tls", "tcp"] {
        for (index, route) in items(object.pointer(&format!("/spec/{protocol}"))) {
            let base = format!("spec.{protocol}[{index}]");
            for (entry, weighted) in items(route.get("route")) {
                let path = format!("{base}.route[{entry}].destination");
                destination(cx, key, &path, weighted.get("destination"));
            }
            destination(cx, key, &format!("{base}.mirror"), route.get("mirror"));
            for (entry, mirror) in items(route.get("mirrors")) {
                let path = format!("{base}.mirrors[{entry}].destination");
                destination(cx, key, &path, mirror.get("destination"));
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

fn destination(cx: &mut Cx, key: &Key, path: &str, value: Option<&Value>) {
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
    let host = host.qualified(&key.namespace, &cx.mesh().cluster_domain);
    let Some(service) = cx.service(host.as_str(), &key.namespace) else {
        let message = format!(
            "no service {host} can be seen from namespace {}: requests get 503",
            key.namespace
        );
        cx.say(
            key,
            code::REFERENCE_NOT_FOUND,
            format!("{path}.host"),
            message,
        );
        return;
    };
    if let Some(subset) = text("subset") {
        let rule = cx.destination_rule(&key.namespace, host.as_str(), service.namespace());
        if !rule.is_some_and(|rule| rule.subsets.iter().any(|s| &*s.name == subset)) {
            let message =
                format!("no DestinationRule for {host} has a subset {subset}: requests get 503");
            cx.say(
                key,
                code::REFERENCE_NOT_FOUND,
                format!("{path}.subset"),
                message,
            );
        }
    }
    port(cx, key, (path, value), &host, service);
}

fn port(cx: &mut Cx, key: &Key, (path, value): (&str, &Value), host: &Host, service: &Service) {
    let numbers = || {
        service
            .ports
            .iter()
            .map(|p| p.port.number.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let has = |number: u64| {
        service
            .ports
            .iter()
            .any(|p| u64::from(p.port.number) == number)
    };
    match value.pointer("/port/number").and_then(Value::as_u64) {
        None if service.ports.len() > 1 => {
            let message = format!(
                "{host} has several ports ({}): say which by port.number",
                numbers()
            );
            cx.say(key, code::DESTINATION_PORT_REQUIRED, path, message);
        }
        Some(number) if service.alias_of.is_none() && !has(number) => {
            let message = format!("{host} has no port {number}; it has {}", numbers());
            let path = format!("{path}.port.number");
            cx.say(key, code::REFERENCE_NOT_FOUND, path, message);
        }
        _ => {}
    }
}
