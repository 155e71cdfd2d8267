use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use stdx::SeededRng;

use super::*;
use crate::record::{Address, Bytes, Peer, Protocol, Record, Timings};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    pairs.iter().map(pair).collect()
}

fn written(map: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = map
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn w3c_round_trip_keeps_state() {
    let incoming = extract(
        Style::W3c,
        &headers(&[
            ("traceparent", W3C),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]),
    );
    let parent = incoming.parent.unwrap();
    assert_eq!(incoming.sampled, Some(true));
    assert_eq!(parent.trace_id, 0x0af7651916cd43dd8448eb211c80319c);
    let child = parent.child(&SeededRng::new(1));
    assert_eq!(
        (child.trace_id, child.parent_id),
        (parent.trace_id, Some(0xb7ad6b7169203331))
    );
    let mut out = HeaderMap::new();
    inject(
        Style::W3c,
        &SpanContext {
            span_id: 0xf,
            ..child
        },
        &mut out,
    );
    assert_eq!(
        written(&out),
        [
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-000000000000000f-01",
            "tracestate: a=1,b=2"
        ]
    );
}

#[test]
fn bad_w3c_is_absent() {
    for value in [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
    ] {
        let map = HeaderMap::from_iter([(
            HeaderName::from_static("traceparent"),
            HeaderValue::from_static(value),
        )]);
        assert_eq!(extract(Style::W3c, &map), Incoming::default(), "{value}");
    }
    let later = headers(&[(
        "traceparent",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more",
    )]);
    assert_eq!(extract(Style::W3c, &later).sampled, Some(false));
}

#[test]
fn b3_forms() {
    let multi = headers(&[
        ("x-b3-traceid", "0000000000000abc"),
        ("x-b3-spanid", "DEF"),
        ("x-b3-sampled", "1"),
    ]);
    let parent = extract(Style::B3, &multi).parent.unwrap();
    assert_eq!(
        (parent.trace_id, parent.span_id, parent.sampled),
        (0xabc, 0xdef, true)
    );
    let single = headers(&[(
        "b3",
        "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-d-0000000000000001",
    )]);
    let parent = extract(Style::B3, &single).parent.unwrap();
    assert_eq!((parent.parent_id, parent.sampled), (Some(1), true));
    assert_eq!(
        extract(Style::B3, &headers(&[("b3", "0")])),
        Incoming {
            parent: None,
            sampled: Some(false)
        }
    );
    assert_eq!(
        extract(Style::B3, &headers(&[("x-b3-flags", "1")])).sampled,
        Some(true)
    );
    assert_eq!(
        extract(
            Style::B3,
            &headers(&[("x-b3-traceid", "xyz"), ("x-b3-spanid", "1")])
        ),
        Incoming::default()
    );
    assert_eq!(
        extract(Style::B3, &headers(&[("traceparent", W3C)])),
        Incoming::default()
    );
    assert!(
        extract(Style::B3WithW3c, &headers(&[("traceparent", W3C)]))
            .parent
            .is_some()
    );
    let mut out = headers(&[("b3", "0"), ("x-b3-parentspanid", "0000000000000009")]);
    inject(
        Style::B3WithW3c,
        &SpanContext {
            parent_id: None,
            ..parent.clone()
        },
        &mut out,
    );
    assert_eq!(
        written(&out),
        [
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "x-b3-sampled: 1",
            "x-b3-spanid: b7ad6b7169203331",
            "x-b3-traceid: 0af7651916cd43dd8448eb211c80319c",
        ]
    );
    inject(Style::B3, &parent, &mut out);
    assert_eq!(out["x-b3-parentspanid"], "0000000000000001");
}

#[test]
fn request_ids_are_version_4_and_carry_the_reason() {
    let rng = SeededRng::new(3);
    for _ in 0..100 {
        let id = new_request_id(&rng);
        let bytes = id.as_bytes();
        assert_eq!((bytes.len(), bytes[14]), (36, b'4'));
        assert!(
            [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-') && b"89ab".contains(&bytes[19]),
            "{id}"
        );
        for reason in [
            Reason::NotTraceable,
            Reason::Sampling,
            Reason::ServiceForced,
            Reason::ClientForced,
        ] {
            assert_eq!(
                reason_of(with_reason(bytes, reason).unwrap().as_bytes()),
                Some(reason)
            );
        }
    }
    assert_eq!(reason_of(b"short"), None);
    assert_eq!(
        request_id_number(b"+0000001-0000-4000-8000-000000000000"),
        None
    );
}

#[test]
fn sampling_follows_envoys_order() {
    let rng = SeededRng::new(1);
    let policy = RequestIdPolicy::default();
    // 0x1388 = 5000: sampled from 50.01 % on.
    let id = b"00001388-0000-4000-8000-000000000000";
    let decide =
        |sampling: Sampling, input: SamplingInput<'_>| sampling.decide(policy, input, &rng);
    let input = SamplingInput {
        request_id: id,
        ..SamplingInput::default()
    };
    let random = |random| Sampling {
        random,
        ..Sampling::default()
    };
    assert_eq!(decide(random(50.0), input), (Reason::NotTraceable, None));
    let sampled = (
        Reason::Sampling,
        Some("00001388-0000-9000-8000-000000000000".to_string()),
    );
    assert_eq!(decide(random(50.01), input), sampled);
    let forced = SamplingInput {
        force_trace: true,
        ..input
    };
    assert_eq!(decide(random(0.0), forced).1.unwrap().as_bytes()[14], b'a');
    let client = SamplingInput {
        client_trace_id: true,
        ..forced
    };
    assert_eq!(decide(random(0.0), client).1.unwrap().as_bytes()[14], b'b');
    assert_eq!(
        decide(
            Sampling {
                client: 0.0,
                random: 0.0,
                overall: 100.0
            },
            client
        )
        .0,
        Reason::ServiceForced
    );
    // A decision that came with the id stays, unless the overall fraction takes it back.
    let kept = SamplingInput {
        request_id: b"00001388-0000-a000-8000-000000000000",
        ..input
    };
    assert_eq!(decide(random(0.0), kept), (Reason::ServiceForced, None));
    let (reason, id) = decide(
        Sampling {
            overall: 50.0,
            ..Sampling::default()
        },
        kept,
    );
    assert_eq!(
        (reason, id.unwrap().as_bytes()[14]),
        (Reason::NotTraceable, b'4')
    );
    let no_uuid = SamplingInput {
        request_id: b"abc",
        ..input
    };
    assert_eq!(decide(random(100.0), no_uuid), (Reason::NotTraceable, None));
    let free = RequestIdPolicy {
        use_for_sampling: false,
        ..policy
    };
    assert_eq!(random(0.0).decide(free, input, &rng).0, Reason::Sampling);
}

fn record() -> Record {
    Record {
        start: Some(SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001)),
        timings: Timings {
            total: Some(Duration::from_micros(1500)),
            ..Timings::default()
        },
        bytes: Bytes {
            received: 3,
            sent: 9,
            ..Bytes::default()
        },
        method: Some(Method::GET),
        path: Some(PathAndQuery::from_static("/reviews/0")),
        authority: Some(HeaderValue::from_static("reviews:9080")),
        protocol: Some(Protocol::Http11),
        status: Some(500),
        request_id: Some(HeaderValue::from_static("id")),
        downstream_local: Some(Address::Socket("10.0.0.1:15001".parse().unwrap())),
        downstream_direct_remote: Some(Address::Socket("10.0.0.2:999".parse().unwrap())),
        upstream_cluster: Some("outbound|9080||reviews".into()),
        upstream_cluster_observed: Some("outbound|9080||reviews;".into()),
        trace: Some(SpanContext {
            trace_id: 1 << 64,
            span_id: 2,
            parent_id: Some(1),
            sampled: true,
            trace_state: None,
        }),
        ..Record::default()
    }
}

#[test]
fn zipkin_golden() {
    let local = Peer {
        canonical_service: "productpage".into(),
        namespace: "default".into(),
        ..Peer::default()
    };
    let settings = SpanSettings {
        node_id: "sidecar~10.0.0.1".into(),
        service_name: "productpage.default".into(),
        fixed_tags: istio_tags(&local, "cluster.local"),
        custom_tags: vec![
            CustomTag {
                tag: "env".into(),
                source: CustomTagSource::Literal("x".into()),
            },
            CustomTag {
                tag: "tenant".into(),
                source: CustomTagSource::RequestHeader {
                    name: "X-Tenant".into(),
                    default: Some("unknown".into()),
                },
            },
            CustomTag {
                tag: "none".into(),
                source: CustomTagSource::Metadata {
                    filter: "f".into(),
                    path: vec![],
                    default: None,
                },
            },
        ],
        ..SpanSettings::default()
    };
    let span = Span::of(
        &record(),
        SpanKind::Client,
        Some("reviews:9080/*"),
        &settings,
    )
    .unwrap();
    assert!(span.error);
    let value: serde_json::Value = serde_json::from_str(&zipkin_json(&[span], false)).unwrap();
    assert_eq!(
        value,
        serde_json::json!([{
            "traceId": "00000000000000010000000000000000", "id": "0000000000000002", "parentId": "0000000000000001",
            "name": "reviews:9080/*", "kind": "CLIENT", "timestamp": 1_700_000_000_000_001u64, "duration": 1500,
            "localEndpoint": {"serviceName": "productpage.default", "ipv4": "10.0.0.1", "port": 15001},
            "tags": {
                "node_id": "sidecar~10.0.0.1", "guid:x-request-id": "id", "http.url": "http://reviews:9080/reviews/0",
                "http.method": "GET", "downstream_cluster": "-", "user_agent": "-", "http.protocol": "HTTP/1.1",
                "peer.address": "10.0.0.2", "request_size": "3", "component": "proxy",
                "upstream_cluster": "outbound|9080||reviews", "upstream_cluster.name": "outbound|9080||reviews;",
                "http.status_code": "500", "response_size": "9", "response_flags": "-", "error": "true",
                "istio.canonical_service": "productpage", "istio.mesh_id": "cluster.local", "istio.namespace": "default",
                "env": "x", "tenant": "unknown"
            }
        }])
    );
    let unsampled = Record {
        trace: None,
        ..record()
    };
    assert_eq!(
        Span::of(&unsampled, SpanKind::Server, None, &settings),
        None
    );
    let server = Span::of(&record(), SpanKind::Server, None, &settings).unwrap();
    assert_eq!(server.name, "ingress reviews:9080");
    assert!(zipkin_json(&[server], true).contains("\"shared\":true"));
}

proptest! {
    #[test]
    fn headers_never_panic_and_contexts_round_trip(
        value in "[ -~]{0,70}", trace in 1u128.., span in 1u64.., sampled: bool,
    ) {
        let mut map = HeaderMap::new();
        for name in ["traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "tracestate"] {
            map.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        for style in [Style::W3c, Style::B3, Style::B3WithW3c] {
            extract(style, &map);
            let context = SpanContext { trace_id: trace, span_id: span, parent_id: None, sampled, trace_state: None };
            let mut out = HeaderMap::new();
            inject(style, &context, &mut out);
            prop_assert_eq!(extract(style, &out).parent, Some(context));
        }
        reason_of(value.as_bytes());
        request_id_number(value.as_bytes());
        with_reason(value.as_bytes(), Reason::Sampling);
    }
}
