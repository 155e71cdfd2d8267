//! What filters told about a request, as access logs and span tags read it.

use proxy_config::metadata::{Metadata, Value};

/// By filter name; `None` when no filter told anything.
pub(super) fn of(metadata: &Metadata) -> Option<Box<serde_json::Map<String, serde_json::Value>>> {
    if metadata.is_empty() {
        return None;
    }
    let told = metadata.0.iter();
    Some(Box::new(
        told.map(|(filter, value)| (filter.to_string(), json(value)))
            .collect(),
    ))
}

/// Whole numbers are written without a fraction, as proto3 JSON does.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
        Value::Number(n) => (*n).into(),
        Value::String(s) => (**s).into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Struct(fields) => fields
            .iter()
            .map(|(key, value)| (key.to_string(), json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
