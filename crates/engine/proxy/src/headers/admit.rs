//! First of all: a request's head is made safe and uniform, or the request is refused.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is a reply like any other, made at most once for a request"
)]

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONNECTION, COOKIE, HOST, LOCATION, TE, TRANSFER_ENCODING, UPGRADE, VIA},
    uri::PathAndQuery,
};
use proxy_config::http_connection_manager::{
    EscapedSlashes, HttpConnectionManager, StripPort, UnderscoresAction,
};
use stdx::Rng;
use telemetry::{
    record::{Protocol, ResponseFlags},
    trace::new_request_id,
};

use crate::{
    headers::{client_certificate, framing, has_envoy_headers, names::*, path, remove_all, text},
    local_reply::LocalReply,
    request::{Request, protocol},
    route::without_port,
};

/// Of one connection, beside `connection` and `upgrade`.
const OF_THIS_HOP: [HeaderName; 4] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    TRANSFER_ENCODING,
    X_ENVOY_INTERNAL,
];

/// Headers that only a trusted hop may send.
const NOT_FROM_OUTSIDE: [HeaderName; 13] = [
    X_ENVOY_RETRIABLE_STATUS_CODES,
    X_ENVOY_RETRIABLE_HEADER_NAMES,
    X_ENVOY_RETRY_ON,
    X_ENVOY_RETRY_GRPC_ON,
    X_ENVOY_MAX_RETRIES,
    X_ENVOY_UPSTREAM_ALT_STAT_NAME,
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
    X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
    X_ENVOY_FORCE_TRACE,
    X_ENVOY_IP_TAGS,
    X_ENVOY_ORIGINAL_URL,
    X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
];

/// Headers that the edge of the mesh takes from nobody.
const NOT_AT_THE_EDGE: [HeaderName; 6] = [
    X_ENVOY_ORIGINAL_HOST,
    X_ENVOY_DECORATOR_OPERATION,
    X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
    X_ENVOY_DOWNSTREAM_SERVICE_NODE,
    X_ENVOY_ORIGINAL_PATH,
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
];

/// Prepares the head, or refuses the request.
pub fn admit(request: &mut Request, rng: &Arc<dyn Rng>) -> Result<(), LocalReply> {
    let http = request.http.clone();
    request.record.protocol = Some(protocol(request.head.version));
    if let Some((status, details)) = framing::fault(&request.head, &http) {
        return Err(codec_refusal(request, status, details));
    }
    let is_extended = request
        .head
        .extensions
        .get::<hyper::ext::Protocol>()
        .is_some();
    // An extended CONNECT is told in the words of HTTP/1: a GET that asks for an upgrade.
    request.record.method = Some(if is_extended {
        Method::GET
    } else {
        request.head.method.clone()
    });
    check_underscores(request, http.headers_with_underscores)?;
    strip_hop_by_hop(request)?;
    take_authority(request)?;
    note_path(request);
    normalize_path(request, &http)?;
    strip_port(request, http.strip_port);
    if request.head.version >= Version::HTTP_2 {
        join(&mut request.head.headers, COOKIE, b"; ");
    }
    join(&mut request.head.headers, X_FORWARDED_FOR, b",");
    forwarded(request, &http);
    if !request.is_internal {
        strip_untrusted(&mut request.head.headers, http.use_remote_address);
    }
    request_id(request, &http, rng);
    if let Some(via) = &http.via {
        add_to_list(&mut request.head.headers, VIA, via);
    }
    client_certificate::apply(
        &mut request.head.headers,
        request.downstream.tls.as_ref(),
        http.forward_client_cert,
        http.client_cert_details,
    );
    Ok(())
}

/// An answer in place of one that Envoy's codec would give: the head counts as not read.
fn codec_refusal(request: &mut Request, status: StatusCode, details: &'static str) -> LocalReply {
    request.closes = true;
    request.record.protocol = Some(Protocol::Http11);
    let body = status.canonical_reason().unwrap_or_default();
    let flag = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
    LocalReply::failure(request, status, body, flag, details)
}

