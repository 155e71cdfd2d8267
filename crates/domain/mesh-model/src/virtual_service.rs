//! VirtualService: how requests for hosts are routed (istio.io reference `VirtualService`; rows TM-001 … TM-025).

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::matching::{Millionths, StringMatch};
use crate::object::{ExportTo, Host, Labels, Meta, Text};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualService {
    pub meta: Meta,
    /// As written but lower case and qualified with the namespace when short.
    pub hosts: Arc<[Host]>,
    /// Default: the mesh.
    pub gateways: Arc<[GatewayRef]>,
    pub http: Arc<[Arc<HttpRoute>]>,
    pub tls: Arc<[TlsRoute]>,
    pub tcp: Arc<[TcpRoute]>,
    pub export_to: ExportTo,
}

/// Which traffic a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GatewayRef {
    /// Sidecars.
    Mesh,
    Named {
        namespace: Text,
        name: Text,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    pub name: Option<Text>,
    /// One of them must match; empty: every request.
    pub matches: Arc<[HttpMatch]>,
    pub action: HttpAction,
    pub headers: Headers,
    pub rewrite: Option<HttpRewrite>,
    /// `None`: no timeout.
    pub timeout: Option<Duration>,
    pub retries: Option<Retries>,
    pub fault: Option<FaultInjection>,
    pub mirrors: Arc<[Mirror]>,
    pub cors: Option<CorsPolicy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAction {
    /// Destinations with weight 0 are dropped when there are several; at least one.
    Route(Arc<[HttpDestination]>),
    Redirect(HttpRedirect),
    DirectResponse {
        status: u16,
        body: Arc<[u8]>,
    },
    /// The routes are in another VirtualService.
    Delegate {
        namespace: Text,
        name: Text,
    },
}

/// All criteria must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpMatch {
    pub name: Option<Text>,
    pub uri: Option<StringMatch>,
    pub ignore_uri_case: bool,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    /// Header names in lower case.
    pub headers: Arc<[(Text, StringMatch)]>,
    pub without_headers: Arc<[(Text, StringMatch)]>,
    pub query: Arc<[(Text, StringMatch)]>,
    pub port: Option<u16>,
    /// Labels of the calling workload.
    pub source_labels: Labels,
    pub source_namespace: Option<Text>,
    /// Empty: the rule's own.
    pub gateways: Arc<[GatewayRef]>,
    pub stat_prefix: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpDestination {
    pub destination: Destination,
    /// Relative.
    pub weight: u32,
    pub headers: Headers,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Qualified.
    pub host: Host,
    pub subset: Option<Text>,
    /// `None`: the service's only port, or the port the request came for.
    pub port: Option<u16>,
}

/// In the order written; `:`-names but `:authority` and `host` were dropped by the reader, which reports them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    pub request: HeaderChanges,
    pub response: HeaderChanges,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChanges {
    pub set: Arc<[(Text, Text)]>,
    pub add: Arc<[(Text, Text)]>,
    pub remove: Arc<[Text]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRewrite {
    pub uri: Option<Text>,
    pub authority: Option<Text>,
    pub uri_regex: Option<(Text, Text)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRedirect {
    pub uri: Option<Text>,
    pub prefix_rewrite: Option<Text>,
    pub authority: Option<Text>,
    pub port: Option<RedirectPort>,
    pub scheme: Option<Text>,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    Number(u16),
    FromProtocolDefault,
    FromRequest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// 0: retries are off.
    pub attempts: u32,
    pub per_try_timeout: Option<Duration>,
    /// Envoy's condition words and status codes, as written; `None`: Istio's default conditions.
    pub retry_on: Option<Text>,
    pub remote_localities: bool,
    pub ignore_previous_hosts: bool,
    pub back_off: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultInjection {
    pub delay: Option<(Duration, Millionths)>,
    pub abort: Option<(AbortStatus, Millionths)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    Http(u16),
    /// gRPC code 0..=16.
    Grpc(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub destination: Destination,
    pub share: Millionths,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsPolicy {
    pub allow_origins: Arc<[StringMatch]>,
    pub allow_methods: Arc<[Text]>,
    pub allow_headers: Arc<[Text]>,
    pub expose_headers: Arc<[Text]>,
    pub max_age: Option<Duration>,
    pub allow_credentials: Option<bool>,
    /// Preflights whose origin does not match are forwarded (default) or answered.
    pub forward_unmatched_preflights: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRoute {
    pub matches: Arc<[TlsMatch]>,
    pub route: Arc<[WeightedDestination]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsMatch {
    /// At least one.
    pub sni_hosts: Arc<[Host]>,
    pub l4: L4Match,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// Empty: every connection.
    pub matches: Arc<[L4Match]>,
    pub route: Arc<[WeightedDestination]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct L4Match {
    pub destination_subnets: Arc<[IpNet]>,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: Option<Text>,
    pub gateways: Arc<[GatewayRef]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedDestination {
    pub destination: Destination,
    pub weight: u32,
}
