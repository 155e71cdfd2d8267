//! Operators without arguments.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::{Field, host, now_text, port};
use crate::record::{Address, Kind, Record, TlsInfo};

type Read = fn(&Record) -> Field<'_>;

/// An operator of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain {
    name: &'static str,
    read: Read,
}

/// The name decides: addresses of functions need not be unique.
impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Plain {
    pub(super) fn read<'a>(&self, record: &'a Record) -> Field<'a> {
        (self.read)(record)
    }
}

/// The operator with this name.
pub(super) fn find(name: &str) -> Option<Plain> {
    let (name, read) = OPERATORS.iter().find(|(known, _)| *known == name)?;
    Some(Plain { name, read: *read })
}

fn number(value: Option<u64>) -> Field<'static> {
    value.map_or(Field::Absent, Field::Number)
}

fn milliseconds(duration: Option<Duration>) -> Field<'static> {
    number(duration.and_then(|duration| u64::try_from(duration.as_millis()).ok()))
}

fn address(address: &Option<Address>) -> Field<'static> {
    Field::display(address.as_ref())
}

fn without_port(address: &Option<Address>) -> Field<'static> {
    Field::text(address.as_ref().and_then(host))
}

fn port_of(address: &Option<Address>) -> Field<'static> {
    number(address.as_ref().and_then(port))
}

fn shared(text: &Option<Arc<str>>) -> Field<'_> {
    Field::text(text.as_deref())
}

fn joined(names: &[Arc<str>]) -> Field<'static> {
    match names {
        [] => Field::Absent,
        names => Field::Text(Cow::Owned(names.join(","))),
    }
}

fn tls<'a>(info: &'a Option<Arc<TlsInfo>>, read: impl Fn(&'a TlsInfo) -> Field<'a>) -> Field<'a> {
    info.as_deref().map_or(Field::Absent, read)
}

fn downstream(record: &Record, read: fn(&TlsInfo) -> Field<'_>) -> Field<'_> {
    tls(&record.downstream_tls, read)
}

fn upstream(record: &Record, read: fn(&TlsInfo) -> Field<'_>) -> Field<'_> {
    tls(&record.upstream_tls, read)
}

/// gRPC status as number.
fn grpc_number(record: &Record) -> Field<'_> {
    number(record.grpc_status.map(u64::from))
}

/// Spaces would break the columns of a text log.
fn termination(record: &Record) -> Field<'_> {
    Field::text(record.connection_termination_details.as_deref())
}

fn failure(reason: &Option<Arc<str>>) -> Field<'_> {
    Field::text(
        reason
            .as_deref()
            .filter(|reason| !reason.is_empty())
            .map(|reason| {
                if reason.contains(' ') {
                    Cow::Owned(reason.replace(' ', "_"))
                } else {
                    Cow::Borrowed(reason)
                }
            }),
    )
}

fn response_duration(record: &Record) -> Option<Duration> {
    record.timings.first_upstream_rx
}

fn response_tx_duration(record: &Record) -> Option<Duration> {
    record
        .timings
        .last_downstream_tx?
        .checked_sub(record.timings.first_upstream_rx?)
}

fn upstream_pool_ready(record: &Record) -> Option<Duration> {
    record
        .timings
        .upstream_connect_complete?
        .checked_sub(record.timings.upstream_connect_start?)
}

fn stream_id(record: &Record) -> Field<'_> {
    match record.request_header("x-request-id") {
        Some(id) => Field::Text(id),
        None => number(Some(record.stream_id).filter(|id| *id != 0)),
    }
}

fn log_type(record: &Record) -> Field<'_> {
    Field::Text(Cow::Borrowed(match record.kind {
        Kind::Http => "DownstreamEnd",
        Kind::Tcp => "TcpConnectionEnd",
    }))
}

