//! The proxy's container: its settings, variables, mounts and volumes (Istio's injection
//! templates).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wire_kube::object;

use crate::{
    Injection, PROXY_CONTAINER, PROXY_ID, PROXY_IMAGE, ProxyKind, ROOT_CERTIFICATE, Template,
    workload_of,
};

const ISTIO_VERSION: &str = "1.31.0";

/// The annotation `proxy.istio.io/config` over the machine's defaults.
pub fn proxy_config(pod: &Value) -> Result<Value, String> {
    let mut config = json!({
        "configPath": "./etc/istio/proxy", "serviceCluster": PROXY_CONTAINER,
        "discoveryAddress": "istiod.istio-system.svc:15012", "statusPort": 15020,
    });
    if let Some(text) = object::annotations(pod).get("proxy.istio.io/config") {
        let own: Value = serde_saphyr::from_str(text)
            .map_err(|error| format!("annotation proxy.istio.io/config: {error}"))?;
        json_patch::merge(&mut config, &own);
    }
    Ok(config)
}

fn field(path: &str) -> Value {
    json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}})
}

/// The variables of the proxy's container (reference CP-034).
fn environment(
    pod: &Value,
    others: &[Value],
    with: &Injection,
    proxy_config: &Value,
) -> Vec<Value> {
    let annotations = object::annotations(pod);
    let (workload, owner) = workload_of(pod);
    let ports: Vec<Value> = others
        .iter()
        .flat_map(|container| object::list(container, "/ports").to_vec())
        .collect();
    let names: Vec<&str> = others
        .iter()
        .map(|container| object::text(container, "/name"))
        .collect();
    let interception = annotations
        .get("sidecar.istio.io/interceptionMode")
        .map_or("REDIRECT", String::as_str);
    let json_of = |map: BTreeMap<String, String>| serde_json::to_string(&map).unwrap_or_default();
    let environment = vec![
        json!({"name": "PILOT_CERT_PROVIDER", "value": "istiod"}),
        json!({"name": "CA_ADDR", "value": "istiod.istio-system.svc:15012"}),
        json!({"name": "POD_NAME", "valueFrom": field("metadata.name")}),
        json!({"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")}),
        json!({"name": "INSTANCE_IP", "valueFrom": field("status.podIP")}),
        json!({"name": "SERVICE_ACCOUNT", "valueFrom": field("spec.serviceAccountName")}),
        json!({"name": "HOST_IP", "valueFrom": field("status.hostIP")}),
        json!({"name": "PROXY_CONFIG", "value": proxy_config.to_string()}),
        json!({"name": "ISTIO_META_POD_PORTS", "value": Value::from(ports).to_string()}),
        json!({"name": "ISTIO_META_APP_CONTAINERS", "value": names.join(",")}),
        json!({"name": "ISTIO_META_CLUSTER_ID", "value": "Kubernetes"}),
        json!({"name": "ISTIO_META_NODE_NAME", "valueFrom": field("spec.nodeName")}),
        json!({"name": "ISTIO_META_INTERCEPTION_MODE", "value": interception}),
        json!({"name": "ISTIO_META_WORKLOAD_NAME", "value": workload}),
        json!({"name": "ISTIO_META_OWNER", "value": owner}),
        json!({"name": "ISTIO_META_MESH_ID", "value": with.trust_domain}),
        json!({"name": "ISTIO_META_ISTIO_VERSION", "value": ISTIO_VERSION}),
        json!({"name": "ISTIO_META_LABELS", "value": json_of(object::labels(pod))}),
        json!({"name": "ISTIO_META_ANNOTATIONS", "value": json_of(own_annotations(annotations))}),
        json!({"name": "TRUST_DOMAIN", "value": with.trust_domain}),
        json!({"name": "TANBARK_MARK", "value": PROXY_ID.to_string()}),
        json!({"name": "TANBARK_TOKEN_FILE", "value": "/var/run/secrets/tokens/istio-token"}),
        json!({"name": "TANBARK_ROOT_CERT", "value": "/var/run/secrets/istio/root-cert.pem"}),
    ];
    environment
}

