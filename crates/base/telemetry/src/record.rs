//! One finished (or reported) request or connection: what metrics, access log and spans are made
//! from.
//!
//! The proxy fills a [`Record`] while it serves and hands it to the reporters once. Nothing in it
//! is formatted: texts are shared, times are offsets from the start, flags are bits. Header maps
//! are present only when a log, a tag or an expression asks for them (see
//! [`crate::access_log::Needs`]), so a proxy without logs copies no header. Names follow Envoy's
//! StreamInfo and access log documentation.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

pub use flags::ResponseFlags;

mod flags;

/// What the record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// One HTTP request (or gRPC call, or upgraded stream).
    #[default]
    Http,
    /// One TCP connection.
    Tcp,
}

/// HTTP protocol of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
    Http3,
}

impl Protocol {
    /// As Envoy writes it: `HTTP/1.1`, `HTTP/2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        }
    }
}

/// An address of one end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Socket(SocketAddr),
    /// A Unix socket's path.
    Pipe(Arc<str>),
    /// An address inside the proxy: `name/id`.
    Internal(Arc<str>),
}

/// As Envoy prints it: `10.0.0.1:80`, `[::1]:80`, a path, `envoy://name/id`.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(formatter),
            Self::Pipe(path) => formatter.write_str(path),
            Self::Internal(name) => write!(formatter, "envoy://{name}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// One side's TLS facts. All strings as Envoy's log operators print them; empty list or `None`
/// where not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsInfo {
    /// `TLSv1.2`, `TLSv1.3`.
    pub version: Option<&'static str>,
    /// OpenSSL's or IANA's cipher name, for example `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<Cow<'static, str>>,
    /// Negotiated ALPN.
    pub alpn: Option<Arc<str>>,
    pub session_id: Option<Arc<str>>,
    /// The key exchange's group, for example `X25519`.
    pub group: Option<Cow<'static, str>>,
    /// The server name that was asked for.
    pub server_name: Option<Arc<str>>,
    /// URI SANs of the certificate that the peer presented; the first is the SPIFFE principal.
    pub peer_uri_sans: Vec<Arc<str>>,
    pub peer_dns_sans: Vec<Arc<str>>,
    pub peer_email_sans: Vec<Arc<str>>,
    pub peer_ip_sans: Vec<IpAddr>,
    pub peer_subject: Option<Arc<str>>,
    pub peer_issuer: Option<Arc<str>>,
    pub peer_serial: Option<Arc<str>>,
    /// Lower-case hexadecimal SHA-256 of the peer's certificate.
    pub peer_fingerprint_256: Option<Arc<str>>,
    pub peer_fingerprint_1: Option<Arc<str>>,
    /// PEM of the peer's certificate.
    pub peer_certificate: Option<Arc<str>>,
    pub peer_valid_from: Option<SystemTime>,
    pub peer_valid_until: Option<SystemTime>,
    /// URI SANs of our own certificate.
    pub local_uri_sans: Vec<Arc<str>>,
    pub local_dns_sans: Vec<Arc<str>>,
    pub local_email_sans: Vec<Arc<str>>,
    pub local_ip_sans: Vec<IpAddr>,
    pub local_subject: Option<Arc<str>>,
    /// Whether the peer's certificate was verified, i.e. the connection is mutual TLS.
    pub mutual: bool,
}

/// Who the other side is, as Istio's peer metadata says. Empty text = not known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Peer {
    pub workload: Arc<str>,
    pub namespace: Arc<str>,
    pub app: Arc<str>,
    pub version: Arc<str>,
    pub canonical_service: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub cluster: Arc<str>,
    /// `pod`, `deployment`, …
    pub workload_type: Arc<str>,
    /// The pod's name.
    pub instance: Arc<str>,
    /// SPIFFE identity, if metadata and not a certificate told it.
    pub identity: Arc<str>,
}

/// Offsets from [`Record::start`]; `None` for what did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// The downstream TLS handshake was complete (connection time, for HTTP too).
    pub downstream_handshake_complete: Option<Duration>,
    /// Last byte of the request was read from the downstream.
    pub last_downstream_rx: Option<Duration>,
    /// Of a connection that was made for this request; a reused one is older than the request.
    pub upstream_connect_start: Option<Duration>,
    pub upstream_connect_complete: Option<Duration>,
    /// How long the TCP connect of the upstream connection took, reused or not.
    pub upstream_connect: Option<Duration>,
    /// How long its TLS handshake took.
    pub upstream_handshake: Option<Duration>,
    /// How long the last attempt waited for a connection.
    pub upstream_pool: Option<Duration>,
    pub first_upstream_tx: Option<Duration>,
    pub last_upstream_tx: Option<Duration>,
    pub first_upstream_rx: Option<Duration>,
    /// First byte of the response's body.
    pub first_upstream_body_rx: Option<Duration>,
    pub last_upstream_rx: Option<Duration>,
    pub first_downstream_tx: Option<Duration>,
    pub last_downstream_tx: Option<Duration>,
    /// The whole, when complete.
    pub total: Option<Duration>,
}

