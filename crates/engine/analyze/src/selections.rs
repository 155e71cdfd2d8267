//! Which selectors select something, and where: counted once, then kept up with the workloads that
//! come and go.
//!
//! Pods come and go all the time, and almost never change the answer. So a check that asks is only
//! repeated when the set of namespaces in which its selector selects something is another one.

use std::collections::{BTreeMap, HashMap};

use mesh_model::Snapshot;
use mesh_model::object::{Selector, Text};

/// A question: workloads of this namespace (of all, for `None`) with these labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Selection {
    pub namespace: Option<Text>,
    pub selector: Selector,
}

impl Selection {
    fn selects(&self, snapshot: &Snapshot, id: &(Text, Text)) -> bool {
        self.namespace.as_ref().is_none_or(|only| *only == id.0)
            && snapshot
                .workloads
                .get(id)
                .is_some_and(|workload| self.selector.selects(&workload.labels))
    }
}

/// For each question that was asked: namespace → how many workloads there.
#[derive(Debug, Default)]
pub(crate) struct Selections(HashMap<Selection, BTreeMap<Text, usize>>);

impl Selections {
    pub fn namespaces(&mut self, selection: Selection, snapshot: &Snapshot) -> Vec<Text> {
        let counts = self.0.entry(selection).or_insert_with_key(|selection| {
            let mut counts = BTreeMap::new();
            for id in snapshot.workloads.keys() {
                if selection.selects(snapshot, id) {
                    *counts.entry(id.0.clone()).or_default() += 1;
                }
            }
            counts
        });
        counts.keys().cloned().collect()
    }

    /// Takes a change of workloads into account; the questions that have another answer now.
    pub fn update<'a>(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        workloads: impl IntoIterator<Item = &'a (Text, Text)>,
    ) -> Vec<Selection> {
        let workloads: Vec<_> = workloads.into_iter().collect();
        let mut others = Vec::new();
        for (selection, counts) in &mut self.0 {
            let mut is_other = false;
            for id in &workloads {
                match (selection.selects(before, id), selection.selects(after, id)) {
                    (false, true) => {
                        let count = counts.entry(id.0.clone()).or_default();
                        *count += 1;
                        is_other |= *count == 1;
                    }
                    (true, false) => {
                        let count = counts.entry(id.0.clone()).or_default();
                        *count = count.saturating_sub(1);
                        if *count == 0 {
                            counts.remove(&id.0);
                            is_other = true;
                        }
                    }
                    _ => {}
                }
            }
            if is_other {
                others.push(selection.clone());
            }
        }
        others
    }

    /// Nobody asks any more.
    pub fn forget(&mut self, selection: &Selection) {
        self.0.remove(selection);
    }
}
