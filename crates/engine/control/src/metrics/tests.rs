use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use ingest::{Problem, Severity, Store, code};
use serde_json::json;
use wire_envoy::type_url as urls;
use wire_kube::kinds::Kind;

use super::*;

fn lines(metrics: &Metrics) -> Vec<String> {
    metrics.text().lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_lines(metrics: &Metrics, wanted: &[&str]) {
    let found = lines(metrics);
    for line in wanted {
        assert!(
            found.iter().any(|text| text == line),
            "{line} in\n{}",
            found.join("\n")
        );
    }
}

#[test]
fn what_people_alert_on_is_there_before_anything_happened() {
    let found = lines(&Metrics::new(Arc::new(stdx::SystemClock)));
    for name in [
        "pilot_proxy_convergence_time_bucket",
        "pilot_xds_send_time_count",
        "pilot_proxy_queue_time_sum",
        "pilot_conflict_inbound_listener",
        "pilot_conflict_outbound_listener_tcp_over_current_tcp",
        "pilot_services",
        "pilot_virt_services",
        "citadel_server_csr_count",
        "citadel_server_csr_sign_err_count",
        "citadel_server_root_cert_expiry_timestamp",
        "istio_build",
        "istiod_uptime_seconds",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        let is_sample = |line: &String| line.starts_with(name);
        assert!(found.iter().any(is_sample), "{name}: {found:#?}");
    }
    assert!(!found.iter().any(|line| line == "# EOF"), "{found:#?}");
}

#[test]
fn streams_are_counted_under_istiods_labels() {
    let metrics = Metrics::new(Arc::new(stdx::SystemClock));
    let connected = metrics.streams.connected("1.31.0");
    metrics.streams.rejected(urls::LISTENER, "web-1.shop", 13);
    assert_lines(
        &metrics,
        &[
            "pilot_xds{version=\"1.31.0\"} 1",
            "pilot_total_xds_rejects{type=\"lds\"} 1",
            "pilot_xds_lds_reject{node=\"web-1.shop\",err=\"Internal\"} 1",
        ],
    );
    drop(connected);
    assert_lines(&metrics, &["pilot_xds{version=\"1.31.0\"} 0"]);
}

#[test]
fn an_authority_shows_when_it_ends() {
    let metrics = Metrics::new(Arc::new(stdx::SystemClock));
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    metrics
        .authority
        .lasts(at(4_000_000_000), at(3_000_000_000));
    metrics.authority.refresh(at(2_999_999_990));
    // The page itself shows the present.
    assert_lines(
        &metrics,
        &[
            "citadel_server_root_cert_expiry_timestamp 4000000000",
            "citadel_server_cert_chain_expiry_timestamp 3000000000",
        ],
    );
}

#[test]
fn objects_are_counted_by_what_becomes_of_them() {
    let metrics = Metrics::new(Arc::new(stdx::SystemClock));
    let source = &metrics.source;
    source.event(Kind::VirtualService, Event::Add);
    source.event(Kind::Service, Event::Delete);
    source.event(Kind::Pod, Event::Update);
    let bad = Problem::new(Severity::Error, code::INVALID, "spec", "bad");
    let version = "networking.istio.io/v1";
    source.validated(Kind::VirtualService, "web", version, &[]);
    source.validated(Kind::VirtualService, "web", version, &[bad]);
    source.validated(Kind::Pod, "pod", "v1", &[]);
    source.triggered(&BTreeSet::from([
        Kind::Pod,
        Kind::EndpointSlice,
        Kind::Sidecar,
    ]));
    assert_lines(
        &metrics,
        &[
            "pilot_k8s_cfg_events{type=\"VirtualService\",event=\"add\"} 1",
            "pilot_k8s_reg_events{type=\"Services\",event=\"delete\"} 1",
            "pilot_inbound_updates{type=\"svcdelete\"} 1",
            "galley_validation_passed{group=\"networking.istio.io\",version=\"v1\",resource=\"virtualservices\"} 1",
            "galley_validation_failed{group=\"networking.istio.io\",version=\"v1\",resource=\"virtualservices\",reason=\"invalid_resource\"} 1",
            "pilot_total_rejected_configs{type=\"VirtualService\",name=\"web\"} 1",
            "pilot_push_triggers{type=\"endpoint\"} 1",
            "pilot_push_triggers{type=\"config\"} 1",
        ],
    );
}

#[test]
fn a_snapshot_shows_its_services_and_their_conflicts() {
    let mut store = Store::new(ingest::default_mesh());
    let service = |name: &str, port: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [{"name": port, "port": 80, "targetPort": 8080}]}})
    };
    let entry = |name: &str| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": [format!("{name}.example.com")], "resolution": "DNS", "ports": [{"name": "tcp", "number": 5432, "protocol": "TCP"}]}})
    };
    for object in [
        service("web", "http"),
        service("raw", "tcp"),
        entry("one"),
        entry("two"),
    ] {
        store.apply(Arc::new(object));
    }
    let metrics = Metrics::new(Arc::new(stdx::SystemClock));
    let short = Duration::from_millis(1);
    metrics.source.published(&store.build(), short, short);
    assert_lines(
        &metrics,
        &[
            "pilot_services 4",
            "pilot_conflict_inbound_listener 1",
            "pilot_conflict_outbound_listener_tcp_over_current_tcp 1",
            "pilot_eds_no_instances 2",
            "pilot_debounce_time_count 1",
        ],
    );
}
