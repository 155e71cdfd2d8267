//! Latencies in buckets, so that memory does not grow with the number of requests: 32 buckets per power of two, so quantiles are right to 3 %.

use std::time::Duration;

use serde_json::{Value, json};

/// Buckets per power of two.
const STEPS: u64 = 32;
/// Enough for 2^36 µs, 19 hours.
const BUCKETS: usize = (32 * 32) as usize;

pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    sum_micros: u128,
    least_micros: u64,
    most_micros: u64,
}

impl Latencies {
    pub fn new() -> Self {
        Latencies {
            buckets: vec![0; BUCKETS],
            count: 0,
            sum_micros: 0,
            least_micros: u64::MAX,
            most_micros: 0,
        }
    }

    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket(micros).min(BUCKETS - 1)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum_micros += u128::from(micros);
        self.least_micros = self.least_micros.min(micros);
        self.most_micros = self.most_micros.max(micros);
    }

    /// Milliseconds, or null without any.
    pub fn report(&self) -> Value {
        if self.count == 0 {
            return Value::Null;
        }
        let quantile = |q| millis(self.quantile_micros(q));
        json!({
            "min": millis(self.least_micros), "mean": millis((self.sum_micros / u128::from(self.count)) as u64), "max": millis(self.most_micros),
            "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99), "p999": quantile(0.999),
        })
    }

    fn quantile_micros(&self, quantile: f64) -> u64 {
        let wanted = (quantile * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(index).min(self.most_micros);
            }
        }
        self.most_micros
    }
}

/// Values below 32 µs have a bucket each; above, 32 for each doubling.
fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let exponent = u64::from(micros.ilog2()) - 5;
    (exponent * STEPS + (micros >> exponent)) as usize
}

/// The largest value of a bucket.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let exponent = index / STEPS - 1;
    let step = index - exponent * STEPS;
    ((step + 1) << exponent) - 1
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_percent() {
        let mut latencies = Latencies::new();
        for micros in 1..=100_000 {
            latencies.add(Duration::from_micros(micros));
        }
        for (quantile, exact) in [(0.5, 50_000.0), (0.9, 90_000.0), (0.99, 99_000.0)] {
            let got = latencies.quantile_micros(quantile) as f64;
            assert!((got / exact - 1.0).abs() < 0.032, "{quantile}: {got}");
        }
        assert_eq!(latencies.report()["max"], 100.0);
    }

    #[test]
    fn buckets_are_gapless() {
        for micros in 0..10_000_u64 {
            let index = bucket(micros);
            assert!(
                micros <= upper_bound(index) && (index == 0 || micros > upper_bound(index - 1)),
                "{micros} in {index}"
            );
        }
    }
}
