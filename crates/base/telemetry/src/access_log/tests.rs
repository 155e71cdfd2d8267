use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::record::{Address, Bytes, Protocol, ResponseFlags, Timings, TlsInfo};
use crate::stats::StringMatch;

fn socket(text: &str) -> Option<Address> {
    Some(Address::Socket(text.parse().unwrap()))
}

fn record() -> Record {
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.9"));
    headers.insert("user-agent", HeaderValue::from_static("curl/8\"x"));
    Record {
        start: Some(SystemTime::UNIX_EPOCH + Duration::new(1_795_425_004, 123_456_789)),
        timings: Timings {
            last_downstream_rx: Some(Duration::from_millis(1)),
            first_upstream_tx: Some(Duration::from_millis(2)),
            last_upstream_tx: Some(Duration::from_millis(2)),
            first_upstream_rx: Some(Duration::from_millis(9)),
            last_downstream_tx: Some(Duration::from_millis(11)),
            total: Some(Duration::from_micros(12_900)),
            ..Timings::default()
        },
        bytes: Bytes {
            received: 5,
            sent: 41,
            ..Bytes::default()
        },
        method: Some(Method::GET),
        scheme: Some("http"),
        path: Some(PathAndQuery::from_static("/new?q=1")),
        original_path: Some(PathAndQuery::from_static("/old?q=1")),
        authority: Some(HeaderValue::from_static("reviews:9080")),
        protocol: Some(Protocol::Http11),
        status: Some(503),
        flags: ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED
            | ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
        response_code_details: Some(
            "upstream_reset_before_response_started{connection_failure}".into(),
        ),
        upstream_transport_failure_reason: Some("delayed connect error: 111".into()),
        request_headers: Some(headers),
        request_id: Some(HeaderValue::from_static(
            "0a6ae0ae-3f4c-9f6b-8ae1-4d3b3f0c2d11",
        )),
        downstream_local: socket("10.1.0.1:9080"),
        downstream_remote: socket("10.0.0.9:41000"),
        upstream_host: socket("10.2.0.3:9080"),
        upstream_local: socket("10.1.0.1:52100"),
        upstream_cluster: Some("outbound|9080||reviews.default.svc.cluster.local".into()),
        route_name: Some("default".into()),
        attempts: 3,
        ..Record::default()
    }
}

fn text(format: &str) -> String {
    let environment = Environment {
        hostname: "productpage-v1".into(),
        variables: HashMap::from(
            [("POD", "p1"), ("TZ", "CET-1")].map(|(k, v)| (k.to_string(), v.to_string())),
        ),
    };
    let mut out = String::new();
    Format::parse(format, &environment, false)
        .unwrap()
        .write(&rich(), &mut out);
    out
}

/// More of everything that the default formats do not print.
fn rich() -> Record {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("14"));
    let mut response = HeaderMap::new();
    response.insert("server", HeaderValue::from_static("istio-envoy"));
    let map = |value: serde_json::Value| value.as_object().cloned().unwrap();
    Record {
        response_headers: Some(response),
        response_trailers: Some(trailers),
        grpc_status: Some(14),
        dynamic_metadata: Some(Box::new(map(
            json!({"com.test": {"key": "v", "object": {"n": 1}}}),
        ))),
        filter_state: Some(Box::new(map(
            json!({"wasm.peer": {"ns": "default"}, "plain": "text"}),
        ))),
        route_metadata: Some(Arc::new(map(json!({"istio": {"config": "/apis/x"}})))),
        downstream_tls: Some(Arc::new(TlsInfo {
            version: Some("TLSv1.3"),
            cipher: Some("TLS_AES_128_GCM_SHA256".into()),
            peer_uri_sans: vec!["spiffe://td/ns/a/sa/b".into()],
            local_uri_sans: vec!["spiffe://td/ns/c/sa/d".into()],
            peer_valid_from: Some(SystemTime::UNIX_EPOCH),
            ..TlsInfo::default()
        })),
        connection_id: 4,
        trace: Some(crate::trace::SpanContext {
            trace_id: 0xabc,
            span_id: 0xdef,
            parent_id: None,
            sampled: true,
            trace_state: None,
        }),
        ..record()
    }
}

