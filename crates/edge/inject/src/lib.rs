//! Injection: which pods get a proxy and what is added to them, by the rules of Istio's injector
//! and its two templates
//! `sidecar` and `gateway`.
//!
//! A pure function over a new pod and its namespace, on plain JSON, so that every home of a mesh
//! can use it: the runtime of one machine as it admits a pod, a webhook of Kubernetes as its
//! answer. The sidecar is a native one (an init container that stays), so it is up before the
//! application's own init containers run. Every revision means the one control plane. Which traffic
//! a sidecar takes is read by [`capture`]; nothing here touches a kernel, a file or a clock.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod capture;
mod container;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire_kube::object;

/// The name of the proxy's container.
pub const PROXY_CONTAINER: &str = "istio-proxy";
/// Marks a pod as injected.
pub const STATUS_ANNOTATION: &str = "sidecar.istio.io/status";
/// Says which kind of proxy was injected: `sidecar` or `gateway`.
pub const TEMPLATE_ANNOTATION: &str = "tanbark.io/proxy";
/// The image that stands for `tanbark-proxy`.
pub const PROXY_IMAGE: &str = "tanbark/proxy";
/// The ConfigMap in every namespace that holds the CA's root certificate; the control plane writes
/// it.
pub const ROOT_CERTIFICATE: &str = "istio-ca-root-cert";
/// Namespaces whose pods never get a proxy.
const NEVER: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// The proxy's user, group and mark of its connections.
pub const PROXY_ID: u32 = 1337;

/// Which proxy stands beside the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum ProxyKind {
    /// `tanbark-proxy sidecar` and `tanbark-proxy gateway`.
    #[default]
    Tanbark,
    /// `tanbark-proxy agent`, which runs a stock Envoy.
    Envoy,
}

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
    let proxy_config = container::proxy_config(pod)?;
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
    let mut proxy = container::proxy(pod, &others, template, with, &proxy_config);
    if let Some(given) = given {
        container::overlay(&mut proxy, &given);
    }
    let spec = object::entry(pod, "spec");
    match template {
        Template::Sidecar => {
            object::set(&mut proxy, "restartPolicy", "Always");
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
    container::add_volumes(spec);
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

/// As Istio's templates label pods. Only a sidecar takes mutual TLS for whatever its pod serves: a
/// gateway's servers are plaintext unless they say otherwise, so its pod does not bear the label
/// that makes clients speak mutual TLS.
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

#[cfg(test)]
mod tests;
