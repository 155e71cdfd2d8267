//! Operators without arguments.

use std::borrow::Cow;
use std::hash::BuildHasher as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use foldhash::quality::RandomState;

use super::address::{host, port};
use crate::access_log::field::{Field, without_spaces};
use crate::record::{Address, Attempted, Kind, Record, TlsInfo};

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

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum End {
    DownstreamDirectLocal,
    DownstreamDirectRemote,
    DownstreamLocal,
    DownstreamRemote,
    UpstreamLocal,
    UpstreamRemote,
}

impl End {
    /// Whose address an operator `…_ADDRESS_WITHOUT_PORT` prints.
    pub(super) fn find(name: &str) -> Option<Self> {
        Some(match name.strip_suffix("_ADDRESS_WITHOUT_PORT")? {
            "DOWNSTREAM_DIRECT_LOCAL" => Self::DownstreamDirectLocal,
            "DOWNSTREAM_DIRECT_REMOTE" => Self::DownstreamDirectRemote,
            "DOWNSTREAM_LOCAL" => Self::DownstreamLocal,
            "DOWNSTREAM_REMOTE" => Self::DownstreamRemote,
            "UPSTREAM_LOCAL" => Self::UpstreamLocal,
            "UPSTREAM_REMOTE" => Self::UpstreamRemote,
            _ => return None,
        })
    }

    pub(super) fn address(self, record: &Record) -> Option<&Address> {
        match self {
            Self::DownstreamDirectLocal => &record.downstream_direct_local,
            Self::DownstreamDirectRemote => &record.downstream_direct_remote,
            Self::DownstreamLocal => &record.downstream_local,
            Self::DownstreamRemote => &record.downstream_remote,
            Self::UpstreamLocal => &record.upstream_local,
            Self::UpstreamRemote => &record.upstream_remote,
        }
        .as_ref()
    }
}

/// The id of an address inside the proxy; empty for any other address.
fn endpoint_id(address: &Option<Address>) -> Field<'_> {
    match address {
        None => Field::Absent,
        Some(Address::Internal(name)) => Field::text(name.rsplit_once('/').map(|(_, id)| id)),
        Some(Address::Socket(_) | Address::Pipe(_)) => Field::Text(Cow::Borrowed("")),
    }
}

fn addresses(list: &[std::net::IpAddr]) -> Field<'static> {
    match list {
        [] => Field::Absent,
        list => {
            let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
            Field::Text(Cow::Owned(texts.join(",")))
        }
    }
}

/// Of all attempts that got a connection (TCP: of all), the last one included, what `read` tells,
/// each once; absent where there was none.
fn attempted(record: &Record, read: impl Fn(&Attempted) -> Option<String>) -> Field<'static> {
    let last = Attempted {
        host: record.upstream_host.clone(),
        host_name: record.upstream_host_name.clone(),
        connection_id: record.upstream_connection_id,
    };
    let all = record.earlier_attempts.iter().chain([&last]);
    let mut texts: Vec<String> = Vec::new();
    for text in all
        .filter(|attempt| attempt.connection_id != 0 || record.kind == Kind::Tcp)
        .filter_map(read)
    {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    Field::text((!texts.is_empty()).then(|| texts.join(",")))
}

/// The endpoint's name, else its address.
fn name_or_address(attempt: &Attempted, address: fn(&Address) -> Option<String>) -> Option<String> {
    match &attempt.host_name {
        Some(name) => Some(name.to_string()),
        None => attempt.host.as_ref().and_then(address),
    }
}

fn whole(address: &Address) -> Option<String> {
    Some(address.to_string())
}

/// PEM in a URL: letters, digits and `-_.~` as they are.
fn url_encoded(pem: &Option<Arc<str>>) -> Field<'_> {
    let Some(pem) = pem else {
        return Field::Absent;
    };
    let mut text = String::with_capacity(pem.len() + pem.len() / 8);
    for byte in pem.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    Field::Text(Cow::Owned(text))
}

