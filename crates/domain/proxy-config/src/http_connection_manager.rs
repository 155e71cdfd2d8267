//! The HTTP connection manager (`envoy.extensions.filters.network.http_connection_manager.v3`).

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{
    HttpFilter, RouteTable, RouteTableName, access_log::AccessLog, tracing::Tracing,
    upgrade::Upgrade,
};

#[derive(Debug, Clone, PartialEq)]
pub struct HttpConnectionManager {
    /// As sent, e.g. `outbound_0.0.0.0_9080;` (Istio ends it with `;`, which statistics drop).
    pub stat_prefix: Arc<str>,
    pub codec: CodecType,
    pub routes: RouteSource,
    /// In order; the last is the router.
    pub filters: Arc<[HttpFilter]>,
    pub tracing: Option<Arc<Tracing>>,
    pub access_logs: Arc<[AccessLog]>,
    /// `server` response header.
    pub server_name: Arc<str>,
    pub server_header: ServerHeader,
    pub use_remote_address: bool,
    /// Whose requests are internal: their `x-envoy-…` headers are heeded. Empty: nobody's.
    pub internal_networks: Arc<[IpNet]>,
    pub xff_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub append_x_forwarded_port: bool,
    pub forward_client_cert: ForwardClientCert,
    pub client_cert_details: ClientCertDetails,
    pub proxy_100_continue: bool,
    pub upgrades: Arc<[Upgrade]>,
    pub path_normalization: PathNormalization,
    pub request_id: RequestId,
    pub strip_port: StripPort,
    /// HTTP/1.0 requests are answered 426 unless set.
    pub accept_http10: bool,
    pub preserve_header_case: bool,
    pub via: Option<Arc<str>>,
    pub timeouts: HttpTimeouts,
    pub http2: Http2Options,
    pub max_request_headers_kb: u32,
    /// More headers in a request are answered 431; default 100.
    pub max_headers: u32,
    /// Methods that no registry knows are let pass.
    pub custom_methods: bool,
    pub max_requests_per_connection: Option<u32>,
    pub headers_with_underscores: UnderscoresAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecType {
    Auto,
    Http1,
    Http2,
}

/// Where the routes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// By name through RDS.
    Named(RouteTableName),
    Inline(Arc<RouteTable>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerHeader {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardClientCert {
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathNormalization {
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    pub generate: bool,
    /// An `x-request-id` from outside is kept even at the edge.
    pub preserve_external: bool,
    pub always_in_response: bool,
    /// Trace decisions are packed into the id.
    pub pack_trace_reason: bool,
    pub use_for_sampling: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripPort {
    No,
    /// Only the port the listener has.
    Matching,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderscoresAction {
    Allow,
    Reject,
    Drop,
}

/// `None`: no such timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HttpTimeouts {
    /// No active stream for this long closes the connection; default 1 h.
    pub idle: Option<Duration>,
    pub stream_idle: Option<Duration>,
    pub request: Option<Duration>,
    pub request_headers: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    /// How long a client that still sends is read from when its connection ends; default 1 s.
    pub delayed_close: Option<Duration>,
    pub drain: Option<Duration>,
}

/// `None`: the codec's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Http2Options {
    pub max_concurrent_streams: Option<u32>,
    pub initial_stream_window_bytes: Option<u32>,
    pub initial_connection_window_bytes: Option<u32>,
    pub keepalive_interval: Option<Duration>,
    pub keepalive_timeout: Option<Duration>,
    pub allow_connect: bool,
}
