//! A request never leaves in plaintext because something is still on its way or was refused: each
//! door at which it could.
//!
//! As on a sidecar with `outboundTrafficPolicy: ALLOW_ANY`: hosts that no virtual host takes go to
//! `PassthroughCluster`, which speaks plaintext. A host that the control plane has just made part
//! of the mesh must never go there again, whatever of its new configuration is missing; its
//! requests wait, and are answered 503 when what is missing does not come.

use wire_envoy::pb;

use crate::proxy::{Proxy, TYPE, Upstream, WARM};

const ADS: &str = "{ads: {}}";

/// A proxy whose only route table sends everything to `PassthroughCluster`.
async fn sidecar() -> (Proxy, Upstream) {
    let (mut proxy, outside) = (Proxy::start(), Upstream::start().await);
    cluster(
        &mut proxy,
        "PassthroughCluster",
        &format!(
            "load_assignment: {{cluster_name: p, {}}}",
            outside.endpoints()
        ),
    );
    table(&mut proxy, "80", "");
    proxy.listener(&chain("80"));
    assert!(proxy.get("b").await.starts_with("HTTP/1.1 200"));
    assert_eq!(outside.heard(), 1);
    (proxy, outside)
}

fn chain(table: &str) -> String {
    format!(
        "{{filters: [{{name: http, typed_config: {{{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: in, rds: {{route_config_name: '{table}', config_source: {ADS}}}, \
         http_filters: [{{name: envoy.filters.http.router, typed_config: {{{TYPE}.filters.http.router.v3.Router}}}}]}}}}]}}"
    )
}

fn cluster(proxy: &mut Proxy, name: &str, fields: &str) -> Vec<String> {
    proxy.take::<pb::cluster::Cluster>(&format!("{{name: {name}, {fields}}}"))
}

/// The table with a virtual host more for `b`, when a cluster for it is named.
fn table(proxy: &mut Proxy, name: &str, cluster: &str) {
    let mesh = match cluster {
        "" => String::new(),
        cluster => format!(
            "{{name: b, domains: [b], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}},"
        ),
    };
    proxy.take::<pb::route::RouteConfiguration>(&format!(
        "{{name: '{name}', virtual_hosts: [{mesh} {{name: allow_any, domains: ['*'], routes: [{{match: {{prefix: /}}, \
         route: {{cluster: PassthroughCluster}}}}]}}]}}"
    ));
}

fn tls(secret: &str) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext, \
         common_tls_context: {{validation_context_sds_secret_config: {{name: '{secret}', sds_config: {ADS}}}}}}}}}"
    )
}

fn eds(proxy: &mut Proxy, service: &str, upstream: &Upstream) {
    proxy.take::<pb::endpoint::ClusterLoadAssignment>(&format!(
        "{{cluster_name: {service}, {}}}",
        upstream.endpoints()
    ));
}

const EDS: &str = "type: EDS, eds_cluster_config: {eds_config: {ads: {}}, service_name: b}";

#[tokio::test]
async fn while_the_cluster_warms_its_requests_wait_and_do_not_go_to_passthrough() {
    let (mut proxy, outside) = sidecar().await;
    let inside = Upstream::start().await;
    cluster(&mut proxy, "b", EDS);
    table(&mut proxy, "80", "b");
    proxy.publish();
    let asked = proxy.ask("b").await;
    proxy.until_active(1).await;
    assert!(!asked.is_finished());
    eds(&mut proxy, "b", &inside);
    proxy.publish();
    assert!(asked.await.expect("no panic").starts_with("HTTP/1.1 200"));
    assert_eq!((outside.heard(), inside.heard()), (1, 1));
}

#[tokio::test]
async fn endpoints_that_never_come_are_503() {
    let (mut proxy, outside) = sidecar().await;
    cluster(&mut proxy, "b", EDS);
    table(&mut proxy, "80", "b");
    proxy.publish();
    let asked = proxy.ask("b").await;
    proxy.until_active(1).await;
    let later = proxy.live.clock.now() + WARM;
    proxy.settle_at(later);
    assert!(asked.await.expect("no panic").starts_with("HTTP/1.1 503"));
    assert_eq!(outside.heard(), 1);
    assert_eq!(proxy.warming.given_up(), ["its endpoints of cluster b"]);
}

#[tokio::test]
async fn a_cluster_that_gets_tls_is_no_longer_used_without() {
    let (mut proxy, outside) = sidecar().await;
    let inside = Upstream::start().await;
    let fixed = format!(
        "load_assignment: {{cluster_name: b, {}}}",
        inside.endpoints()
    );
    cluster(&mut proxy, "b", &fixed);
    table(&mut proxy, "80", "b");
    proxy.publish();
    assert!(proxy.get("b").await.starts_with("HTTP/1.1 200"));
    cluster(
        &mut proxy,
        "b",
        &format!("{fixed}, {}", tls("file-root:system")),
    );
    proxy.publish();
    let asked = proxy.ask("b").await;
    proxy.until_active(1).await;
    assert!(!asked.is_finished(), "it waits for the secret");
    proxy.without_secret("file-root:system");
    assert!(asked.await.expect("no panic").starts_with("HTTP/1.1 503"));
    assert_eq!((outside.heard(), inside.heard()), (1, 1));
}

#[tokio::test]
async fn a_route_table_that_is_on_its_way_is_waited_for() {
    let (mut proxy, outside) = sidecar().await;
    let inside = Upstream::start().await;
    cluster(&mut proxy, "b", EDS);
    eds(&mut proxy, "b", &inside);
    proxy.listener(&chain("81"));
    let asked = proxy.ask("b").await;
    proxy.until_active(1).await;
    table(&mut proxy, "81", "b");
    proxy.publish();
    assert!(asked.await.expect("no panic").starts_with("HTTP/1.1 200"));
    assert_eq!((outside.heard(), inside.heard()), (1, 1));
}

#[tokio::test]
async fn a_transport_socket_that_cannot_be_read_is_503() {
    let (mut proxy, outside) = sidecar().await;
    let inside = Upstream::start().await;
    let quic = format!(
        "load_assignment: {{cluster_name: b, {}}}, transport_socket: {{name: quic, typed_config: {{\
         {TYPE}.transport_sockets.quic.v3.QuicUpstreamTransport}}}}",
        inside.endpoints()
    );
    let refused = cluster(&mut proxy, "b", &quic);
    assert!(refused[0].starts_with("cluster b: transport_socket"));
    table(&mut proxy, "80", "b");
    proxy.publish();
    assert!(proxy.get("b").await.starts_with("HTTP/1.1 503"));
    assert_eq!((outside.heard(), inside.heard()), (1, 0));
}
