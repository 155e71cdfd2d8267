//! When the last snapshots were begun and published, so that a stream can say how long a change
//! took to reach its proxy.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A proxy that is slower than this many snapshots gets the newest one anyway.
const KEPT: usize = 64;

/// One snapshot's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// The first of its changes arrived.
    pub began: Instant,
    pub published: Instant,
}

/// Shared by the writer and all streams.
#[derive(Debug, Clone, Default)]
pub struct Builds(Arc<Mutex<VecDeque<(u64, Build)>>>);

impl Builds {
    pub fn published(&self, version: u64, build: Build) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((version, build));
    }

    pub fn of(&self, version: u64) -> Option<Build> {
        let kept = self.0.lock();
        let found = kept.iter().rev().find(|(known, _)| *known == version);
        found.map(|(_, build)| *build)
    }
}
