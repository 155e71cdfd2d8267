//! Reading Kubernetes objects as JSON: what is not there reads as empty.

use serde_json::Value;

pub use machine::table::words::{condition, last_seen, or_none, pairs, plain};

/// A text at a JSON pointer; empty when absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number at a JSON pointer; 0 when absent.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A list at a JSON pointer; empty when absent.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// The value of a label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// The value of an annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(key)?
        .as_str()
}

/// Does a pod take traffic?
pub fn ready(pod: &Value) -> bool {
    condition(pod, "Ready")
}

/// Is the object on its way out?
pub fn deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Does a pod have a proxy of the mesh, as sidecar or as itself?
pub fn has_proxy(pod: &Value) -> bool {
    annotation(pod, "sidecar.istio.io/status").is_some()
}

/// The oldest event first, as people read a story; of the same moment in the order of their writing.
pub fn sort_events(events: &mut [Value]) {
    events.sort_by(|a, b| {
        let version = |event: &Value| {
            text(event, "/metadata/resourceVersion")
                .parse::<u64>()
                .unwrap_or(0)
        };
        (last_seen(a), version(a)).cmp(&(last_seen(b), version(b)))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_in_their_order() {
        let event = |name: &str, at: &str, version: &str| serde_json::json!({"metadata": {"name": name, "resourceVersion": version}, "lastTimestamp": at});
        let mut events = vec![
            event("c", "2026-01-01T00:00:02Z", "1"),
            event("b", "2026-01-01T00:00:01Z", "10"),
            event("a", "2026-01-01T00:00:01Z", "9"),
        ];
        sort_events(&mut events);
        let names: Vec<&str> = events.iter().map(name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
