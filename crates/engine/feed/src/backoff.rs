//! How long to wait before the next attempt: doubling, bounded, with full jitter so that a mesh
//! does not knock all at once.

use std::time::Duration;

use stdx::Rng;

/// Delays of a series of failures. [`Backoff::reset`] after a success.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self {
            first,
            limit,
            failures: 0,
        }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Between half of and the whole of `first * 2^failures`, at most `limit`.
    pub fn next(&mut self, rng: &dyn Rng) -> Duration {
        let ceiling = self
            .first
            .saturating_mul(1 << self.failures.min(20))
            .min(self.limit);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(0.5 + rng.fraction() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use stdx::SeededRng;

    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_over() {
        let rng = SeededRng::new(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for step in 0..40 {
            let ceiling = Duration::from_millis(100 << step.min(10)).min(Duration::from_secs(5));
            let delay = backoff.next(&rng);
            assert!(
                delay <= ceiling && delay >= ceiling / 2,
                "{step}: {delay:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next(&rng) <= Duration::from_millis(100));
    }
}
