//! The node that the proxy of a pod would present, from the environment that injection gives it.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::object::{label, list, name, namespace, text};

/// proto3 JSON of `envoy.config.core.v3.Node`.
pub fn of_pod(pod: &Value) -> Result<Value> {
    let containers = list(pod, "/spec/initContainers")
        .iter()
        .chain(list(pod, "/spec/containers"));
    let proxy = containers
        .clone()
        .find(|container| text(container, "/name") == inject::PROXY_CONTAINER)
        .context("the pod has no proxy")?;
    let address = text(pod, "/status/podIP");
    let own = namespace(pod);
    let mut metadata = Map::new();
    for variable in list(proxy, "/env") {
        if let Some(key) = text(variable, "/name").strip_prefix("ISTIO_META_") {
            metadata.insert(key.to_owned(), value(key, &resolve(pod, variable)));
        }
    }
    let is_gateway = crate::object::annotation(pod, inject::TEMPLATE_ANNOTATION) == Some("gateway");
    let account = match text(pod, "/spec/serviceAccountName") {
        "" => "default",
        account => account,
    };
    for (key, value) in [
        ("NAME", name(pod)),
        ("NAMESPACE", own),
        ("SERVICE_ACCOUNT", account),
        ("INSTANCE_IPS", address),
    ] {
        metadata.insert(key.into(), value.into());
    }
    let variable = |wanted: &str| {
        list(proxy, "/env")
            .iter()
            .find(|variable| text(variable, "/name") == wanted)
            .map(|variable| resolve(pod, variable))
    };
    metadata.insert(
        "PROXY_CONFIG".into(),
        variable("PROXY_CONFIG")
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_else(|| json!({})),
    );
    if let Some(mark) = variable("TANBARK_MARK") {
        metadata.insert("TANBARK_MARK".into(), mark.into());
    }
    if list(proxy, "/args")
        .iter()
        .any(|argument| argument == "agent")
    {
        metadata.insert("TANBARK_STOCK_ENVOY".into(), "true".into());
    }
    let kind = if is_gateway { "router" } else { "sidecar" };
    let cluster = label(pod, "service.istio.io/canonical-name")
        .or(label(pod, "app"))
        .unwrap_or_else(|| name(pod));
    Ok(json!({
        "id": format!("{kind}~{address}~{}.{own}~{own}.svc.cluster.local", name(pod)),
        "cluster": format!("{cluster}.{own}"),
        "metadata": metadata,
    }))
}

/// The value of a variable, downward-API fields included.
fn resolve(pod: &Value, variable: &Value) -> String {
    match text(variable, "/valueFrom/fieldRef/fieldPath") {
        "" => text(variable, "/value").to_owned(),
        path => text(pod, &format!("/{}", path.replace('.', "/"))).to_owned(),
    }
}

/// Labels and annotations are objects; everything else is text.
fn value(key: &str, text: &str) -> Value {
    match key {
        "LABELS" | "ANNOTATIONS" => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => text.into(),
    }
}