/// What Istio's control plane asks for where nothing else is configured.
const ISTIO_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

const ISTIO_JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "upstream_service_time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

fn istio_text() -> Format {
    Format::parse(ISTIO_TEXT, &Environment::default(), false).unwrap()
}

fn istio_json() -> Format {
    let map = ISTIO_JSON.map(|(key, value)| (key.to_string(), Value::from(value)));
    let map = Value::Object(map.into_iter().collect());
    Format::json(&map, &Environment::default(), false).unwrap()
}

#[test]
fn istio_text_golden() {
    let mut out = String::new();
    istio_text().write(&record(), &mut out);
    assert_eq!(
        out,
        "[2026-11-23T09:10:04.123Z] \"GET /old?q=1 HTTP/1.1\" 503 URX,UF \
         upstream_reset_before_response_started{connection_failure} - \"delayed_connect_error:_111\" 5 41 12 7 \
         \"10.0.0.9\" \"curl/8\"x\" \"0a6ae0ae-3f4c-9f6b-8ae1-4d3b3f0c2d11\" \"reviews:9080\" \"10.2.0.3:9080\" \
         outbound|9080||reviews.default.svc.cluster.local 10.1.0.1:52100 10.1.0.1:9080 10.0.0.9:41000 - default\n"
    );
    out.clear();
    istio_text().write(&Record::default(), &mut out);
    assert_eq!(
        out,
        "[-] \"- - -\" 0 - - - \"-\" 0 0 - - \"-\" \"-\" \"-\" \"-\" \"-\" - - - - - -\n"
    );
}

#[test]
fn istio_json_golden() {
    let mut out = String::new();
    istio_json().write(&record(), &mut out);
    assert_eq!(
        out,
        concat!(
            r#"{"authority":"reviews:9080","bytes_received":5,"bytes_sent":41,"connection_termination_details":null,"#,
            r#""downstream_local_address":"10.1.0.1:9080","downstream_remote_address":"10.0.0.9:41000","duration":12,"#,
            r#""method":"GET","path":"/old?q=1","protocol":"HTTP/1.1","request_id":"0a6ae0ae-3f4c-9f6b-8ae1-4d3b3f0c2d11","#,
            r#""requested_server_name":null,"response_code":503,"#,
            r#""response_code_details":"upstream_reset_before_response_started{connection_failure}","#,
            r#""response_flags":"URX,UF","route_name":"default","start_time":"2026-11-23T09:10:04.123Z","#,
            r#""upstream_cluster":"outbound|9080||reviews.default.svc.cluster.local","upstream_host":"10.2.0.3:9080","#,
            r#""upstream_local_address":"10.1.0.1:52100","upstream_service_time":"7","#,
            r#""upstream_transport_failure_reason":"delayed_connect_error:_111","user_agent":"curl/8\"x","#,
            r#""x_forwarded_for":"10.0.0.9"}"#,
            "\n"
        )
    );
}