/// As [`LocalReply::local`] without a body; what else comes on the connection is not read.
fn refusal(request: &mut Request, status: StatusCode, details: &'static str) -> LocalReply {
    request.closes = true;
    LocalReply::new(request, status, "", details)
}

fn strip_untrusted(headers: &mut HeaderMap, at_the_edge: bool) {
    if !has_envoy_headers(headers) {
        return;
    }
    for name in NOT_FROM_OUTSIDE {
        headers.remove(name);
    }
    if at_the_edge {
        for name in NOT_AT_THE_EDGE {
            headers.remove(name);
        }
    }
}

/// `:authority`, the authority of an absolute URI, or `host`, in this order; `host` leaves the map.
fn take_authority(request: &mut Request) -> Result<(), LocalReply> {
    let host = take_host(&mut request.head.headers);
    if request.head.version >= Version::HTTP_2 {
        request.scheme_told = match request.head.uri.scheme_str() {
            Some("https") => Some("https"),
            Some("http") => Some("http"),
            _ => None,
        };
    }
    let uri = &request.head.uri;
    let is_absolute = request.head.version < Version::HTTP_2 && uri.scheme().is_some();
    let from_uri = uri.authority().and_then(|authority| {
        let whole = authority.as_str();
        // Who asks is nobody's business but the first hop's, and no part of a host (RFC 9110
        // §4.2.4).
        let host = whole.rsplit('@').next().filter(|_| is_absolute);
        HeaderValue::from_str(host.unwrap_or(whole)).ok()
    });
    let Some(authority) = from_uri.or(host) else {
        note_path(request);
        return Err(refusal(
            request,
            StatusCode::BAD_REQUEST,
            "missing_host_header",
        ));
    };
    if !framing::is_authority(authority.as_bytes()) {
        request.record.method = None;
        return Err(codec_refusal(
            request,
            StatusCode::BAD_REQUEST,
            "http.invalid_authority",
        ));
    }
    request.authority = authority;
    request.record.authority = Some(request.authority.clone());
    if request.head.method != Method::CONNECT
        || request
            .head
            .extensions
            .get::<hyper::ext::Protocol>()
            .is_some()
    {
        let path = request
            .head
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        request.head.uri = Uri::from(path);
    }
    Ok(())
}

/// Several values are one list, which no name of a virtual host equals.
fn take_host(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut all = headers.get_all(HOST).iter();
    let joined = match (all.next(), all.next()) {
        (Some(_), Some(_)) => {
            let all: Vec<&[u8]> = headers
                .get_all(HOST)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            HeaderValue::from_bytes(&all.join(&b','))
        }
        _ => return headers.remove(HOST),
    };
    headers.remove(HOST);
    joined.ok()
}

/// The record shows the path as it is now.
fn note_path(request: &mut Request) {
    request.record.path = request.head.uri.path_and_query().cloned();
}

fn check_underscores(request: &mut Request, action: UnderscoresAction) -> Result<(), LocalReply> {
    if action == UnderscoresAction::Allow
        || !request
            .head
            .headers
            .keys()
            .any(|name| name.as_str().contains('_'))
    {
        return Ok(());
    }
    if action == UnderscoresAction::Reject {
        request.record.method = None;
        let details = match request.head.version {
            Version::HTTP_2 => "http2.unexpected_underscore",
            _ => "http1.unexpected_underscore",
        };
        return Err(codec_refusal(request, StatusCode::BAD_REQUEST, details));
    }
    let with_underscore: Vec<HeaderName> = request
        .head
        .headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    for name in with_underscore {
        request.head.headers.remove(name);
    }
    Ok(())
}

