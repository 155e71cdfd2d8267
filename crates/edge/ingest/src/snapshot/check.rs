//! Problems that only show when objects are seen together: references to nothing, conflicts, rules without effect.
//!
//! Nothing here changes what the snapshot says; each finding is attached to the object whose author can mend it. Checks of
//! references look at the newest version of an object and only when that version is the one in force.

use std::collections::BTreeMap;

use mesh_model::Snapshot;
use mesh_model::object::Selector;
use wire_kube::kinds::Kind;

use super::{Key, Store};
use crate::problem::{Problem, Severity};
use crate::{Domain, code};

mod gateways;
mod policies;
mod routes;
mod rules;

/// What has been found so far.
pub(super) struct Findings<'a> {
    pub store: &'a Store,
    pub snapshot: &'a Snapshot,
    by_key: BTreeMap<Key, Vec<Problem>>,
}

pub(super) fn problems(store: &Store, snapshot: &Snapshot) -> BTreeMap<Key, Vec<Problem>> {
    let mut findings = Findings {
        store,
        snapshot,
        by_key: BTreeMap::new(),
    };
    routes::check(&mut findings);
    rules::check(&mut findings);
    gateways::check(&mut findings);
    policies::check(&mut findings);
    for list in findings.by_key.values_mut() {
        list.sort();
        list.dedup();
    }
    findings.by_key
}

impl Findings<'_> {
    fn add(
        &mut self,
        key: &Key,
        severity: Severity,
        code: &'static str,
        path: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.by_key
            .entry(key.clone())
            .or_default()
            .push(Problem::new(severity, code, path, message));
    }

    /// A selector that selects no workload of `namespace` (of any, when it is `None`). Silent while nothing runs at all.
    fn check_selector(
        &mut self,
        key: &Key,
        path: &str,
        namespace: Option<&str>,
        selector: &Selector,
    ) {
        let workloads = &self.snapshot.workloads;
        let mut here = workloads
            .values()
            .filter(|w| namespace.is_none_or(|n| &*w.namespace == n));
        if workloads.is_empty() || here.any(|w| selector.selects(&w.labels)) {
            return;
        }
        let wanted: Vec<String> = selector.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let place = namespace
            .map(|n| format!(" in namespace {n}"))
            .unwrap_or_default();
        self.add(
            key,
            Severity::Warning,
            code::NO_MATCHING_WORKLOADS,
            path,
            format!("no workload{place} has the labels {}", wanted.join(", ")),
        );
    }
}

/// Objects of a kind whose newest version is the one in force.
fn in_force(store: &Store, kind: Kind) -> Vec<(&Key, &Domain)> {
    let current = |key: &Key| {
        store
            .entries
            .get(key)
            .is_some_and(|e| !e.problems.iter().any(|p| p.severity == Severity::Error))
    };
    store
        .of_kind(kind)
        .filter(|(key, _)| current(key))
        .collect()
}
