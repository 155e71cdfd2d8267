//! Reading and writing the fields that every Kubernetes object has, on plain JSON.
//!
//! The runtime stores objects as they were given. Nothing here fails: a field of another type reads as if it were absent.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stdx::{Clock as _, SystemClock};

/// A text at a JSON pointer; empty when absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number at a JSON pointer.
pub fn number(object: &Value, pointer: &str) -> Option<i64> {
    let value = object.pointer(pointer)?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// A truth value at a JSON pointer.
pub fn flag(object: &Value, pointer: &str) -> bool {
    object
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

/// A list at a JSON pointer; empty when absent.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A map of texts at a JSON pointer.
pub fn texts(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = object.pointer(pointer).and_then(Value::as_object);
    let pairs = map
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string())));
    pairs.collect()
}

/// `metadata.name`
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}
/// `metadata.namespace`
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}
/// `metadata.uid`
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}
/// `metadata.labels`
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    texts(object, "/metadata/labels")
}
/// `metadata.annotations`
pub fn annotations(object: &Value) -> BTreeMap<String, String> {
    texts(object, "/metadata/annotations")
}
/// `metadata.resourceVersion` as the number it is here.
pub fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion")
        .parse()
        .unwrap_or(0)
}
/// Whether deletion has begun.
pub fn deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// The map at a key, made when absent or of another type.
pub fn entry<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let Value::Object(map) = object else {
        unreachable!("an object was put there")
    };
    let value = map.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    let Value::Object(inner) = value else {
        unreachable!("an object was put there")
    };
    inner
}

/// Sets a field of `metadata`.
pub fn set_metadata(object: &mut Value, key: &str, value: impl Into<Value>) {
    entry(object, "metadata").insert(key.into(), value.into());
}

/// Sets an annotation.
pub fn annotate(object: &mut Value, key: &str, value: &str) {
    nested(object, "annotations").insert(key.into(), value.into());
}

/// Sets a label.
pub fn label(object: &mut Value, key: &str, value: &str) {
    nested(object, "labels").insert(key.into(), value.into());
}

fn nested<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let metadata = entry(object, "metadata");
    let value = metadata.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    let Value::Object(map) = value else {
        unreachable!("an object was put there")
    };
    map
}

/// The list at a key, made when absent or of another type.
pub fn entry_list<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let Value::Object(map) = object else {
        unreachable!("an object was put there")
    };
    let value = map.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    let Value::Array(list) = value else {
        unreachable!("a list was put there")
    };
    list
}

/// A reference to the object that controls another.
pub fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": text(owner, "/apiVersion"), "kind": text(owner, "/kind"), "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The owner that controls this object, if any.
pub fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences")
        .iter()
        .find(|owner| flag(owner, "/controller"))
}

/// Whether `owner` controls `object`.
pub fn controlled_by(object: &Value, owner: &Value) -> bool {
    controller(object).is_some_and(|reference| text(reference, "/uid") == uid(owner))
}

/// The present as Kubernetes writes it: UTC, whole seconds.
pub fn now() -> String {
    timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The present. A mesh of real processes has the machine's clock and no other.
pub fn timestamp() -> jiff::Timestamp {
    // The years of both types are the same but for what no clock shows.
    jiff::Timestamp::try_from(SystemClock.wall()).unwrap_or(jiff::Timestamp::MAX)
}

/// A number of the form that Kubernetes takes for shares: `3` or `"25%"` of a whole; up or down to a whole number.
pub fn share(value: Option<&Value>, whole: i64, round: Round, default: &str) -> i64 {
    let text = match value {
        Some(Value::Number(number)) => return number.as_i64().unwrap_or(0).max(0),
        Some(Value::String(text)) => text.as_str(),
        _ => default,
    };
    let Some(percent) = text
        .strip_suffix('%')
        .and_then(|text| text.parse::<i64>().ok())
    else {
        return text.parse().unwrap_or(0).max(0);
    };
    let parts = percent.max(0).saturating_mul(whole);
    match round {
        Round::Up => (parts + 99) / 100,
        Round::Down => parts / 100,
    }
}

/// Which way a share is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// `maxSurge`
    Up,
    /// `maxUnavailable`
    Down,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_as_kubernetes_rounds() {
        assert_eq!(share(None, 3, Round::Up, "25%"), 1);
        assert_eq!(share(None, 3, Round::Down, "25%"), 0);
        assert_eq!(share(Some(&json!(2)), 3, Round::Down, "25%"), 2);
        assert_eq!(share(Some(&json!("100%")), 3, Round::Down, "25%"), 3);
    }
}
