//! Envoy bootstraps from what a case says and from what all cases have in common.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use serde_json::{Map, Value, json};

use crate::case::{Case, ListenerSketch};

/// What an access-log line shows. Durations and ports would differ from run to run.
const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" route=%ROUTE_NAME% cluster=%UPSTREAM_CLUSTER% host=%UPSTREAM_HOST% in=%BYTES_RECEIVED% \
out=%BYTES_SENT% %PROTOCOL% %REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:PATH)% \
from=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% grpc=%GRPC_STATUS% sni=%REQUESTED_SERVER_NAME% \
chain=%FILTER_CHAIN_NAME%\n";

/// Everything that has a number in one run only.
pub struct Places {
    pub admin: SocketAddr,
    pub listeners: BTreeMap<String, SocketAddr>,
    pub backends: BTreeMap<String, SocketAddr>,
    /// Certificates and the like, by the name that `${…}` uses.
    pub texts: BTreeMap<String, String>,
}

pub fn bootstrap(case: &Case, places: &Places, log: &Path) -> Value {
    let listeners: Vec<Value> = case
        .listeners
        .iter()
        .map(|(name, sketch)| listener(name, sketch, places, log))
        .collect();
    let clusters: Vec<Value> = case
        .clusters
        .iter()
        .map(|(name, sketch)| cluster(name, sketch, places))
        .collect();
    let mut whole = json!({
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": address(places.admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    });
    fill(&mut whole, places, log);
    whole
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// Of HTTP and TCP connections alike.
pub fn access_log(log: &Path) -> Value {
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log,
            "log_format": {"text_format_source": {"inline_string": LOG}},
        },
    }])
}

fn listener(name: &str, sketch: &ListenerSketch, places: &Places, log: &Path) -> Value {
    let chains = if sketch.filter_chains.is_empty() {
        let mut chain = json!({"filters": [connection_manager(name, sketch, log)]});
        if let Some(socket) = &sketch.transport_socket {
            chain["transport_socket"] = socket.clone();
        }
        json!([chain])
    } else {
        Value::from(sketch.filter_chains.clone())
    };
    let mut listener = json!({
        "name": name,
        "address": address(places.listeners[name]),
        "filter_chains": chains,
        "access_log": [],
    });
    merge(&mut listener, &sketch.listener);
    listener
}

fn connection_manager(name: &str, sketch: &ListenerSketch, log: &Path) -> Value {
    let hosts = if sketch.virtual_hosts.is_empty() {
        json!([{"name": "all", "domains": ["*"], "routes": sketch.routes}])
    } else {
        Value::from(sketch.virtual_hosts.clone())
    };
    let mut table = json!({"name": "table", "virtual_hosts": hosts});
    merge(&mut table, &sketch.table);
    let mut filters = sketch.filters.clone();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": table,
        "http_filters": filters,
        "access_log": access_log(log),
    });
    merge(&mut manager, &sketch.hcm);
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

/// `backends: [a, b]` becomes endpoints; everything else is Envoy's.
fn cluster(name: &str, sketch: &Value, places: &Places) -> Value {
    let mut cluster = json!({"name": name, "type": "STATIC", "connect_timeout": "2s"});
    let mut rest = sketch.clone();
    if let Some(backends) = rest.as_object_mut().and_then(|o| o.remove("backends")) {
        let endpoints: Vec<Value> = backends
            .as_array()
            .into_iter()
            .flatten()
            .map(|backend| endpoint(backend, places))
            .collect();
        cluster["load_assignment"] =
            json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]});
    }
    merge(&mut cluster, &rest);
    cluster
}

/// A backend's name, or an object of an endpoint's fields with `backend`.
fn endpoint(sketch: &Value, places: &Places) -> Value {
    let name = sketch.as_str().or_else(|| sketch["backend"].as_str());
    let name = name.expect("a backend's name");
    let mut endpoint = json!({"endpoint": {"address": address(places.backends[name])}});
    if let Value::Object(fields) = sketch {
        let mut fields = fields.clone();
        fields.remove("backend");
        merge(&mut endpoint, &Value::Object(fields));
    }
    endpoint
}

/// Objects are joined, everything else is replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (_, Value::Null) => {}
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Replaces `${NAME}`, `port:BACKEND` values and short type names (`type: envoy…`) all over the configuration.
fn fill(value: &mut Value, places: &Places, log: &Path) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, places, log)),
        Value::Object(fields) => {
            expand_type(fields);
            fields.values_mut().for_each(|item| fill(item, places, log));
        }
        Value::String(text) => {
            if text == "${access_log}" {
                *value = access_log(log);
            } else if let Some(port) = text.strip_prefix("port:") {
                let place = places.backends.get(port).or(places.listeners.get(port));
                *value = place.expect("a backend or listener").port().into();
            } else if let Some(name) = text.strip_prefix("${").and_then(|t| t.strip_suffix('}')) {
                *text = places.texts[name].clone();
            }
        }
        _ => {}
    }
}

/// `{type: envoy.x.v3.Y, …}` is short for a named extension with a typed configuration.
fn expand_type(fields: &mut Map<String, Value>) {
    let Some(Value::String(short)) = fields.get("type") else {
        return;
    };
    if !short.starts_with("envoy.") {
        return;
    }
    let url = format!("type.googleapis.com/{short}");
    let name = short.clone();
    let mut typed = std::mem::take(fields);
    typed.remove("type");
    typed.insert("@type".into(), url.into());
    fields.insert("name".into(), name.into());
    fields.insert("typed_config".into(), Value::Object(typed));
}
