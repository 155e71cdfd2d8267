//! Do different selectors of a kind, of which one object holds for each workload, select the same
//! one?

use ingest::{Domain, Key, Severity, code};
use mesh_model::object::{Meta, Selector};
use wire_kube::kinds::Kind;

use super::policy_scope::scope;
use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "policy_overlap",
    codes: &[
        (code::SIDECAR_SELECTOR_CONFLICT, Severity::Error),
        (code::TELEMETRY_SELECTOR_CONFLICT, Severity::Error),
    ],
    docs: "Two Sidecars or Telemetries of a namespace have different selectors, and a workload has the labels of both. The oldest holds for it, and the other does not.",
    reads: &[Source::Workloads],
    units: Units::Claims {
        kinds: &[Kind::Sidecar, Kind::Telemetry],
        claims,
        check,
    },
};

fn claims(key: &Key, domain: &Domain) -> Vec<String> {
    let selects = scope(domain).is_some_and(|(_, selector)| selector.is_some());
    let claim = selects.then(|| format!("{} {}", key.kind, key.namespace));
    claim.into_iter().collect()
}

fn check(cx: &mut Cx, _claim: &str, objects: &[(&Key, &Domain)]) {
    let mut policies: Vec<(&Key, &Meta, &Selector)> = objects
        .iter()
        .filter_map(|(key, domain)| {
            let (meta, selector) = scope(domain)?;
            Some((*key, meta, selector?))
        })
        .collect();
    policies.sort_by_key(|(_, meta, _)| meta.precedence());
    let Some(namespace) = policies.first().map(|(key, ..)| key.namespace.clone()) else {
        return;
    };
    let workloads: Vec<_> = cx.workloads(&namespace).collect();
    for (index, (key, _, selector)) in policies.iter().enumerate() {
        let older = policies
            .iter()
            .take(index)
            .filter(|(_, _, other)| other != selector);
        let found = older.into_iter().find_map(|(first, _, other)| {
            let both = workloads
                .iter()
                .find(|(_, labels)| selector.selects(labels) && other.selects(labels));
            both.map(|(name, _)| (*first, (*name).clone()))
        });
        if let Some((first, workload)) = found {
            let code = match key.kind {
                Kind::Sidecar => code::SIDECAR_SELECTOR_CONFLICT,
                _ => code::TELEMETRY_SELECTOR_CONFLICT,
            };
            let message = format!(
                "{first} selects the workload {workload} too and is older, so it holds there and this one does not"
            );
            cx.say(key, code, "spec", message);
        }
    }
}
