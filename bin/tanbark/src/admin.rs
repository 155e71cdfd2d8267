//! What proxies and the control plane say about themselves, asked through the runtime.

use anyhow::{Context as _, Result, anyhow};
use http::Method;
use serde_json::Value;

use crate::api::{Api, Filter, Port};
use crate::kind::Kind;
use crate::object;

/// A proxy's administration.
pub const ADMIN: u16 = 15_000;
/// A proxy's statistics.
pub const STATISTICS: u16 = 15_090;
/// The control plane's metrics and debug pages.
const MONITORING: u16 = 15_014;

/// Where the control plane's pods are.
pub const SYSTEM_NAMESPACE: &str = "istio-system";
const CONTROL_PLANE: &str = "app=istiod";

/// A page of a pod's proxy, as text.
pub async fn page(api: &Api, pod: &Value, method: Method, path: &str) -> Result<String> {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let to = Port {
        namespace,
        pod: name,
        port: ADMIN,
    };
    let bytes = api
        .pod(method, to, path)
        .await
        .map_err(|error| match object::has_proxy(pod) {
            true => anyhow!("the proxy of {name}.{namespace}: {error}"),
            false => anyhow!("pod {name}.{namespace} has no proxy"),
        })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A page of a pod's proxy, as JSON.
pub async fn json_page(api: &Api, pod: &Value, path: &str) -> Result<Value> {
    let text = page(api, pod, Method::GET, path).await?;
    serde_json::from_str(&text)
        .with_context(|| format!("{path} of {} is not JSON", object::name(pod)))
}

/// The control plane's pods.
pub async fn control_plane(api: &Api) -> Result<Vec<Value>> {
    api.list(
        &Kind::pods(),
        Some(SYSTEM_NAMESPACE),
        Filter::labels(CONTROL_PLANE),
    )
    .await
}

/// The control plane's pod to ask: a ready one before others.
pub async fn control_pod(api: &Api) -> Result<Value> {
    let mut pods = control_plane(api).await?;
    pods.sort_by_key(|pod| !object::ready(pod));
    pods.into_iter()
        .next()
        .context("no control plane runs in this mesh")
}

/// A debug page of the control plane.
pub async fn control_page_of(api: &Api, pod: &Value, path: &str) -> Result<Value> {
    let to = Port {
        namespace: SYSTEM_NAMESPACE,
        pod: object::name(pod),
        port: MONITORING,
    };
    let bytes = api
        .pod(Method::GET, to, path)
        .await
        .map_err(|error| anyhow!("the control plane: {error}"))?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{path} of the control plane is not JSON"))
}