#[test]
fn operators() {
    for (format, want) in [
        ("100%% %REQ(:authority):7%", "100% reviews"),
        ("%REQ(X-NONE?USER-AGENT):4%|%REQ(X-NONE)%", "curl|-"),
        (
            "%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)% %PATH(NQ:PATH)% %PATH%",
            "/old /new /old?q=1",
        ),
        ("%QUERY_PARAM(q)% %QUERY_PARAM(none)%", "1 -"),
        (
            "%RESP(SERVER)% %RESP(:STATUS)% %TRAILER(GRPC-STATUS)%",
            "istio-envoy 503 14",
        ),
        (
            "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%",
            "Unavailable UNAVAILABLE 14 14",
        ),
        (
            "%DYNAMIC_METADATA(com.test:key)% %DYNAMIC_METADATA(com.test:object)% %DYNAMIC_METADATA(com.test:object:n)%",
            "v {\"n\":1} 1",
        ),
        (
            "%DYNAMIC_METADATA(none)% %METADATA(ROUTE:istio:config)%",
            "- /apis/x",
        ),
        (
            "%FILTER_STATE(plain:PLAIN)% %FILTER_STATE(wasm.peer:FIELD:ns)% %FILTER_STATE(none)%",
            "text default -",
        ),
        (
            "%START_TIME(%Y/%m/%d %H:%M:%S %3f %6f %s %E3S %E*S %Z)%",
            "2026/11/23 09:10:04 123 123456 1795425004 04.123 04.123456789 UTC",
        ),
        (
            "%START_TIME(%s%3f)% %START_TIME(%9f)% %START_TIME(%f)%",
            "1795425004123 123456789 123456789",
        ),
        (
            "%DOWNSTREAM_PEER_CERT_V_START(%b %d %Y)% %DOWNSTREAM_PEER_CERT_V_END%",
            "Jan 01 1970 -",
        ),
        (
            "%DURATION% %REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%",
            "12 1 9 2",
        ),
        (
            "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)% %COMMON_DURATION(US_CX_BEG:US_CX_END:ms)%",
            "9000 -",
        ),
        (
            "%RESPONSE_FLAGS_LONG%",
            "UpstreamRetryLimitExceeded,UpstreamConnectionFailure",
        ),
        (
            "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN%",
            "spiffe://td/ns/a/sa/b spiffe://td/ns/c/sa/d",
        ),
        (
            "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %UPSTREAM_TLS_VERSION%",
            "TLSv1.3 TLS_AES_128_GCM_SHA256 -",
        ),
        (
            "%HOSTNAME% %ENVIRONMENT(POD)% %ENVIRONMENT(NONE)%",
            "productpage-v1 p1 -",
        ),
        ("%TRACE_ID% %SPAN_ID%", "0000000000000abc 0000000000000def"),
        (
            "%CONNECTION_ID% %STREAM_ID% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            "4 0a6ae0ae-3f4c-9f6b-8ae1-4d3b3f0c2d11 3",
        ),
        (
            "%CEL(request.url_path.startsWith('/new') ? 'n' : 'o')% %CEL(response.code + 1)% %CEL(xds.virtual_host_name)%",
            "n 504 -",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%:%DOWNSTREAM_REMOTE_PORT%",
            "10.0.0.9:41000",
        ),
        (
            "%UPSTREAM_CLUSTER% %VIRTUAL_CLUSTER_NAME% <%LOCAL_REPLY_BODY%>",
            "outbound|9080||reviews.default.svc.cluster.local - <>",
        ),
        (
            "%ACCESS_LOG_TYPE% %EMIT_TIME% %EMIT_TIME(%Y)% %START_TIME_LOCAL% %START_TIME(%Ez)%",
            "DownstreamEnd 2026-11-23T09:10:04.136Z 2026 2026-11-23T10:10:04.123+0100 +00:00",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(7)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(0)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(32)%",
            "10.0.0.0/7 0.0.0.0/0 10.0.0.9/32",
        ),
        (
            "%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"x-none\"},\"VIRTUAL_CLUSTER_NAME\",{\"command\":\"REQ\",\"param\":\":authority\",\"max_length\":3}]})% %COALESCE({\"operators\":[\"GRPC_STATUS\",\"DURATION\"]}):2%",
            "rev Un",
        ),
        (
            "%REQUESTED_SERVER_NAME(HOST_FIRST)% %QUERY_PARAMS% %REQUEST_HEADER(USER-AGENT):4%",
            "reviews:9080 q=1 curl",
        ),
        (
            "%BYTES_RETRANSMITTED% <%CUSTOM_FLAGS%> <%DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID%> %ROUNDTRIP_DURATION% %PROTOCOL()%",
            "0 <> <> - HTTP/1.1",
        ),
    ] {
        assert_eq!(text(format), want, "{format}");
    }
}