fn strip_hop_by_hop(request: &mut Request) -> Result<(), LocalReply> {
    let headers = &mut request.head.headers;
    let wants = headers.get(CONNECTION).is_some_and(|c| {
        c.to_str()
            .is_ok_and(|c| c.to_ascii_lowercase().contains("upgrade"))
    });
    request.keeps_alive = headers
        .get(CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    // Envoy does not upgrade to HTTP/2, which RFC 9113 §3.1 withdrew: the request goes on as it is.
    let is_h2c = headers
        .get(UPGRADE)
        .is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(b"h2c"));
    let upgrades = request.upgrade.is_some() && wants && !is_h2c && headers.contains_key(UPGRADE);
    if !upgrades {
        if !framing::remove_nominated(headers) {
            request.record.method = None;
            let details = "http1.connection_header_rejected";
            return Err(codec_refusal(request, StatusCode::BAD_REQUEST, details));
        }
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
        if request.head.method != Method::CONNECT {
            request.upgrade = None;
        }
    }
    remove_all(headers, &OF_THIS_HOP);
    if let Some(te) = headers.get(TE) {
        let trailers = te.to_str().is_ok_and(|te| {
            te.split(',')
                .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        });
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"))
        } else {
            headers.remove(TE)
        };
    }
    Ok(())
}

fn normalize_path(request: &mut Request, http: &HttpConnectionManager) -> Result<(), LocalReply> {
    let is_connect = request.head.method == Method::CONNECT;
    if !is_connect && !request.path().starts_with('/') {
        return Err(LocalReply::new(
            request,
            StatusCode::NOT_FOUND,
            "",
            "absolute_path_rejected",
        ));
    }
    if request.path().is_empty() {
        return Ok(());
    }
    let normalized = match path::normalize(request.path(), &http.path_normalization) {
        path::Normalized::Path(Cow::Borrowed(_)) => return Ok(()),
        path::Normalized::Path(Cow::Owned(clean)) => path::Normalized::Path(Cow::Owned(clean)),
        path::Normalized::Reject => path::Normalized::Reject,
        path::Normalized::Redirect(to) => path::Normalized::Redirect(to),
    };
    match normalized {
        path::Normalized::Path(clean) => match clean.parse::<PathAndQuery>() {
            Ok(path) => {
                request.head.uri = Uri::from(path);
                note_path(request);
                Ok(())
            }
            Err(_) => Err(refusal(
                request,
                StatusCode::BAD_REQUEST,
                "path_normalization_failed",
            )),
        },
        path::Normalized::Reject => {
            if http.path_normalization.escaped_slashes == EscapedSlashes::Reject {
                // The log shows what was found.
                request.record.path = path::unescape_slashes(request.path()).parse().ok();
            }
            Err(refusal(
                request,
                StatusCode::BAD_REQUEST,
                "path_normalization_failed",
            ))
        }
        path::Normalized::Redirect(to) => {
            request.record.path = to.parse().ok();
            let mut reply = LocalReply::new(
                request,
                StatusCode::TEMPORARY_REDIRECT,
                "",
                "path_normalization_failed",
            );
            reply.head.headers.insert(LOCATION, text(&to));
            Err(reply)
        }
    }
}

fn strip_port(request: &mut Request, rule: StripPort) {
    if rule == StripPort::No {
        return;
    }
    let authority = request.authority.to_str().unwrap_or_default();
    let host = without_port(authority);
    let port = authority
        .get(host.len()..)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|port| port.parse::<u16>().ok());
    let strip = match rule {
        StripPort::No => false,
        StripPort::Any => port.is_some(),
        StripPort::Matching => port == Some(request.downstream.facts.destination.port()),
    };
    if strip {
        request.authority = text(host);
    }
}

