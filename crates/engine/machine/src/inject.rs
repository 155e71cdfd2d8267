//! Sidecar injection: which pods get one and what is added to them (reference CP-031 to CP-035).
//!
//! A pure function over a new pod and its namespace. The sidecar is a native one (an init container that stays), so it is up
//! before the application's own init containers run. Every revision means this machine's one control plane.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::object;
use crate::options::ProxyKind;
use crate::rules::capture::PROXY_ID;

/// The name of the proxy's container.
pub const PROXY_CONTAINER: &str = "istio-proxy";
/// Marks a pod as injected.
pub const STATUS_ANNOTATION: &str = "sidecar.istio.io/status";
/// Says which kind of proxy was injected: `sidecar` or `gateway`.
pub const TEMPLATE_ANNOTATION: &str = "tanbark.io/proxy";
/// The image that stands for `tanbark-proxy`.
pub const PROXY_IMAGE: &str = "tanbark/proxy";
/// The ConfigMap in every namespace that holds the CA's root certificate; the control plane writes it.
pub const ROOT_CERTIFICATE: &str = "istio-ca-root-cert";
const ISTIO_VERSION: &str = "1.31.0";
const NEVER: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// What is the same for all pods of the machine.
#[derive(Debug, Clone)]
pub struct Injection {
    /// Which proxy.
    pub proxy: ProxyKind,
    /// The mesh's trust domain.
    pub trust_domain: String,
}

/// The kind of proxy for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Beside an application.
    Sidecar,
    /// A gateway: the pod is the proxy.
    Gateway,
}

/// Which proxy a new pod gets, by the labels of its namespace and its own.
pub fn template_of(pod: &Value, namespace: &Value) -> Option<Template> {
    let image = |container: &&Value| {
        let image = object::text(container, "/image");
        let name = image
            .split(['@'])
            .next()
            .unwrap_or(image)
            .rsplit('/')
            .next()
            .unwrap_or(image);
        name.split(':').next() == Some("proxyv2")
    };
    let gateway_image = object::list(pod, "/spec/containers").iter().find(image);
    if gateway_image.is_some_and(|container| {
        object::list(container, "/args")
            .iter()
            .any(|argument| argument == "router")
    }) {
        return Some(Template::Gateway);
    }
    if !wanted(pod, namespace) {
        return None;
    }
    let annotations = object::annotations(pod);
    let templates = annotations
        .get("inject.istio.io/templates")
        .map_or("", String::as_str);
    Some(
        if templates
            .split(',')
            .any(|template| template.trim() == "gateway")
        {
            Template::Gateway
        } else {
            Template::Sidecar
        },
    )
}

fn wanted(pod: &Value, namespace: &Value) -> bool {
    if object::flag(pod, "/spec/hostNetwork") || NEVER.contains(&object::name(namespace)) {
        return false;
    }
    let labels = object::labels(pod);
    let annotations = object::annotations(pod);
    let inject = labels
        .get("sidecar.istio.io/inject")
        .or_else(|| annotations.get("sidecar.istio.io/inject"))
        .map(String::as_str);
    let home = object::labels(namespace);
    match (
        home.get("istio-injection").map(String::as_str),
        home.get("istio.io/rev"),
        inject,
    ) {
        (Some("disabled"), _, _) => false,
        (_, _, Some("false")) => false,
        (Some("enabled"), _, _) | (_, Some(_), _) | (_, _, Some("true")) => true,
        _ => labels.contains_key("istio.io/rev"),
    }
}

/// The workload that a pod belongs to: its name and the path of its owner.
pub fn workload_of(pod: &Value) -> (String, String) {
    let namespace = object::namespace(pod);
    let Some(owner) = object::controller(pod) else {
        let name = object::name(pod);
        return (
            name.to_string(),
            format!("kubernetes://apis/v1/namespaces/{namespace}/pods/{name}"),
        );
    };
    let (mut api, mut kind, mut name) = (
        object::text(owner, "/apiVersion").to_string(),
        object::text(owner, "/kind").to_string(),
        object::text(owner, "/name").to_string(),
    );
    let labels = object::labels(pod);
    if kind == "ReplicaSet"
        && let Some(hash) = labels.get("pod-template-hash")
        && let Some(deployment) = name
            .strip_suffix(hash.as_str())
            .and_then(|name| name.strip_suffix('-'))
    {
        (api, kind, name) = (
            "apps/v1".into(),
            "Deployment".into(),
            deployment.to_string(),
        );
    }
    let path = format!(
        "kubernetes://apis/{api}/namespaces/{namespace}/{}s/{name}",
        kind.to_lowercase()
    );
    (name, path)
}