impl Timings {
    /// Time the upstream took until its first byte: the value of `x-envoy-upstream-service-time`.
    pub fn upstream_service_time(&self) -> Option<Duration> {
        self.first_upstream_rx?
            .checked_sub(self.last_upstream_tx.or(self.first_upstream_tx)?)
    }
}

/// Bytes of one direction pair, as counted on the wire and as bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// Body bytes read from the downstream (`%BYTES_RECEIVED%`).
    pub received: u64,
    /// Body bytes written to the downstream (`%BYTES_SENT%`).
    pub sent: u64,
    /// Header and body bytes read from the downstream; metrics and `*_WIRE_BYTES_*` use these.
    pub downstream_wire_received: u64,
    pub downstream_wire_sent: u64,
    pub downstream_header_received: u64,
    pub downstream_header_sent: u64,
    pub upstream_wire_received: u64,
    pub upstream_wire_sent: u64,
    pub upstream_header_received: u64,
    pub upstream_header_sent: u64,
    pub upstream_body_received: u64,
}

/// The host of an attempt that was followed by another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempted {
    pub host: Option<Address>,
    /// The endpoint's host name, when it has one.
    pub host_name: Option<Arc<str>>,
    /// 0: no connection came about.
    pub connection_id: u64,
}

/// Everything that is known about one request or connection when it ends. `Record::default()` is
/// the empty record.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub kind: Kind,
    /// Wall time of the first byte (HTTP) or of accept (TCP).
    pub start: Option<SystemTime>,
    pub timings: Timings,
    pub bytes: Bytes,

    pub method: Option<Method>,
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// Path and query as sent upstream, after rewrites.
    pub path: Option<PathAndQuery>,
    /// Path and query as received, when a rewrite changed it.
    pub original_path: Option<PathAndQuery>,
    pub authority: Option<HeaderValue>,
    pub protocol: Option<Protocol>,
    pub upstream_protocol: Option<Protocol>,
    /// 0 or `None`: no response was sent.
    pub status: Option<u16>,
    pub flags: ResponseFlags,
    /// `via_upstream`, `route_not_found`, …
    pub response_code_details: Option<Cow<'static, str>>,
    pub connection_termination_details: Option<Cow<'static, str>>,
    pub upstream_transport_failure_reason: Option<Arc<str>>,
    pub downstream_transport_failure_reason: Option<Arc<str>>,
    /// The body of a reply that the proxy made itself.
    pub local_reply_body: Option<Arc<str>>,
    pub is_grpc: bool,
    pub grpc_status: Option<u32>,
    pub request_messages: u64,
    pub response_messages: u64,

    /// Present when something needs headers; pseudo-headers come from the fields above.
    pub request_headers: Option<HeaderMap>,
    pub response_headers: Option<HeaderMap>,
    pub response_trailers: Option<HeaderMap>,

    pub downstream_local: Option<Address>,
    /// The client, after x-forwarded-for and PROXY protocol.
    pub downstream_remote: Option<Address>,
    /// The socket's peer.
    pub downstream_direct_remote: Option<Address>,
    /// The socket's local address before original destination was restored.
    pub downstream_direct_local: Option<Address>,
    pub upstream_host: Option<Address>,
    /// The endpoint's host name, when it has one.
    pub upstream_host_name: Option<Arc<str>>,
    pub upstream_local: Option<Address>,
    pub upstream_remote: Option<Address>,
    /// The cluster's name as configured: `outbound|80||a.default.svc.cluster.local`.
    pub upstream_cluster: Option<Arc<str>>,
    /// The cluster's `alt_stat_name`, when it has one.
    pub upstream_cluster_observed: Option<Arc<str>>,
    /// All attempts, 1 = no retry; 0 = the upstream was never asked for. An attempt that found no
    /// host counts, as in Envoy.
    pub attempts: u32,
    /// Hosts of the attempts before the last one.
    pub earlier_attempts: Vec<Attempted>,
    pub requested_server_name: Option<Arc<str>>,
    pub downstream_tls: Option<Arc<TlsInfo>>,
    pub upstream_tls: Option<Arc<TlsInfo>>,
    /// Downstream's authenticated principal where it does not come from the certificate (HBONE).
    pub downstream_peer_principal: Option<Arc<str>>,
    pub downstream_local_principal: Option<Arc<str>>,

    pub route_name: Option<Arc<str>>,
    pub virtual_host: Option<Arc<str>>,
    pub virtual_cluster: Option<Arc<str>>,
    pub filter_chain_name: Option<Arc<str>>,
    pub listener: Option<Arc<str>>,
    /// Unique per connection in this process.
    pub connection_id: u64,
    pub upstream_connection_id: u64,
    /// Unique per request; `%STREAM_ID%` is `x-request-id` when that is a UUID.
    pub stream_id: u64,
    /// `x-request-id` as sent upstream.
    pub request_id: Option<HeaderValue>,
    /// Lower-case hexadecimal trace and span id.
    pub trace: Option<crate::trace::SpanContext>,
    /// The request was recognised as a health check.
    pub health_check: bool,
    /// The request's trace decision (Envoy's "traceable").
    pub traced: bool,

    /// Dynamic metadata by filter name, for example `envoy.filters.http.rbac`.
    pub dynamic_metadata: Option<Box<serde_json::Map<String, serde_json::Value>>>,
    /// Filter state objects by name.
    pub filter_state: Option<Box<serde_json::Map<String, serde_json::Value>>>,
    /// Metadata of the route, cluster, upstream host, virtual host or listener, when some operator
    /// asks (see `Needs`).
    pub route_metadata: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
    pub cluster_metadata: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
    pub host_metadata: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
    pub listener_metadata: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
    pub chain_metadata: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
    pub virtual_host_metadata: Option<Arc<serde_json::Map<String, serde_json::Value>>>,

    /// Istio's metadata of the client, when it told or discovery knew.
    pub downstream_peer: Option<Arc<Peer>>,
    /// Istio's metadata of the upstream workload.
    pub upstream_peer: Option<Arc<Peer>>,
}