/// Who the client is and how it came: `x-forwarded-*`, and the record's remote address.
fn forwarded(request: &mut Request, http: &HttpConnectionManager) {
    let is_tls = request.downstream.tls.is_some();
    let scheme = if is_tls { "https" } else { "http" };
    let peer = request.downstream.facts.source;
    let hops = usize::try_from(http.xff_trusted_hops).unwrap_or(usize::MAX);
    let headers = &mut request.head.headers;
    // An address that others wrote down before the last one could be anybody's.
    let is_single = match (http.use_remote_address, hops) {
        (true, _) => !headers.contains_key(X_FORWARDED_FOR),
        (false, 0) => headers
            .get(X_FORWARDED_FOR)
            .is_some_and(|value| !value.as_bytes().contains(&b',')),
        (false, _) => false,
    };
    let remote = if http.use_remote_address {
        // The client is the peer, or the address that the last trusted proxy before us wrote.
        let remote = hops
            .checked_sub(1)
            .and_then(|skip| forwarded_address(headers, skip))
            .unwrap_or(peer);
        if !http.skip_xff_append {
            append(headers, X_FORWARDED_FOR, &peer.ip().to_string());
        }
        if hops == 0 || !headers.contains_key(X_FORWARDED_PROTO) {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
        }
        remote
    } else {
        forwarded_address(headers, hops).unwrap_or(peer)
    };
    request.is_internal = is_single
        && http
            .internal_networks
            .iter()
            .any(|net| net.contains(&remote.ip()));
    if request.is_internal {
        headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else if http.use_remote_address {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, text(&remote.ip().to_string()));
    }
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert_with(|| HeaderValue::from_static(scheme));
    if http.append_x_forwarded_port {
        let port = request.downstream.facts.destination.port();
        headers
            .entry(X_FORWARDED_PORT)
            .or_insert_with(|| HeaderValue::from(port));
    }
    let forwarded_https = headers
        .get(X_FORWARDED_PROTO)
        .is_some_and(|proto| proto == "https");
    request.is_https = forwarded_https;
    // HTTP/2 says it itself.
    request.scheme = request
        .scheme_told
        .unwrap_or(if forwarded_https { "https" } else { "http" });
    request.record.scheme = Some(request.scheme);
    request.record.downstream_remote = Some(remote.into());
}

/// The address that is `skip` from the end of `x-forwarded-for`; its port is unknown, hence 0.
fn forwarded_address(headers: &HeaderMap, skip: usize) -> Option<SocketAddr> {
    let last = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .next_back()?
        .to_str()
        .ok()?;
    let address: IpAddr = last.rsplit(',').nth(skip)?.trim().parse().ok()?;
    Some(SocketAddr::new(address, 0))
}

/// Several lines of a header become one, as RFC 9110 §5.3 (and for cookies RFC 9113 §8.2.3) lets a
/// proxy do.
fn join(headers: &mut HeaderMap, name: HeaderName, separator: &[u8]) {
    let mut all = headers.get_all(&name).iter();
    if all.next().is_none() || all.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(&name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(separator)) {
        headers.insert(name, joined);
    }
}

/// Adds an element to a list with a space after the comma.
pub fn add_to_list(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    join(headers, name.clone(), b", ");
    let joined = match headers.get(&name).and_then(|before| before.to_str().ok()) {
        Some(before) => text(&format!("{before}, {element}")),
        None => text(element),
    };
    headers.insert(name, joined);
}

/// Appends to the last value of a comma-separated header.
pub fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let joined = match headers.get(&name).and_then(|before| before.to_str().ok()) {
        Some(before) if !before.is_empty() => text(&format!("{before},{value}")),
        _ => text(value),
    };
    headers.insert(name, joined);
}

fn request_id(request: &mut Request, http: &HttpConnectionManager, rng: &Arc<dyn Rng>) {
    let rules = http.request_id;
    if !rules.generate {
        request.record.request_id = request.head.headers.get(X_REQUEST_ID).cloned();
        return;
    }
    let keep = !http.use_remote_address || request.is_internal || rules.preserve_external;
    let kept = request
        .head
        .headers
        .get(X_REQUEST_ID)
        .filter(|id| keep && !id.is_empty())
        .cloned();
    let id = kept.unwrap_or_else(|| text(&new_request_id(rng)));
    request.head.headers.insert(X_REQUEST_ID, id.clone());
    request.record.request_id = Some(id);
}
