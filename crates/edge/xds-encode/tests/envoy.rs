//! A stock Envoy takes every resource that we make for it: each scenario's clusters, listeners and routes in one bootstrap file, which
//! `envoy --mode validate` reads. Envoy is found by `TANBARK_ENVOY` or in the virtual environment
//! of the workspace; without one the check is left out by name.

#![allow(
    clippy::disallowed_methods,
    reason = "whoever runs the tests may name another Envoy in the environment"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use prost::{Message, Name};
use serde_json::{Value as Json, json};
use wire_envoy::{Descriptors, Names, pb};
use xds_encode::{Client, View, clusters, listeners, packed, routes};

#[path = "shared/scenario.rs"]
mod scenario;
use scenario::{client, scenarios, snapshot};

fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("TANBARK_ENVOY").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.venv/bin/envoy");
    let found = named.or_else(|| beside.exists().then_some(beside));
    if found.is_none() {
        let why = "no Envoy (`make test-tools` installs one; or set TANBARK_ENVOY)";
        testkit::left_out("a stock Envoy takes every resource", why);
    }
    found
}

fn json_of<M: Message + Name>(descriptors: &Descriptors, message: &M) -> Json {
    let mut json = descriptors
        .any_to_json(&packed(message), Names::Camel)
        .expect("JSON");
    json.as_object_mut().expect("an object").remove("@type");
    json
}

/// Tables that listeners ask for, each in a listener of its own.
fn route_listeners(descriptors: &Descriptors, view: &View, listeners: &[Json]) -> Vec<Json> {
    let mut names = std::collections::BTreeSet::new();
    collect_names(&Json::from(listeners), &mut names);
    let tables = names.iter().map(|name| {
        view.route_inputs(name)
            .unwrap_or_else(|| panic!("no table {name}"))
    });
    let inline = |(index, inputs): (usize, xds_encode::RouteInputs)| {
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "statPrefix": "routes",
            "routeConfig": json_of(descriptors, &routes(&inputs)),
            "httpFilters": [{"name": "envoy.filters.http.router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        });
        json!({"name": format!("routes-{index}"), "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 20_000 + index}}, "filterChains": [{"filters": [{"name": "http", "typedConfig": manager}]}]})
    };
    tables.enumerate().map(inline).collect()
}

fn collect_names(json: &Json, names: &mut std::collections::BTreeSet<String>) {
    match json {
        Json::Object(fields) => {
            fields
                .iter()
                .for_each(|(key, value)| match (key.as_str(), value) {
                    ("routeConfigName", Json::String(name)) => drop(names.insert(name.clone())),
                    (_, value) => collect_names(value, names),
                })
        }
        Json::Array(items) => items.iter().for_each(|item| collect_names(item, names)),
        _ => {}
    }
}

fn local_cluster(name: &str) -> Json {
    json!({"name": name, "type": "STATIC", "connectTimeout": "1s", "loadAssignment": {"clusterName": name, "endpoints": []},
        "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicitHttpConfig": {"http2ProtocolOptions": {}}}}})
}

fn bootstrap(descriptors: &Descriptors, view: &View) -> Json {
    let mut found: Vec<Json> = clusters(&view.cluster_inputs())
        .iter()
        .map(|cluster| json_of(descriptors, cluster))
        .collect();
    found.extend(["xds-grpc", "sds-grpc"].map(local_cluster));
    let mut own: Vec<Json> = listeners(&view.listener_inputs())
        .iter()
        .map(|listener| json_of(descriptors, listener))
        .collect();
    own.extend(route_listeners(descriptors, view, &own));
    json!({
        "node": {"id": "test", "cluster": "test"},
        "dynamicResources": {"adsConfig": {"apiType": "GRPC", "transportApiVersion": "V3", "grpcServices": [{"envoyGrpc": {"clusterName": "xds-grpc"}}]}},
        "staticResources": {"clusters": found, "listeners": own},
    })
}

fn stock(client: &Client) -> Arc<Client> {
    Arc::new(Client {
        is_envoy_without_istio_filters: true,
        mark: Some(1337),
        ..client.clone()
    })
}

#[test]
fn stock_envoy_takes_what_is_made_for_it() {
    let Some(envoy) = envoy() else { return };
    let descriptors = Descriptors::load().expect("built-in");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut refused = Vec::new();
    for scenario in scenarios() {
        let snapshot = snapshot(scenario);
        for who in ["sidecar", "gateway"] {
            let client = stock(&client(&descriptors, scenario, who));
            let view = View::new(&snapshot, &client);
            let name = scenario.name();
            let file = folder.join(format!("{name}-{who}.json"));
            fs::write(&file, bootstrap(&descriptors, &view).to_string()).expect("written");
            let run = Command::new(&envoy)
                .args(["--mode", "validate", "--log-level", "error", "-c"])
                .arg(&file)
                .output()
                .expect("Envoy runs");
            if !run.status.success() {
                refused.push(format!(
                    "{name} {who}: {}",
                    String::from_utf8_lossy(&run.stderr)
                ));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// A stock Envoy has none of Istio's filters, offers ALPN that its peers understand, and marks its connections.
#[test]
fn stock_envoy_is_spared_what_it_does_not_have() {
    let descriptors = Descriptors::load().expect("built-in");
    let scenario = captures::scenario("13-telemetry");
    let snapshot = snapshot(scenario);
    let client = stock(&client(&descriptors, scenario, "sidecar"));
    let view = View::new(&snapshot, &client);
    let clusters: Vec<pb::cluster::Cluster> = clusters(&view.cluster_inputs());
    for cluster in &clusters {
        assert!(cluster.filters.is_empty(), "{}", cluster.name);
        let marks = cluster
            .upstream_bind_config
            .iter()
            .flat_map(|bind| bind.socket_options.iter())
            .filter(|option| (option.level, option.name) == (1, 36));
        assert_eq!(marks.count(), 1, "{}", cluster.name);
    }
    let text = |name: &str| {
        json_of(
            &descriptors,
            clusters
                .iter()
                .find(|cluster| cluster.name == name)
                .expect("a cluster"),
        )
        .to_string()
    };
    let http = text("outbound|9080||reviews.default.svc.cluster.local");
    assert!(
        http.contains(r#""alpnProtocols":["istio-http/1.1","istio","http/1.1"]"#),
        "{http}"
    );
    assert!(
        text("outbound|7070||echo.default.svc.cluster.local")
            .contains(r#""alpnProtocols":["istio-h2","istio","h2"]"#)
    );
    assert!(
        text("outbound|27017||db.default.svc.cluster.local")
            .contains(r#""alpnProtocols":["istio"]"#)
    );
    for listener in listeners(&view.listener_inputs()) {
        let json = json_of(&descriptors, &listener).to_string();
        for name in [
            "istio.metadata_exchange",
            "istio.alpn",
            "istio.stats",
            "peer_metadata",
            "\"alpnProtocols\":[\"istio-peer-exchange\"",
        ] {
            assert!(!json.contains(name), "{} has {name}", listener.name);
        }
    }
}
