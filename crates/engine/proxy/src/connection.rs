//! One downstream connection: what is known about it once its filter chain is chosen and its handshake done.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use telemetry::record::Record;

use crate::{
    chain::ConnectionFacts,
    listener::{LiveChain, LiveListener},
    tls::Secured,
};

/// Shared by all requests of the connection.
pub struct Connection {
    /// Unique in this process.
    pub id: u64,
    pub listener: Arc<LiveListener>,
    pub chain: Arc<LiveChain>,
    pub facts: ConnectionFacts,
    /// The destination was restored (by redirection or a PROXY protocol header), so it may be an original-destination cluster's host.
    pub destination_restored: bool,
    /// The socket's own address.
    pub direct_local: SocketAddr,
    pub tls: Option<Secured>,
    pub accepted: Instant,
}

impl Connection {
    /// A number for a new connection.
    pub fn next_id() -> u64 {
        static IDS: AtomicU64 = AtomicU64::new(1);
        IDS.fetch_add(1, Ordering::Relaxed)
    }

    /// The part of a record that is the same for all requests of the connection; what it tells of began `now`.
    pub fn record(&self, now: SystemTime) -> Record {
        Record {
            start: Some(now),
            downstream_local: Some(self.facts.destination.into()),
            downstream_remote: Some(self.facts.source.into()),
            downstream_direct_remote: Some(self.facts.direct_source.into()),
            downstream_direct_local: Some(self.direct_local.into()),
            requested_server_name: self.facts.server_name.clone(),
            downstream_tls: self.tls.as_ref().map(|tls| tls.info.clone()),
            filter_chain_name: Some(self.chain.config.name.clone()).filter(|name| !name.is_empty()),
            listener: Some(self.listener.config.name.shared()),
            connection_id: self.id,
            ..Record::default()
        }
    }
}
