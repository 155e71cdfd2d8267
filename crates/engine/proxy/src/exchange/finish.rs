//! The beginning and the end of a request's record: what is known when a head was read, and the one
//! report when all is over.
//!
//! [`begin`] starts the record; [`Exchange::report`] completes it and hands it to the worker's
//! reporter, once, whatever became of the request. A request that is dropped before was abandoned
//! by its downstream, and is reported as that.

use std::time::SystemTime;

use http::request::Parts;
use telemetry::record::{Kind, Record, ResponseFlags};

use crate::{
    connection::Connection,
    exchange::Exchange,
    grpc,
    listener::LiveHttp,
    report::{Finished, head_bytes, metadata},
    request::protocol,
    upstream::{
        cluster::LiveCluster,
        metrics::{Count, Took},
    },
};

/// The record of a request whose head was read.
pub fn begin(connection: &Connection, http: &LiveHttp, head: &Parts, now: SystemTime) -> Record {
    let mut record = connection.record(now);
    record.kind = Kind::Http;
    let protocol = protocol(head.version);
    record.protocol = Some(protocol);
    let line = head.method.as_str().len()
        + head
            .uri
            .path_and_query()
            .map_or(0, |path| path.as_str().len())
        + REQUEST_LINE_BYTES;
    record.bytes.downstream_header_received = head_bytes(&head.headers, line);
    http.metrics.began(protocol);
    record
}

impl Exchange {
    /// Hands the finished record to the reporters; once.
    pub fn report(&mut self) {
        if !std::mem::replace(&mut self.reported, true) {
            finish(self);
        }
    }
}

impl Drop for Exchange {
    /// A request that nobody waits for any more: the downstream went away.
    fn drop(&mut self) {
        if !self.reported {
            abandoned(self);
            self.report();
        }
    }
}

/// Completes a request's record and reports it.
fn finish(x: &mut Exchange) {
    let now = x.worker.live.clock.now();
    let ended = x.request.body.ended(x.request.started);
    let record = &mut x.request.record;
    record.timings.total = Some(now.saturating_duration_since(x.request.started));
    record.timings.last_downstream_rx =
        ended.map(|ended| ended.saturating_duration_since(x.request.started));
    record.bytes.received += x.request.body.bytes();
    record.bytes.downstream_wire_received =
        record.bytes.downstream_header_received + record.bytes.received;
    record.bytes.downstream_wire_sent = record.bytes.downstream_header_sent + record.bytes.sent;
    count_upstream_bytes(x);
    let record = &mut x.request.record;
    record.is_grpc = x.request.is_grpc;
    if x.request.is_grpc && record.grpc_status.is_none() {
        // An answer without a status is judged by its HTTP status.
        record.grpc_status = record
            .status
            .and_then(|status| http::StatusCode::from_u16(status).ok())
            .map(grpc::status_of_http);
    }
    record.request_messages = x.request.body.messages();
    if let Some(matched) = &x.request.route {
        record.route_name = Some(matched.route.name.clone()).filter(|name| !name.is_empty());
        record.virtual_host = Some(matched.virtual_host.name.clone());
    }
    if let Some(cluster) = &x.cluster {
        record.upstream_cluster = Some(cluster.config.name.shared());
        record.upstream_cluster_observed = cluster.config.alt_stat_name.clone();
    }
    record.request_headers = Some(std::mem::take(&mut x.request.head.headers));
    let (first, read) = (
        record.timings.first_upstream_tx,
        record.timings.last_downstream_rx,
    );
    record.timings.last_upstream_tx = first.zip(read).map(|(first, read)| first.max(read));
    record.dynamic_metadata = metadata::of(&x.request.metadata);
    if x.http.needs.metadata {
        let sources = metadata::Sources {
            connection: &x.connection,
            route: x.request.route.as_ref(),
            cluster: x.cluster.as_deref(),
            host: x.host.as_deref(),
        };
        metadata::fill(record, &sources);
    }
    x.http.metrics.ended(&x.request.record);
    if let Some(cluster) = &x.cluster {
        count_upstream(cluster, &x.request.record);
    }
    x.worker.reporter.report(Finished {
        record: &x.request.record,
        connection: &x.connection,
        http: Some(&x.http.config),
        access_logs: &x.http.config.access_logs,
        config: &x.config,
        route: x.request.route.as_ref(),
        cluster: x.cluster.as_deref(),
        trace: Some(&x.request.trace),
        is_counted: false,
    });
}

/// Of a request that was sent on.
fn count_upstream_bytes(x: &mut Exchange) {
    if x.request.record.timings.first_upstream_tx.is_none() {
        return;
    }
    let line = x.request.head.method.as_str().len() + x.request.path().len() + REQUEST_LINE_BYTES;
    let host = x.request.authority.len() + HOST_BYTES;
    let head = head_bytes(&x.request.head.headers, line + host);
    let bytes = &mut x.request.record.bytes;
    bytes.upstream_header_sent = head;
    bytes.upstream_wire_sent = head + bytes.received;
    bytes.upstream_wire_received = bytes.upstream_header_received + bytes.upstream_body_received;
}

/// What the request means for its cluster.
fn count_upstream(cluster: &LiveCluster, record: &Record) {
    let metrics = &cluster.metrics;
    metrics.add(Count::CxTxBytes, record.bytes.upstream_wire_sent);
    metrics.add(Count::CxRxBytes, record.bytes.upstream_wire_received);
    let times = &record.timings;
    if let (Some(_), Some(read), Some(total)) = (
        times.last_upstream_rx,
        times.last_downstream_rx,
        times.total,
    ) {
        metrics.took(Took::Request, total.saturating_sub(read));
    }
}

/// Method, path and these: ` `, ` HTTP/1.1`, two line ends.
const REQUEST_LINE_BYTES: usize = 14;
/// `host: ` and a line end.
const HOST_BYTES: usize = 8;
/// Marks the record of a request whose downstream went away.
pub fn abandoned(x: &mut Exchange) {
    x.request
        .record
        .flags
        .insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
    x.request.record.response_code_details = Some("downstream_remote_disconnect".into());
}
