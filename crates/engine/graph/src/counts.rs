//! The counters of one edge, and what two readings of them tell.
//!
//! Counters only grow until their proxy restarts. Latencies are a cumulative histogram, as
//! Prometheus has it; quantiles are interpolated within a bucket as `histogram_quantile` does it.

use std::collections::BTreeMap;

use crate::flow::Encryption;

/// The counters of one edge.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) requests: f64,
    pub(crate) failed: f64,
    pub(crate) encrypted: f64,
    pub(crate) plain: f64,
    pub(crate) connections: f64,
    /// Upper bounds in microseconds (`u64::MAX` is infinite) and requests up to there.
    pub(crate) buckets: BTreeMap<u64, f64>,
}

impl Counts {
    pub(crate) fn secure(&mut self, encryption: Encryption, value: f64) {
        match encryption {
            Encryption::MutualTls => self.encrypted += value,
            Encryption::Plaintext => self.plain += value,
            Encryption::Unknown => {}
        }
    }

    /// What was added since `before`. A counter that went back began anew: its proxy restarted.
    pub(crate) fn minus(&self, before: Option<&Counts>) -> Counts {
        let Some(before) = before else {
            return self.clone();
        };
        let less = |now: f64, before: f64| if now < before { now } else { now - before };
        Counts {
            requests: less(self.requests, before.requests),
            failed: less(self.failed, before.failed),
            encrypted: less(self.encrypted, before.encrypted),
            plain: less(self.plain, before.plain),
            connections: less(self.connections, before.connections),
            buckets: self
                .buckets
                .iter()
                .map(|(bound, count)| {
                    (
                        *bound,
                        less(*count, before.buckets.get(bound).copied().unwrap_or(0.0)),
                    )
                })
                .collect(),
        }
    }

    /// Was there neither a request nor a connection?
    pub(crate) fn is_empty(&self) -> bool {
        self.requests + self.connections <= 0.0
    }

    /// One plaintext connection is enough to call the edge unencrypted.
    pub(crate) fn encryption(&self) -> Encryption {
        match (self.encrypted > 0.0, self.plain > 0.0) {
            (_, true) => Encryption::Plaintext,
            (true, false) => Encryption::MutualTls,
            (false, false) => Encryption::Unknown,
        }
    }

    /// Milliseconds that this share (0 to 1) of the requests took at most.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.buckets.values().copied().fold(0.0, f64::max);
        if total <= 0.0 {
            return None;
        }
        let rank = share * total;
        let (mut below, mut low) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *bound == u64::MAX {
                break;
            }
            let high = *bound as f64 / 1_000.0;
            if *count >= rank {
                let within = *count - below;
                return Some(if within > 0.0 {
                    low + (high - low) * (rank - below) / within
                } else {
                    high
                });
            }
            (below, low) = (*count, high);
        }
        Some(low)
    }
}