impl Record {
    /// The request header `name` as text, pseudo-headers (`:path`, `:authority`, `:method`,
    /// `:scheme`) included. Several values are joined.
    pub fn request_header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request(name, header)
    }

    /// As [`Record::request_header`], of several values the first.
    pub fn first_request_header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request(name, first_header)
    }

    fn request<'a>(&'a self, name: &str, read: ReadHeader<'a>) -> Option<Cow<'a, str>> {
        let plain = |text| Some(Cow::Borrowed(text));
        match name {
            ":path" => plain(self.path.as_ref()?.as_str()),
            ":method" => plain(self.method.as_ref()?.as_str()),
            ":scheme" => plain(self.scheme?),
            ":authority" | "host" => self.authority.as_ref().map(lossy),
            _ => read(self.request_headers.as_ref(), name).or_else(|| match name {
                "x-envoy-original-path" => plain(self.original_path.as_ref()?.as_str()),
                "x-request-id" => Some(lossy(self.request_id.as_ref()?)),
                _ => None,
            }),
        }
    }

    /// The response header `name` as text, `:status` included. Several values are joined.
    pub fn response_header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.response(name, header)
    }

    /// As [`Record::response_header`], of several values the first.
    pub fn first_response_header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.response(name, first_header)
    }

    fn response<'a>(&'a self, name: &str, read: ReadHeader<'a>) -> Option<Cow<'a, str>> {
        match name {
            ":status" => {
                let status = self.status.filter(|status| *status != 0)?;
                Some(Cow::Owned(status.to_string()))
            }
            _ => read(self.response_headers.as_ref(), name).or_else(|| match name {
                "x-envoy-upstream-service-time" => Some(Cow::Owned(
                    self.timings
                        .upstream_service_time()?
                        .as_millis()
                        .to_string(),
                )),
                _ => None,
            }),
        }
    }

    /// The response trailer `name` as text. Several values are joined.
    pub fn trailer(&self, name: &str) -> Option<Cow<'_, str>> {
        header(self.response_trailers.as_ref(), name)
    }

    /// As [`Record::trailer`], of several values the first.
    pub fn first_trailer(&self, name: &str) -> Option<Cow<'_, str>> {
        first_header(self.response_trailers.as_ref(), name)
    }

    /// The downstream's authenticated principal, `spiffe://…`.
    pub fn downstream_principal(&self) -> Option<&str> {
        self.downstream_peer_principal
            .as_deref()
            .or_else(|| first_uri(&self.downstream_tls.as_ref()?.peer_uri_sans))
    }

    /// Our own principal on the downstream side.
    pub fn downstream_own_principal(&self) -> Option<&str> {
        self.downstream_local_principal
            .as_deref()
            .or_else(|| first_uri(&self.downstream_tls.as_ref()?.local_uri_sans))
    }

    /// The upstream's principal.
    pub fn upstream_principal(&self) -> Option<&str> {
        first_uri(&self.upstream_tls.as_ref()?.peer_uri_sans)
    }

    /// Whether the downstream connection is mutual TLS.
    pub fn is_mutual_tls(&self) -> bool {
        self.downstream_tls.as_ref().is_some_and(|tls| tls.mutual)
            || (self.downstream_peer_principal.is_some()
                && self.downstream_local_principal.is_some())
    }
}

fn first_uri(sans: &[Arc<str>]) -> Option<&str> {
    sans.first().map(|san| &**san)
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Reads one header of a map.
type ReadHeader<'a> = fn(Option<&'a HeaderMap>, &str) -> Option<Cow<'a, str>>;

fn first_header<'a>(map: Option<&'a HeaderMap>, name: &str) -> Option<Cow<'a, str>> {
    map?.get(name).map(lossy)
}

/// The values of one header, joined with a comma as Envoy does.
fn header<'a>(map: Option<&'a HeaderMap>, name: &str) -> Option<Cow<'a, str>> {
    let mut values = map?.get_all(name).iter();
    let first = lossy(values.next()?);
    let Some(second) = values.next() else {
        return Some(first);
    };
    let mut joined = first.into_owned();
    for value in std::iter::once(second).chain(values) {
        joined.push(',');
        joined.push_str(&lossy(value));
    }
    Some(Cow::Owned(joined))
}

#[cfg(test)]
mod tests;
