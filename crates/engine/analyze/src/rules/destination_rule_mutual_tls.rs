//! Do clients that a DestinationRule governs speak what the pods take by PeerAuthentication?

use ingest::{Domain, Key, Severity, code};
use mesh_model::destination_rule::{ClientTlsMode, TrafficPolicy};
use mesh_model::peer_authentication::MtlsMode;
use mesh_model::workload::Endpoint;
use mesh_model::{Selector, Service};
use wire_kube::kinds::Kind;

use super::destination_rule_host::covered;
use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "destination_rule_mutual_tls",
    codes: &[(code::MTLS_CONFLICT, Severity::Warning)],
    docs: "The rule, or a subset of it, makes clients speak plaintext or TLS that the pods behind it refuse (PeerAuthentication STRICT), or mutual TLS that they do not speak (DISABLE, or no sidecar). Connections fail.",
    reads: &[
        Source::Services,
        Source::Endpoints,
        Source::Objects(Kind::PeerAuthentication),
        Source::Objects(Kind::Gateway),
    ],
    units: Units::Each {
        kinds: &[Kind::DestinationRule],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::DestinationRule(rule) = domain else {
        return;
    };
    let whole = ("spec.trafficPolicy".to_owned(), &rule.policy, None);
    let subsets = rule.subsets.iter().enumerate().map(|(index, subset)| {
        let path = format!("spec.subsets[{index}].trafficPolicy");
        (path, &subset.policy, Some(&subset.labels))
    });
    let policies: Vec<_> = std::iter::once(whole)
        .chain(subsets)
        .filter(|(_, policy, _)| speaks_of_tls(policy))
        .collect();
    if policies.is_empty() {
        return;
    }
    for service in covered(cx, key, rule) {
        for (path, policy, labels) in &policies {
            mutual_tls(cx, key, service, (path, policy, *labels));
        }
    }
}

fn speaks_of_tls(policy: &TrafficPolicy) -> bool {
    policy.tls.is_some()
        || policy
            .port_level
            .iter()
            .any(|(_, policy)| policy.tls.is_some())
}

fn mutual_tls(
    cx: &mut Cx,
    key: &Key,
    service: &Service,
    (path, policy, labels): (&str, &TrafficPolicy, Option<&Selector>),
) {
    for port in service.ports.iter().map(|port| port.port.number) {
        let Some(mode) = client_mode(policy, port) else {
            continue;
        };
        if let Some(conflict) = conflict_at(cx, service, port, mode, labels) {
            let message = format!("the rule {conflict} ({} port {port})", service.host);
            cx.say(key, code::MTLS_CONFLICT, path, message);
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

/// What goes wrong at the first endpoint that does not take what clients send.
fn conflict_at(
    cx: &mut Cx,
    service: &Service,
    port: u16,
    mode: ClientTlsMode,
    subset: Option<&Selector>,
) -> Option<&'static str> {
    let endpoints = cx.endpoints_of(service)?.ports.get(&port)?;
    let of_subset = |e: &&Endpoint| subset.is_none_or(|labels| labels.selects(&e.labels));
    endpoints.iter().filter(of_subset).find_map(|endpoint| {
        let server = cx.mtls_mode(&endpoint.namespace, &endpoint.labels, endpoint.port);
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
                if !endpoint.labels.is_empty() && cx.gateways_of(&endpoint.labels).is_empty() =>
            {
                Some(
                    "sends mutual TLS, but one of its workloads has no sidecar: connections to it fail",
                )
            }
            _ => None,
        }
    })
}
