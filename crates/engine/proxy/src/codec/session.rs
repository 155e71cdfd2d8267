//! What the requests of one downstream HTTP connection share, and how they are counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::{connection::Connection, listener::LiveHttp, worker::Worker};

/// What all requests of a connection share.
pub(crate) struct Session {
    pub worker: Arc<Worker>,
    pub connection: Arc<Connection>,
    pub http: Arc<LiveHttp>,
    /// Requests that began, and those that have ended; both only grow.
    pub(super) begun: AtomicU64,
    pub(super) ended: AtomicU64,
    /// Told when the connection has had as many requests as it may.
    pub(super) full: Notify,
    /// Told when a request comes while the chain drains.
    pub(super) last: Notify,
    pub(super) is_http2: bool,
}

impl Session {
    /// Whether a request on this connection is its last: HTTP/1 says so in the answer, HTTP/2 by a
    /// frame of its own.
    pub(super) fn is_last(&self) -> bool {
        !self.is_http2 && self.connection.chain.draining().has_started()
    }

    /// Whether a request or its answer is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }
}

/// Ends with the last byte of the answer.
pub(crate) struct Ended(pub(super) Arc<Session>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
