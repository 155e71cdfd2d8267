//! `networking.istio.io` VirtualService: hosts, and routes for HTTP, TLS by SNI, and TCP.

use std::collections::BTreeMap;
use std::time::Duration;

message! {
    struct VirtualService {
        hosts: Vec<String>,
        gateways: Vec<String>,
        http: Vec<HttpRoute>,
        tls: Vec<TlsRoute>,
        tcp: Vec<TcpRoute>,
        export_to: Vec<String>,
    }
}

message! {
    struct HttpRoute {
        name: String,
        r#match: Vec<HttpMatchRequest>,
        route: Vec<HttpRouteDestination>,
        redirect: Option<HttpRedirect>,
        direct_response: Option<HttpDirectResponse>,
        delegate: Option<Delegate>,
        rewrite: Option<HttpRewrite>,
        timeout: Option<Duration>,
        retries: Option<HttpRetry>,
        fault: Option<HttpFaultInjection>,
        mirror: Option<Destination>,
        mirrors: Vec<HttpMirrorPolicy>,
        /// Deprecated: whole percent.
        mirror_percent: Option<u32>,
        mirror_percentage: Option<Percent>,
        cors_policy: Option<CorsPolicy>,
        headers: Option<Headers>,
    }
}

message! {
    struct HttpMatchRequest {
        name: String,
        uri: Option<StringMatch>,
        scheme: Option<StringMatch>,
        method: Option<StringMatch>,
        authority: Option<StringMatch>,
        headers: BTreeMap<String, StringMatch>,
        port: Option<u32>,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        query_params: BTreeMap<String, StringMatch>,
        ignore_uri_case: bool,
        without_headers: BTreeMap<String, StringMatch>,
        source_namespace: String,
        stat_prefix: String,
    }
}

message! {
    /// One of three; none means that the value is there.
    struct StringMatch {
        exact: Option<String>,
        prefix: Option<String>,
        regex: Option<String>,
    }
}

message! {
    struct Destination {
        host: String,
        subset: String,
        port: Option<PortSelector>,
    }
}

message! {
    struct PortSelector {
        number: u32,
    }
}

message! {
    struct HttpRouteDestination {
        destination: Option<Destination>,
        weight: i32,
        headers: Option<Headers>,
    }
}

message! {
    struct RouteDestination {
        destination: Option<Destination>,
        weight: i32,
    }
}

message! {
    struct Delegate {
        name: String,
        namespace: String,
    }
}

message! {
    struct Headers {
        request: Option<HeaderOperations>,
        response: Option<HeaderOperations>,
    }
}

message! {
    struct HeaderOperations {
        set: BTreeMap<String, String>,
        add: BTreeMap<String, String>,
        remove: Vec<String>,
    }
}

message! {
    struct HttpRedirect {
        uri: String,
        prefix_rewrite: String,
        authority: String,
        port: Option<u32>,
        derive_port: Option<RedirectPortSelection>,
        scheme: String,
        redirect_code: u32,
    }
}

names! {
    enum RedirectPortSelection {
        FromProtocolDefault = 0 "FROM_PROTOCOL_DEFAULT",
        FromRequestPort = 1 "FROM_REQUEST_PORT",
    }
}

message! {
    struct HttpDirectResponse {
        status: u32,
        body: Option<HttpBody>,
    }
}

message! {
    struct HttpBody {
        string: Option<String>,
        /// Base64.
        bytes: Option<String>,
    }
}

message! {
    struct HttpRewrite {
        uri: String,
        authority: String,
        uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    struct RegexRewrite {
        r#match: String,
        rewrite: String,
    }
}

message! {
    struct HttpRetry {
        attempts: i32,
        per_try_timeout: Option<Duration>,
        retry_on: String,
        retry_remote_localities: Option<bool>,
        retry_ignore_previous_hosts: Option<bool>,
        backoff: Option<Duration>,
    }
}

message! {
    struct HttpMirrorPolicy {
        destination: Option<Destination>,
        percentage: Option<Percent>,
    }
}

message! {
    struct Percent {
        value: f64,
    }
}

message! {
    struct CorsPolicy {
        /// Deprecated: exact origins.
        allow_origin: Vec<String>,
        allow_origins: Vec<StringMatch>,
        allow_methods: Vec<String>,
        allow_headers: Vec<String>,
        expose_headers: Vec<String>,
        max_age: Option<Duration>,
        allow_credentials: Option<bool>,
        unmatched_preflights: UnmatchedPreflights,
    }
}

names! {
    enum UnmatchedPreflights {
        Unspecified = 0 "UNSPECIFIED",
        Forward = 1 "FORWARD",
        Ignore = 2 "IGNORE",
    }
}

message! {
    struct HttpFaultInjection {
        delay: Option<FaultDelay>,
        abort: Option<FaultAbort>,
    }
}

message! {
    struct FaultDelay {
        /// Deprecated: whole percent.
        percent: i32,
        percentage: Option<Percent>,
        fixed_delay: Option<Duration>,
        exponential_delay: Option<Duration>,
    }
}

message! {
    struct FaultAbort {
        percentage: Option<Percent>,
        http_status: Option<i32>,
        grpc_status: Option<String>,
        http2_error: Option<String>,
    }
}

message! {
    struct TlsRoute {
        r#match: Vec<TlsMatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

message! {
    struct TlsMatchAttributes {
        sni_hosts: Vec<String>,
        destination_subnets: Vec<String>,
        port: Option<u32>,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}

message! {
    struct TcpRoute {
        r#match: Vec<L4MatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

message! {
    struct L4MatchAttributes {
        destination_subnets: Vec<String>,
        port: Option<u32>,
        /// Not implemented by Istio either.
        source_subnet: String,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}
