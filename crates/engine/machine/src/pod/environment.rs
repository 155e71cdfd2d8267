//! A container's environment: the image's, the Services', `envFrom`, `env`, with `$(VAR)` expanded as Kubernetes does.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine;
use indexmap::IndexMap;
use serde_json::Value;

use crate::object;
use crate::store::Store;
use crate::store::kinds::{CONFIG_MAPS, SECRETS, SERVICES};

/// Variables in the order in which they were first set.
pub type Environment = IndexMap<String, String>;

/// Why a variable has no value yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub String);

/// `FOO_SERVICE_HOST` and `FOO_SERVICE_PORT` for the Services of a namespace.
pub fn service_links(store: &Store, namespace: &str) -> Environment {
    let mut environment = Environment::new();
    for service in store.list(&SERVICES, Some(namespace)).0 {
        let address = object::text(&service, "/spec/clusterIP");
        if address.is_empty() || address == "None" {
            continue;
        }
        let prefix = object::name(&service)
            .to_uppercase()
            .replace(['-', '.'], "_");
        environment.insert(format!("{prefix}_SERVICE_HOST"), address.into());
        for (index, port) in object::list(&service, "/spec/ports").iter().enumerate() {
            let number = object::number(port, "/port")
                .unwrap_or_default()
                .to_string();
            let name = object::text(port, "/name");
            if index == 0 {
                environment.insert(format!("{prefix}_SERVICE_PORT"), number.clone());
                environment.insert(
                    format!("{prefix}_PORT"),
                    format!("tcp://{address}:{number}"),
                );
            }
            if !name.is_empty() {
                environment.insert(
                    format!(
                        "{prefix}_SERVICE_PORT_{}",
                        name.to_uppercase().replace('-', "_")
                    ),
                    number,
                );
            }
        }
    }
    environment
}

/// Adds a container's `envFrom` and `env`.
///
/// # Errors
/// A ConfigMap, Secret or key that is not there and not optional.
pub fn add_own(
    environment: &mut Environment,
    pod: &Value,
    container: &Value,
    address: Ipv4Addr,
    store: &Store,
) -> Result<(), Missing> {
    let namespace = object::namespace(pod);
    for source in object::list(container, "/envFrom") {
        let prefix = object::text(source, "/prefix");
        for (pointer, secret) in [("/configMapRef", false), ("/secretRef", true)] {
            let Some(reference) = source.pointer(pointer) else {
                continue;
            };
            let data = data_of(store, namespace, object::text(reference, "/name"), secret);
            match data {
                Some(data) => environment.extend(
                    data.into_iter()
                        .map(|(key, value)| (format!("{prefix}{key}"), text_of(value))),
                ),
                None if object::flag(reference, "/optional") => {}
                None => return Err(not_there(reference, secret)),
            }
        }
    }
    for item in object::list(container, "/env") {
        let name = object::text(item, "/name").to_string();
        let value = match item.get("valueFrom") {
            None => expand(object::text(item, "/value"), environment),
            Some(source) => match value_from(source, pod, container, address, store, namespace)? {
                Some(value) => value,
                None => continue,
            },
        };
        environment.insert(name, value);
    }
    Ok(())
}

fn value_from(
    source: &Value,
    pod: &Value,
    container: &Value,
    address: Ipv4Addr,
    store: &Store,
    namespace: &str,
) -> Result<Option<String>, Missing> {
    if let Some(path) = source
        .pointer("/fieldRef/fieldPath")
        .and_then(Value::as_str)
    {
        return pod_field(pod, path, address)
            .map(Some)
            .ok_or_else(|| Missing(format!("field {path} is not supported")));
    }
    if let Some(resource) = source
        .pointer("/resourceFieldRef/resource")
        .and_then(Value::as_str)
    {
        return resource_field(container, resource)
            .map(Some)
            .ok_or_else(|| Missing(format!("resource {resource} is not supported")));
    }
    for (pointer, secret) in [("/configMapKeyRef", false), ("/secretKeyRef", true)] {
        let Some(reference) = source.pointer(pointer) else {
            continue;
        };
        let key = object::text(reference, "/key");
        let data = data_of(store, namespace, object::text(reference, "/name"), secret);
        return match data.and_then(|data| data.get(key).cloned()) {
            Some(value) => Ok(Some(text_of(value))),
            None if object::flag(reference, "/optional") => Ok(None),
            None => Err(Missing(format!(
                "{} (key {key})",
                not_there(reference, secret).0
            ))),
        };
    }
    Err(Missing("valueFrom has no known source".into()))
}

