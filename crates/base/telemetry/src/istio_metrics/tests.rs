use std::time::Duration;

use http::Method;

use super::*;
use crate::record::{Bytes, Peer, Record, ResponseFlags, Timings};

fn peer(name: &str) -> Peer {
    Peer {
        workload: format!("{name}-v1").into(),
        namespace: "default".into(),
        app: name.into(),
        version: "v1".into(),
        canonical_service: name.into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        ..Peer::default()
    }
}

fn edge(metrics: &IstioMetrics, reporter: Reporter) -> Arc<Edge> {
    let (page, reviews) = (peer("productpage"), peer("reviews"));
    let (local, other) = if reporter == Reporter::Source {
        (&page, &reviews)
    } else {
        (&reviews, &page)
    };
    let facts = EdgeFacts {
        reporter,
        local,
        peer: Some(other),
        waypoint_destination: None,
        peer_principal: Some("spiffe://cluster.local/ns/default/sa/x"),
        local_principal: Some("spiffe://cluster.local/ns/default/sa/y"),
        service: ServiceFacts {
            cluster_service: Some(("reviews.default.svc.cluster.local", Some("reviews"))),
            host_header: Some("reviews:9080"),
            ..ServiceFacts::default()
        },
    };
    metrics.edge(facts.labels())
}

fn record(status: u16) -> Record {
    Record {
        method: Some(Method::GET),
        status: Some(status),
        timings: Timings {
            total: Some(Duration::from_micros(7_900)),
            ..Timings::default()
        },
        bytes: Bytes {
            downstream_wire_received: 300,
            downstream_wire_sent: 5,
            ..Bytes::default()
        },
        ..Record::default()
    }
}

fn metrics() -> IstioMetrics {
    let mut buckets = BucketSettings::default();
    buckets.push(
        crate::stats::StringMatch::Prefix("istio".into()),
        vec![1.0, 5.0, 10.0],
    );
    IstioMetrics::new(Options {
        version: "1.31.0".into(),
        buckets,
        ..Options::default()
    })
}

fn text(metrics: &IstioMetrics) -> String {
    let mut out = String::new();
    metrics.prometheus(&mut out);
    out
}

const LABELS: &str = "reporter=\"source\",source_workload=\"productpage-v1\",source_canonical_service=\"productpage\",\
source_canonical_revision=\"v1\",source_workload_namespace=\"default\",\
source_principal=\"spiffe://cluster.local/ns/default/sa/y\",source_app=\"productpage\",source_version=\"v1\",\
source_cluster=\"Kubernetes\",destination_workload=\"reviews-v1\",destination_workload_namespace=\"default\",\
destination_principal=\"spiffe://cluster.local/ns/default/sa/x\",destination_app=\"reviews\",destination_version=\"v1\",\
destination_service=\"reviews.default.svc.cluster.local\",destination_canonical_service=\"reviews\",\
destination_canonical_revision=\"v1\",destination_service_name=\"reviews\",destination_service_namespace=\"default\",\
destination_cluster=\"Kubernetes\"";

#[test]
fn request_golden() {
    let metrics = metrics();
    let (shard, other) = (metrics.shard(), metrics.shard());
    let edge = edge(&metrics, Reporter::Source);
    shard.request(&Plan::default(), &edge, &record(200));
    other.request(&Plan::default(), &edge, &record(200));
    let all = format!(
        "{LABELS},request_protocol=\"http\",response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\",\
         connection_security_policy=\"unknown\""
    );
    let histogram = |name: &str, counts: [u64; 3], sum: u64| {
        format!(
            "# TYPE {name} histogram\n\
             {name}_bucket{{{all},le=\"1\"}} {}\n{name}_bucket{{{all},le=\"5\"}} {}\n{name}_bucket{{{all},le=\"10\"}} {}\n\
             {name}_bucket{{{all},le=\"+Inf\"}} 2\n{name}_sum{{{all}}} {sum}\n{name}_count{{{all}}} 2\n\n",
            counts[0], counts[1], counts[2]
        )
    };
    assert_eq!(
        text(&metrics),
        format!(
            "# TYPE istio_requests_total counter\nistio_requests_total{{{all}}} 2\n\n\
             # TYPE istio_build gauge\nistio_build{{component=\"proxy\",tag=\"1.31.0\"}} 1\n\n{}{}{}",
            histogram("istio_request_bytes", [0, 0, 0], 600),
            histogram("istio_request_duration_milliseconds", [0, 0, 2], 14),
            histogram("istio_response_bytes", [0, 2, 2], 10),
        )
    );
}

