//! One record of each request and connection, and where it goes.
//!
//! [`begin`] starts the record with what is known when a head was read; [`finish`] completes it and hands it to the worker's
//! [`Reporter`], once for each request or TCP connection, whatever became of it.

use http::request::Parts;
use proxy_config::{HttpConnectionManager, access_log::AccessLog};
use telemetry::record::{Kind, Record, ResponseFlags};

use crate::{
    exchange::{Exchange, protocol},
    connection::Connection,
    publish::{Config, LiveCluster, LiveHttp},
    route::Matched,
    worker::Worker,
};

pub mod edges;
pub mod log_files;
pub mod reports;

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
    /// Dynamic metadata that filters set.
    pub metadata: &'a proxy_config::metadata::Metadata,
}

/// Takes finished records: access logs, metrics, spans. Called on the worker's thread, so it must not block.
pub trait Reporter: Send + Sync {
    fn report(&self, finished: Finished<'_>);
}

/// Drops every record.
pub struct NoReporter;

impl Reporter for NoReporter {
    fn report(&self, _: Finished<'_>) {}
}

/// The record of a request whose head was read.
pub fn begin(worker: &Worker, connection: &Connection, _http: &LiveHttp, head: &Parts) -> Record {
    let mut record = connection.record(worker);
    record.kind = Kind::Http;
    record.protocol = Some(protocol(head.version));
    record
}

/// Completes a request's record and reports it.
pub fn finish(x: &mut Exchange) {
    let now = x.worker.live.clock.now();
    let ended = x.body.ended(x.started);
    let record = &mut x.record;
    record.timings.total = Some(now.saturating_duration_since(x.started));
    record.timings.last_downstream_rx = ended.map(|ended| ended.saturating_duration_since(x.started));
    record.bytes.received += x.body.bytes();
    record.is_grpc = x.is_grpc;
    record.request_messages = x.body.messages();
    if let Some(matched) = &x.route {
        record.route_name = Some(matched.route.name.clone()).filter(|name| !name.is_empty());
        record.virtual_host = Some(matched.virtual_host.name.clone());
    }
    if let Some(cluster) = &x.cluster {
        record.upstream_cluster = Some(cluster.config.name.shared());
        record.upstream_cluster_observed = cluster.config.alt_stat_name.clone();
    }
    record.request_headers = Some(std::mem::take(&mut x.head.headers));
    x.worker.reporter.report(Finished {
        record: &x.record,
        connection: &x.connection,
        http: Some(&x.http.config),
        access_logs: &x.http.config.access_logs,
        config: &x.config,
        route: x.route.as_ref(),
        cluster: x.cluster.as_deref(),
        metadata: &x.metadata,
    });
}

/// Marks the record of a request whose downstream went away.
pub fn abandoned(x: &mut Exchange) {
    x.record.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
    x.record.response_code_details = Some("downstream_remote_disconnect".into());
}

/// What TCP connections have, as no filter sets any.
pub(crate) static NO_METADATA: std::sync::LazyLock<proxy_config::metadata::Metadata> =
    std::sync::LazyLock::new(proxy_config::metadata::Metadata::default);
