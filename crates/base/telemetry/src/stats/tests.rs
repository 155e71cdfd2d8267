use super::*;

const CLUSTER: &[&str] = &["upstream_rq_total", "upstream_cx_total"];
const CLUSTER_GAUGES: &[&str] = &["upstream_cx_active"];

fn store() -> Store {
    Store::new(Options {
        workers: 2,
        ..Options::default()
    })
}

fn text(store: &Store, query: &str) -> String {
    store.render(&Query::parse(query).unwrap())
}

fn filled() -> (Store, Scope) {
    let store = store();
    let scope = store.scope("cluster.outbound|80||a;.");
    scope.counters(CLUSTER).add(0, 7);
    scope.gauges(CLUSTER_GAUGES).inc(0);
    scope.histogram("upstream_rq_time").record(2);
    store.gauge("server.live").set(1);
    store
        .text_readout("control_plane.identifier")
        .set("istiod<1>");
    (store, scope)
}

#[test]
fn plain_text_golden() {
    let (store, _scope) = filled();
    assert_eq!(
        text(&store, ""),
        "control_plane.identifier: \"istiod&lt;1&gt;\"\n\
         cluster.outbound|80||a;.upstream_cx_active: 1\n\
         cluster.outbound|80||a;.upstream_cx_total: 0\n\
         cluster.outbound|80||a;.upstream_rq_total: 7\n\
         server.live: 1\n\
         server.stats_overflow: 0\n\
         cluster.outbound|80||a;.upstream_rq_time: P0(nan,2) P25(nan,2.025) P50(nan,2.05) P75(nan,2.075) P90(nan,2.09) \
         P95(nan,2.095) P99(nan,2.099) P99.5(nan,2.0995) P99.9(nan,2.0999) P100(nan,2.1)\n"
    );
    store.scope("x").histogram("empty");
    assert_eq!(text(&store, "filter=%5Ex"), "");
    let scope = store.scope("x");
    let histogram = scope.histogram("empty");
    assert_eq!(text(&store, "filter=%5Ex"), "x.empty: No recorded values\n");
    histogram.record(0);
    store.flush();
    assert!(text(&store, "filter=%5Ex").starts_with("x.empty: P0(0,0)"));
}

#[test]
fn json_golden() {
    let (store, _scope) = filled();
    assert_eq!(
        text(&store, "format=json&usedonly&type=Counters"),
        r#"{"stats":[{"name":"cluster.outbound|80||a;.upstream_rq_total","value":7}]}"#
    );
    let all: serde_json::Value =
        serde_json::from_str(&text(&store, "format=json&filter=rq_time|live")).unwrap();
    assert_eq!(
        all["stats"][0],
        serde_json::json!({"name": "server.live", "value": 1})
    );
    let histograms = &all["stats"][1]["histograms"];
    assert_eq!(histograms["supported_quantiles"][7], 99.5);
    assert_eq!(
        histograms["computed_quantiles"][0]["values"][9],
        serde_json::json!({"interval": null, "cumulative": 2.1})
    );
}

#[test]
fn prometheus_golden() {
    let (store, scope) = filled();
    scope.counter("upstream_rq_503").inc();
    store.configure(Matcher::all(), TagRules::istio(), {
        let mut buckets = BucketSettings::default();
        buckets.push(
            StringMatch::Suffix("upstream_rq_time".into()),
            vec![1.0, 2.5],
        );
        buckets
    });
    assert_eq!(
        text(&store, "format=prometheus&usedonly"),
        "# TYPE envoy_cluster_upstream_rq counter\n\
         envoy_cluster_upstream_rq{cluster_name=\"outbound|80||a\",response_code=\"503\"} 1\n\n\
         # TYPE envoy_cluster_upstream_rq_total counter\n\
         envoy_cluster_upstream_rq_total{cluster_name=\"outbound|80||a\"} 7\n\n\
         # TYPE envoy_cluster_upstream_cx_active gauge\n\
         envoy_cluster_upstream_cx_active{cluster_name=\"outbound|80||a\"} 1\n\n\
         # TYPE envoy_server_live gauge\n\
         envoy_server_live{} 1\n\n\
         # TYPE envoy_cluster_upstream_rq_time histogram\n\
         envoy_cluster_upstream_rq_time_bucket{cluster_name=\"outbound|80||a\",le=\"1\"} 0\n\
         envoy_cluster_upstream_rq_time_bucket{cluster_name=\"outbound|80||a\",le=\"2.5\"} 1\n\
         envoy_cluster_upstream_rq_time_bucket{cluster_name=\"outbound|80||a\",le=\"+Inf\"} 1\n\
         envoy_cluster_upstream_rq_time_sum{cluster_name=\"outbound|80||a\"} 2\n\
         envoy_cluster_upstream_rq_time_count{cluster_name=\"outbound|80||a\"} 1\n\n"
    );
    assert!(text(&store, "format=prometheus&text_readouts").contains(
        "# TYPE envoy_control_plane_identifier gauge\nenvoy_control_plane_identifier{text_value=\"istiod<1>\"} 0\n"
    ));
}

