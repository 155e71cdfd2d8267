//! Do two objects of a kind, of which one holds for each scope, claim the same scope of a
//! namespace?

use ingest::{Domain, Key, Severity, code};
use mesh_model::object::{Meta, Selector};
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Units};

pub(super) const RULE: Rule = Rule {
    name: "policy_scope",
    codes: &[
        (code::SCOPE_CONFLICT, Severity::Error),
        (code::SIDECAR_DEFAULT_CONFLICT, Severity::Error),
        (code::SIDECAR_SELECTOR_CONFLICT, Severity::Error),
        (code::TELEMETRY_DEFAULT_CONFLICT, Severity::Error),
        (code::TELEMETRY_SELECTOR_CONFLICT, Severity::Error),
    ],
    docs: "Of two PeerAuthentications, Sidecars or Telemetries of a namespace with the same selector, or both without one, the oldest holds and the other has no effect.",
    reads: &[],
    units: Units::Claims {
        kinds: &[Kind::PeerAuthentication, Kind::Sidecar, Kind::Telemetry],
        claims,
        check,
    },
};

/// Metadata and selector of a policy that holds for the workloads that it selects, or for a whole
/// namespace.
pub(super) fn scope(domain: &Domain) -> Option<(&Meta, Option<&Selector>)> {
    match domain {
        Domain::PeerAuthentication(p) => Some((&p.meta, p.selector.as_ref())),
        Domain::AuthorizationPolicy(p) => Some((&p.meta, p.selector.as_ref())),
        Domain::Sidecar(s) => Some((&s.meta, s.workload_selector.as_ref())),
        Domain::Telemetry(t) => Some((&t.meta, t.selector.as_ref())),
        _ => None,
    }
}

fn claims(key: &Key, domain: &Domain) -> Vec<String> {
    let Some((_, selector)) = scope(domain) else {
        return Vec::new();
    };
    let labels = selector.map(|selector| {
        let labels = selector.0.iter().map(|(k, v)| format!("{k}={v}"));
        labels.collect::<Vec<_>>().join(",")
    });
    let labels = labels.map_or("-".to_owned(), |labels| format!("({labels})"));
    vec![format!("{} {} {labels}", key.kind, key.namespace)]
}

fn codes(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Sidecar => (
            code::SIDECAR_DEFAULT_CONFLICT,
            code::SIDECAR_SELECTOR_CONFLICT,
        ),
        Kind::Telemetry => (
            code::TELEMETRY_DEFAULT_CONFLICT,
            code::TELEMETRY_SELECTOR_CONFLICT,
        ),
        _ => (code::SCOPE_CONFLICT, code::SCOPE_CONFLICT),
    }
}

fn check(cx: &mut Cx, _scope: &str, objects: &[(&Key, &Domain)]) {
    let mut policies: Vec<(&Key, (&Meta, Option<&Selector>))> = objects
        .iter()
        .filter_map(|(key, domain)| Some((*key, scope(domain)?)))
        .collect();
    policies.sort_by_key(|(_, (meta, _))| meta.precedence());
    let Some((first, _)) = policies.first().copied() else {
        return;
    };
    for (key, (_, selector)) in policies.iter().skip(1) {
        let (of_defaults, of_selectors) = codes(key.kind);
        let (code, what) = match selector {
            None => (of_defaults, "has no selector either"),
            Some(_) => (of_selectors, "has the same selector"),
        };
        let message = format!("{first} {what} and is older, so it holds and this one does not");
        cx.say(key, code, "spec", message);
    }
}
