//! Access logs: where a record is written, in which form, and when.

use std::sync::Arc;

use telemetry::access_log::{Filter, Format};

#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub name: Arc<str>,
    pub filter: Option<Filter>,
    pub sink: AccessLogSink,
}

impl AccessLog {
    /// Whether its lines show metadata of route, cluster, host, listener or filter chain.
    pub fn reads_metadata(&self) -> bool {
        let AccessLogSink::File { path: _, format } = &self.sink;
        format.needs().metadata
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum AccessLogSink {
    /// `/dev/stdout`, `/dev/stderr` or a file path.
    File { path: Arc<str>, format: Arc<Format> },
}
