//! The agent with a real Envoy, where there is one: `TANBARK_ENVOY`, or the virtual environment
//! beside the workspace.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use http::Method;
use identity::{ServiceAccountName, TrustDomain};
use stdx::{SystemClock, SystemRng, drain};
use wire_envoy::pb::core::Node;
use xds_protocol::Flavour;

use super::*;
use crate::{
    session::tests::{DEADLINE, control_plane::ControlPlane, first_configuration, server},
    settings::{Certificates, Discovery, Limits},
};

fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("TANBARK_ENVOY").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.venv/bin/envoy");
    let found = named.or_else(|| beside.exists().then_some(beside));
    if found.is_none() {
        eprintln!("no Envoy: set TANBARK_ENVOY to run this test");
    }
    found
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn settings(
    control: &ControlPlane,
    envoy: PathBuf,
    directory: &Path,
    ttl: Duration,
) -> AgentSettings {
    std::fs::write(directory.join("root.pem"), control.root_pem()).unwrap();
    std::fs::write(directory.join("token"), "good token").unwrap();
    let server = server(control, directory);
    AgentSettings {
        feed: Settings {
            node: Node {
                id: "sidecar~127.0.0.1~a.b~b.svc".into(),
                cluster: "a.b".into(),
                ..Node::default()
            },
            discovery: Some(Discovery {
                server: server.clone(),
                flavour: Flavour::Delta,
            }),
            certificates: Some(Certificates {
                server,
                trust_domain: TrustDomain::default(),
                account: ServiceAccountName::new("b", "a").unwrap(),
                ttl,
                renew_after: 0.5,
                jitter: 0.01,
                cluster_id: "Kubernetes".into(),
            }),
            environment: Default::default(),
            limits: Limits {
                retry_first: Duration::from_millis(20),
                ..Limits::default()
            },
        },
        envoy,
        directory: directory.join("agent"),
        concurrency: Some(1),
        log_level: "error".into(),
        termination_drain: Duration::from_millis(300),
        drain: Duration::from_secs(1),
        ports: Ports {
            admin: free_port(),
            status: free_port(),
            ready: free_port(),
            prometheus: free_port(),
        },
    }
}

/// Asks until the answer pleases.
async fn page(port: u16, path: &str, pleases: impl Fn(&str) -> bool) -> String {
    let asked = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Ok(page) = health::admin(port, Method::GET, path).await
                && pleases(&page)
            {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    asked
        .await
        .unwrap_or_else(|_| panic!("{path} on {port} was not as expected in time"))
}

#[tokio::test]
async fn a_stock_envoy_gets_configuration_and_renewed_secrets_and_is_drained() {
    let Some(envoy) = envoy() else { return };
    let control = ControlPlane::start(0).await;
    first_configuration(&control);
    control.set(&[("tls", tls_listener(free_port()))]);
    let files = tempfile::tempdir().unwrap();
    let settings = settings(&control, envoy, files.path(), Duration::from_secs(4));
    let (ports, directory) = (settings.ports, settings.directory.clone());
    let (stop, drain) = drain::channel();
    let task = tokio::spawn(run(
        settings,
        Arc::new(SystemClock),
        Arc::new(SystemRng),
        drain,
    ));

    page(ports.status, "/healthz/ready", |_| true).await;
    page(ports.ready, "/healthz/ready", |_| true).await;
    let dump = page(ports.admin, "/config_dump", |d| {
        d.contains("dynamic_active_clusters") && d.contains("\"default\"")
    })
    .await;
    assert!(dump.contains("TANBARK_STOCK_ENVOY"));
    let first = page(ports.admin, "/certs", |c| {
        c.contains("spiffe://cluster.local/ns/b/sa/a")
    })
    .await;
    page(ports.admin, "/certs", |c| {
        c.contains("spiffe://cluster.local/ns/b/sa/a") && serials(c) != serials(&first)
    })
    .await;
    let stats = page(ports.prometheus, "/stats/prometheus", |_| true).await;
    assert!(stats.contains("envoy_server_live"));
    let merged = page(ports.status, "/stats/prometheus", |s| {
        s.contains("envoy_server_live")
    })
    .await;
    assert!(merged.contains("istio_agent_cert_expiry_seconds"));
    assert!(
        control.rejections().is_empty(),
        "{:?}",
        control.rejections()
    );

    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&directory), mode(&directory.join("SDS"))),
        (0o700, 0o600)
    );
    let before = SystemTime::now();
    stop.start();
    let ended = tokio::time::timeout(DEADLINE, task)
        .await
        .expect("Envoy ends")
        .unwrap()
        .unwrap();
    assert!(ended.success(), "{ended}");
    assert!(
        before.elapsed().unwrap() >= Duration::from_millis(300),
        "connections got their time"
    );
}

#[tokio::test]
async fn an_envoy_that_does_not_exist_is_named() {
    let control = ControlPlane::start(0).await;
    let files = tempfile::tempdir().unwrap();
    let settings = settings(
        &control,
        "/nowhere/envoy".into(),
        files.path(),
        Duration::from_secs(60),
    );
    let (_stop, drain) = drain::channel();
    let error = run(settings, Arc::new(SystemClock), Arc::new(SystemRng), drain)
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/envoy: "), "{error}");
}

/// The serial numbers of the root and of the own certificate.
fn serials(certs: &str) -> Vec<&str> {
    certs
        .lines()
        .filter(|line| line.contains("serial_number"))
        .collect()
}

/// A listener that needs `default` and `ROOTCA` from the agent.
fn tls_listener(port: u16) -> wire_envoy::pb::Any {
    use wire_envoy::pb::listener::Listener;
    let source = serde_json::json!({
        "api_config_source": {"api_type": "GRPC", "set_node_on_first_message_only": true, "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]},
        "initial_fetch_timeout": "0s", "resource_api_version": "V3",
    });
    let listener = serde_json::json!({
        "name": "tls", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "x", "cluster": "a"}}],
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": {
                    "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": source}],
                    "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": source}}}},
        }],
    });
    let descriptors = wire_envoy::Descriptors::load().unwrap();
    wire_envoy::any(
        &descriptors
            .from_json::<Listener>(listener, wire_envoy::Unknown::Deny)
            .unwrap(),
    )
}
