//! First of all: a request's head is made safe and uniform, or the request is refused.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is a reply like any other, made at most once for a request"
)]

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONNECTION, COOKIE, HOST, LOCATION, TE, TRANSFER_ENCODING, UPGRADE, VIA},
    uri::PathAndQuery,
};
use proxy_config::http_connection_manager::{
    EscapedSlashes, HttpConnectionManager, StripPort, UnderscoresAction,
};
use telemetry::{
    record::{Protocol, ResponseFlags},
    trace::new_request_id,
};

use crate::{
    exchange::{Exchange, protocol, reply::Reply},
    headers::{client_certificate, framing, has_envoy_headers, names::*, path, remove_all, text},
    report::downstream::HttpCount,
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
pub fn admit(x: &mut Exchange) -> Result<(), Reply> {
    let http = x.http.config.clone();
    x.record.protocol = Some(protocol(x.head.version));
    if let Some((status, details)) = framing::fault(&x.head, &http) {
        return Err(codec_refusal(x, status, details));
    }
    let is_extended = x.head.extensions.get::<hyper::ext::Protocol>().is_some();
    // An extended CONNECT is told in the words of HTTP/1: a GET that asks for an upgrade.
    x.record.method = Some(if is_extended {
        Method::GET
    } else {
        x.head.method.clone()
    });
    check_underscores(x, http.headers_with_underscores)?;
    strip_hop_by_hop(x)?;
    take_authority(x)?;
    note_path(x);
    normalize_path(x, &http)?;
    strip_port(x, http.strip_port);
    if x.head.version >= Version::HTTP_2 {
        join(&mut x.head.headers, COOKIE, b"; ");
    }
    join(&mut x.head.headers, X_FORWARDED_FOR, b",");
    forwarded(x, &http);
    if !x.is_internal {
        strip_untrusted(&mut x.head.headers, http.use_remote_address);
    }
    request_id(x, &http);
    if let Some(via) = &http.via {
        add_to_list(&mut x.head.headers, VIA, via);
    }
    client_certificate::apply(
        &mut x.head.headers,
        x.connection.tls.as_ref(),
        http.forward_client_cert,
        http.client_cert_details,
    );
    Ok(())
}

/// An answer in place of one that Envoy's codec would give: the head counts as not read.
fn codec_refusal(x: &mut Exchange, status: StatusCode, details: &'static str) -> Reply {
    x.closes = true;
    x.http.metrics.count(HttpCount::ProtocolErrors);
    x.record.protocol = Some(Protocol::Http11);
    let body = status.canonical_reason().unwrap_or_default();
    let flag = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
    Reply::failure(x, status, body, flag, details)
}

/// As [`Reply::local`] without a body; what else comes on the connection is not read.
fn refusal(x: &mut Exchange, status: StatusCode, details: &'static str) -> Reply {
    x.closes = true;
    Reply::local(x, status, "", details)
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
fn take_authority(x: &mut Exchange) -> Result<(), Reply> {
    let host = take_host(&mut x.head.headers);
    if x.head.version >= Version::HTTP_2 {
        x.scheme_told = match x.head.uri.scheme_str() {
            Some("https") => Some("https"),
            Some("http") => Some("http"),
            _ => None,
        };
    }
    let from_uri = x
        .head
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let Some(authority) = from_uri.or(host) else {
        note_path(x);
        return Err(refusal(x, StatusCode::BAD_REQUEST, "missing_host_header"));
    };
    if !framing::is_authority(authority.as_bytes()) {
        x.record.method = None;
        return Err(codec_refusal(
            x,
            StatusCode::BAD_REQUEST,
            "http.invalid_authority",
        ));
    }
    x.authority = authority;
    x.record.authority = Some(x.authority.clone());
    if x.head.method != Method::CONNECT || x.head.extensions.get::<hyper::ext::Protocol>().is_some()
    {
        let path = x
            .head
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        x.head.uri = Uri::from(path);
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
fn note_path(x: &mut Exchange) {
    x.record.path = x.head.uri.path_and_query().cloned();
}

fn check_underscores(x: &mut Exchange, action: UnderscoresAction) -> Result<(), Reply> {
    if action == UnderscoresAction::Allow
        || !x
            .head
            .headers
            .keys()
            .any(|name| name.as_str().contains('_'))
    {
        return Ok(());
    }
    if action == UnderscoresAction::Reject {
        x.record.method = None;
        let details = match x.head.version {
            Version::HTTP_2 => "http2.unexpected_underscore",
            _ => "http1.unexpected_underscore",
        };
        return Err(codec_refusal(x, StatusCode::BAD_REQUEST, details));
    }
    let with_underscore: Vec<HeaderName> = x
        .head
        .headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    for name in with_underscore {
        x.head.headers.remove(name);
    }
    Ok(())
}

fn strip_hop_by_hop(x: &mut Exchange) -> Result<(), Reply> {
    let headers = &mut x.head.headers;
    let wants = headers.get(CONNECTION).is_some_and(|c| {
        c.to_str()
            .is_ok_and(|c| c.to_ascii_lowercase().contains("upgrade"))
    });
    x.keeps_alive = headers
        .get(CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    // Envoy does not upgrade to HTTP/2, which RFC 9113 §3.1 withdrew: the request goes on as it is.
    let is_h2c = headers
        .get(UPGRADE)
        .is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(b"h2c"));
    let upgrades = x.upgrade.is_some() && wants && !is_h2c && headers.contains_key(UPGRADE);
    if !upgrades {
        if !framing::remove_nominated(headers) {
            x.record.method = None;
            let details = "http1.connection_header_rejected";
            return Err(codec_refusal(x, StatusCode::BAD_REQUEST, details));
        }
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
        if x.head.method != Method::CONNECT {
            x.upgrade = None;
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

fn normalize_path(x: &mut Exchange, http: &HttpConnectionManager) -> Result<(), Reply> {
    let is_connect = x.head.method == Method::CONNECT;
    if !is_connect && !x.path().starts_with('/') {
        return Err(Reply::local(
            x,
            StatusCode::NOT_FOUND,
            "",
            "absolute_path_rejected",
        ));
    }
    if x.path().is_empty() {
        return Ok(());
    }
    let normalized = match path::normalize(x.path(), &http.path_normalization) {
        path::Normalized::Path(Cow::Borrowed(_)) => return Ok(()),
        path::Normalized::Path(Cow::Owned(clean)) => path::Normalized::Path(Cow::Owned(clean)),
        path::Normalized::Reject => path::Normalized::Reject,
        path::Normalized::Redirect(to) => path::Normalized::Redirect(to),
    };
    match normalized {
        path::Normalized::Path(clean) => match clean.parse::<PathAndQuery>() {
            Ok(path) => {
                x.head.uri = Uri::from(path);
                note_path(x);
                Ok(())
            }
            Err(_) => Err(refusal(
                x,
                StatusCode::BAD_REQUEST,
                "path_normalization_failed",
            )),
        },
        path::Normalized::Reject => {
            if http.path_normalization.escaped_slashes == EscapedSlashes::Reject {
                // The log shows what was found.
                x.record.path = path::unescape_slashes(x.path()).parse().ok();
            }
            Err(refusal(
                x,
                StatusCode::BAD_REQUEST,
                "path_normalization_failed",
            ))
        }
        path::Normalized::Redirect(to) => {
            x.record.path = to.parse().ok();
            let mut reply = Reply::local(
                x,
                StatusCode::TEMPORARY_REDIRECT,
                "",
                "path_normalization_failed",
            );
            reply.head.headers.insert(LOCATION, text(&to));
            Err(reply)
        }
    }
}

fn strip_port(x: &mut Exchange, rule: StripPort) {
    if rule == StripPort::No {
        return;
    }
    let authority = x.authority.to_str().unwrap_or_default();
    let host = without_port(authority);
    let port = authority
        .get(host.len()..)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|port| port.parse::<u16>().ok());
    let strip = match rule {
        StripPort::No => false,
        StripPort::Any => port.is_some(),
        StripPort::Matching => port == Some(x.connection.facts.destination.port()),
    };
    if strip {
        x.authority = text(host);
    }
}

/// Who the client is and how it came: `x-forwarded-*`, and the record's remote address.
fn forwarded(x: &mut Exchange, http: &HttpConnectionManager) {
    let is_tls = x.connection.tls.is_some();
    let scheme = if is_tls { "https" } else { "http" };
    let peer = x.connection.facts.source;
    let hops = usize::try_from(http.xff_trusted_hops).unwrap_or(usize::MAX);
    let headers = &mut x.head.headers;
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
    x.is_internal = is_single
        && http
            .internal_networks
            .iter()
            .any(|net| net.contains(&remote.ip()));
    if x.is_internal {
        headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else if http.use_remote_address {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, text(&remote.ip().to_string()));
    }
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert_with(|| HeaderValue::from_static(scheme));
    if http.append_x_forwarded_port {
        let port = x.connection.facts.destination.port();
        headers
            .entry(X_FORWARDED_PORT)
            .or_insert_with(|| HeaderValue::from(port));
    }
    let forwarded_https = headers
        .get(X_FORWARDED_PROTO)
        .is_some_and(|proto| proto == "https");
    x.is_https = forwarded_https;
    // HTTP/2 says it itself.
    x.scheme = x
        .scheme_told
        .unwrap_or(if forwarded_https { "https" } else { "http" });
    x.record.scheme = Some(x.scheme);
    x.record.downstream_remote = Some(remote.into());
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

/// Several lines of a header become one, as RFC 9110 §5.3 (and for cookies RFC 9113 §8.2.3) lets a proxy do.
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

fn request_id(x: &mut Exchange, http: &HttpConnectionManager) {
    let rules = http.request_id;
    if !rules.generate {
        x.record.request_id = x.head.headers.get(X_REQUEST_ID).cloned();
        return;
    }
    let keep = !http.use_remote_address || x.is_internal || rules.preserve_external;
    let kept = x
        .head
        .headers
        .get(X_REQUEST_ID)
        .filter(|id| keep && !id.is_empty())
        .cloned();
    let id = kept.unwrap_or_else(|| text(&new_request_id(&x.worker.live.rng)));
    x.head.headers.insert(X_REQUEST_ID, id.clone());
    x.record.request_id = Some(id);
}
