//! DestinationRules: is there such a host, do subsets have pods, do rules contradict each other or PeerAuthentication?

use mesh_model::{Service, Snapshot};
use std::sync::Arc;

use mesh_model::destination_rule::{ClientTlsMode, DestinationRule, TrafficPolicy};
use mesh_model::peer_authentication::MtlsMode;
use wire_kube::kinds::Kind;

use super::{Findings, in_force};
use crate::Domain;
use crate::problem::{Severity, code};
use crate::snapshot::Key;
use crate::snapshot::rules::belong_together;

pub(super) fn check(findings: &mut Findings) {
    let rules: Vec<(&Key, &DestinationRule)> = in_force(findings.store, Kind::DestinationRule)
        .into_iter()
        .filter_map(|(key, domain)| match domain {
            Domain::DestinationRule(rule) => Some((key, &**rule)),
            _ => None,
        })
        .collect();
    let snapshot = findings.snapshot;
    for (key, rule) in &rules {
        let covered = covered(snapshot, key, rule);
        if covered.is_empty() {
            let message = format!(
                "{} matches no service that can be seen from namespace {}",
                rule.host, key.namespace
            );
            findings.add(
                key,
                Severity::Warning,
                code::UNKNOWN_RULE_HOST,
                "spec.host",
                message,
            );
        }
        for service in covered {
            subsets(findings, key, rule, service);
            mutual_tls(findings, key, rule, service);
        }
    }
    contradictions(findings, &rules);
}

/// The services that a rule is for, as its namespace sees them.
fn covered<'a>(
    snapshot: &'a Snapshot,
    key: &'a Key,
    rule: &DestinationRule,
) -> Vec<&'a Arc<Service>> {
    if !rule.host.is_wildcard() {
        return snapshot
            .service(rule.host.as_str(), &key.namespace)
            .into_iter()
            .collect();
    }
    let visible = snapshot.visible_services(&key.namespace);
    visible
        .filter(|s| rule.host.covers(s.host.as_str()))
        .collect()
}

/// Silent for a service that has no endpoints at all, which is nobody's mistake.
fn subsets(findings: &mut Findings, key: &Key, rule: &DestinationRule, service: &Service) {
    let Some(endpoints) = findings.snapshot.endpoints_of(service) else {
        return;
    };
    let mut all = endpoints
        .ports
        .values()
        .flat_map(|list| list.iter())
        .peekable();
    if all.peek().is_none() {
        return;
    }
    let all: Vec<_> = all.collect();
    for (index, subset) in rule.subsets.iter().enumerate() {
        if !subset.labels.0.is_empty() && !all.iter().any(|e| subset.labels.selects(&e.labels)) {
            let message = format!(
                "no endpoint of {} has the labels of subset {}: requests for it get 503",
                service.host, subset.name
            );
            findings.add(
                key,
                Severity::Error,
                code::SUBSET_WITHOUT_PODS,
                format!("spec.subsets[{index}]"),
                message,
            );
        }
    }
}

/// Clients that the rule makes speak plaintext to pods that take mutual TLS only, or the reverse.
fn mutual_tls(findings: &mut Findings, key: &Key, rule: &DestinationRule, service: &Service) {
    let snapshot = findings.snapshot;
    let Some(endpoints) = snapshot.endpoints_of(service) else {
        return;
    };
    for port in service.ports.iter() {
        let Some(mode) = client_mode(&rule.policy, port.port.number) else {
            continue;
        };
        let list = endpoints
            .ports
            .get(&port.port.number)
            .into_iter()
            .flat_map(|list| list.iter());
        for endpoint in list.filter(|e| e.mesh_tls) {
            let server = snapshot.mtls_mode(&endpoint.namespace, &endpoint.labels, endpoint.port);
            let conflict = match (mode, server) {
                (ClientTlsMode::Disable, MtlsMode::Strict) => {
                    "sends plaintext, but PeerAuthentication lets its workloads take mutual TLS only: connections are reset"
                }
                (ClientTlsMode::IstioMutual, MtlsMode::Disable) => {
                    "sends mutual TLS, but PeerAuthentication turns it off at its workloads: connections fail"
                }
                _ => continue,
            };
            let message = format!(
                "the rule {conflict} ({} port {})",
                service.host, port.port.number
            );
            findings.add(
                key,
                Severity::Warning,
                code::MTLS_CONFLICT,
                "spec.trafficPolicy",
                message,
            );
            break;
        }
    }
}

fn client_mode(policy: &TrafficPolicy, port: u16) -> Option<ClientTlsMode> {
    let at_port = policy
        .port_level
        .iter()
        .find(|(number, _)| *number == port)
        .map(|(_, policy)| policy);
    at_port.unwrap_or(policy).tls.as_ref().map(|tls| tls.mode)
}

/// What a merge leaves out.
fn contradictions(findings: &mut Findings, rules: &[(&Key, &DestinationRule)]) {
    let mut sorted: Vec<_> = rules.to_vec();
    sorted.sort_by_key(|(_, rule)| rule.meta.precedence());
    for (index, (key, rule)) in sorted.iter().enumerate() {
        let older = || {
            sorted
                .iter()
                .take(index)
                .filter(|(k, r)| k.namespace == key.namespace && belong_together(r, rule))
        };
        let Some((first_key, _)) = older().next() else {
            continue;
        };
        let is_empty = rule.policy == TrafficPolicy::default();
        if !is_empty && older().any(|(_, r)| r.policy != TrafficPolicy::default()) {
            let message = format!(
                "{first_key} is for host {} too and is older, so its trafficPolicy holds and this one does not",
                rule.host
            );
            findings.add(
                key,
                Severity::Warning,
                code::RULE_CONFLICT,
                "spec.trafficPolicy",
                message,
            );
        }
        for (number, subset) in rule.subsets.iter().enumerate() {
            if let Some((other, _)) =
                older().find(|(_, r)| r.subsets.iter().any(|s| s.name == subset.name))
            {
                let message = format!(
                    "{other} has a subset {} for host {} too and is older, so this one does not hold",
                    subset.name, rule.host
                );
                findings.add(
                    key,
                    Severity::Warning,
                    code::RULE_CONFLICT,
                    format!("spec.subsets[{number}].name"),
                    message,
                );
            }
        }
    }
}