#[test]
fn what_cannot_be_followed_is_named() {
    for (format, part) in [
        ("%NO_SUCH_OPERATOR%", "NO_SUCH_OPERATOR"),
        ("%REQ%", "REQ"),
        ("%REQ(a?b?c)%", "a?b?c"),
        ("%DURATION(x)%", "takes no arguments"),
        ("%DURATION", "closing percent"),
        ("%REQ(x%", "closing parenthesis"),
        ("%REQ(x):y%", "closing"),
        ("50% of", "no operator"),
        ("%START_TIME(%Q%!)%", "time format"),
        ("%GRPC_STATUS(X)%", "`X`"),
        ("%COMMON_DURATION(A:B:ms)%", "`A`"),
        ("%METADATA(X:y)%", "`X`"),
        ("%CEL(request.nope)%", "request.nope"),
        ("%PATH(X)%", "`X`"),
    ] {
        let error = Format::parse(format, &Environment::default(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{format}: {error}");
    }
    let json = |value: serde_json::Value| Format::json(&value, &Environment::default(), false);
    assert!(json(json!("x")).is_err());
    assert!(
        json(json!({"a": ["%NOPE%"]}))
            .unwrap_err()
            .to_string()
            .contains("NOPE")
    );
    let deep = (0..40).fold(json!("x"), |inner, _| json!({ "k": inner }));
    assert!(json(deep).is_err());
}

#[test]
fn json_formats_nest_keep_types_and_omit() {
    let value = json!({
        "b": {"none": "%ROUTE_NAME%", "mixed": "%ROUTE_NAME%:%RESPONSE_CODE%"},
        "a": [1, true, null, "%BYTES_SENT%", "%DYNAMIC_METADATA(x)%"],
        "fixed": "x",
    });
    let written = |omit| {
        let mut out = String::new();
        Format::json(&value, &Environment::default(), omit)
            .unwrap()
            .write(&Record::default(), &mut out);
        out
    };
    assert_eq!(
        written(false),
        "{\"a\":[1,true,null,0,null],\"b\":{\"mixed\":\"-:0\",\"none\":null},\"fixed\":\"x\"}\n"
    );
    assert_eq!(
        written(true),
        "{\"a\":[1,true,null,0],\"b\":{\"mixed\":\":0\"},\"fixed\":\"x\"}\n"
    );
    let mut out = String::new();
    Format::parse("[%ROUTE_NAME%]", &Environment::default(), true)
        .unwrap()
        .write(&Record::default(), &mut out);
    assert_eq!(out, "[]");
    let format = Format::json(&value, &Environment::default(), true).unwrap();
    assert_eq!(
        format.value(&record())["b"],
        json!({"none": "default", "mixed": "default:503"})
    );
}

#[test]
fn needs_keep_only_what_is_read() {
    let needs = istio_text().needs();
    let names: Vec<&str> = needs.request.iter().map(HeaderName::as_str).collect();
    assert_eq!(
        names,
        [
            "x-envoy-original-path",
            "x-forwarded-for",
            "user-agent",
            "x-request-id"
        ]
    );
    let mut headers = HeaderMap::new();
    headers.insert("cookie", HeaderValue::from_static("secret"));
    headers.insert("user-agent", HeaderValue::from_static("x"));
    assert_eq!(needs.keep_request(&headers).unwrap().len(), 1);
    assert_eq!(Needs::default().keep_request(&headers), None);
    let mut all = Needs::default();
    Filter::Expression(crate::cel::Expression::parse("size(request.headers) > 3").unwrap())
        .add_needs(&mut all);
    all.merge(&needs);
    assert_eq!(all.keep_request(&headers).unwrap().len(), 2);
}

#[test]
fn filters() {
    use Comparison::{Equal, GreaterOrEqual, LessOrEqual, NotEqual};
    let record = record();
    let admits = |filter: Filter| filter.admits(&record, 0);
    assert!(
        admits(Filter::StatusCode(GreaterOrEqual, 500)) && !admits(Filter::StatusCode(Equal, 200))
    );
    assert!(
        admits(Filter::StatusCode(NotEqual, 200))
            && admits(Filter::Duration(LessOrEqual, Duration::from_millis(12)))
    );
    assert!(!admits(Filter::Traceable) && admits(Filter::NotHealthCheck));
    assert!(admits(Filter::ResponseFlag(ResponseFlags::NONE)));
    assert!(admits(Filter::ResponseFlag(
        ResponseFlags::UPSTREAM_CONNECTION_FAILURE | ResponseFlags::RATE_LIMITED
    )));
    assert!(!admits(Filter::ResponseFlag(ResponseFlags::NO_ROUTE_FOUND)));
    let header = |value, invert| Filter::Header {
        name: HeaderName::from_static("user-agent"),
        value,
        invert,
    };
    assert!(admits(header(None, false)) && !admits(header(None, true)));
    assert!(!admits(header(
        Some(StringMatch::Exact("wget".into())),
        false
    )));
    assert!(admits(Filter::And(vec![
        header(None, false),
        Filter::NotHealthCheck
    ])));
    assert!(
        admits(Filter::Or(vec![Filter::Traceable, Filter::NotHealthCheck]))
            && !admits(Filter::Or(vec![]))
    );
    assert!(!admits(Filter::GrpcStatus {
        statuses: vec![0],
        exclude: false
    }));
    // 0x0a6ae0ae % 1,000,000 = 776494.
    let fraction = |per_million, independent| Filter::RuntimeFraction {
        per_million,
        independent,
    };
    assert!(admits(fraction(776495, false)) && !admits(fraction(776494, false)));
    assert!(admits(fraction(1, true)) && !fraction(1, true).admits(&record, 5));
    let metadata = |or_absent| Filter::Metadata {
        filter: "f".into(),
        path: vec!["k".into()],
        value: StringMatch::Exact("v".into()),
        or_absent,
    };
    assert!(admits(metadata(true)) && !admits(metadata(false)));
}

#[test]
fn expand_fills_a_header_value() {
    let environment = Environment::default();
    assert_eq!(
        expand(
            "%DOWNSTREAM_REMOTE_ADDRESS% %ROUTE_NAME%x",
            &record(),
            &environment
        )
        .unwrap(),
        "10.0.0.9:41000 defaultx"
    );
    assert!(expand("%X%", &record(), &environment).is_err());
}

proptest! {
    #[test]
    fn formats_never_panic(text in "\\PC{0,80}") {
        if let Ok(format) = Format::parse(&text, &Environment::default(), false) {
            format.write(&record(), &mut String::new());
        }
    }

    #[test]
    fn likely_formats_never_panic(parts in proptest::collection::vec(proptest::sample::select(vec![
        "%", "REQ", "(", ")", ":", "3", "START_TIME", "%E3S", "%f", "?", "é", "CEL", "request.path", "DURATION", "%%", "METADATA",
        "DYNAMIC", "FILTER_STATE", "PATH", "NQ",
    ]), 0..16)) {
        if let Ok(format) = Format::parse(&parts.concat(), &Environment::default(), false) {
            format.write(&record(), &mut String::new());
        }
    }

    #[test]
    fn a_length_cuts_characters(name in "[a-zé]{0,12}", longest in 0usize..14) {
        let record = Record { route_name: Some(name.as_str().into()), ..Record::default() };
        let mut out = String::new();
        Format::parse(&format!("%ROUTE_NAME:{longest}%"), &Environment::default(), false).map(|format| format.write(&record, &mut out)).ok();
        let want: String = name.chars().take(longest).collect();
        prop_assert_eq!(out, want);
    }
}
