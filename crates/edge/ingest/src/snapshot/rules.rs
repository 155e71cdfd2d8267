//! DestinationRules of one namespace for one host become one, so that teams can keep subsets apart (reference 1.2).
//!
//! Only rules with equal exports and selectors are put together. The oldest one's policy holds; of subsets with one name, the
//! oldest one. What is overruled is reported by analysis.

use std::sync::Arc;

use mesh_model::destination_rule::{DestinationRule, Subset, TrafficPolicy};
use mesh_model::snapshot::ByNamespace;
use mesh_model::{Snapshot, VirtualService};
use wire_kube::kinds::Kind;

use super::{Store, delegates, index};

impl Store {
    pub(super) fn destination_rules(
        &self,
        before: Option<&Snapshot>,
    ) -> Arc<ByNamespace<DestinationRule>> {
        let known = before.map(|b| &b.destination_rules);
        let mut lists = self.by_namespace(Kind::DestinationRule, known, index::destination_rule);
        if known.is_some_and(|known| Arc::ptr_eq(known, &lists)) {
            return lists;
        }
        let merged = Arc::make_mut(&mut lists);
        for (namespace, list) in merged.iter_mut() {
            let untouched = known
                .and_then(|k| k.get(namespace))
                .is_some_and(|k| Arc::ptr_eq(k, list));
            if !untouched {
                *list = merge(list);
            }
        }
        lists
    }

    /// With delegates in their roots' place. Delegates change roots in any namespace, so a change costs all of them.
    pub(super) fn virtual_services(
        &self,
        before: Option<&Snapshot>,
    ) -> Arc<ByNamespace<VirtualService>> {
        if let Some(before) = before
            && !self.dirty.has_kind(Kind::VirtualService)
        {
            return before.virtual_services.clone();
        }
        let lists = self.by_namespace(Kind::VirtualService, None, index::virtual_service);
        let mut out = ByNamespace::new();
        for (namespace, list) in lists.iter() {
            let roots = list.iter().filter(|vs| !vs.hosts.is_empty());
            let merged: Vec<Arc<VirtualService>> =
                roots.map(|root| delegates::merged(self, root)).collect();
            if merged.is_empty() {
                continue;
            }
            let known = before
                .and_then(|b| b.virtual_services.get(namespace))
                .filter(|k| k[..] == merged[..]);
            out.insert(
                namespace.clone(),
                known.cloned().unwrap_or_else(|| merged.into()),
            );
        }
        Arc::new(out)
    }
}

fn merge(rules: &[Arc<DestinationRule>]) -> Arc<[Arc<DestinationRule>]> {
    let mut merged: Vec<Arc<DestinationRule>> = Vec::new();
    for rule in rules {
        match merged.iter_mut().find(|first| belong_together(first, rule)) {
            Some(first) => *first = Arc::new(together(first, rule)),
            None => merged.push(rule.clone()),
        }
    }
    merged.into()
}

/// Are two rules of one namespace put together into one?
pub fn belong_together(a: &DestinationRule, b: &DestinationRule) -> bool {
    a.host == b.host && a.export_to == b.export_to && a.workload_selector == b.workload_selector
}

fn together(first: &DestinationRule, later: &DestinationRule) -> DestinationRule {
    let policy = if first.policy == TrafficPolicy::default() {
        later.policy.clone()
    } else {
        first.policy.clone()
    };
    let mut subsets: Vec<Subset> = first.subsets.to_vec();
    subsets.extend(
        later
            .subsets
            .iter()
            .filter(|s| !first.subsets.iter().any(|known| known.name == s.name))
            .cloned(),
    );
    DestinationRule {
        policy,
        subsets: subsets.into(),
        ..first.clone()
    }
}
