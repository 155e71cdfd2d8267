//! Policies and Sidecars: do their selectors select something; does more than one claim the same workloads?

use mesh_model::object::{Meta, Selector};
use wire_kube::kinds::Kind;

use super::{Findings, in_force};
use crate::Domain;
use crate::problem::{Severity, code};
use crate::snapshot::Key;

pub(super) fn check(findings: &mut Findings) {
    let one_each = [
        (
            Kind::PeerAuthentication,
            code::SCOPE_CONFLICT,
            code::SCOPE_CONFLICT,
        ),
        (
            Kind::Sidecar,
            code::SIDECAR_DEFAULT_CONFLICT,
            code::SIDECAR_SELECTOR_CONFLICT,
        ),
        (
            Kind::Telemetry,
            code::TELEMETRY_DEFAULT_CONFLICT,
            code::TELEMETRY_SELECTOR_CONFLICT,
        ),
    ];
    for (kind, of_defaults, of_selectors) in one_each {
        one_for_each_scope(findings, kind, of_defaults, of_selectors);
    }
    let root = findings.snapshot.mesh.root_namespace.clone();
    for kind in [
        Kind::PeerAuthentication,
        Kind::AuthorizationPolicy,
        Kind::Sidecar,
        Kind::Telemetry,
    ] {
        for (key, domain) in in_force(findings.store, kind) {
            let Some((_, Some(selector))) = scope(domain) else {
                continue;
            };
            let everywhere = kind == Kind::AuthorizationPolicy && key.namespace == root;
            let namespace = (!everywhere).then_some(&*key.namespace);
            let path = if kind == Kind::Sidecar {
                "spec.workloadSelector"
            } else {
                "spec.selector"
            };
            findings.check_selector(key, path, namespace, selector);
        }
    }
}

fn scope(domain: &Domain) -> Option<(&Meta, Option<&Selector>)> {
    match domain {
        Domain::PeerAuthentication(p) => Some((&p.meta, p.selector.as_ref())),
        Domain::AuthorizationPolicy(p) => Some((&p.meta, p.selector.as_ref())),
        Domain::Sidecar(s) => Some((&s.meta, s.workload_selector.as_ref())),
        Domain::Telemetry(t) => Some((&t.meta, t.selector.as_ref())),
        _ => None,
    }
}

/// Of two for the same scope of a namespace, the oldest holds.
fn one_for_each_scope(
    findings: &mut Findings,
    kind: Kind,
    of_defaults: &'static str,
    of_selectors: &'static str,
) {
    let mut claims: Vec<(&Key, &Meta, Option<&Selector>)> = in_force(findings.store, kind)
        .into_iter()
        .filter_map(|(key, domain)| scope(domain).map(|(meta, selector)| (key, meta, selector)))
        .collect();
    claims.sort_by_key(|(_, meta, _)| meta.precedence());
    for (index, (key, _, selector)) in claims.iter().enumerate() {
        let first = claims
            .iter()
            .take(index)
            .find(|(k, _, s)| k.namespace == key.namespace && s == selector);
        let Some((first, _, _)) = first else { continue };
        let (code, what) = match selector {
            None => (of_defaults, "has no selector either"),
            Some(_) => (of_selectors, "has the same selector"),
        };
        findings.add(
            key,
            Severity::Error,
            code,
            "spec",
            format!("{first} {what} and is older, so it holds and this one does not"),
        );
    }
}
