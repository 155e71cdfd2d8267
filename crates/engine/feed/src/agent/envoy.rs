//! Envoy's bootstrap and its life: start, drain, end.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use http::Method;
use serde_json::{Value, json};
use stdx::Drain;
use tokio::process::{Child, Command};
use wire_envoy::{pb::core::Node, structs};

use super::{AgentSettings, health};
use crate::{FeedError, settings::Limits};

/// Envoy has this long to end after it was told to, before it is killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The bootstrap: ADS and secrets over the agent's sockets, and Istio's two listeners for readiness
/// and Prometheus.
pub fn bootstrap(settings: &AgentSettings) -> Value {
    let ports = settings.ports;
    json!({
        "node": node(&settings.feed.node),
        "layered_runtime": {"layers": [
            {"name": "static", "static_layer": {
                "envoy.reloadable_features.http_reject_path_with_fragment": false,
                "overload.global_downstream_max_connections": "2147483647",
                "re2.max_program_size.error_level": "32768",
            }},
            {"name": "admin", "admin_layer": {}},
        ]},
        "admin": {"address": socket("127.0.0.1", ports.admin), "profile_path": "/dev/null"},
        "dynamic_resources": {
            "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "ads_config": {
                "api_type": "DELTA_GRPC", "set_node_on_first_message_only": true, "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc", "retry_policy": retry_policy(&settings.feed.limits)}}],
            },
        },
        "static_resources": {
            "clusters": [
                local("prometheus_stats", socket("127.0.0.1", ports.admin)),
                local("agent", socket("127.0.0.1", ports.status)),
                grpc("sds-grpc", &settings.sds_socket().display().to_string()),
                grpc("xds-grpc", &settings.ads_socket().display().to_string()),
            ],
            "listeners": [
                page(ports.prometheus, "/stats/prometheus", "prometheus_stats", "stats"),
                page(ports.ready, "/healthz/ready", "agent", "agent"),
            ],
        },
    })
}

/// Of the stream to the control plane: Envoy's own would let up to half a minute pass after the
/// return of one that was away.
fn retry_policy(limits: &Limits) -> Value {
    let seconds = |delay: Duration| format!("{:.3}s", delay.as_secs_f64());
    json!({"retry_back_off": {"base_interval": seconds(limits.retry_first), "max_interval": seconds(limits.retry_limit)}})
}

fn node(node: &Node) -> Value {
    let locality = node.locality.clone().unwrap_or_default();
    let mut metadata = node
        .metadata
        .as_ref()
        .map(structs::to_json)
        .unwrap_or_else(|| json!({}));
    // The control plane leaves out what only Istio's build of Envoy has.
    if let Some(fields) = metadata.as_object_mut() {
        fields.insert("TANBARK_STOCK_ENVOY".into(), json!("true"));
    }
    json!({
        "id": node.id, "cluster": node.cluster, "metadata": metadata,
        "locality": {"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone},
    })
}

fn socket(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn local(name: &str, address: Value) -> Value {
    json!({
        "name": name, "alt_stat_name": format!("{name};"), "type": "STATIC", "connect_timeout": "1s", "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
    })
}

fn grpc(name: &str, path: &str) -> Value {
    let options = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }});
    let mut cluster = local(name, json!({"pipe": {"path": path}}));
    if let Some(fields) = cluster.as_object_mut() {
        fields.insert("typed_extension_protocol_options".into(), options);
    }
    cluster
}

/// A listener that serves one path of one local cluster.
fn page(port: u16, path: &str, cluster: &str, stat_prefix: &str) -> Value {
    json!({
        "name": format!("0.0.0.0_{port}"), "address": socket("0.0.0.0", port),
        "ignore_global_conn_limit": true, "bypass_overload_manager": true,
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "codec_type": "AUTO", "stat_prefix": stat_prefix,
            "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [
                {"match": {"prefix": path}, "route": {"cluster": cluster}},
            ]}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            }}],
        }}]}],
    })
}

/// Starts Envoy and waits for its end. When `drain` starts: inbound listeners drain, connections
/// get their time, then it is ended.
pub(super) async fn supervise(
    settings: &AgentSettings,
    drain: Drain,
) -> Result<ExitStatus, FeedError> {
    let file = settings.bootstrap_file();
    let failed = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |error| FeedError::File { path, error }
    };
    tokio::fs::write(&file, bootstrap(settings).to_string())
        .await
        .map_err(failed(&file))?;
    let mut child = command(settings).spawn().map_err(failed(&settings.envoy))?;
    tracing::info!(program = %settings.envoy.display(), "Envoy started");
    let ended = tokio::select! {
        status = child.wait() => Some(status),
        () = drain => None,
    };
    let status = match ended {
        Some(status) => status,
        None => end(&mut child, settings).await,
    };
    status.map_err(failed(&settings.envoy))
}

fn command(settings: &AgentSettings) -> Command {
    let mut command = Command::new(&settings.envoy);
    command.arg("-c").arg(settings.bootstrap_file());
    command.args([
        "--drain-time-s",
        &settings.drain.as_secs().to_string(),
        "--drain-strategy",
        "immediate",
    ]);
    command.args([
        "--disable-hot-restart",
        "--allow-unknown-static-fields",
        // We send some fields that newer Envoys call deprecated because older ones and Istio's know
        // no other.
        "--skip-deprecated-logs",
        "--file-flush-interval-msec",
        "1000",
    ]);
    command.args(["-l", &settings.log_level]);
    if let Some(concurrency) = settings.concurrency {
        command.args(["--concurrency", &concurrency.to_string()]);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn end(child: &mut Child, settings: &AgentSettings) -> io::Result<ExitStatus> {
    let drained = health::admin(
        settings.ports.admin,
        Method::POST,
        "/drain_listeners?inboundonly&graceful&skip_exit",
    )
    .await;
    if let Err(error) = drained {
        tracing::warn!(%error, "Envoy could not be told to drain");
    }
    if let Ok(status) = tokio::time::timeout(settings.termination_drain, child.wait()).await {
        return status;
    }
    if let Err(error) = health::admin(settings.ports.admin, Method::POST, "/quitquitquit").await {
        tracing::debug!(%error, "Envoy could not be told to quit");
    }
    match tokio::time::timeout(EXIT_TIMEOUT, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}