const OPERATORS: &[(&str, Read)] = &[
    ("ACCESS_LOG_TYPE", log_type),
    ("BYTES_RECEIVED", |r| Field::Number(r.bytes.received)),
    ("BYTES_SENT", |r| Field::Number(r.bytes.sent)),
    ("CONNECTION_ID", |r| Field::Number(r.connection_id)),
    ("CONNECTION_TERMINATION_DETAILS", termination),
    ("CUSTOM_FLAGS", |_| Field::Absent),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", |r| {
        address(&r.downstream_direct_local)
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", |r| {
        without_port(&r.downstream_direct_local)
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_PORT", |r| {
        port_of(&r.downstream_direct_local)
    }),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", |r| {
        address(&r.downstream_direct_remote)
    }),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", |r| {
        without_port(&r.downstream_direct_remote)
    }),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", |r| {
        port_of(&r.downstream_direct_remote)
    }),
    ("DOWNSTREAM_HANDSHAKE_DURATION", |r| {
        milliseconds(r.timings.downstream_handshake_complete)
    }),
    ("DOWNSTREAM_HEADER_BYTES_RECEIVED", |r| {
        Field::Number(r.bytes.downstream_header_received)
    }),
    ("DOWNSTREAM_HEADER_BYTES_SENT", |r| {
        Field::Number(r.bytes.downstream_header_sent)
    }),
    ("DOWNSTREAM_LOCAL_ADDRESS", |r| address(&r.downstream_local)),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", |r| {
        without_port(&r.downstream_local)
    }),
    ("DOWNSTREAM_LOCAL_PORT", |r| port_of(&r.downstream_local)),
    ("DOWNSTREAM_LOCAL_DNS_SAN", |r| {
        downstream(r, |tls| joined(&tls.local_dns_sans))
    }),
    ("DOWNSTREAM_LOCAL_SUBJECT", |r| {
        downstream(r, |tls| shared(&tls.local_subject))
    }),
    ("DOWNSTREAM_LOCAL_URI_SAN", |r| {
        downstream(r, |tls| joined(&tls.local_uri_sans))
    }),
    ("DOWNSTREAM_PEER_CERT", |r| {
        downstream(r, |tls| shared(&tls.peer_certificate))
    }),
    ("DOWNSTREAM_PEER_DNS_SAN", |r| {
        downstream(r, |tls| joined(&tls.peer_dns_sans))
    }),
    ("DOWNSTREAM_PEER_FINGERPRINT_1", |r| {
        downstream(r, |tls| shared(&tls.peer_fingerprint_1))
    }),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", |r| {
        downstream(r, |tls| shared(&tls.peer_fingerprint_256))
    }),
    ("DOWNSTREAM_PEER_ISSUER", |r| {
        downstream(r, |tls| shared(&tls.peer_issuer))
    }),
    ("DOWNSTREAM_PEER_SERIAL", |r| {
        downstream(r, |tls| shared(&tls.peer_serial))
    }),
    ("DOWNSTREAM_PEER_SUBJECT", |r| {
        downstream(r, |tls| shared(&tls.peer_subject))
    }),
    ("DOWNSTREAM_PEER_URI_SAN", |r| {
        downstream(r, |tls| joined(&tls.peer_uri_sans))
    }),
    ("DOWNSTREAM_REMOTE_ADDRESS", |r| {
        address(&r.downstream_remote)
    }),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", |r| {
        without_port(&r.downstream_remote)
    }),
    ("DOWNSTREAM_REMOTE_PORT", |r| port_of(&r.downstream_remote)),
    ("DOWNSTREAM_TLS_CIPHER", |r| {
        downstream(r, |tls| Field::text(tls.cipher.as_deref()))
    }),
    ("DOWNSTREAM_TLS_SESSION_ID", |r| {
        downstream(r, |tls| shared(&tls.session_id))
    }),
    ("DOWNSTREAM_TLS_VERSION", |r| {
        downstream(r, |tls| Field::text(tls.version))
    }),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", |r| {
        failure(&r.downstream_transport_failure_reason)
    }),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", |r| {
        Field::Number(r.bytes.downstream_wire_received)
    }),
    ("DOWNSTREAM_WIRE_BYTES_SENT", |r| {
        Field::Number(r.bytes.downstream_wire_sent)
    }),
    ("DURATION", |r| milliseconds(r.timings.total)),
    ("EMIT_TIME", |r| Field::text(now_text(r))),
    ("FILTER_CHAIN_NAME", |r| shared(&r.filter_chain_name)),
    ("GRPC_STATUS_NUMBER", grpc_number),
    ("LOCAL_REPLY_BODY", |r| shared(&r.local_reply_body)),
    ("PROTOCOL", |r| {
        Field::text(r.protocol.map(|protocol| protocol.as_str()))
    }),
    ("REQUESTED_SERVER_NAME", |r| {
        shared(&r.requested_server_name)
    }),
    ("REQUEST_DURATION", |r| {
        milliseconds(r.timings.last_downstream_rx)
    }),
    ("REQUEST_TX_DURATION", |r| {
        milliseconds(r.timings.last_upstream_tx)
    }),
    ("RESPONSE_CODE", |r| {
        Field::Number(u64::from(r.status.unwrap_or(0)))
    }),
    ("RESPONSE_CODE_DETAILS", |r| {
        Field::text(r.response_code_details.as_deref())
    }),
    ("RESPONSE_DURATION", |r| milliseconds(response_duration(r))),
    ("RESPONSE_FLAGS", |r| Field::display(Some(r.flags))),
    ("RESPONSE_FLAGS_LONG", |r| {
        Field::display(Some(r.flags.long()))
    }),
    ("RESPONSE_TX_DURATION", |r| {
        milliseconds(response_tx_duration(r))
    }),
    ("ROUTE_NAME", |r| shared(&r.route_name)),
    ("SPAN_ID", |r| {
        Field::display(r.trace.as_ref().map(|trace| trace.span_id_hex()))
    }),
    ("STREAM_ID", stream_id),
    ("TRACE_ID", |r| {
        Field::display(r.trace.as_ref().map(|trace| trace.trace_id_hex()))
    }),
    ("UNIQUE_ID", stream_id),
    ("UPSTREAM_CLUSTER", |r| match &r.upstream_cluster_observed {
        Some(name) => Field::text(Some(&**name)),
        None => shared(&r.upstream_cluster),
    }),
    ("UPSTREAM_CLUSTER_RAW", |r| shared(&r.upstream_cluster)),
    ("UPSTREAM_CONNECTION_ID", |r| {
        number(Some(r.upstream_connection_id).filter(|id| *id != 0))
    }),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", |r| {
        milliseconds(upstream_pool_ready(r))
    }),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", |r| {
        Field::Number(r.bytes.upstream_header_received)
    }),
    ("UPSTREAM_HEADER_BYTES_SENT", |r| {
        Field::Number(r.bytes.upstream_header_sent)
    }),
    ("UPSTREAM_HOST", |r| address(&r.upstream_host)),
    ("UPSTREAM_HOST_NAME", |r| match &r.upstream_host_name {
        Some(name) => Field::text(Some(&**name)),
        None => address(&r.upstream_host),
    }),
    ("UPSTREAM_LOCAL_ADDRESS", |r| address(&r.upstream_local)),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", |r| {
        without_port(&r.upstream_local)
    }),
    ("UPSTREAM_LOCAL_PORT", |r| port_of(&r.upstream_local)),
    ("UPSTREAM_LOCAL_DNS_SAN", |r| {
        upstream(r, |tls| joined(&tls.local_dns_sans))
    }),
    ("UPSTREAM_LOCAL_SUBJECT", |r| {
        upstream(r, |tls| shared(&tls.local_subject))
    }),
    ("UPSTREAM_LOCAL_URI_SAN", |r| {
        upstream(r, |tls| joined(&tls.local_uri_sans))
    }),
    ("UPSTREAM_PEER_CERT", |r| {
        upstream(r, |tls| shared(&tls.peer_certificate))
    }),
    ("UPSTREAM_PEER_DNS_SAN", |r| {
        upstream(r, |tls| joined(&tls.peer_dns_sans))
    }),
    ("UPSTREAM_PEER_ISSUER", |r| {
        upstream(r, |tls| shared(&tls.peer_issuer))
    }),
    ("UPSTREAM_PEER_SUBJECT", |r| {
        upstream(r, |tls| shared(&tls.peer_subject))
    }),
    ("UPSTREAM_PEER_URI_SAN", |r| {
        upstream(r, |tls| joined(&tls.peer_uri_sans))
    }),
    ("UPSTREAM_PROTOCOL", |r| {
        Field::text(r.upstream_protocol.map(|protocol| protocol.as_str()))
    }),
    ("UPSTREAM_REMOTE_ADDRESS", |r| address(&r.upstream_remote)),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", |r| {
        without_port(&r.upstream_remote)
    }),
    ("UPSTREAM_REMOTE_PORT", |r| port_of(&r.upstream_remote)),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", |r| {
        Field::Number(u64::from(r.attempts))
    }),
    ("UPSTREAM_TLS_CIPHER", |r| {
        upstream(r, |tls| Field::text(tls.cipher.as_deref()))
    }),
    ("UPSTREAM_TLS_SESSION_ID", |r| {
        upstream(r, |tls| shared(&tls.session_id))
    }),
    ("UPSTREAM_TLS_VERSION", |r| {
        upstream(r, |tls| Field::text(tls.version))
    }),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", |r| {
        failure(&r.upstream_transport_failure_reason)
    }),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", |r| {
        Field::Number(r.bytes.upstream_wire_received)
    }),
    ("UPSTREAM_WIRE_BYTES_SENT", |r| {
        Field::Number(r.bytes.upstream_wire_sent)
    }),
    ("VIRTUAL_CLUSTER_NAME", |r| shared(&r.virtual_cluster)),
];