#[test]
fn grpc_and_tcp_have_their_labels() {
    let metrics = metrics();
    let shard = metrics.shard();
    let edge = edge(&metrics, Reporter::Source);
    let grpc = Record {
        is_grpc: true,
        grpc_status: Some(0),
        ..record(200)
    };
    shard.request(&Plan::default(), &edge, &grpc);
    shard.messages(&Plan::default(), &edge, &grpc, 2, 3);
    let tcp = shard.tcp(
        &Plan::default(),
        &edge,
        &Record {
            flags: ResponseFlags::NO_ROUTE_FOUND,
            ..Record::default()
        },
    );
    tcp.opened();
    tcp.bytes(10, 20);
    tcp.bytes(1, 2);
    tcp.closed();
    let text = text(&metrics);
    let connection =
        "request_protocol=\"tcp\",response_flags=\"NR\",connection_security_policy=\"unknown\"";
    for line in [
        format!("istio_request_messages_total{{{LABELS}}} 2\n"),
        format!("istio_response_messages_total{{{LABELS}}} 3\n"),
        format!("istio_tcp_connections_opened_total{{{LABELS},{connection}}} 1\n"),
        format!("istio_tcp_connections_closed_total{{{LABELS},{connection}}} 1\n"),
        format!("istio_tcp_sent_bytes_total{{{LABELS},{connection}}} 11\n"),
        format!("istio_tcp_received_bytes_total{{{LABELS},{connection}}} 22\n"),
        "request_protocol=\"grpc\",response_code=\"200\",grpc_response_status=\"0\"".to_string(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[test]
fn fallbacks_for_what_is_not_known() {
    let local = peer("reviews");
    let facts = EdgeFacts {
        reporter: Reporter::Destination,
        local: &local,
        peer: None,
        waypoint_destination: None,
        peer_principal: None,
        local_principal: None,
        service: ServiceFacts::default(),
    };
    let labels = facts.labels();
    assert_eq!(
        (&*labels.source.workload, &*labels.source.canonical_revision),
        ("unknown", "latest")
    );
    assert_eq!(
        (&*labels.source.principal, labels.security),
        ("unknown", SecurityPolicy::None)
    );
    assert_eq!(
        (
            &*labels.destination_service,
            &*labels.destination_service_name
        ),
        ("reviews", "reviews")
    );
    let mutual = EdgeFacts {
        peer_principal: Some("spiffe://td/ns/other/sa/a"),
        local_principal: Some("b"),
        ..facts
    };
    assert_eq!(mutual.labels().security, SecurityPolicy::MutualTls);
    assert_eq!(&*mutual.labels().source.workload_namespace, "other");
    let client = EdgeFacts {
        reporter: Reporter::Source,
        ..facts
    };
    assert_eq!(
        (
            &*client.labels().destination_service,
            client.labels().security
        ),
        ("unknown", SecurityPolicy::Unknown)
    );
    let waypoint = EdgeFacts {
        reporter: Reporter::Waypoint,
        ..facts
    };
    assert_eq!(&*waypoint.labels().destination.workload, "unknown");
    assert_eq!(&*waypoint.labels().destination.cluster, "Kubernetes");
}

#[test]
fn service_names() {
    let facts = ServiceFacts {
        host_header: Some("h:80"),
        ..ServiceFacts::default()
    };
    let of = |route_name, cluster_name, cluster_service| {
        service_labels(&ServiceFacts {
            route_name,
            cluster_name,
            cluster_service,
            ..facts
        })
    };
    assert_eq!(
        of(Some("block_all"), None, None),
        (Some("h:80"), Some("BlackHoleCluster"))
    );
    assert_eq!(
        of(Some("allow_any"), Some("PassthroughCluster"), None),
        (Some("h:80"), Some("PassthroughCluster"))
    );
    assert_eq!(
        of(None, Some("InboundPassthroughCluster"), None).1,
        Some("InboundPassthroughCluster")
    );
    assert_eq!(
        of(None, Some("x"), Some(("a.b.svc", None))),
        (Some("a.b.svc"), Some("a"))
    );
    assert_eq!(of(None, Some("x"), None), (Some("h:80"), Some("h:80")));
}

#[test]
fn telemetry_api_drops_removes_and_adds() {
    let dimensions = BTreeMap::from([
        ("request_method".to_string(), "request.method".to_string()),
        ("missing".to_string(), "request.headers['x']".to_string()),
        ("source_app".to_string(), "'fixed'".to_string()),
    ]);
    let (plan, problems) = Plan::parse(&[
        MetricConfig {
            name: "requests_total".into(),
            tags_to_remove: vec!["response_flags".into(), "nope".into()],
            dimensions,
            ..MetricConfig::default()
        },
        MetricConfig {
            name: "request_bytes".into(),
            drop: true,
            ..MetricConfig::default()
        },
        MetricConfig {
            name: "custom".into(),
            ..MetricConfig::default()
        },
        MetricConfig {
            dimensions: BTreeMap::from([("x".into(), "a +".into())]),
            ..MetricConfig::default()
        },
    ]);
    assert_eq!(problems.len(), 3, "{problems:?}");
    let metrics = metrics();
    let shard = metrics.shard();
    let edge = edge(&metrics, Reporter::Source);
    shard.request(&plan, &edge, &record(200));
    // Removing a label joins what differed by it alone.
    shard.request(
        &plan,
        &edge,
        &Record {
            flags: ResponseFlags::DELAY_INJECTED,
            ..record(200)
        },
    );
    shard.request(
        &plan,
        &edge,
        &Record {
            method: Some(Method::PUT),
            ..record(200)
        },
    );
    let text = text(&metrics);
    let line = |method: &str, count: u64| {
        format!(
            "grpc_response_status=\"\",connection_security_policy=\"unknown\",missing=\"unknown\",request_method=\"{method}\"}} {count}\n"
        )
    };
    assert!(
        text.contains(&line("GET", 2)) && text.contains(&line("PUT", 1)),
        "{text}"
    );
    assert!(text.contains("source_app=\"fixed\"") && !text.contains("istio_request_bytes"));
    assert!(text.contains("istio_response_bytes_count") && text.contains("response_flags=\"DI\""));
}

#[test]
fn silent_series_go_and_held_ones_stay() {
    let metrics = metrics();
    let (shard, other) = (metrics.shard(), metrics.shard());
    let edge = edge(&metrics, Reporter::Source);
    let plan = Plan::default();
    shard.request(&plan, &edge, &record(200));
    other.request(&plan, &edge, &record(200));
    let tcp = shard.tcp(&plan, &edge, &Record::default());
    metrics.expire();
    other.request(&plan, &edge, &record(200));
    metrics.expire();
    assert!(
        text(&metrics).contains("\"unknown\"} 3\n"),
        "touched by one worker: the sum of all stays"
    );
    metrics.expire();
    let rest = text(&metrics);
    assert!(
        !rest.contains("istio_requests_total") && rest.contains("istio_tcp_sent_bytes_total"),
        "{rest}"
    );
    tcp.bytes(1, 1);
    drop(tcp);
    metrics.expire();
    assert!(text(&metrics).contains("istio_tcp_sent_bytes_total"));
    metrics.expire();
    assert_eq!(metrics.series(), 0);
    shard.request(&plan, &edge, &record(200));
    assert!(text(&metrics).contains("\"unknown\"} 1\n"));
}

#[test]
fn series_are_bounded() {
    let metrics = IstioMetrics::new(Options {
        max_series: 4,
        ..Options::default()
    });
    let shard = metrics.shard();
    let edge = edge(&metrics, Reporter::Destination);
    for status in 200..210 {
        shard.request(&Plan::default(), &edge, &record(status));
    }
    assert_eq!(metrics.series(), 4);
    let text = text(&metrics);
    assert!(
        text.contains("tanbark_istio_series_overflow_total{} 36\n"),
        "{text}"
    );
    assert!(text.contains("connection_security_policy=\"mutual_tls\""));
}

#[test]
fn equal_edges_are_one_and_quotes_are_escaped() {
    let metrics = metrics();
    assert!(
        Arc::ptr_eq(
            &edge(&metrics, Reporter::Source),
            &edge(&metrics, Reporter::Source)
        ) || {
            // The first was dropped before the second was made, so identity differs; held, they are
            // one.
            let first = edge(&metrics, Reporter::Source);
            Arc::ptr_eq(&first, &edge(&metrics, Reporter::Source))
        }
    );
    let local = Peer {
        workload: "a\"b\\c\n".into(),
        ..Peer::default()
    };
    let facts = EdgeFacts {
        reporter: Reporter::Source,
        local: &local,
        peer: None,
        waypoint_destination: None,
        peer_principal: None,
        local_principal: None,
        service: ServiceFacts::default(),
    };
    metrics
        .shard()
        .request(&Plan::default(), &metrics.edge(facts.labels()), &record(0));
    assert!(text(&metrics).contains(r#"source_workload="a\"b\\c\n","#));
}
