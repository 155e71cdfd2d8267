//! Route tables (`envoy.config.route.v3`).

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};

use crate::{
    ClusterName, Refused, RouteTableName,
    filter::{PerRouteFilter, cors::CorsPolicy},
    hash_policy::HashPolicy,
    header::HeaderOperations,
    matcher::{Fraction, HeaderMatcher, MetadataMatcher, QueryMatcher, RegexRewrite, UriTemplate},
    metadata::Metadata,
    upgrade::Upgrade,
};

#[derive(Debug, Clone, PartialEq)]
pub struct RouteTable {
    pub name: RouteTableName,
    pub virtual_hosts: Arc<[Arc<VirtualHost>]>,
    pub headers: HeaderOperations,
    pub ignore_port_in_host: bool,
    pub most_specific_header_mutations_wins: bool,
    pub filters: Arc<[PerRouteFilter]>,
    pub mirrors: Arc<[MirrorPolicy]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    pub name: Arc<str>,
    /// Lower case. Exact beats longest suffix wildcard (`*.x`), beats longest prefix wildcard
    /// (`x.*`), beats `*`.
    pub domains: Arc<[Arc<str>]>,
    pub routes: Arc<[Arc<Route>]>,
    pub headers: HeaderOperations,
    /// `x-envoy-attempt-count` towards the upstream.
    pub include_request_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    pub require_tls: RequireTls,
    pub cors: Option<Arc<CorsPolicy>>,
    pub retry: Option<Arc<RetryPolicy>>,
    pub filters: Arc<[PerRouteFilter]>,
    pub mirrors: Arc<[MirrorPolicy]>,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireTls {
    No,
    /// 301 to https.
    All,
    ExternalOnly,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Empty when unnamed.
    pub name: Arc<str>,
    pub matches: RouteMatch,
    pub action: RouteAction,
    pub headers: HeaderOperations,
    /// Span operation.
    pub decorator: Option<Arc<str>>,
    pub decorator_propagate: bool,
    pub metadata: Metadata,
    /// Configuration of HTTP filters that differs on this route.
    pub filters: Arc<[PerRouteFilter]>,
    pub stat_prefix: Option<Arc<str>>,
}

/// All criteria must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    pub path: PathMatch,
    /// Does not affect regular expressions.
    pub case_sensitive: bool,
    pub headers: Arc<[HeaderMatcher]>,
    pub query: Arc<[QueryMatcher]>,
    pub runtime_fraction: Option<Fraction>,
    /// Only gRPC requests (`content-type: application/grpc…`).
    pub grpc_only: bool,
    /// Dynamic metadata (claims of a JWT, …).
    pub metadata: Arc<[MetadataMatcher]>,
    pub tls: Option<TlsContextMatch>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// Raw string prefix of the path without query.
    Prefix(Arc<str>),
    Exact(Arc<str>),
    /// The whole path or followed by `/`; never ends with `/`.
    SeparatedPrefix(Arc<str>),
    Regex(crate::matcher::FullRegex),
    Template(UriTemplate),
    /// CONNECT requests.
    Connect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsContextMatch {
    pub presented: Option<bool>,
    pub validated: Option<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    Forward(Arc<Forward>),
    Redirect(Arc<Redirect>),
    DirectResponse {
        status: StatusCode,
        body: bytes::Bytes,
    },
    /// For other filters only; answers 404 if it is reached.
    NonForwarding,
    /// The route could not be read: 503.
    Refused(Arc<Refused>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    pub target: Target,
    /// Answer when the cluster does not exist (503 unless set).
    pub cluster_not_found_status: StatusCode,
    pub path_rewrite: PathRewrite,
    pub host_rewrite: HostRewrite,
    /// The original host is kept in `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// `None`: no limit (Istio's 0s); includes all retries.
    pub timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    /// Holds for gRPC calls instead of `timeout`.
    pub grpc_timeout: Option<GrpcTimeout>,
    pub max_stream_duration: MaxStreamDuration,
    pub retry: Option<Arc<RetryPolicy>>,
    pub mirrors: Arc<[MirrorPolicy]>,
    pub hash_policies: Arc<[HashPolicy]>,
    pub cors: Option<Arc<CorsPolicy>>,
    pub metadata_match: Option<Metadata>,
    /// `websocket` etc. switched on or off on this route.
    pub upgrades: Arc<[Upgrade]>,
    pub high_priority: bool,
}

/// How far a call's own `grpc-timeout` is heeded, from the end of the request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// Upper bound; zero: none.
    pub max: Duration,
    /// Taken off what the call asks for.
    pub offset: Option<Duration>,
}

/// Limits from the beginning of the request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaxStreamDuration {
    /// `None`: the connection manager's; zero: no limit.
    pub max: Option<Duration>,
    /// Upper bound for the client's `grpc-timeout`: `None`: the header is not looked at; zero: no
    /// bound.
    pub grpc_timeout_header_max: Option<Duration>,
    pub grpc_timeout_header_offset: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Cluster(ClusterName),
    /// The value of a request header names it.
    ClusterHeader(HeaderName),
    /// At least one; weights relative to `total_weight` > 0.
    Weighted {
        clusters: Arc<[WeightedCluster]>,
        total_weight: u32,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    pub name: ClusterName,
    pub weight: u32,
    pub headers: HeaderOperations,
    pub metadata_match: Option<Metadata>,
    pub host_rewrite: Option<Arc<str>>,
    pub filters: Arc<[PerRouteFilter]>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    None,
    /// Replaces the matched prefix (or the whole exact path).
    Prefix(Arc<str>),
    Regex(RegexRewrite),
    /// Replaces the whole path.
    Path(Arc<str>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum HostRewrite {
    None,
    Literal(Arc<str>),
    /// The hostname of the chosen endpoint.
    Auto,
    Header(HeaderName),
    PathRegex(RegexRewrite),
}

#[derive(Debug, Clone, PartialEq)]
pub struct MirrorPolicy {
    pub target: Target,
    pub fraction: Fraction,
    pub disable_shadow_host_suffix: bool,
}

/// `RedirectAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    pub host: Option<Arc<str>>,
    pub port: Option<u16>,
    pub scheme: RedirectScheme,
    pub path: RedirectPath,
    pub status: StatusCode,
    pub strip_query: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RedirectScheme {
    Keep,
    Https,
    To(Arc<str>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum RedirectPath {
    Keep,
    /// May carry a query of its own, which then replaces the original.
    Replace(Arc<str>),
    Prefix(Arc<str>),
    Regex(RegexRewrite),
}

#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    pub on: RetryOn,
    pub num_retries: u32,
    /// `None`: the route's timeout.
    pub per_try_timeout: Option<Duration>,
    pub retriable_status_codes: Arc<[u16]>,
    pub retriable_headers: Arc<[HeaderMatcher]>,
    pub retriable_request_headers: Arc<[HeaderMatcher]>,
    /// `previous_hosts` predicate.
    pub skip_previous_hosts: bool,
    pub host_selection_max_attempts: u32,
    pub back_off: BackOff,
}

/// Exponential, fully jittered; Envoy's defaults 25 ms and ten times the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    pub base: Duration,
    pub max: Duration,
}

/// The conditions of `retry_on` (HTTP and gRPC), one flag each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    pub five_xx: bool,
    pub gateway_error: bool,
    pub reset: bool,
    pub reset_before_request: bool,
    pub connect_failure: bool,
    pub envoy_ratelimited: bool,
    pub retriable_4xx: bool,
    pub refused_stream: bool,
    pub retriable_status_codes: bool,
    pub retriable_headers: bool,
    pub http3_post_connect_failure: bool,
    pub grpc_cancelled: bool,
    pub grpc_deadline_exceeded: bool,
    pub grpc_internal: bool,
    pub grpc_resource_exhausted: bool,
    pub grpc_unavailable: bool,
}

impl RetryOn {
    /// Reads a comma-separated list; returns what it does not know beside what it does (Envoy
    /// ignores the unknown).
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let mut on = Self::default();
        let mut unknown = Vec::new();
        for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let flag = match word {
                "5xx" => &mut on.five_xx,
                "gateway-error" => &mut on.gateway_error,
                "reset" => &mut on.reset,
                "reset-before-request" => &mut on.reset_before_request,
                "connect-failure" => &mut on.connect_failure,
                "envoy-ratelimited" => &mut on.envoy_ratelimited,
                "retriable-4xx" => &mut on.retriable_4xx,
                "refused-stream" => &mut on.refused_stream,
                "retriable-status-codes" => &mut on.retriable_status_codes,
                "retriable-headers" => &mut on.retriable_headers,
                "http3-post-connect-failure" => &mut on.http3_post_connect_failure,
                "cancelled" => &mut on.grpc_cancelled,
                "deadline-exceeded" => &mut on.grpc_deadline_exceeded,
                "internal" => &mut on.grpc_internal,
                "resource-exhausted" => &mut on.grpc_resource_exhausted,
                "unavailable" => &mut on.grpc_unavailable,
                other => {
                    unknown.push(other);
                    continue;
                }
            };
            *flag = true;
        }
        (on, unknown)
    }
}
