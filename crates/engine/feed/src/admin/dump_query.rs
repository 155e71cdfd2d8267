//! What of a configuration dump is asked for: `?resource=`, `?mask=`, `?name_regex=` and
//! `?include_eds`, as in Envoy's admin API.

use http::StatusCode;
use serde_json::{Map, Value, json};
use telemetry::stats::{StringMatch, percent_decode};

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// Lists of resources in the sections, and the message that an element of each is.
const LISTS: [(&str, &str); 12] = [
    ("static_clusters", "ClustersConfigDump.StaticCluster"),
    (
        "dynamic_active_clusters",
        "ClustersConfigDump.DynamicCluster",
    ),
    (
        "dynamic_warming_clusters",
        "ClustersConfigDump.DynamicCluster",
    ),
    ("static_listeners", "ListenersConfigDump.StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
    ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
    (
        "dynamic_route_configs",
        "RoutesConfigDump.DynamicRouteConfig",
    ),
    (
        "static_endpoint_configs",
        "EndpointsConfigDump.StaticEndpointConfig",
    ),
    (
        "dynamic_endpoint_configs",
        "EndpointsConfigDump.DynamicEndpointConfig",
    ),
    ("static_secrets", "SecretsConfigDump.StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
    ("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret"),
];

/// Where an element has its name.
const NAMES: [&str; 6] = [
    "/name",
    "/cluster/name",
    "/listener/name",
    "/route_config/name",
    "/endpoint_config/cluster_name",
    "/active_state/listener/name",
];

/// A parsed query.
pub(super) struct DumpQuery {
    pub include_endpoints: bool,
    resource: Option<String>,
    /// Paths of fields, by parts.
    mask: Vec<Vec<String>>,
    names: Option<StringMatch>,
}

/// Status and text of an answer that is no dump.
type Refused = (StatusCode, String);

impl DumpQuery {
    pub fn parse(query: &str) -> Result<Self, Refused> {
        let mut parsed = Self {
            include_endpoints: false,
            resource: None,
            mask: Vec::new(),
            names: None,
        };
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode(value);
            match key {
                "include_eds" => parsed.include_endpoints = true,
                "resource" => parsed.resource = Some(value),
                "mask" => {
                    let paths = value.split(',').filter(|path| !path.is_empty());
                    parsed.mask = paths
                        .map(|path| path.split('.').map(str::to_owned).collect())
                        .collect();
                }
                "name_regex" if !value.is_empty() => {
                    let pattern = StringMatch::regex(&value);
                    parsed.names = Some(pattern.map_err(|error| {
                        (
                            StatusCode::BAD_REQUEST,
                            format!("Error while parsing name_regex from {error}"),
                        )
                    })?);
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// The part of the dump that is asked for.
    pub fn apply(&self, mut dump: Value) -> Result<Value, Refused> {
        if let Some(names) = &self.names {
            for section in sections(&mut dump) {
                retain_names(section, names);
            }
        }
        if let Some(resource) = &self.resource {
            dump = self.elements(resource, dump)?;
        }
        if self.mask.is_empty() {
            return Ok(dump);
        }
        let mut applied = false;
        for section in sections(&mut dump) {
            let kind = section.get("@type").cloned();
            let mut kept = masked(section, &self.mask);
            applied |= !kept.is_empty();
            if let Some(kind) = kind {
                kept.insert("@type".to_owned(), kind);
            }
            *section = kept;
        }
        if applied {
            return Ok(dump);
        }
        let mask: Vec<String> = self.mask.iter().map(|path| path.join(".")).collect();
        let why = format!(
            "FieldMask {} could not be successfully applied to any configs.",
            mask.join(",")
        );
        Err((StatusCode::BAD_REQUEST, why))
    }

    /// The elements of one list, each with its type.
    fn elements(&self, resource: &str, mut dump: Value) -> Result<Value, Refused> {
        let Some((_, message)) = LISTS.iter().find(|(name, _)| *name == resource) else {
            return Err((
                StatusCode::NOT_FOUND,
                format!("{resource} not found in config dump"),
            ));
        };
        let lists = sections(&mut dump).filter_map(|section| section.remove(resource));
        let elements = lists.flat_map(|list| match list {
            Value::Array(items) => items,
            _ => Vec::new(),
        });
        let typed = elements.map(|mut element| {
            if let Some(fields) = element.as_object_mut() {
                fields.insert("@type".to_owned(), json!(format!("{ADMIN}{message}")));
            }
            element
        });
        let typed: Vec<Value> = typed.collect();
        Ok(match typed.is_empty() {
            true => json!({}),
            false => json!({ "configs": typed }),
        })
    }
}

fn sections(dump: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let configs = dump.get_mut("configs").and_then(Value::as_array_mut);
    configs
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn retain_names(section: &mut Map<String, Value>, names: &StringMatch) {
    for (list, _) in LISTS {
        if let Some(items) = section.get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| {
                let mut found = NAMES
                    .iter()
                    .filter_map(|path| item.pointer(path).and_then(Value::as_str));
                found.any(|name| names.matches(name))
            });
        }
    }
}

/// The fields at the paths. A path through a list goes to every element.
fn masked(fields: &Map<String, Value>, mask: &[Vec<String>]) -> Map<String, Value> {
    let mut kept = Map::new();
    for path in mask {
        let Some((first, rest)) = path.split_first() else {
            continue;
        };
        let Some(value) = fields.get(first) else {
            continue;
        };
        let rest = [rest.to_vec()];
        let value = match value {
            _ if rest.iter().all(Vec::is_empty) => value.clone(),
            Value::Object(inner) => masked(inner, &rest).into(),
            Value::Array(items) => items
                .iter()
                .map(|item| match item {
                    Value::Object(inner) => Value::Object(masked(inner, &rest)),
                    other => other.clone(),
                })
                .collect(),
            other => other.clone(),
        };
        merge(&mut kept, first, value);
    }
    kept
}

/// Two paths may lead through one field.
fn merge(kept: &mut Map<String, Value>, name: &str, value: Value) {
    match (kept.get_mut(name), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            for (name, value) in new {
                merge(old, &name, value);
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            for (old, new) in old.iter_mut().zip(new) {
                if let (Value::Object(old), Value::Object(new)) = (old, new) {
                    for (name, value) in new {
                        merge(old, &name, value);
                    }
                }
            }
        }
        (_, value) => drop(kept.insert(name.to_owned(), value)),
    }
}

/// Private keys and passwords are for nobody's eyes, wherever they stand.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (name, value) in fields {
                let secret = matches!(
                    name.as_str(),
                    "private_key" | "password" | "session_ticket_keys" | "generic_secret"
                );
                if secret { hide(value) } else { redact(value) }
            }
        }
        _ => {}
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "inline_string" => *value = json!("[redacted]"),
                    // Base64 of the same.
                    "inline_bytes" => *value = json!("W3JlZGFjdGVkXQ=="),
                    _ => hide(value),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump() -> Value {
        json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {"id": "n", "cluster": "c"}}},
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "version_info": "7", "dynamic_listeners": [
                {"name": "a", "active_state": {"version_info": "1", "listener": {"name": "a"}}},
                {"name": "b", "active_state": {"version_info": "2", "listener": {"name": "b"}}},
            ]},
        ]})
    }

    fn asked(query: &str) -> Result<Value, Refused> {
        DumpQuery::parse(query)?.apply(dump())
    }

    #[test]
    fn a_resource_is_listed_with_its_type() {
        let listed = asked("resource=dynamic_listeners").unwrap();
        assert_eq!(
            listed["configs"][1],
            json!({"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener", "name": "b",
                "active_state": {"version_info": "2", "listener": {"name": "b"}}})
        );
        assert_eq!(asked("resource=static_listeners").unwrap(), json!({}));
        assert_eq!(asked("resource=x").unwrap_err().0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn names_and_fields_are_chosen() {
        let some = asked("name_regex=%5Bb-z%5D").unwrap();
        let listeners = some["configs"][1]["dynamic_listeners"].as_array().unwrap();
        assert_eq!((listeners.len(), &listeners[0]["name"]), (1, &json!("b")));
        assert_eq!(
            asked("name_regex=(").unwrap_err().0,
            StatusCode::BAD_REQUEST
        );
        let masked =
            asked("resource=dynamic_listeners&mask=active_state.version_info,name").unwrap();
        assert_eq!(
            masked["configs"][0],
            json!({"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener", "name": "a",
                "active_state": {"version_info": "1"}})
        );
        let node = asked("mask=bootstrap.node.id,bootstrap.node.cluster").unwrap();
        assert_eq!(
            node["configs"][0]["bootstrap"],
            json!({"node": {"id": "n", "cluster": "c"}})
        );
        assert_eq!(
            asked("mask=x").unwrap_err(),
            (
                StatusCode::BAD_REQUEST,
                "FieldMask x could not be successfully applied to any configs.".to_owned()
            )
        );
    }

    #[test]
    fn keys_are_hidden_wherever_they_stand() {
        let mut value = json!({"a": [{"tls_certificates": [{"certificate_chain": {"inline_string": "c"}, "private_key": {"inline_string": "k"}}],
            "private_key": {"inline_bytes": "aw=="}, "file": {"private_key": {"filename": "/k"}}}]});
        redact(&mut value);
        assert_eq!(
            value,
            json!({"a": [{"tls_certificates": [{"certificate_chain": {"inline_string": "c"}, "private_key": {"inline_string": "[redacted]"}}],
            "private_key": {"inline_bytes": "W3JlZGFjdGVkXQ=="}, "file": {"private_key": {"filename": "/k"}}}]})
        );
    }
}
