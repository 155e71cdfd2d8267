//! DestinationRules: is there such a host, do subsets have pods, do rules contradict each other or PeerAuthentication?

use std::sync::Arc;

use mesh_model::destination_rule::{ClientTlsMode, DestinationRule, TrafficPolicy};
use mesh_model::peer_authentication::MtlsMode;
use mesh_model::workload::Endpoint;
use mesh_model::{Selector, Service, Snapshot};
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

/// Clients that the rule, or a subset of it, makes speak what the pods behind it do not take.
fn mutual_tls(findings: &mut Findings, key: &Key, rule: &DestinationRule, service: &Service) {
    let whole = ("spec.trafficPolicy".to_owned(), &rule.policy, None);
    let subsets = rule.subsets.iter().enumerate().map(|(index, subset)| {
        let path = format!("spec.subsets[{index}].trafficPolicy");
        (path, &subset.policy, Some(&subset.labels))
    });
    for (path, policy, labels) in std::iter::once(whole).chain(subsets) {
        for port in service.ports.iter().map(|port| port.port.number) {
            let Some(mode) = client_mode(policy, port) else {
                continue;
            };
            if let Some(conflict) = conflict_at(findings.snapshot, service, port, mode, labels) {
                let message = format!("the rule {conflict} ({} port {port})", service.host);
                findings.add(
                    key,
                    Severity::Warning,
                    code::MTLS_CONFLICT,
                    path.as_str(),
                    message,
                );
            }
        }
    }
}

/// What goes wrong at the first endpoint that does not take what clients send.
fn conflict_at(
    snapshot: &Snapshot,
    service: &Service,
    port: u16,
    mode: ClientTlsMode,
    subset: Option<&Selector>,
) -> Option<&'static str> {
    let endpoints = snapshot.endpoints_of(service)?.ports.get(&port)?;
    let of_subset = |e: &&Endpoint| subset.is_none_or(|labels| labels.selects(&e.labels));
    endpoints.iter().filter(of_subset).find_map(|endpoint| {
        let server = snapshot.mtls_mode(&endpoint.namespace, &endpoint.labels, endpoint.port);
        match (mode, endpoint.mesh_tls, server) {
            (ClientTlsMode::Disable, true, MtlsMode::Strict) => Some(
                "sends plaintext, but PeerAuthentication lets its workloads take mutual TLS only: connections are reset",
            ),
            (ClientTlsMode::Simple | ClientTlsMode::Mutual, true, MtlsMode::Strict) => Some(
                "sends TLS with other certificates than the mesh's, but PeerAuthentication lets its workloads take mutual TLS of the mesh only: connections are reset",
            ),
            (ClientTlsMode::IstioMutual, true, MtlsMode::Disable) => Some(
                "sends mutual TLS, but PeerAuthentication turns it off at its workloads: connections fail",
            ),
            // Gateways take it without saying so.
            (ClientTlsMode::IstioMutual, false, _)
                if !endpoint.labels.is_empty() && snapshot.gateways_of(&endpoint.labels).is_empty() =>
            {
                Some(
                    "sends mutual TLS, but one of its workloads has no sidecar: connections to it fail",
                )
            }
            _ => None,
        }
    })
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
