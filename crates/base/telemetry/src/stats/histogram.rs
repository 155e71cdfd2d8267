//! Histograms: values counted in bins of two significant decimal digits, as Envoy's circllhist.
//!
//! 90 bins per power of ten, allocated per worker and power when first used. Quantiles interpolate
//! inside a bin; bucket counts are exact for bucket bounds of two significant digits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::cells::{add_to, current_slot};

const BINS: usize = 90;
const DECADES: usize = 20;

/// The quantiles of Envoy's outputs.
pub(super) const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// A distribution of integer values.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Recorder>);

impl Histogram {
    pub(super) fn new(recorder: Arc<Recorder>) -> Self {
        Self(recorder)
    }

    /// Counts one value.
    pub fn record(&self, value: u64) {
        self.0.record(value);
    }

    /// What was counted since the start.
    pub fn summary(&self) -> HistogramSummary {
        self.0.cumulative()
    }
}

#[derive(Debug)]
pub(super) struct Recorder {
    slots: Box<[OnceLock<Box<Slot>>]>,
    interval: Mutex<Interval>,
}

#[derive(Debug, Default)]
struct Slot {
    zeros: AtomicU64,
    sum: AtomicU64,
    decades: [OnceLock<Box<[AtomicU64]>>; DECADES],
}

#[derive(Debug, Default)]
struct Interval {
    at_flush: HistogramSummary,
    last: HistogramSummary,
}

/// Counts by bin, added over all workers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistogramSummary {
    /// Number of values.
    pub count: u64,
    /// Sum of all values (wrapping).
    pub sum: u64,
    zeros: u64,
    /// By (power of ten, bin).
    bins: BTreeMap<(u8, u8), u64>,
}

impl Recorder {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots.max(1)).map(|_| OnceLock::new()).collect(),
            interval: Mutex::default(),
        }
    }

    fn record(&self, value: u64) {
        let (slot, exclusive) = current_slot(self.slots.len());
        let Some(slot) = self.slots.get(slot) else {
            return;
        };
        let slot = slot.get_or_init(Box::default);
        add_to(&slot.sum, value, exclusive);
        let Some(power) = value.checked_ilog10() else {
            return add_to(&slot.zeros, 1, exclusive);
        };
        let Some(decade) = slot.decades.get(power as usize) else {
            return;
        };
        let bins = decade.get_or_init(|| (0..BINS).map(|_| AtomicU64::new(0)).collect());
        let digits = match power {
            0 => value * 10,
            _ => value / 10u64.pow(power - 1),
        };
        if let Some(bin) = bins.get((digits as usize).saturating_sub(10)) {
            add_to(bin, 1, exclusive);
        }
    }

    pub(super) fn cumulative(&self) -> HistogramSummary {
        let mut summary = HistogramSummary::default();
        for slot in self.slots.iter().filter_map(OnceLock::get) {
            summary.sum = summary.sum.wrapping_add(slot.sum.load(Ordering::Relaxed));
            summary.zeros += slot.zeros.load(Ordering::Relaxed);
            for (power, bins) in slot
                .decades
                .iter()
                .enumerate()
                .filter_map(|(power, bins)| Some((power, bins.get()?)))
            {
                for (bin, cell) in bins.iter().enumerate() {
                    let count = cell.load(Ordering::Relaxed);
                    if count > 0 {
                        *summary.bins.entry((power as u8, bin as u8)).or_default() += count;
                    }
                }
            }
        }
        summary.count = summary.zeros + summary.bins.values().sum::<u64>();
        summary
    }

    pub(super) fn interval(&self) -> HistogramSummary {
        self.interval.lock().last.clone()
    }

    pub(super) fn flush(&self) {
        let now = self.cumulative();
        let mut interval = self.interval.lock();
        interval.last = now.since(&interval.at_flush);
        interval.at_flush = now;
    }
}

