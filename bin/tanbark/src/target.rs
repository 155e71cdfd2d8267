//! Which pod is meant: `POD`, `POD.NAMESPACE` (istioctl's way), `pod/NAME`, `deploy/NAME`, `deploy/NAME.NAMESPACE` and the like.
//!
//! A workload or Service stands for one of its pods: a ready one before others, then the first by name.

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::api::{Api, Filter, is_status};
use crate::kind::Kind;
use crate::object;

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Pod(String),
    Owner { kind: Kind, name: String },
}

impl Target {
    /// # Errors
    /// A kind that does not exist, or `KIND/` without a name.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((word, name)) = text.split_once('/') else {
            return Ok(Self::Pod(text.into()));
        };
        if name.is_empty() || name.contains('/') {
            bail!("`{text}` names no object: write POD or KIND/NAME");
        }
        let kind = Kind::typed(word)?;
        Ok(if kind == Kind::pods() {
            Self::Pod(name.into())
        } else {
            Self::Owner {
                kind,
                name: name.into(),
            }
        })
    }
}

/// The pod object that is meant.
pub async fn find_pod(api: &Api, namespace: &str, text: &str) -> Result<Value> {
    find_pod_among(api, namespace, text)
        .await
        .map(|(pod, _)| pod)
}

/// The pod object that is meant, and of how many it was chosen.
pub async fn find_pod_among(api: &Api, namespace: &str, text: &str) -> Result<(Value, usize)> {
    match Target::parse(text)? {
        Target::Pod(name) => pod_named(api, namespace, &name).await.map(|pod| (pod, 1)),
        Target::Owner { kind, name } => {
            let mut pods = pods_of(api, &kind, namespace, &name).await?;
            pods.sort_by_key(|pod| {
                (
                    object::deleting(pod),
                    !object::ready(pod),
                    object::name(pod).to_owned(),
                )
            });
            let count = pods.len();
            let pod = pods.into_iter().next().ok_or_else(|| {
                anyhow!(
                    "{}/{name} in namespace {namespace} has no pods",
                    kind.singular()
                )
            })?;
            Ok((pod, count))
        }
    }
}

/// A pod by its name, else by `NAME.NAMESPACE`.
async fn pod_named(api: &Api, namespace: &str, name: &str) -> Result<Value> {
    match api.get(&Kind::pods(), namespace, name).await {
        Err(error) if is_status(&error, 404) => match name.rsplit_once('.') {
            Some((pod, namespace)) if !namespace.is_empty() => api
                .get(&Kind::pods(), namespace, pod)
                .await
                .map_err(|_| error),
            _ => Err(error),
        },
        found => found,
    }
}

/// Every pod of a workload or Service.
pub async fn pods_of(api: &Api, kind: &Kind, namespace: &str, name: &str) -> Result<Vec<Value>> {
    let owner = match api.get(kind, namespace, name).await {
        Err(error) if is_status(&error, 404) => match name.rsplit_once('.') {
            Some((name, namespace)) if !namespace.is_empty() => {
                api.get(kind, namespace, name).await.map_err(|_| error)?
            }
            _ => return Err(error),
        },
        found => found?,
    };
    let namespace = match object::namespace(&owner) {
        "" => namespace,
        own => own,
    };
    let selector = selector_of(&owner)
        .with_context(|| format!("{}/{name} does not select pods", kind.singular()))?;
    api.list(&Kind::pods(), Some(namespace), Filter::labels(&selector))
        .await
}

/// The label selector of a workload or Service, as text.
pub fn selector_of(owner: &Value) -> Option<String> {
    let spec = owner.get("spec")?;
    let labels = match spec.get("selector")? {
        Value::Object(selector)
            if selector.contains_key("matchLabels")
                || selector.contains_key("matchExpressions") =>
        {
            selector
                .get("matchLabels")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default()
        }
        Value::Object(plain) => plain.clone(),
        _ => return None,
    };
    let mut parts: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={}", object::plain(value)))
        .collect();
    for expression in object::list(owner, "/spec/selector/matchExpressions") {
        let (key, values) = (
            object::text(expression, "/key"),
            object::list(expression, "/values"),
        );
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        parts.push(match object::text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// The container to use when none is named, and whether there were others to choose from.
pub fn default_container(pod: &Value) -> (String, bool) {
    let names: Vec<&str> = object::list(pod, "/spec/containers")
        .iter()
        .map(|container| object::text(container, "/name"))
        .collect();
    let marked = object::annotation(pod, "kubectl.kubernetes.io/default-container")
        .filter(|marked| names.contains(marked));
    let chosen = marked.or(names.first().copied()).unwrap_or_default();
    (chosen.to_owned(), marked.is_none() && names.len() > 1)
}

/// Names of all containers, init containers last, as kubectl lists them.
pub fn containers(pod: &Value) -> Vec<String> {
    let of = |pointer: &str| {
        object::list(pod, pointer)
            .iter()
            .map(|container| object::text(container, "/name").to_owned())
            .collect::<Vec<_>>()
    };
    let mut all = of("/spec/containers");
    all.extend(of("/spec/initContainers"));
    all
}

/// Checks a container's name, or chooses one; kubectl's note about the choice goes to standard error.
///
/// # Errors
/// The pod has no container of that name.
pub fn choose_container(pod: &Value, named: Option<&str>) -> Result<String> {
    let all = containers(pod);
    match named {
        Some(name) if all.iter().any(|container| container == name) => Ok(name.to_owned()),
        Some(name) => bail!(
            "container {name} is not valid for pod {}: it has {}",
            object::name(pod),
            all.join(", ")
        ),
        None => {
            let (name, doubtful) = default_container(pod);
            if doubtful {
                crate::output::note(&format!(
                    "Defaulted container \"{name}\" out of: {}",
                    all.join(", ")
                ));
            }
            Ok(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_are_pods_or_their_owners() {
        assert_eq!(
            Target::parse("a-1").expect("a pod"),
            Target::Pod("a-1".into())
        );
        assert_eq!(
            Target::parse("pod/a-1").expect("a pod"),
            Target::Pod("a-1".into())
        );
        assert!(
            matches!(Target::parse("deploy/a"), Ok(Target::Owner { kind, name }) if kind.kind == "Deployment" && name == "a")
        );
        assert!(Target::parse("deploy/").is_err());
        assert!(Target::parse("widget/a").is_err());
    }

    #[test]
    fn selectors_of_workloads_and_services_become_text() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "v", "operator": "In", "values": ["1", "2"]}]}}});
        assert_eq!(
            selector_of(&deployment).as_deref(),
            Some("app=a,v in (1,2)")
        );
        assert_eq!(
            selector_of(&json!({"spec": {"selector": {"app": "a", "v": "1"}}})).as_deref(),
            Some("app=a,v=1")
        );
        assert_eq!(selector_of(&json!({"spec": {}})), None);
    }

    #[test]
    fn the_default_container_is_the_marked_one() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "istio-proxy"}]}});
        assert_eq!(default_container(&pod), ("a".into(), true));
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(default_container(&pod), ("b".into(), false));
        assert_eq!(
            choose_container(&pod, Some("istio-proxy")).expect("an init container"),
            "istio-proxy"
        );
        assert!(
            choose_container(&pod, Some("x"))
                .expect_err("none")
                .to_string()
                .contains("a, b, istio-proxy")
        );
    }
}
