//! What live objects are made with: statistics, numbers, secrets, clock and randomness.
//!
//! `Live` lends it; listeners, clusters and hosts take it instead of the whole, which stands above them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use stdx::{Clock, Rng};
use telemetry::stats::Store;

use crate::{tls::Secrets, upstream::names::Resolve};

/// Borrowed from `Live` for one publication.
#[derive(Clone, Copy)]
pub struct Makers<'a> {
    pub clock: &'a Arc<dyn Clock>,
    pub rng: &'a Arc<dyn Rng>,
    /// Envoy's statistics.
    pub stats: &'a Store,
    pub tls: &'a Secrets,
    pub(crate) resolver: &'a Arc<dyn Resolve>,
    pub(crate) ids: &'a Arc<Ids>,
    /// SO_MARK of upstream connections whose cluster sets none: by it the capture rules let the
    /// proxy's own connections pass.
    pub(crate) mark: Option<u32>,
}

/// Numbers that are never used twice in a process: pools are keyed by them.
#[derive(Debug, Default)]
pub(crate) struct Ids(AtomicU64);

impl Ids {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
