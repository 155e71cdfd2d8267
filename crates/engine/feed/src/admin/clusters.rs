//! `/clusters`: every cluster with its hosts, limits and health, in Envoy's text and JSON.

use std::{collections::BTreeSet, fmt::Write as _, sync::atomic::Ordering};

use http::StatusCode;
use proxy::{Live, endpoint::LiveEndpoint, upstream::cluster::LiveCluster};
use proxy_config::{
    cluster::Discovery,
    endpoint::{EndpointAddress, Health},
};
use serde_json::{Value, json};

use super::page::{self, Page};

/// `fixed`: names of clusters that the bootstrap brought.
pub(super) fn page(live: &Live, fixed: &BTreeSet<&str>, as_json: bool) -> Page {
    let config = live.config();
    let mut clusters: Vec<_> = config.clusters.values().collect();
    clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    if as_json {
        let statuses: Vec<Value> = clusters
            .iter()
            .map(|cluster| cluster_json(cluster, fixed))
            .collect();
        return page::json(&json!({ "cluster_statuses": statuses }));
    }
    let mut body = String::new();
    for cluster in clusters {
        cluster_text(&mut body, cluster, fixed);
    }
    page::text(StatusCode::OK, body)
}

fn cluster_text(body: &mut String, cluster: &LiveCluster, fixed: &BTreeSet<&str>) {
    let name = cluster.config.name.as_str();
    // Writing to a String does not fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(body, "{name}::{text}");
    };
    line(format_args!(
        "observability_name::{}",
        cluster.config.alt_stat_name.as_deref().unwrap_or(name)
    ));
    for (priority, limits) in [
        ("default", cluster.config.circuit_breakers.default),
        ("high", cluster.config.circuit_breakers.high),
    ] {
        line(format_args!(
            "{priority}_priority::max_connections::{}",
            limits.max_connections
        ));
        line(format_args!(
            "{priority}_priority::max_pending_requests::{}",
            limits.max_pending_requests
        ));
        line(format_args!(
            "{priority}_priority::max_requests::{}",
            limits.max_requests
        ));
        line(format_args!(
            "{priority}_priority::max_retries::{}",
            limits.max_retries
        ));
    }
    line(format_args!("added_via_api::{}", !fixed.contains(name)));
    if let Discovery::Eds { service_name } = &cluster.config.discovery {
        line(format_args!("eds_service_name::{service_name}"));
    }
    for host in cluster.hosts().all.iter() {
        let address = address_text(host.address());
        let connections = host.state.active_connections.load(Ordering::Relaxed);
        line(format_args!("{address}::cx_active::{connections}"));
        line(format_args!(
            "{address}::rq_active::{}",
            host.active_requests()
        ));
        line(format_args!(
            "{address}::hostname::{}",
            host.config.hostname
        ));
        line(format_args!(
            "{address}::health_flags::{}",
            health_flags(host)
        ));
        line(format_args!("{address}::weight::{}", host.config.weight));
        line(format_args!("{address}::region::{}", host.locality.region));
        line(format_args!("{address}::zone::{}", host.locality.zone));
        line(format_args!(
            "{address}::sub_zone::{}",
            host.locality.sub_zone
        ));
        line(format_args!("{address}::priority::{}", host.priority));
    }
}

fn address_text(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Socket(socket) => socket.to_string(),
        EndpointAddress::Pipe(path) => path.to_string(),
    }
}

fn health_flags(host: &LiveEndpoint) -> String {
    let discovered = match host.config.health {
        Health::Healthy => "",
        Health::Degraded => "/degraded_eds_health",
        Health::Draining => "/eds_status_draining",
        Health::Unhealthy | Health::Timeout => "/failed_eds_health",
    };
    let ejected = if host.state.outlier.is_ejected() {
        "/failed_outlier_check"
    } else {
        ""
    };
    match (discovered, ejected) {
        ("", "") => "healthy".to_owned(),
        (a, b) => format!("{a}{b}"),
    }
}

fn cluster_json(cluster: &LiveCluster, fixed: &BTreeSet<&str>) -> Value {
    let hosts = cluster.hosts();
    let statuses: Vec<Value> = hosts.all.iter().map(|host| host_json(host)).collect();
    let limits = cluster.config.circuit_breakers.default;
    let mut status = json!({
        "name": cluster.config.name.as_str(),
        "observability_name": cluster.config.alt_stat_name.as_deref().unwrap_or(cluster.config.name.as_str()),
        "host_statuses": statuses,
        "circuit_breakers": {"thresholds": [{
            "max_connections": limits.max_connections,
            "max_pending_requests": limits.max_pending_requests,
            "max_requests": limits.max_requests,
            "max_retries": limits.max_retries,
        }]},
    });
    if !fixed.contains(cluster.config.name.as_str())
        && let Some(fields) = status.as_object_mut()
    {
        fields.insert("added_via_api".into(), json!(true));
    }
    if let Discovery::Eds { service_name } = &cluster.config.discovery
        && let Some(fields) = status.as_object_mut()
    {
        fields.insert("eds_service_name".into(), json!(&**service_name));
    }
    status
}

fn host_json(host: &LiveEndpoint) -> Value {
    let address = match host.address() {
        EndpointAddress::Socket(socket) => {
            json!({"socket_address": {"address": socket.ip().to_string(), "port_value": socket.port()}})
        }
        EndpointAddress::Pipe(path) => json!({"pipe": {"path": &**path}}),
    };
    let eds = match host.config.health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Draining => "DRAINING",
        Health::Unhealthy => "UNHEALTHY",
        Health::Timeout => "TIMEOUT",
    };
    let mut health = json!({ "eds_health_status": eds });
    if host.state.outlier.is_ejected()
        && let Some(fields) = health.as_object_mut()
    {
        fields.insert("failed_outlier_check".into(), json!(true));
    }
    json!({
        "address": address,
        "stats": [
            {"name": "rq_active", "type": "GAUGE", "value": host.active_requests().to_string()},
            {"name": "cx_active", "type": "GAUGE", "value": host.state.active_connections.load(Ordering::Relaxed).to_string()},
        ],
        "health_status": health,
        "weight": host.config.weight,
        "hostname": &*host.config.hostname,
        "priority": host.priority,
        "locality": {"region": &*host.locality.region, "zone": &*host.locality.zone, "sub_zone": &*host.locality.sub_zone},
    })
}
