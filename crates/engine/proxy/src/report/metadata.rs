//! Metadata as access logs and span tags read it: what filters told about a request, and what
//! configuration says about route, cluster, host, listener and filter chain. The latter is turned
//! into text form only where some format reads it.

use std::sync::Arc;

use proxy_config::metadata::{Metadata, Value};
use telemetry::record::Record;

use crate::{
    connection::Connection, endpoint::LiveEndpoint, route::Matched, upstream::cluster::LiveCluster,
};

/// Whose metadata a record may show.
pub(crate) struct Sources<'a> {
    pub connection: &'a Connection,
    pub route: Option<&'a Matched>,
    pub cluster: Option<&'a LiveCluster>,
    pub host: Option<&'a LiveEndpoint>,
}

/// Sets what the sources have.
pub(crate) fn fill(record: &mut Record, sources: &Sources<'_>) {
    let Sources {
        connection,
        route,
        cluster,
        host,
    } = sources;
    let shared = |metadata: &Metadata| of(metadata).map(|map| Arc::new(*map));
    record.listener_metadata = shared(&connection.listener.config.metadata);
    record.chain_metadata = shared(&connection.chain.config.metadata);
    record.route_metadata = route.and_then(|matched| shared(&matched.route.metadata));
    record.virtual_host_metadata = route.and_then(|matched| shared(&matched.virtual_host.metadata));
    record.cluster_metadata = cluster.and_then(|cluster| shared(&cluster.config.metadata));
    record.host_metadata = host.and_then(|host| shared(&host.config.metadata));
}

/// By filter name; `None` when no filter told anything.
pub(crate) fn of(metadata: &Metadata) -> Option<Box<serde_json::Map<String, serde_json::Value>>> {
    if metadata.is_empty() {
        return None;
    }
    let told = metadata.0.iter();
    Some(Box::new(
        told.map(|(filter, value)| (filter.to_string(), json(value)))
            .collect(),
    ))
}

/// Whole numbers are written without a fraction, as proto3 JSON does.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
        Value::Number(n) => (*n).into(),
        Value::String(s) => (**s).into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Struct(fields) => fields
            .iter()
            .map(|(key, value)| (key.to_string(), json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