/// Names and values of the request's header map, pseudo-headers included.
fn request_headers_bytes(record: &Record) -> Field<'_> {
    let pseudo = [":method", ":path", ":scheme", ":authority"];
    let pseudo = pseudo
        .iter()
        .filter_map(|name| Some(name.len() + record.request_header(name)?.len()));
    Field::Number((pseudo.sum::<usize>() + map_bytes(&record.request_headers)) as u64)
}

fn response_headers_bytes(record: &Record) -> Field<'_> {
    let status = record.status.filter(|status| *status != 0);
    let pseudo = status.map_or(0, |_| ":status200".len());
    Field::Number((pseudo + map_bytes(&record.response_headers)) as u64)
}

fn map_bytes(map: &Option<http::HeaderMap>) -> usize {
    let lengths = map
        .iter()
        .flatten()
        .map(|(name, value)| name.as_str().len() + value.len());
    lengths.sum()
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
    let reason = reason.as_deref().filter(|reason| !reason.is_empty());
    Field::text(reason.map(without_spaces))
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

/// `x-request-id`, so that it is the same at both ends; for what has none an id of its own.
fn stream_id(record: &Record) -> Field<'_> {
    match (record.request_header("x-request-id"), record.kind) {
        (Some(id), _) => Field::Text(id),
        (None, Kind::Tcp) => unique_id(record),
        (None, Kind::Http) => Field::Absent,
    }
}

/// A UUID that no other record has, with high likelihood: made of the process's own random seed and
/// what tells records apart.
fn unique_id(record: &Record) -> Field<'_> {
    static SEED: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);
    let facts = (
        record.start,
        record.connection_id,
        record.stream_id,
        record.timings.total,
    );
    let half = |state: &RandomState| u128::from(state.hash_one(facts));
    let bits = half(&SEED.0) << 64 | half(&SEED.1);
    Field::Text(Cow::Owned(crate::trace::uuid_of(bits)))
}

fn log_type(record: &Record) -> Field<'_> {
    Field::Text(Cow::Borrowed(match record.kind {
        Kind::Http => "DownstreamEnd",
        Kind::Tcp => "TcpConnectionEnd",
    }))
}