/// Adds the proxy to a pod where it is to have one.
///
/// # Errors
/// An annotation that does not parse, by name.
pub fn inject(pod: &mut Value, namespace: &Value, with: &Injection) -> Result<(), String> {
    let Some(template) = template_of(pod, namespace) else {
        return Ok(());
    };
    if object::annotations(pod).contains_key(STATUS_ANNOTATION) {
        return Ok(());
    }
    add_labels(pod, template);
    let proxy_config = proxy_config(pod, with)?;
    let applications: Vec<Value> = object::list(pod, "/spec/containers").to_vec();
    let is_proxy = |container: &Value| {
        object::text(container, "/name") == PROXY_CONTAINER
            || (template == Template::Gateway
                && object::text(container, "/image").contains("proxyv2"))
    };
    let given = applications
        .iter()
        .find(|container| is_proxy(container))
        .cloned();
    let others: Vec<Value> = applications
        .iter()
        .filter(|container| !is_proxy(container))
        .cloned()
        .collect();
    let mut proxy = proxy_container(pod, &others, template, with, &proxy_config);
    if let Some(given) = given {
        overlay(&mut proxy, &given);
    }
    let spec = object::entry(pod, "spec");
    match template {
        Template::Sidecar => {
            proxy["restartPolicy"] = "Always".into();
            let mut first = vec![proxy];
            first.extend(
                spec.remove("initContainers")
                    .and_then(|list| list.as_array().cloned())
                    .unwrap_or_default(),
            );
            spec.insert("initContainers".into(), first.into());
            spec.insert("containers".into(), others.into());
        }
        Template::Gateway => {
            let mut all = others;
            all.push(proxy);
            spec.insert("containers".into(), all.into());
        }
    }
    add_volumes(spec);
    let name = if template == Template::Gateway {
        "gateway"
    } else {
        "sidecar"
    };
    annotate(pod, template, name);
    Ok(())
}

/// What Istio's tools and Prometheus look for.
fn annotate(pod: &mut Value, template: Template, name: &str) {
    object::annotate(pod, TEMPLATE_ANNOTATION, name);
    object::annotate(pod, "istio.io/rev", "default");
    let volumes = [
        "istio-envoy",
        "istio-data",
        "istio-podinfo",
        "istio-token",
        "istiod-ca-cert",
    ];
    let status = json!({"initContainers": if template == Template::Sidecar { vec![PROXY_CONTAINER] } else { vec![] },
        "containers": if template == Template::Gateway { vec![PROXY_CONTAINER] } else { vec![] },
        "volumes": volumes, "imagePullSecrets": null, "revision": "default"});
    object::annotate(pod, STATUS_ANNOTATION, &status.to_string());
    let annotations = object::annotations(pod);
    for (key, value) in [
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", "15020"),
        ("prometheus.io/path", "/stats/prometheus"),
    ] {
        if !annotations.contains_key(key) {
            object::annotate(pod, key, value);
        }
    }
    let first = object::text(pod, "/spec/containers/0/name").to_string();
    if !annotations.contains_key("kubectl.kubernetes.io/default-container") {
        object::annotate(pod, "kubectl.kubernetes.io/default-container", &first);
    }
}

/// As Istio's templates label pods. Only a sidecar takes mutual TLS for whatever its pod serves: a gateway's servers are
/// plaintext unless they say otherwise, so its pod does not bear the label that makes clients speak mutual TLS.
fn add_labels(pod: &mut Value, template: Template) {
    let labels = object::labels(pod);
    let (workload, _) = workload_of(pod);
    let first = |keys: &[&str], otherwise: &str| {
        keys.iter()
            .find_map(|key| labels.get(*key).cloned())
            .unwrap_or_else(|| otherwise.to_string())
    };
    let name = first(
        &[
            "service.istio.io/canonical-name",
            "app.kubernetes.io/name",
            "app",
        ],
        &workload,
    );
    let revision = first(
        &[
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ],
        "latest",
    );
    if template == Template::Sidecar && !labels.contains_key("security.istio.io/tlsMode") {
        object::label(pod, "security.istio.io/tlsMode", "istio");
    }
    object::label(pod, "service.istio.io/canonical-name", &name);
    object::label(pod, "service.istio.io/canonical-revision", &revision);
}

