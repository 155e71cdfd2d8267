//! The numbers of one series in one shard, and their sums.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A counter (`sum` alone) or a histogram (counts by bucket).
#[derive(Debug)]
pub(super) struct Cells {
    sum: AtomicU64,
    bounds: Box<[f64]>,
    /// One more than bounds; empty for a counter.
    buckets: Box<[AtomicU64]>,
    touched: AtomicBool,
    holders: AtomicU32,
}

/// Sums over shards.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub sum: u64,
    buckets: Vec<u64>,
}

impl Cells {
    /// A counter for no bounds.
    pub(super) fn new(bounds: &[f64]) -> Self {
        let buckets = if bounds.is_empty() {
            0
        } else {
            bounds.len() + 1
        };
        Self {
            sum: AtomicU64::new(0),
            bounds: bounds.into(),
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            touched: AtomicBool::new(true),
            holders: AtomicU32::new(0),
        }
    }

    pub(super) fn add(&self, amount: u64) {
        self.sum.fetch_add(amount, Ordering::Relaxed);
        self.touched.store(true, Ordering::Relaxed);
    }

    pub(super) fn record(&self, value: u64) {
        self.add(value);
        let bucket = self.bounds.partition_point(|bound| *bound < value as f64);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it was written since the last call, or is held.
    pub(super) fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed) || self.holders.load(Ordering::Relaxed) > 0
    }

    pub(super) fn add_to(&self, totals: &mut Totals) {
        totals.sum = totals.sum.wrapping_add(self.sum.load(Ordering::Relaxed));
        totals.buckets.resize(self.buckets.len(), 0);
        for (total, count) in totals.buckets.iter_mut().zip(&self.buckets) {
            *total += count.load(Ordering::Relaxed);
        }
    }
}

impl Totals {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Number of values up to `bound`, which is one of `bounds`.
    pub(super) fn count_up_to(&self, bounds: &[f64], bound: f64) -> u64 {
        let buckets = bounds.partition_point(|lower| *lower < bound) + 1;
        self.buckets.iter().take(buckets).sum()
    }
}

/// Cells that do not expire while this lives.
#[derive(Debug)]
pub(super) struct Held(Arc<Cells>);

impl Held {
    pub(super) fn new(cells: Arc<Cells>) -> Self {
        cells.holders.fetch_add(1, Ordering::Relaxed);
        Self(cells)
    }

    pub(super) fn add(&self, amount: u64) {
        self.0.add(amount);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.holders.fetch_sub(1, Ordering::Relaxed);
        // The last value shall be seen by at least one scrape interval after the close.
        self.0.touched.store(true, Ordering::Relaxed);
    }
}