fn not_there(reference: &Value, secret: bool) -> Missing {
    let kind = if secret { "secret" } else { "configmap" };
    Missing(format!(
        "{kind} \"{}\" not found",
        object::text(reference, "/name")
    ))
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The contents of a ConfigMap or Secret.
pub fn data_of(
    store: &Store,
    namespace: &str,
    name: &str,
    secret: bool,
) -> Option<BTreeMap<String, Vec<u8>>> {
    let decode = |text: String| {
        base64::engine::general_purpose::STANDARD
            .decode(text.trim())
            .ok()
    };
    if secret {
        let object = store.find(&SECRETS, namespace, name)?;
        return Some(
            object::texts(&object, "/data")
                .into_iter()
                .filter_map(|(key, value)| Some((key, decode(value)?)))
                .collect(),
        );
    }
    let object = store.find(&CONFIG_MAPS, namespace, name)?;
    let texts = object::texts(&object, "/data")
        .into_iter()
        .map(|(key, value)| (key, value.into_bytes()));
    let binary = object::texts(&object, "/binaryData")
        .into_iter()
        .filter_map(|(key, value)| Some((key, decode(value)?)));
    Some(texts.chain(binary).collect())
}

/// A field of the downward API.
pub fn pod_field(pod: &Value, path: &str, address: Ipv4Addr) -> Option<String> {
    let of_map = |map: &str, key: &str| {
        Some(
            object::text(
                pod,
                &format!(
                    "/metadata/{map}/{}",
                    key.replace('~', "~0").replace('/', "~1")
                ),
            )
            .to_string(),
        )
    };
    if let Some(key) = path
        .strip_prefix("metadata.labels['")
        .and_then(|rest| rest.strip_suffix("']"))
    {
        return of_map("labels", key);
    }
    if let Some(key) = path
        .strip_prefix("metadata.annotations['")
        .and_then(|rest| rest.strip_suffix("']"))
    {
        return of_map("annotations", key);
    }
    let lines = |map: BTreeMap<String, String>| {
        let lines: Vec<String> = map
            .iter()
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect();
        lines.join("\n")
    };
    match path {
        "metadata.labels" => Some(lines(object::labels(pod))),
        "metadata.annotations" => Some(lines(object::annotations(pod))),
        "metadata.name"
        | "metadata.namespace"
        | "metadata.uid"
        | "spec.nodeName"
        | "spec.serviceAccountName" => {
            Some(object::text(pod, &format!("/{}", path.replace('.', "/"))).to_string())
        }
        "status.podIP" | "status.podIPs" => Some(address.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(crate::network::BRIDGE_ADDRESS.to_string()),
        _ => None,
    }
}

/// `limits.cpu` and the like; a limit that is not set is the machine's, as on Kubernetes.
fn resource_field(container: &Value, resource: &str) -> Option<String> {
    let pointer = format!("/resources/{}", resource.replace('.', "/"));
    let given = container.pointer(&pointer).and_then(|value| {
        value
            .as_str()
            .map(String::from)
            .or_else(|| value.as_i64().map(|number| number.to_string()))
    });
    let cores = || {
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .to_string()
    };
    match (given, resource) {
        (Some(text), "limits.cpu" | "requests.cpu") => Some(
            match text
                .strip_suffix('m')
                .and_then(|milli| milli.parse::<u64>().ok())
            {
                Some(milli) => milli.div_ceil(1_000).to_string(),
                None => text,
            },
        ),
        (
            Some(text),
            "limits.memory"
            | "requests.memory"
            | "limits.ephemeral-storage"
            | "requests.ephemeral-storage",
        ) => bytes(&text).map(|bytes| bytes.to_string()),
        (None, "limits.cpu") => Some(cores()),
        (
            None,
            "requests.cpu"
            | "requests.memory"
            | "limits.memory"
            | "requests.ephemeral-storage"
            | "limits.ephemeral-storage",
        ) => Some("0".into()),
        _ => None,
    }
}

fn bytes(text: &str) -> Option<u64> {
    let units = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
    ];
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, factor) = unit.map_or((text, 1_u64), |(unit, factor)| {
        (text.trim_end_matches(unit), *factor)
    });
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Replaces `$(VAR)`; `$$(VAR)` is a literal `$(VAR)`, and an unknown variable stays as it is written.
pub fn expand(text: &str, environment: &Environment) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        result.push_str(before);
        let after = after.get(1..).unwrap_or_default();
        if let Some(literal) = after.strip_prefix('$') {
            result.push('$');
            rest = literal;
        } else if let Some((name, behind)) = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match environment.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = behind;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::kinds::NAMESPACES;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let environment: Environment = [("A".to_string(), "1".to_string())].into_iter().collect();
        for (text, expected) in [
            ("x$(A)y", "x1y"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, &environment), expected, "{text}");
        }
    }

    #[test]
    fn sources_are_read_and_missing_ones_named() {
        let store = Store::default();
        store
            .create(&NAMESPACES, json!({"metadata": {"name": "n"}}))
            .expect("a namespace");
        store
            .create(
                &CONFIG_MAPS,
                json!({"metadata": {"name": "m", "namespace": "n"}, "data": {"k": "v"}}),
            )
            .expect("a map");
        store
            .create(
                &SECRETS,
                json!({"metadata": {"name": "s", "namespace": "n"}, "stringData": {"k": "w"}}),
            )
            .expect("a secret");
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a/b": "c"}}, "spec": {"serviceAccountName": "sa"}});
        let container = json!({
            "envFrom": [{"prefix": "M_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
                {"name": "URL", "value": "http://$(IP)/$(M_k)"},
            ],
        });
        let mut environment = Environment::new();
        add_own(
            &mut environment,
            &pod,
            &container,
            Ipv4Addr::new(10, 244, 0, 9),
            &store,
        )
        .expect("all there");
        assert_eq!(environment["S"], "w");
        assert_eq!(environment["L"], "c");
        assert_eq!(environment["URL"], "http://10.244.0.9/v");
        let container = json!({"env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "other"}}}]});
        let missing = add_own(
            &mut environment,
            &pod,
            &container,
            Ipv4Addr::LOCALHOST,
            &store,
        )
        .expect_err("no such key");
        assert_eq!(missing.0, "secret \"s\" not found (key other)");
    }
}
