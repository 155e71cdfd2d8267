//! Resources of a dump as canonical proto3 JSON (`connectTimeout`), as istioctl prints them: a dump has Envoy's spelling (`connect_timeout`).
//!
//! Only the names of fields are respelt, never keys of maps and free structures (metadata, labels), so the messages' descriptors are
//! used wherever a resource says its type.

use serde_json::{Map, Value};
use wire_envoy::{Descriptors, Names, Unknown};

use super::dump::camel;
use crate::output;

/// Fields whose values are free structures: their keys are nobody's spelling.
const FREE: [&str; 3] = ["metadata", "filter_metadata", "static_layer"];

/// A resource that says its type, without the type; as it was, with a note, when the type is not known here.
pub fn resource(descriptors: &Descriptors, value: Value) -> Value {
    let mut respelt = typed(descriptors, value);
    if let Some(fields) = respelt.as_object_mut() {
        fields.remove("@type");
    }
    respelt
}

/// As [`resource`], with the type.
fn typed(descriptors: &Descriptors, value: Value) -> Value {
    let respelt = descriptors
        .any_from_json(value.clone(), Unknown::Skip)
        .and_then(|any| descriptors.any_to_json(&any, Names::Camel));
    match respelt {
        Ok(respelt) => respelt,
        Err(error) => {
            output::note(&format!("shown as the proxy spells it: {error}"));
            value
        }
    }
}

/// Every key of what says no type and has no maps; what says its type inside is respelt by it, free structures stay as they are.
pub fn keys(descriptors: &Descriptors, value: Value) -> Value {
    match value {
        Value::Object(fields) if fields.contains_key("@type") => {
            typed(descriptors, Value::Object(fields))
        }
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| match FREE.contains(&name.as_str()) {
                true => (camel(&name), value),
                false => (camel(&name), keys(descriptors, value)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items
            .into_iter()
            .map(|item| keys(descriptors, item))
            .collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_respelt_and_keys_of_maps_are_not() {
        let descriptors = Descriptors::load().expect("loaded");
        let cluster = json!({
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a", "connect_timeout": "10s",
            "metadata": {"filter_metadata": {"istio": {"default_original_port": 9080}}},
        });
        assert_eq!(
            resource(&descriptors, cluster),
            json!({"name": "a", "connectTimeout": "10s", "metadata": {"filterMetadata": {"istio": {"default_original_port": 9080}}}})
        );
        let unknown = json!({"@type": "type.googleapis.com/a.B", "c_d": 1});
        assert_eq!(resource(&descriptors, unknown), json!({"c_d": 1}));
    }

    #[test]
    fn statuses_are_respelt_by_their_keys() {
        let descriptors = Descriptors::load().expect("loaded");
        let bootstrap =
            json!({"node": {"user_agent_name": "envoy", "metadata": {"ISTIO_VERSION": "1.31.0"}}});
        assert_eq!(
            keys(&descriptors, bootstrap),
            json!({"node": {"userAgentName": "envoy", "metadata": {"ISTIO_VERSION": "1.31.0"}}})
        );
        let status = json!({"host_statuses": [{"health_status": {"eds_health_status": "HEALTHY"}}], "name": "a_b"});
        assert_eq!(
            keys(&descriptors, status),
            json!({"hostStatuses": [{"healthStatus": {"edsHealthStatus": "HEALTHY"}}], "name": "a_b"})
        );
    }
}
