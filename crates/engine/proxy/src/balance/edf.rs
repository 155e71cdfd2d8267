//! Earliest deadline first: turns in proportion to weights, spread as evenly as possible.
//!
//! Each entry's next turn is `1 / weight` after its last one; the entry whose turn is due first is
//! next, and among equals the one that waited longest. Weights may change between turns. Envoy's
//! scheduler for weighted hosts and localities.

use std::{cmp::Ordering, collections::BinaryHeap};

#[derive(Debug, Default)]
pub struct Edf {
    now: f64,
    order: u64,
    queue: BinaryHeap<Turn>,
}

#[derive(Debug)]
struct Turn {
    deadline: f64,
    order: u64,
    entry: usize,
}

impl Edf {
    /// Schedules entries `0..weights.len()`; those without weight never have a turn.
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut edf = Self::default();
        for (entry, weight) in weights.into_iter().enumerate() {
            edf.push(entry, weight);
        }
        edf
    }

    /// The entry whose turn it is. `weight`: that of the entry from now on.
    pub fn next(&mut self, weight: impl Fn(usize) -> f64) -> Option<usize> {
        let Turn {
            deadline, entry, ..
        } = self.queue.pop()?;
        self.now = deadline;
        self.push(entry, weight(entry));
        Some(entry)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    fn push(&mut self, entry: usize, weight: f64) {
        if weight > 0.0 {
            self.order += 1;
            self.queue.push(Turn {
                deadline: self.now + 1.0 / weight,
                order: self.order,
                entry,
            });
        }
    }
}

/// The heap's greatest is the turn that is due first.
impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_are_spread_by_weight() {
        let weights = [1.0, 2.0, 0.0];
        let mut edf = Edf::new(weights);
        let turns: Vec<usize> = (0..6)
            .filter_map(|_| edf.next(|entry| weights[entry]))
            .collect();
        assert_eq!(turns, [1, 0, 1, 1, 0, 1]);
        assert_eq!((edf.len(), Edf::default().next(|_| 1.0)), (2, None));
    }

    proptest! {
        /// After any number of turns nobody is further than one turn from its share.
        #[test]
        fn shares_are_kept_at_every_moment(weights in prop::collection::vec(1u32..50, 1..12), turns in 1usize..400) {
            let weight = |entry: usize| f64::from(weights[entry]);
            let mut edf = Edf::new(weights.iter().map(|w| f64::from(*w)));
            let mut counts = vec![0usize; weights.len()];
            for _ in 0..turns {
                counts[edf.next(weight).unwrap()] += 1;
            }
            // All clocks agree: an entry has had floor(now × weight) turns, give or take the one at
            // this very moment.
            for (entry, count) in counts.into_iter().enumerate() {
                let due = edf.now * weight(entry);
                prop_assert!((count as f64 - due).abs() <= 1.0 + 1e-6, "{count} turns of {due}");
            }
        }
    }
}
