//! One downstream connection: what is known about it, and the listener and filter chain that took
//! it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use telemetry::record::Record;
use tokio_util::task::TaskTracker;

use crate::{
    downstream::Downstream,
    listener::{LiveChain, LiveListener},
};

/// Shared by all requests of the connection.
pub struct Connection {
    pub downstream: Arc<Downstream>,
    pub listener: Arc<LiveListener>,
    pub chain: Arc<LiveChain>,
    /// What requests became that upgraded it (WebSocket, CONNECT). The connection lasts, counts and
    /// drains as long as they do.
    pub(crate) tunnels: TaskTracker,
}

impl Connection {
    pub fn new(downstream: Downstream, listener: Arc<LiveListener>, chain: Arc<LiveChain>) -> Self {
        Self {
            downstream: Arc::new(downstream),
            listener,
            chain,
            tunnels: TaskTracker::new(),
        }
    }

    /// A number for a new connection.
    pub fn next_id() -> u64 {
        static IDS: AtomicU64 = AtomicU64::new(1);
        IDS.fetch_add(1, Ordering::Relaxed)
    }

    /// The part of a record that is the same for all requests of the connection; what it tells of
    /// began `now`.
    pub fn record(&self, now: SystemTime) -> Record {
        Record {
            filter_chain_name: Some(self.chain.config.name.clone()).filter(|name| !name.is_empty()),
            listener: Some(self.listener.config.name.shared()),
            ..self.downstream.record(now)
        }
    }
}
