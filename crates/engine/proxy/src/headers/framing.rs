//! What a head must not be: rules of HTTP that the codec's library leaves to whoever uses it. Pure.
//!
//! What could be understood in two ways, here and by the next hop, is refused as Envoy's codec
//! refuses it (request smuggling; RFC 9112 §6.3, §11.2).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};
use proxy_config::HttpConnectionManager;

use crate::headers::names::{
    HTTP2_SETTINGS, KEEP_ALIVE, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO,
};

/// A `connection` header that names as many is none that a client needs.
const MAX_NOMINATED: usize = 10;
/// A request whose nominated `te` header is this long is refused.
const MAX_TE_BYTES: usize = 256;

/// Methods beyond those of RFC 9110 that Envoy's parser knows.
const MORE_METHODS: [&str; 26] = [
    "COPY",
    "LOCK",
    "MKCOL",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "SEARCH",
    "UNLOCK",
    "BIND",
    "REBIND",
    "UNBIND",
    "ACL",
    "REPORT",
    "MKACTIVITY",
    "CHECKOUT",
    "MERGE",
    "M-SEARCH",
    "NOTIFY",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "PURGE",
    "MKCALENDAR",
    "LINK",
    "UNLINK",
    "SOURCE",
    "PATCH",
];

/// Why the head is refused, as status and details.
pub fn fault(head: &Parts, http: &HttpConnectionManager) -> Option<(StatusCode, &'static str)> {
    const TOO_LARGE: StatusCode = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let is_http2 = head.version >= Version::HTTP_2;
    if head.headers.len() > usize::try_from(http.max_headers).unwrap_or(usize::MAX) {
        return Some((TOO_LARGE, "http2.too_many_headers"));
    }
    if counted_bytes(head) > max_head_bytes(http) {
        let details = match is_http2 {
            true => "http2.headers_too_large",
            false => "http1.headers_too_large",
        };
        return Some((TOO_LARGE, details));
    }
    if is_http2 {
        // One that is repeated could be read in two ways by an upstream of HTTP/1; the codec
        // compares only the first with what comes.
        let lengths = head.headers.get_all(CONTENT_LENGTH).iter().count();
        return (lengths > 1)
            .then_some((StatusCode::BAD_REQUEST, "http2.violation.of.messaging.rule"));
    }
    if head.version < Version::HTTP_11 && !http.accept_http10 {
        return Some((StatusCode::UPGRADE_REQUIRED, "low_version"));
    }
    http1_fault(head, http.custom_methods).map(|details| {
        let status = match details {
            "http1.invalid_transfer_encoding" => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        };
        (status, details)
    })
}

/// What a request's head may have, in bytes (`max_request_headers_kb`).
pub fn max_head_bytes(http: &HttpConnectionManager) -> usize {
    usize::try_from(http.max_request_headers_kb)
        .unwrap_or(usize::MAX)
        .saturating_mul(1024)
}

/// The bytes that count against the limit, as Envoy counts them: on HTTP/1 all of the head with its
/// line ends, on HTTP/2 names and values, pseudo headers among them.
fn counted_bytes(head: &Parts) -> usize {
    const REQUEST_LINE: usize = "  HTTP/1.1\r\n\r\n".len();
    const PSEUDO_HEADERS: usize = ":method:scheme:authority:path".len();
    let (beside_target, beside_field) = match head.version >= Version::HTTP_2 {
        true => (PSEUDO_HEADERS, 0),
        false => (REQUEST_LINE, ": \r\n".len()),
    };
    let uri = &head.uri;
    let target = head.method.as_str().len()
        + uri.scheme_str().map_or(0, str::len)
        + uri
            .authority()
            .map_or(0, |authority| authority.as_str().len())
        + uri.path_and_query().map_or(0, |path| path.as_str().len());
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + beside_field
    };
    target + beside_target + head.headers.iter().map(field).sum::<usize>()
}

