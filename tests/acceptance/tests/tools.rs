//! What people's tools see: Istio's names in `proxy-config` and on `/config_dump`, and everything in sync in `proxy-status`.

use acceptance::{CLIENT, Mesh, Proxy, base};
use serde_json::Value;
use testkit::echo;

/// Every `name` in a configuration dump, wherever it is.
fn names(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(
                fields
                    .get("name")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            fields.values().for_each(|field| names(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

fn istio_names(proxy: Proxy) {
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &(base() + &echo("server").with_service()))
        .start();
    mesh.wait_for_status(CLIENT, "http://server:8000/get", &[], 200);
    let server = "deploy/server-v1";
    for (command, words) in [
        (
            &["listeners", server][..],
            &["ADDRESS", "PORT", "15001", "15006", "0.0.0.0", "8000"][..],
        ),
        (
            &["clusters", server],
            &[
                "SERVICE FQDN",
                "server.default.svc.cluster.local",
                "outbound",
                "inbound",
                "BlackHoleCluster",
                "PassthroughCluster",
                "InboundPassthroughCluster",
                "8000",
            ],
        ),
        (
            &["routes", server],
            &[
                "NAME",
                "8000",
                "server.default.svc.cluster.local:8000",
                "server, server.default",
            ],
        ),
        (
            &["endpoints", server],
            &[
                "ENDPOINT",
                "STATUS",
                "HEALTHY",
                "outbound|8000||server.default.svc.cluster.local",
            ],
        ),
        (
            &["secret", server],
            &["RESOURCE NAME", "default", "ROOTCA", "ACTIVE"],
        ),
        (
            &["listeners", server, "-o", "json"],
            &["virtualInbound", "virtualOutbound"],
        ),
        (
            &["clusters", server, "-o", "json"],
            &[
                "outbound|8000||server.default.svc.cluster.local",
                "outbound|9090||server.default.svc.cluster.local",
                "inbound|8080||",
            ],
        ),
        (&["all", server, "-o", "json"], &["configs"]),
    ] {
        let text = mesh.tanbark(&[&["proxy-config"], command].concat()).ok();
        for word in words {
            assert!(
                text.contains(word),
                "proxy-config {command:?} has no `{word}`:\n{text}"
            );
        }
    }
    let dump = mesh
        .exec(
            &[server],
            &[
                "curl",
                "-s",
                "http://127.0.0.1:15000/config_dump?include_eds",
            ],
        )
        .ok();
    let dump: Value = serde_json::from_str(&dump).expect("a configuration dump as JSON");
    let mut found = Vec::new();
    names(&dump, &mut found);
    for name in [
        "virtualOutbound",
        "virtualInbound",
        "virtualOutbound-blackhole",
        "virtualInbound-catchall-http",
        "0.0.0.0_8000",
        "outbound|8000||server.default.svc.cluster.local",
        "inbound|8080||",
        "PassthroughCluster",
        "BlackHoleCluster",
        "InboundPassthroughCluster",
        "8000",
        "server.default.svc.cluster.local:8000",
        "envoy.filters.network.http_connection_manager",
        "envoy.filters.http.fault",
        "envoy.filters.http.cors",
        "envoy.filters.http.router",
        "default",
        "ROOTCA",
    ] {
        assert!(
            found.iter().any(|known| known == name),
            "/config_dump has no {name}"
        );
    }
    let types: Vec<&str> = dump["configs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|config| config["@type"].as_str())
        .map(|name| name.rsplit('.').next().unwrap_or(name))
        .collect();
    for kind in [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "ListenersConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
        "EndpointsConfigDump",
    ] {
        assert!(types.contains(&kind), "{kind} is not among {types:?}");
    }
    let status = mesh.tanbark(&["proxy-status"]).ok();
    assert!(
        status.contains("server-v1")
            && status.contains("client-v1")
            && status.contains("SYNCED")
            && !status.contains("STALE"),
        "{status}"
    );
    mesh.assert_no_nack();
}

#[test]
fn istio_names_with_our_proxy() {
    istio_names(Proxy::Tanbark);
}

#[test]
fn istio_names_with_envoy() {
    istio_names(Proxy::Envoy);
}
