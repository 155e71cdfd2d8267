//! Reading and writing the fields that every Kubernetes object has, on plain JSON.
//!
//! For whoever passes objects on as they were given: injection, the local API. Nothing here fails:
//! a field of another type reads as if it were absent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

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

/// The map that a value is, made of whatever else it was.
fn map_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else {
        unreachable!("a map was put there")
    };
    map
}

/// The list that a value is, made of whatever else it was.
fn list_of(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    let Value::Array(list) = value else {
        unreachable!("a list was put there")
    };
    list
}

/// The map at a key, made when absent or of another type.
pub fn entry<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    map_of(map_of(object).entry(key).or_insert(Value::Null))
}

/// Sets a field of an object.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    map_of(object).insert(key.into(), value.into());
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
    map_of(entry(object, "metadata").entry(key).or_insert(Value::Null))
}

/// The list at a key, made when absent or of another type.
pub fn entry_list<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    list_of(map_of(object).entry(key).or_insert(Value::Null))
}

/// The owner that controls this object, if any.
pub fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences")
        .iter()
        .find(|owner| flag(owner, "/controller"))
}