#[test]
fn a_scope_ends_with_its_last_handle_and_an_update_keeps_counts() {
    let store = store();
    let old = store.scope("cluster.a");
    let counter = old.counter("x");
    counter.inc();
    let new = store.scope("cluster.a.");
    drop(old);
    assert_eq!(new.counter("x").value(), 1);
    assert_eq!(text(&store, "filter=cluster.a"), "cluster.a.x: 1\n");
    let before = store.series();
    drop(new);
    assert_eq!(text(&store, "filter=cluster.a"), "");
    assert_eq!(store.series(), before - 1);
    counter.inc();
    assert_eq!(store.scope("cluster.a").counter("x").value(), 0);
    let kept = store.scope("cluster.b");
    kept.counter("y").inc();
    store.remove_scope("cluster.b");
    assert_eq!(text(&store, "filter=cluster.b"), "");
}

#[test]
fn a_block_member_and_a_counter_of_its_name_are_one() {
    let store = store();
    let scope = store.scope("cluster.a");
    let block = scope.counters(CLUSTER);
    scope.counter("upstream_cx_total").add(3);
    assert_eq!(block.value(1), 3);
    block.counter(1).unwrap().inc();
    assert_eq!(scope.counters(CLUSTER).value(1), 4);
    block.inc(99);
    assert_eq!(block.value(99), 0);
    assert!(block.counter(99).is_none());
}

#[test]
fn series_are_bounded_and_the_overflow_is_counted() {
    let store = Store::new(Options {
        max_series: 3,
        workers: 1,
        ..Options::default()
    });
    let scope = store.scope("s");
    scope.counter("a").inc();
    scope.counter("b").inc();
    let lost = scope.counter("c");
    lost.inc();
    scope.counters(CLUSTER).inc(0);
    assert_eq!(lost.value(), 1);
    assert_eq!(
        text(&store, ""),
        "s.a: 1\ns.b: 1\nserver.stats_overflow: 3\n"
    );
}

#[test]
fn workers_and_other_threads_add_up_and_reset_is_not_lost() {
    let store = store();
    let (counter, gauge, histogram) = (store.counter("c"), store.gauge("g"), store.histogram("h"));
    std::thread::scope(|threads| {
        for worker in 0..4 {
            let (counter, gauge, histogram) = (&counter, &gauge, &histogram);
            threads.spawn(move || {
                let _slot = (worker < 3).then(WorkerSlot::claim);
                for value in 0..10_000 {
                    counter.inc();
                    gauge.inc();
                    gauge.dec();
                    histogram.record(value);
                }
                gauge.add(2);
                gauge.sub(1);
            });
        }
    });
    assert_eq!(
        (counter.value(), gauge.value(), histogram.summary().count),
        (40_000, 4, 40_000)
    );
    store.reset_counters();
    assert_eq!((counter.value(), gauge.value()), (0, 4));
    counter.inc();
    assert_eq!(counter.value(), 1);
}

#[test]
fn usedonly_shows_a_gauge_that_went_back_to_zero() {
    let store = store();
    let gauge = store.gauge("went.back");
    store.gauge("never");
    store.gauge("set.zero").set(0);
    gauge.inc();
    gauge.dec();
    assert_eq!(text(&store, "usedonly"), "set.zero: 0\nwent.back: 0\n");
    store.configure(
        Matcher::istio(Vec::new()),
        TagRules::istio(),
        BucketSettings::default(),
    );
    assert_eq!(text(&store, ""), "server.stats_overflow: 0\n");
}

#[test]
fn a_bad_query_is_refused_by_name() {
    assert!(Query::parse("filter=%28").is_err());
    assert!(
        Query::parse("format=yaml")
            .unwrap_err()
            .to_string()
            .contains("yaml")
    );
    assert!(Query::parse("type=X&other=1").is_err());
    assert!(Query::parse("hidden=include").is_ok());
}
