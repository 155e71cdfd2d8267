//! One record of each request and connection, and where it goes.
//!
//! A [`Reporter`] takes one [`Finished`] record for each request or TCP connection, whatever became
//! of it. `exchange::finish` and `tcp` complete the records; [`reports`] makes metrics, access logs
//! and spans of them.

use proxy_config::{HttpConnectionManager, access_log::AccessLog};
use telemetry::record::Record;

use crate::{
    config::Config, connection::Connection, request::Trace, route::Matched,
    upstream::cluster::LiveCluster,
};

pub mod distribution;
pub mod downstream;
pub mod edges;
pub mod gauges;
pub mod log_files;
pub(crate) mod metadata;
pub mod opened;
pub mod reports;

use opened::Opened;

/// What is handed over with a finished record.
pub struct Finished<'a> {
    pub record: &'a Record,
    pub connection: &'a Connection,
    /// `None`: TCP.
    pub http: Option<&'a HttpConnectionManager>,
    pub access_logs: &'a [AccessLog],
    pub config: &'a Config,
    pub route: Option<&'a Matched>,
    pub cluster: Option<&'a LiveCluster>,
    /// `None`: TCP.
    pub trace: Option<&'a Trace>,
    /// Istio's metrics have it already (a TCP connection that [`Reporter::opened`] counts), or
    /// never see it (what the codec refused).
    pub is_counted: bool,
}

/// Takes finished records: access logs, metrics, spans. Called on the worker's thread, so it must
/// not block.
pub trait Reporter: Send + Sync {
    fn report(&self, finished: Finished<'_>);

    /// A TCP connection reached its upstream. Returns what counts it while it is open; `report`
    /// still follows.
    fn opened(&self, _: Finished<'_>) -> Option<Opened> {
        None
    }
}

/// Drops every record.
pub struct NoReporter;

impl Reporter for NoReporter {
    fn report(&self, _: Finished<'_>) {}
}

/// `HTTP/1.1 200 OK` and two line ends.
pub(crate) const STATUS_LINE_BYTES: usize = 19;

/// The length of a head as HTTP/1 writes it; what HTTP/2 compresses is counted uncompressed.
pub(crate) fn head_bytes(headers: &http::HeaderMap, line: usize) -> u64 {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    (bytes + line) as u64
}
