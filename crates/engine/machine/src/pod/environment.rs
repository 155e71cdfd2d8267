//! A container's environment: the image's, the Services', `envFrom`, `env`, with `$(VAR)` expanded
//! as Kubernetes does.

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
            let name = object::text(reference, "/name");
            let data = match secret {
                true => data_of(store, namespace, name, true),
                // Of a ConfigMap only texts become variables.
                false => store
                    .find(&CONFIG_MAPS, namespace, name)
                    .map(|map| texts_of(&map)),
            };
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
    if let Some(reference) = source.get("resourceFieldRef") {
        return resource_of(reference, pod, Some(container)).map(Some);
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
    let binary = object::texts(&object, "/binaryData")
        .into_iter()
        .filter_map(|(key, value)| Some((key, decode(value)?)));
    Some(texts_of(&object).into_iter().chain(binary).collect())
}

fn texts_of(map: &Value) -> BTreeMap<String, Vec<u8>> {
    object::texts(map, "/data")
        .into_iter()
        .map(|(key, value)| (key, value.into_bytes()))
        .collect()
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

/// The value of a `resourceFieldRef`: a resource of the container that it names, or of `own`, in
/// units of its divisor, rounded up. A limit that is not set is the machine's, as on Kubernetes.
///
/// # Errors
/// The container, the resource or a quantity is not understood.
pub fn resource_of(reference: &Value, pod: &Value, own: Option<&Value>) -> Result<String, Missing> {
    let (name, resource) = (
        object::text(reference, "/containerName"),
        object::text(reference, "/resource"),
    );
    let named = ["/spec/containers", "/spec/initContainers"]
        .iter()
        .flat_map(|list| object::list(pod, list))
        .find(|container| object::text(container, "/name") == name);
    let container = match name {
        "" => own,
        _ => named,
    };
    let container = container.ok_or_else(|| {
        Missing(format!(
            "resourceFieldRef: there is no container named {name:?}"
        ))
    })?;
    let quantity = |value: &Value| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), String::from);
        thousandths(&text).ok_or_else(|| Missing(format!("{text:?} is not a quantity")))
    };
    let divisor = match reference.get("divisor").map(quantity).transpose()? {
        None | Some(0) => 1_000,
        Some(divisor) => divisor,
    };
    let pointer = format!("/resources/{}", resource.replace('.', "/"));
    let amount = match (container.pointer(&pointer), resource) {
        (Some(given), _) => quantity(given)?,
        (None, "limits.cpu") => {
            std::thread::available_parallelism().map_or(1, |cores| cores.get() as u128) * 1_000
        }
        (None, "limits.memory") => memory_bytes() * 1_000,
        (
            None,
            "requests.cpu"
            | "requests.memory"
            | "requests.ephemeral-storage"
            | "limits.ephemeral-storage",
        ) => 0,
        _ => return Err(Missing(format!("resource {resource} is not supported"))),
    };
    Ok(amount.div_ceil(divisor).to_string())
}

fn memory_bytes() -> u128 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u128>().ok());
    kibibytes.unwrap_or(0) * 1_024
}

/// A Kubernetes quantity (`250m`, `1.5`, `64Mi`, `1e3`) in thousandths, rounded up.
fn thousandths(text: &str) -> Option<u128> {
    const UNITS: [(&str, u128); 14] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("e3", 1_000),
        ("e6", 1_000_000),
        ("e9", 1_000_000_000),
    ];
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, factor) = match (unit, text.strip_suffix('m')) {
        (Some((unit, factor)), _) => (text.strip_suffix(unit)?, factor.checked_mul(1_000)?),
        (None, Some(number)) => (number, 1),
        (None, None) => (text, 1_000),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{part}");
    if digits.is_empty() || part.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let scaled = digits.parse::<u128>().ok()?.checked_mul(factor)?;
    Some(scaled.div_ceil(scale))
}

/// Replaces `$(VAR)`; `$$(VAR)` is a literal `$(VAR)`, and an unknown variable stays as it is
/// written.
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

    #[test]
    fn bytes_of_a_config_map_become_no_variables() {
        let store = Store::default();
        let create = |kind, object| store.create(kind, object).expect("created");
        create(&NAMESPACES, json!({"metadata": {"name": "n"}}));
        create(
            &CONFIG_MAPS,
            json!({"metadata": {"name": "m", "namespace": "n"}, "data": {"a": "1"}, "binaryData": {"b": "AAE="}}),
        );
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}});
        let container = json!({"envFrom": [{"configMapRef": {"name": "m"}}]});
        let mut environment = Environment::new();
        add_own(
            &mut environment,
            &pod,
            &container,
            Ipv4Addr::LOCALHOST,
            &store,
        )
        .expect("there");
        let names: Vec<&String> = environment.keys().collect();
        assert_eq!(names, ["a"]);
    }

    #[test]
    fn resources_are_told_in_units_of_their_divisor() {
        let container = json!({"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": 2}}});
        let pod = json!({"spec": {"containers": [container, {"name": "other", "resources": {"limits": {"memory": "1.5G"}}}]}});
        let value = |reference: Value| resource_of(&reference, &pod, Some(&container));
        for (reference, expected) in [
            (json!({"resource": "limits.cpu"}), "1"),
            (json!({"resource": "limits.cpu", "divisor": "1m"}), "250"),
            (json!({"resource": "limits.memory"}), "67108864"),
            (json!({"resource": "limits.memory", "divisor": "1Mi"}), "64"),
            (json!({"resource": "requests.cpu"}), "2"),
            (json!({"resource": "requests.memory"}), "0"),
            (
                json!({"resource": "limits.memory", "containerName": "other", "divisor": "1M"}),
                "1500",
            ),
        ] {
            assert_eq!(
                value(reference.clone()).as_deref(),
                Ok(expected),
                "{reference}"
            );
        }
        for reference in [
            json!({"resource": "limits.gpu"}),
            json!({"resource": "limits.cpu", "containerName": "none"}),
            json!({"resource": "limits.cpu", "divisor": "many"}),
        ] {
            value(reference.clone()).expect_err(&reference.to_string());
        }
    }
}