/// The container of the proxy, before what the pod says about it.
pub fn proxy(
    pod: &Value,
    others: &[Value],
    template: Template,
    with: &Injection,
    proxy_config: &Value,
) -> Value {
    let argument = match (with.proxy, template) {
        (ProxyKind::Envoy, _) => "agent",
        (_, Template::Sidecar) => "sidecar",
        (_, Template::Gateway) => "gateway",
    };
    let mut environment = environment(pod, others, with, proxy_config);
    // The mesh's users set variables of the proxy this way.
    for (name, value) in proxy_config
        .get("proxyMetadata")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_string);
        environment.retain(|item| item.get("name").and_then(Value::as_str) != Some(name.as_str()));
        environment.push(json!({"name": name, "value": value}));
    }
    if with.proxy == ProxyKind::Envoy {
        let kind = if template == Template::Gateway {
            "router"
        } else {
            "sidecar"
        };
        environment.push(json!({"name": "TANBARK_PROXY_TYPE", "value": kind}));
    }
    let startup = json!({"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1, "failureThreshold": 600, "timeoutSeconds": 3});
    let readiness = json!({"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 15, "failureThreshold": 4, "timeoutSeconds": 3});
    json!({
        "name": PROXY_CONTAINER, "image": PROXY_IMAGE, "args": [argument],
        "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
        "env": environment, "startupProbe": startup, "readinessProbe": readiness,
        "securityContext": {"runAsUser": PROXY_ID, "runAsGroup": PROXY_ID, "runAsNonRoot": true,
            "capabilities": {"add": ["NET_ADMIN", "NET_BIND_SERVICE"], "drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
            {"name": "istio-data", "mountPath": "/var/lib/istio/data"},
            {"name": "istio-envoy", "mountPath": "/etc/istio/proxy"},
            {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
            {"name": "istio-podinfo", "mountPath": "/etc/istio/pod"},
        ],
    })
}

/// Without what only this machine's bookkeeping and `kubectl` need.
fn own_annotations(annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations
        .into_iter()
        .filter(|(key, _)| {
            !key.starts_with("kubectl.kubernetes.io/") && !key.starts_with("kubernetes.io/")
        })
        .collect()
}

/// What a pod says about its own `istio-proxy` container: further variables, ports, mounts, probes,
/// resources.
pub fn overlay(proxy: &mut Value, given: &Value) {
    let Some(fields) = given.as_object() else {
        return;
    };
    for (key, value) in fields {
        match key.as_str() {
            "name" | "image" | "args" | "command" | "imagePullPolicy" | "securityContext" => {}
            "env" | "volumeMounts" | "ports" => append_missing(proxy, key, value),
            _ => object::set(proxy, key, value.clone()),
        }
    }
}

fn append_missing(proxy: &mut Value, key: &str, given: &Value) {
    let identity = if key == "volumeMounts" {
        "mountPath"
    } else if key == "ports" {
        "containerPort"
    } else {
        "name"
    };
    let ours = object::entry_list(proxy, key);
    for item in given.as_array().into_iter().flatten() {
        if !ours
            .iter()
            .any(|our| our.get(identity) == item.get(identity))
        {
            ours.push(item.clone());
        }
    }
}

/// Adds the volumes that the proxy mounts, where the pod has none of that name.
pub fn add_volumes(spec: &mut Map<String, Value>) {
    let ours = [
        json!({"name": "istio-envoy", "emptyDir": {"medium": "Memory"}}),
        json!({"name": "istio-data", "emptyDir": {}}),
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
        ]}}),
        json!({"name": "istio-token", "projected": {"sources": [
            {"serviceAccountToken": {"audience": "istio-ca", "expirationSeconds": 43_200, "path": "istio-token"}},
        ]}}),
        json!({"name": "istiod-ca-cert", "configMap": {"name": ROOT_CERTIFICATE}}),
    ];
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Value::Array(volumes) = volumes {
        for volume in ours {
            if !volumes
                .iter()
                .any(|present| present.get("name") == volume.get("name"))
            {
                volumes.push(volume);
            }
        }
    }
}