/// Tells an HTTP/1 upstream that a body follows whose length is not known: the codec takes a GET, a
/// HEAD or a CONNECT without a length to have none, and would send none (RFC 9112 §6.1).
pub fn announce_http1_body(headers: &mut HeaderMap) {
    if !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Whether the answer of an HTTP/1 upstream can be read in two ways: it has two lengths, or
/// announces the body that its status forbids (RFC 9110 §8.6, RFC 9112 §6.1). What is taken for the
/// next answer could then be the body of this one.
pub fn is_ambiguous_answer(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    let has_length = headers.contains_key(CONTENT_LENGTH);
    let is_bodiless = status == StatusCode::NO_CONTENT || status.is_informational();
    let is_long = || {
        headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .any(|length| length != "0")
    };
    (is_chunked && has_length) || (is_bodiless && (is_chunked || is_long()))
}

/// Whether a careless upstream may send a body after this answer, which has none: 304 may tell what
/// a 200 would have (RFC 9110 §15.4.5).
pub fn may_be_followed_by_a_body(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::NOT_MODIFIED && headers.contains_key(TRANSFER_ENCODING)
}

fn http1_fault(head: &Parts, custom_methods: bool) -> Option<&'static str> {
    let (headers, uri) = (&head.headers, &head.uri);
    if !custom_methods && !is_known(&head.method) {
        return Some("http1.codec_error");
    }
    if head.method != Method::CONNECT {
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let is_ours = |scheme: &str| scheme == "http" || scheme == "https";
        if !uri.scheme_str().is_none_or(is_ours) {
            return Some("http1.invalid_scheme");
        }
        // `GET host` is neither a path nor an absolute URL.
        let is_bare_host = uri.scheme().is_none() && uri.authority().is_some();
        if is_bare_host || !path.is_ascii() {
            return Some("http1.codec_error");
        }
        if path == "*" && head.method != Method::OPTIONS {
            return Some("http1.invalid_url");
        }
    }
    if head.method == Method::CONNECT && uri.authority().and_then(|a| a.port()).is_none() {
        return Some("http1.invalid_url");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next()?;
    if headers.contains_key(CONTENT_LENGTH) {
        return Some("http1.content_length_and_chunked_not_allowed");
    }
    let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    (!is_chunked || codings.next().is_some()).then_some("http1.invalid_transfer_encoding")
}

fn is_known(method: &Method) -> bool {
    let standard = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    standard.contains(method) || MORE_METHODS.contains(&method.as_str())
}

/// Whether a host has only characters of RFC 3986 §3.2. An empty one is one.
pub fn is_authority(host: &[u8]) -> bool {
    host.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=@[]_~".contains(byte))
}

/// Removes the headers that `connection` names, as they belong to this hop (RFC 9110 §7.6.1).
/// `false`: it names what must stay, to hide where the request comes from.
pub fn remove_nominated(headers: &mut HeaderMap) -> bool {
    let Some(connection) = headers.get(CONNECTION) else {
        return true;
    };
    let Ok(named) = connection.to_str().map(str::to_ascii_lowercase) else {
        return false;
    };
    let named: Vec<&str> = named
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if named.len() >= MAX_NOMINATED {
        return false;
    }
    for name in named {
        if name.starts_with(':') {
            return false;
        }
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        if [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO].contains(&name) {
            return false;
        }
        // These are removed, or kept, for what they are.
        if [CONNECTION, KEEP_ALIVE, UPGRADE, HTTP2_SETTINGS].contains(&name) || name == "close" {
            continue;
        }
        if name == TE {
            if headers.get(TE).is_some_and(|te| te.len() >= MAX_TE_BYTES) {
                return false;
            }
            continue;
        }
        headers.remove(name);
    }
    headers.remove(HTTP2_SETTINGS);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let chunked = ("transfer-encoding", "chunked");
        let table = [
            (head("GET", "/", &[]), None),
            (head("POST", "/", &[chunked]), None),
            (head("POST", "/", &[("transfer-encoding", "Chunked")]), None),
            (
                head("POST", "/", &[chunked, ("content-length", "5")]),
                Some("http1.content_length_and_chunked_not_allowed"),
            ),
            (
                head("POST", "/", &[chunked, chunked]),
                Some("http1.invalid_transfer_encoding"),
            ),
            (
                head("POST", "/", &[("transfer-encoding", "gzip, chunked")]),
                Some("http1.invalid_transfer_encoding"),
            ),
            (head("BREW", "/", &[]), Some("http1.codec_error")),
            (head("get", "/", &[]), Some("http1.codec_error")),
            (head("PROPFIND", "/", &[]), None),
            (head("GET", "host", &[]), Some("http1.codec_error")),
            (head("CONNECT", "host:80", &[]), None),
            (head("GET", "http://host", &[]), None),
            (
                head("GET", "ftp://host/", &[]),
                Some("http1.invalid_scheme"),
            ),
            (head("GET", "*", &[]), Some("http1.invalid_url")),
            (head("OPTIONS", "*", &[]), None),
        ];
        for (head, expected) in table {
            assert_eq!(http1_fault(&head, false), expected, "{head:?}");
        }
        assert_eq!(http1_fault(&head("BREW", "/", &[]), true), None);
    }

    #[test]
    fn an_answer_that_has_a_body_and_must_not_is_ambiguous() {
        let (length, none) = ("content-length", ("x-none", ""));
        let chunked = ("transfer-encoding", "chunked");
        let table = [
            (200, [chunked, none], false),
            (200, [(length, "5"), none], false),
            (200, [(length, "5"), chunked], true),
            (204, [none, none], false),
            (204, [(length, "0"), none], false),
            (204, [(length, "5"), none], true),
            (204, [(length, "0"), (length, "5")], true),
            (204, [chunked, none], true),
            (101, [(length, "5"), none], true),
            (304, [(length, "5"), none], false),
            (304, [chunked, none], false),
        ];
        for (status, fields, expected) in table {
            let headers: HeaderMap = fields
                .into_iter()
                .map(|(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .fold(HeaderMap::new(), |mut headers, (name, value)| {
                    headers.append(name, value);
                    headers
                });
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                is_ambiguous_answer(status, &headers),
                expected,
                "{status} {headers:?}"
            );
        }
    }

    #[test]
    fn connection_removes_what_it_names_but_not_who_the_client_is() {
        let after = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static(value));
            headers.insert("x-mine", HeaderValue::from_static("1"));
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
            remove_nominated(&mut headers).then(|| headers.contains_key("x-mine"))
        };
        assert_eq!(after("close"), Some(true));
        assert_eq!(after("keep-alive, X-Mine"), Some(false));
        assert_eq!(after("x-forwarded-for"), None);
        assert_eq!(after(":path"), None);
        assert_eq!(after("a,b,c,d,e,f,g,h,i,j"), None);
    }

    #[test]
    fn hosts_hold_no_spaces_slashes_or_bytes_beyond_ascii() {
        for good in ["a.test", "a.test:80", "[::1]:80", "me@a.test", "a_b", ""] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in ["a test", "a/b", "a?b", "a#b", "ü", "a\"b", "a\\b"] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
