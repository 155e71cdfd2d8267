//! What was generated, by what it was generated from.
//!
//! An entry is found by name, then by equality of its inputs, so that proxies which may know the
//! same things share the same bytes from the first connect on. Entries that nobody asked for during
//! the last snapshots and whose output nobody holds are dropped, and there are never more than
//! `MAX_VARIANTS` per name.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Proxies of one role in one namespace usually share a variant; labels, localities and Sidecar
/// resources make others.
const MAX_VARIANTS: usize = 256;
/// Snapshots that an entry survives unused.
const KEPT_SNAPSHOTS: u64 = 2;

/// What may be in use outside of the memo.
pub trait Held {
    fn is_held(&self) -> bool;
}

pub struct Memo<I, O> {
    entries: Mutex<Entries<I, O>>,
}

/// The variants of each name.
type Entries<I, O> = HashMap<Arc<str>, Vec<Entry<I, O>>>;

struct Entry<I, O> {
    inputs: I,
    output: O,
    used_in: u64,
}

impl<I, O: Held> Entry<I, O> {
    fn is_wanted(&self, snapshot: u64) -> bool {
        self.used_in + KEPT_SNAPSHOTS >= snapshot || self.output.is_held()
    }
}

impl<I, O> Default for Memo<I, O> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
        }
    }
}

impl<I: PartialEq, O: Clone + Held> Memo<I, O> {
    /// The output for `inputs`, made by `make` unless it exists. `snapshot` is the version that is
    /// being served.
    pub fn output(
        &self,
        name: &Arc<str>,
        inputs: I,
        snapshot: u64,
        make: impl FnOnce(&I) -> O,
    ) -> O {
        if let Some(found) = self.find(name, &inputs, snapshot) {
            return found;
        }
        // Made outside the lock: two streams may make the same output at once, which costs time but
        // changes nothing.
        let output = make(&inputs);
        let mut entries = self.entries.lock();
        let variants = entries.entry(name.clone()).or_default();
        variants.retain(|entry| entry.is_wanted(snapshot) && entry.inputs != inputs);
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push(Entry {
            inputs,
            output: output.clone(),
            used_in: snapshot,
        });
        output
    }

    fn find(&self, name: &Arc<str>, inputs: &I, snapshot: u64) -> Option<O> {
        let mut entries = self.entries.lock();
        let entry = entries
            .get_mut(name)?
            .iter_mut()
            .find(|entry| entry.inputs == *inputs)?;
        entry.used_in = entry.used_in.max(snapshot);
        Some(entry.output.clone())
    }

    /// Drops what nobody used lately; returns how many entries are left.
    pub fn sweep(&self, snapshot: u64) -> usize {
        let mut entries = self.entries.lock();
        entries.retain(|_, variants| {
            variants.retain(|entry| entry.is_wanted(snapshot));
            !variants.is_empty()
        });
        entries.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Held for Arc<()> {
        fn is_held(&self) -> bool {
            Arc::strong_count(self) > 1
        }
    }

    #[test]
    fn equal_inputs_are_made_once_and_unused_ones_forgotten_unless_they_are_held() {
        let memo = Memo::default();
        let name: Arc<str> = "clusters".into();
        let mut made = 0;
        let mut output = |inputs, snapshot| {
            memo.output(&name, inputs, snapshot, |_| {
                made += 1;
                Arc::new(())
            })
        };
        for _ in 0..3 {
            output("same", 1);
        }
        let held = output("held", 1);
        output("other", 5);
        assert_eq!(made, 3);
        assert_eq!(memo.sweep(5), 2);
        drop(held);
        assert_eq!(memo.sweep(5), 1);
    }
}
