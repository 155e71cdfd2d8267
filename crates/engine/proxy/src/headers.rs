//! Header work of the connection manager and the router: what is removed, normalised, set and added
//! on the way.
//!
//! [`admit`] is first: it makes a request's head safe and uniform (host out of the map, hop-by-hop
//! headers out, path normalised) and adds what the connection manager adds; [`upstream`] rewrites
//! path and host for the chosen route; [`response`] does the way back; [`operations`] are the
//! header changes that configuration asks for. Follows Envoy's HTTP header manipulation
//! documentation and
//! `envoy.extensions.filters.network.http_connection_manager.v3`.

use http::{HeaderMap, HeaderName, HeaderValue};

pub mod admit;
pub mod client_certificate;
pub mod framing;
pub mod operations;
pub mod path;
pub mod response;
pub mod trace;
pub mod upstream;

/// Names that `http` does not have.
pub mod names {
    use http::HeaderName;

    macro_rules! names {
        ($($constant:ident $name:literal;)*) => { $(pub const $constant: HeaderName = HeaderName::from_static($name);)* };
    }

    names! {
        KEEP_ALIVE "keep-alive";
        HTTP2_SETTINGS "http2-settings";
        PROXY_CONNECTION "proxy-connection";
        X_FORWARDED_FOR "x-forwarded-for";
        X_FORWARDED_PROTO "x-forwarded-proto";
        X_FORWARDED_HOST "x-forwarded-host";
        X_FORWARDED_PORT "x-forwarded-port";
        X_FORWARDED_CLIENT_CERT "x-forwarded-client-cert";
        X_REQUEST_ID "x-request-id";
        X_ENVOY_ATTEMPT_COUNT "x-envoy-attempt-count";
        X_ENVOY_DECORATOR_OPERATION "x-envoy-decorator-operation";
        X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER "x-envoy-downstream-service-cluster";
        X_ENVOY_DOWNSTREAM_SERVICE_NODE "x-envoy-downstream-service-node";
        X_ENVOY_EXPECTED_RQ_TIMEOUT_MS "x-envoy-expected-rq-timeout-ms";
        X_ENVOY_EXTERNAL_ADDRESS "x-envoy-external-address";
        X_ENVOY_FORCE_TRACE "x-envoy-force-trace";
        X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT "x-envoy-hedge-on-per-try-timeout";
        X_ENVOY_INTERNAL "x-envoy-internal";
        X_ENVOY_IP_TAGS "x-envoy-ip-tags";
        X_ENVOY_MAX_RETRIES "x-envoy-max-retries";
        X_ENVOY_ORIGINAL_HOST "x-envoy-original-host";
        X_ENVOY_ORIGINAL_PATH "x-envoy-original-path";
        X_ENVOY_ORIGINAL_URL "x-envoy-original-url";
        X_ENVOY_OVERLOADED "x-envoy-overloaded";
        X_ENVOY_DROP_OVERLOAD "x-envoy-drop-overload";
        X_ENVOY_UNCONDITIONAL_DROP_OVERLOAD "x-envoy-unconditional-drop-overload";
        X_ENVOY_PEER_METADATA "x-envoy-peer-metadata";
        X_ENVOY_PEER_METADATA_ID "x-envoy-peer-metadata-id";
        X_ENVOY_RETRIABLE_HEADER_NAMES "x-envoy-retriable-header-names";
        X_ENVOY_RETRIABLE_STATUS_CODES "x-envoy-retriable-status-codes";
        X_ENVOY_RETRY_GRPC_ON "x-envoy-retry-grpc-on";
        X_ENVOY_RETRY_ON "x-envoy-retry-on";
        X_ENVOY_UPSTREAM_ALT_STAT_NAME "x-envoy-upstream-alt-stat-name";
        X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS "x-envoy-upstream-rq-per-try-timeout-ms";
        X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE "x-envoy-upstream-rq-timeout-alt-response";
        X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS "x-envoy-upstream-rq-timeout-ms";
        X_ENVOY_UPSTREAM_SERVICE_TIME "x-envoy-upstream-service-time";
        GRPC_STATUS "grpc-status";
        GRPC_MESSAGE "grpc-message";
        GRPC_TIMEOUT "grpc-timeout";
    }
}

/// Removes these. One look at all names is cheaper than asking for each, and most messages have
/// none of them.
pub fn remove_all(headers: &mut HeaderMap, names: &[HeaderName]) {
    if headers.keys().any(|name| names.contains(name)) {
        for name in names {
            headers.remove(name);
        }
    }
}

/// Whether anything is asked of the proxy by a header.
pub fn has_envoy_headers(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| name.as_str().starts_with("x-envoy-"))
}

/// A number as a header value.
pub fn number(value: u64) -> HeaderValue {
    HeaderValue::from(value)
}

/// A text as a header value; what cannot be one (control characters) becomes the empty value.
pub fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}