const OPERATORS: &[(&str, Read)] = &[
    ("BYTES_RETRANSMITTED", |_| Field::Number(0)),
    ("CUSTOM_FLAGS", |_| Field::Text(Cow::Borrowed(""))),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", |r| {
        Field::Number(r.bytes.downstream_header_received)
    }),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", |r| {
        Field::Number(r.bytes.downstream_header_sent)
    }),
    // A request is logged before its connection ends.
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", |_| {
        Field::Text(Cow::Borrowed("Normal"))
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", |r| {
        endpoint_id(&r.downstream_direct_local)
    }),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", |r| {
        endpoint_id(&r.downstream_local)
    }),
    ("DOWNSTREAM_LOCAL_CLOSE_REASON", |_| Field::Absent),
    ("DOWNSTREAM_LOCAL_EMAIL_SAN", |r| {
        downstream(r, |tls| joined(&tls.local_email_sans))
    }),
    ("DOWNSTREAM_LOCAL_IP_SAN", |r| {
        downstream(r, |tls| addresses(&tls.local_ip_sans))
    }),
    ("DOWNSTREAM_PEER_EMAIL_SAN", |r| {
        downstream(r, |tls| joined(&tls.peer_email_sans))
    }),
    ("DOWNSTREAM_PEER_IP_SAN", |r| {
        downstream(r, |tls| addresses(&tls.peer_ip_sans))
    }),
    ("DOWNSTREAM_TLS_GROUP", |r| {
        downstream(r, |tls| Field::text(tls.group.as_deref()))
    }),
    ("PACKETS_RETRANSMITTED", |_| Field::Number(0)),
    ("REQUEST_HEADERS_BYTES", request_headers_bytes),
    ("RESPONSE_HEADERS_BYTES", response_headers_bytes),
    ("RESPONSE_TRAILERS_BYTES", |r| {
        Field::Number(map_bytes(&r.response_trailers) as u64)
    }),
    // Of HTTP/3 only.
    ("ROUNDTRIP_DURATION", |_| Field::Absent),
    // Fingerprints are not taken, as in Envoy unless asked for.
    ("TLS_JA3_FINGERPRINT", |_| Field::Absent),
    ("TLS_JA4_FINGERPRINT", |_| Field::Absent),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", |r| {
        attempted(r, |attempt| {
            let id = Some(attempt.connection_id).filter(|id| *id != 0);
            id.map(|id| id.to_string())
        })
    }),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", |r| {
        Field::Number(r.bytes.upstream_header_received)
    }),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", |r| {
        Field::Number(r.bytes.upstream_header_sent)
    }),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", |r| {
        Field::text(r.upstream_remote.as_ref().map(|_| "Normal"))
    }),
    ("UPSTREAM_HOSTS_ATTEMPTED", |r| {
        attempted(r, |attempt| attempt.host.as_ref().and_then(whole))
    }),
    ("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", |r| {
        attempted(r, |attempt| attempt.host.as_ref().and_then(host))
    }),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED", |r| {
        attempted(r, |attempt| name_or_address(attempt, whole))
    }),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", |r| {
        attempted(r, |attempt| name_or_address(attempt, host))
    }),
    ("UPSTREAM_HOST_NAME_WITHOUT_PORT", |r| {
        match &r.upstream_host_name {
            Some(name) => Field::text(Some(&**name)),
            None => Field::text(r.upstream_host.as_ref().and_then(host)),
        }
    }),
    ("UPSTREAM_LOCAL_CLOSE_REASON", |_| Field::Absent),
    ("UPSTREAM_LOCAL_IP_SAN", |r| {
        upstream(r, |tls| addresses(&tls.local_ip_sans))
    }),
    ("UPSTREAM_PEER_IP_SAN", |r| {
        upstream(r, |tls| addresses(&tls.peer_ip_sans))
    }),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", |r| {
        endpoint_id(&r.upstream_remote)
    }),
    ("UPSTREAM_SERVER_NAME", |r| {
        upstream(r, |tls| shared(&tls.server_name))
    }),
    ("UPSTREAM_TLS_GROUP", |r| {
        upstream(r, |tls| Field::text(tls.group.as_deref()))
    }),
    ("ACCESS_LOG_TYPE", log_type),
    ("BYTES_RECEIVED", |r| Field::Number(r.bytes.received)),
    ("BYTES_SENT", |r| Field::Number(r.bytes.sent)),
    ("CONNECTION_ID", |r| Field::Number(r.connection_id)),
    ("CONNECTION_TERMINATION_DETAILS", termination),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", |r| {
        address(&r.downstream_direct_local)
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_PORT", |r| {
        port_of(&r.downstream_direct_local)
    }),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", |r| {
        address(&r.downstream_direct_remote)
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
        downstream(r, |tls| url_encoded(&tls.peer_certificate))
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
    ("FILTER_CHAIN_NAME", |r| {
        Field::text(
            r.filter_chain_name
                .as_deref()
                .filter(|name| !name.is_empty()),
        )
    }),
    ("GRPC_STATUS_NUMBER", grpc_number),
    ("LOCAL_REPLY_BODY", |r| {
        Field::Text(Cow::Borrowed(
            r.local_reply_body.as_deref().unwrap_or_default(),
        ))
    }),
    ("PROTOCOL", |r| {
        Field::text(r.protocol.map(|protocol| protocol.as_str()))
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
    ("UNIQUE_ID", unique_id),
    ("UPSTREAM_CLUSTER", |r| match &r.upstream_cluster_observed {
        Some(name) => Field::text(Some(&**name)),
        None => shared(&r.upstream_cluster),
    }),
    ("UPSTREAM_CLUSTER_RAW", |r| shared(&r.upstream_cluster)),
    ("UPSTREAM_CONNECTION_ID", |r| {
        Field::Number(r.upstream_connection_id)
    }),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", |r| {
        milliseconds(r.timings.upstream_pool)
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
        upstream(r, |tls| url_encoded(&tls.peer_certificate))
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
