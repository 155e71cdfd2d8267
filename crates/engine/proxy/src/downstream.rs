//! What is known about a downstream connection once its handshake is done: facts, no handles.

use std::{
    net::SocketAddr,
    time::{Instant, SystemTime},
};

use proxy_config::listener::TrafficDirection;
use telemetry::record::Record;

use crate::{chain::ConnectionFacts, tls::Secured};

/// Shared by all requests of the connection.
pub struct Downstream {
    /// Unique in this process.
    pub id: u64,
    /// Of its listener.
    pub direction: TrafficDirection,
    pub facts: ConnectionFacts,
    /// The destination was restored (by redirection or a PROXY protocol header), so it may be an
    /// original-destination cluster's host.
    pub destination_restored: bool,
    /// The socket's own address.
    pub direct_local: SocketAddr,
    /// `None`: plaintext.
    pub tls: Option<Secured>,
    pub accepted: Instant,
}

impl Downstream {
    /// The part of a record that says who speaks to whom; what it tells of began `now`.
    pub fn record(&self, now: SystemTime) -> Record {
        Record {
            start: Some(now),
            downstream_local: Some(self.facts.destination.into()),
            downstream_remote: Some(self.facts.source.into()),
            downstream_direct_remote: Some(self.facts.direct_source.into()),
            downstream_direct_local: Some(self.direct_local.into()),
            requested_server_name: self.facts.server_name.clone(),
            downstream_tls: self.tls.as_ref().map(|tls| tls.info.clone()),
            connection_id: self.id,
            ..Record::default()
        }
    }
}
