use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::record::{Address, Kind, Peer, TlsInfo};

fn record() -> Record {
    let mut headers = HeaderMap::new();
    headers.insert("x-debug", HeaderValue::from_static("1"));
    Record {
        method: Some(Method::POST),
        path: Some(PathAndQuery::from_static("/api/x?q=1")),
        authority: Some(HeaderValue::from_static("a.example")),
        request_headers: Some(headers),
        status: Some(404),
        connection_id: 7,
        downstream_tls: Some(Arc::new(TlsInfo {
            mutual: true,
            peer_uri_sans: vec!["spiffe://td/ns/a/sa/b".into()],
            ..TlsInfo::default()
        })),
        downstream_remote: Some(Address::Socket("10.0.0.1:8080".parse().unwrap())),
        downstream_peer: Some(Arc::new(Peer {
            namespace: "default".into(),
            ..Peer::default()
        })),
        dynamic_metadata: serde_json::json!({"f": {"k": {"n": 3}}})
            .as_object()
            .cloned()
            .map(Box::new),
        ..Record::default()
    }
}

fn matches(expression: &str) -> bool {
    Expression::parse(expression).unwrap().matches(&record())
}

#[test]
fn istios_examples() {
    for expression in [
        "response.code >= 400",
        "response.code >= 500 || request.headers['x-debug'] == '1'",
        "response.code >= 400 && connection.mtls",
        "request.url_path.contains('api')",
        "!request.url_path.startsWith('/healthz')",
        "request.url_path == '/api/x' && request.query == \"q=1\"",
        "request.path.matches('^/api/[a-z]+')",
        "response.code in [403, 404]",
        "has(request.headers['x-debug']) && !has(request.headers.other)",
        "'x-debug' in request.headers && !('y' in request.headers)",
        "connection.uri_san_peer_certificate.startsWith('spiffe://td/ns/a')",
        "source.address == '10.0.0.1:8080' && source.port == 8080",
        "downstream_peer.namespace == 'default'",
        "metadata.filter_metadata['f']['k'].n == 3",
        "size(request.method) == 4 && request.method.lowerAscii() == 'post'",
        "(response.code - 4) / 100 == 4 && -1 < 0 && 7u % 2 == 1 && 1.5 + 1 > 2.4",
        "(connection.mtls ? 'yes' : 'no') + '!' == 'yes!'",
        "string(response.code) == '404' && int('12') == 12",
        // A side that decides wins over the other's error.
        "request.headers['none'] == 'x' || response.code == 404",
        "!(response.code == 1 && request.headers['none'] == 'x')",
    ] {
        assert!(matches(expression), "{expression}");
    }
    for expression in [
        "response.code < 400",
        "request.headers['none'] == 'x'",
        "request.headers['none'] != 'x'",
        "response.grpc_status == 0",
        "response.code",
        "request.method > 3",
        "1 / 0 == 0",
        "xds.route_name == ''",
    ] {
        assert!(!matches(expression), "{expression}");
    }
}

#[test]
fn a_tcp_connection_has_no_request() {
    let tcp = Record {
        kind: Kind::Tcp,
        ..record()
    };
    assert!(
        !Expression::parse("request.method == 'POST'")
            .unwrap()
            .matches(&tcp)
    );
    assert!(
        Expression::parse("connection.id == 7")
            .unwrap()
            .matches(&tcp)
    );
}

#[test]
fn what_is_not_supported_is_named() {
    for (expression, part) in [
        ("request.nope == 1", "request.nope"),
        ("foo.bar", "foo"),
        ("now()", "now"),
        ("hash(request.path)", "hash"),
        ("request.headers.exists(h, h == 'x')", "h"),
        ("request.path.matches(request.host)", "literal"),
        ("{'a': 1}", "map literals"),
        ("request.path.matches('(')", "pattern"),
        ("1 +", "expected an expression"),
        ("'open", "does not end"),
        ("a b", "`a`"),
        ("1 2", "unexpected `2`"),
        ("has(1)", "has()"),
    ] {
        let error = Expression::parse(expression).unwrap_err().to_string();
        assert!(error.contains(part), "{expression}: {error}");
    }
    assert!(Expression::parse(&"(".repeat(10_000)).is_err());
    assert!(Expression::parse(&"!".repeat(10_000)).is_err());
    assert!(
        Expression::parse(&format!("true{}", " && true".repeat(1500)))
            .unwrap()
            .matches(&record())
    );
}

#[test]
fn needs_name_the_headers() {
    let mut needs = Needs::default();
    let text =
        "request.headers['X-A'] == '' || request.useragent == '' || response.headers['b'] == ''";
    Expression::parse(text).unwrap().add_needs(&mut needs);
    assert!(
        needs
            .request
            .iter()
            .map(http::HeaderName::as_str)
            .eq(["x-a", "user-agent"])
    );
    assert!(
        needs
            .response
            .iter()
            .map(http::HeaderName::as_str)
            .eq(["b"])
    );
}

proptest! {
    #[test]
    fn parsing_and_evaluating_never_panic(text in "\\PC{0,60}") {
        if let Ok(expression) = Expression::parse(&text) {
            let _ = expression.evaluate(&record());
        }
    }

    #[test]
    fn likely_texts_never_panic(tokens in proptest::collection::vec(
        proptest::sample::select(vec![
            "request.headers", "response.code", "connection.mtls", "metadata", "['x']", ".y", "(", ")", "[", "]", "'a'", "1",
            "9223372036854775807", "-", "+", "*", "%", "!", "&&", "||", "==", "<", "in", "has(", "size(", ".size()", "?", ":", ",",
        ]), 0..24,
    )) {
        if let Ok(expression) = Expression::parse(&tokens.join(" ")) {
            let _ = expression.evaluate(&record());
        }
    }
}