/// `proxy.istio.io/config` over the machine's defaults.
fn proxy_config(pod: &Value, with: &Injection) -> Result<Value, String> {
    let mut config = json!({
        "configPath": "./etc/istio/proxy", "serviceCluster": PROXY_CONTAINER,
        "discoveryAddress": "istiod.istio-system.svc:15012", "statusPort": 15020,
    });
    if let Some(text) = object::annotations(pod).get("proxy.istio.io/config") {
        let own: Value = serde_saphyr::from_str(text)
            .map_err(|error| format!("annotation proxy.istio.io/config: {error}"))?;
        crate::api::patch::merge(&mut config, &own);
    }
    let _ = with;
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

fn proxy_container(
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

/// What a pod says about its own `istio-proxy` container: further variables, ports, mounts, probes, resources.
fn overlay(proxy: &mut Value, given: &Value) {
    let Some(fields) = given.as_object() else {
        return;
    };
    for (key, value) in fields {
        match key.as_str() {
            "name" | "image" | "args" | "command" | "imagePullPolicy" | "securityContext" => {}
            "env" | "volumeMounts" | "ports" => append_missing(proxy, key, value),
            _ => proxy[key] = value.clone(),
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

fn add_volumes(spec: &mut Map<String, Value>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with() -> Injection {
        Injection {
            proxy: ProxyKind::Tanbark,
            trust_domain: "cluster.local".into(),
        }
    }

    #[test]
    fn the_injection_matrix() {
        for (injection, revision, inject, pod_revision, expected) in [
            (Some("enabled"), None, None, None, true),
            (Some("enabled"), Some("r"), None, None, true),
            (Some("enabled"), None, Some("false"), None, false),
            (Some("disabled"), None, Some("true"), None, false),
            (Some("disabled"), Some("r"), None, Some("r"), false),
            (None, Some("r"), None, None, true),
            (None, Some("r"), Some("false"), None, false),
            (None, None, Some("true"), None, true),
            (None, None, None, Some("r"), true),
            (None, None, Some("false"), Some("r"), false),
            (None, None, None, None, false),
        ] {
            let mut namespace = json!({"metadata": {"name": "n"}});
            let mut pod =
                json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
            let set = |object: &mut Value, key: &str, value: Option<&str>| {
                if let Some(value) = value {
                    object::label(object, key, value);
                }
            };
            set(&mut namespace, "istio-injection", injection);
            set(&mut namespace, "istio.io/rev", revision);
            set(&mut pod, "sidecar.istio.io/inject", inject);
            set(&mut pod, "istio.io/rev", pod_revision);
            assert_eq!(
                template_of(&pod, &namespace).is_some(),
                expected,
                "{injection:?} {revision:?} {inject:?} {pod_revision:?}"
            );
            pod["spec"]["hostNetwork"] = true.into();
            assert_eq!(template_of(&pod, &namespace), None);
        }
    }

    #[test]
    fn an_injected_pod_has_labels_volumes_and_the_proxy_first() {
        let namespace =
            json!({"metadata": {"name": "n", "labels": {"istio-injection": "enabled"}}});
        let mut pod = json!({
            "metadata": {"name": "reviews-v1-77-x", "namespace": "n", "labels": {"app": "reviews", "version": "v1", "pod-template-hash": "77"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "reviews-v1-77", "uid": "u", "controller": true}]},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 9080}]}], "initContainers": [{"name": "i"}]},
        });
        inject(&mut pod, &namespace, &with()).expect("injected");
        let labels = object::labels(&pod);
        assert_eq!(labels["service.istio.io/canonical-name"], "reviews");
        assert_eq!(labels["service.istio.io/canonical-revision"], "v1");
        assert_eq!(labels["security.istio.io/tlsMode"], "istio");
        assert_eq!(
            object::text(&pod, "/spec/initContainers/0/name"),
            "istio-proxy"
        );
        assert_eq!(object::text(&pod, "/spec/initContainers/1/name"), "i");
        let environment = object::list(&pod, "/spec/initContainers/0/env");
        let value = |name: &str| {
            environment
                .iter()
                .find(|item| item["name"] == name)
                .map(|item| object::text(item, "/value"))
        };
        assert_eq!(value("ISTIO_META_WORKLOAD_NAME"), Some("reviews-v1"));
        assert_eq!(
            value("ISTIO_META_OWNER"),
            Some("kubernetes://apis/apps/v1/namespaces/n/deployments/reviews-v1")
        );
        let before = pod.clone();
        inject(&mut pod, &namespace, &with()).expect("once only");
        assert_eq!(pod, before);
    }

    #[test]
    fn a_gateway_becomes_the_proxy_and_keeps_what_it_says() {
        let namespace = json!({"metadata": {"name": "n"}});
        let mut pod = json!({
            "metadata": {"name": "g", "namespace": "n", "labels": {"sidecar.istio.io/inject": "true"}, "annotations": {"inject.istio.io/templates": "gateway"}},
            "spec": {"containers": [{"name": "istio-proxy", "image": "auto", "env": [{"name": "ISTIO_META_X", "value": "1"}]}]},
        });
        inject(&mut pod, &namespace, &with()).expect("injected");
        assert_eq!(object::list(&pod, "/spec/containers").len(), 1);
        assert_eq!(object::text(&pod, "/spec/containers/0/args/0"), "gateway");
        assert!(
            object::list(&pod, "/spec/containers/0/env")
                .iter()
                .any(|item| item["name"] == "ISTIO_META_X")
        );
        // Clients speak mutual TLS to pods with this label, and a gateway's plain server does not.
        assert!(!object::labels(&pod).contains_key("security.istio.io/tlsMode"));
        // Pods may open any port; a gateway that is told otherwise opens none below 1024.
        assert!(
            !object::list(&pod, "/spec/containers/0/env")
                .iter()
                .any(|item| item["name"] == "ISTIO_META_UNPRIVILEGED_POD")
        );
    }
}
