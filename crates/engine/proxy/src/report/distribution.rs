//! Histograms of one object, each made when its first value comes: of many clusters and listeners
//! most never have one.

use std::{sync::OnceLock, time::Duration};

use telemetry::stats::{Histogram, Scope};

/// Histograms of milliseconds under a scope, by position in `names`.
pub struct Distributions<const N: usize> {
    names: &'static [&'static str; N],
    made: [OnceLock<Histogram>; N],
}

impl<const N: usize> Distributions<N> {
    pub fn new(names: &'static [&'static str; N]) -> Self {
        Self {
            names,
            made: [const { OnceLock::new() }; N],
        }
    }

    pub fn record(&self, scope: &Scope, which: usize, took: Duration) {
        if let (Some(slot), Some(name)) = (self.made.get(which), self.names.get(which)) {
            let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            slot.get_or_init(|| scope.histogram(name))
                .record(milliseconds);
        }
    }
}