impl HistogramSummary {
    fn since(&self, before: &Self) -> Self {
        let bins = self.bins.iter().filter_map(|(bin, count)| {
            let grown = count.saturating_sub(before.bins.get(bin).copied().unwrap_or(0));
            (grown > 0).then_some((*bin, grown))
        });
        Self {
            count: self.count.saturating_sub(before.count),
            sum: self.sum.wrapping_sub(before.sum),
            zeros: self.zeros.saturating_sub(before.zeros),
            bins: bins.collect(),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.zeros += other.zeros;
        for (bin, count) in &other.bins {
            *self.bins.entry(*bin).or_default() += count;
        }
    }

    /// The value below which the fraction `quantile` (0 to 1) of the values lies; `None` when
    /// nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let target = quantile.clamp(0.0, 1.0) * self.count as f64;
        let mut below = self.zeros as f64;
        if self.zeros > 0 && target <= below {
            return Some(0.0);
        }
        let mut last = 0.0;
        for ((power, bin), count) in &self.bins {
            let (left, width) = bounds(*power, *bin);
            let count = *count as f64;
            if target <= below + count {
                return Some(tidy(left + width * (target - below) / count));
            }
            below += count;
            last = left + width;
        }
        Some(tidy(last))
    }

    /// Number of values that are at most `bound`. Exact when `bound` is the lower edge of a bin of
    /// width 1 or lies between bins; values of a wider bin that starts at `bound` count only when
    /// they equal it, which is unknown, so no.
    pub fn count_up_to(&self, bound: f64) -> u64 {
        let within = self.bins.iter().filter(|((power, bin), _)| {
            let (left, width) = bounds(*power, *bin);
            // Values are integers, so a bin narrower than 2 holds one value only: its left edge.
            if width <= 1.0 {
                left <= bound
            } else {
                left + width <= bound + 1.0
            }
        });
        if bound < 0.0 {
            0
        } else {
            self.zeros + within.map(|(_, count)| count).sum::<u64>()
        }
    }
}

/// Left edge and width of a bin.
fn bounds(power: u8, bin: u8) -> (f64, f64) {
    let width = 10f64.powi(i32::from(power) - 1);
    ((10.0 + f64::from(bin)) * width, width)
}

/// Rounds away what binary fractions add (2.3000000000000003), keeping twelve significant digits.
fn tidy(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(values: &[u64]) -> Recorder {
        let recorder = Recorder::new(2);
        values.iter().for_each(|value| recorder.record(*value));
        recorder
    }

    #[test]
    fn one_value_spreads_over_its_bin() {
        let summary = recorder(&[2]).cumulative();
        assert_eq!((summary.count, summary.sum), (1, 2));
        assert_eq!(summary.quantile(0.0), Some(2.0));
        assert_eq!(summary.quantile(0.25), Some(2.025));
        assert_eq!(summary.quantile(1.0), Some(2.1));
        assert_eq!(HistogramSummary::default().quantile(0.5), None);
    }

    #[test]
    fn counts_up_to_envoys_bounds_are_exact_for_small_values() {
        let summary =
            recorder(&[0, 1, 5, 10, 11, 25, 99, 100, 250, 259, 1000, u64::MAX]).cumulative();
        let counts: Vec<u64> = [0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 500.0, 2500.0]
            .map(|b| summary.count_up_to(b))
            .into();
        assert_eq!(counts, [1, 2, 3, 4, 6, 6, 7, 10, 11]);
        assert_eq!(summary.count_up_to(f64::INFINITY), 12);
    }

    #[test]
    fn an_interval_is_what_came_between_two_flushes() {
        let recorder = recorder(&[5]);
        recorder.flush();
        recorder.record(70);
        recorder.flush();
        assert_eq!(recorder.interval().quantile(0.0), Some(70.0));
        assert_eq!(recorder.cumulative().quantile(0.0), Some(5.0));
        recorder.flush();
        assert_eq!(recorder.interval().count, 0);
    }
}
