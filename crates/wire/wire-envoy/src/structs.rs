//! `google.protobuf.Struct` and JSON, both ways, without descriptors.
//!
//! A Struct knows only doubles. Whole numbers come out as JSON integers, as Envoy and Go print them.

use serde_json::{Map, Number};

use crate::pb::google::protobuf::ListValue;
use crate::pb::{Struct, Value, ValueKind};

/// Doubles hold every whole number up to this without loss.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A Struct as a JSON object.
pub fn to_json(fields: &Struct) -> serde_json::Value {
    let object: Map<_, _> = fields
        .fields
        .iter()
        .map(|(name, value)| (name.clone(), value_to_json(value)))
        .collect();
    serde_json::Value::Object(object)
}

/// One value as JSON; an empty value is null.
pub fn value_to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match &value.kind {
        None | Some(ValueKind::NullValue(_)) => Json::Null,
        Some(ValueKind::BoolValue(b)) => Json::Bool(*b),
        Some(ValueKind::NumberValue(n)) => number(*n),
        Some(ValueKind::StringValue(s)) => Json::String(s.clone()),
        Some(ValueKind::ListValue(list)) => {
            Json::Array(list.values.iter().map(value_to_json).collect())
        }
        Some(ValueKind::StructValue(inner)) => to_json(inner),
    }
}

/// A JSON object as a Struct; anything but an object gives none.
pub fn from_json(json: &serde_json::Value) -> Option<Struct> {
    let fields = json
        .as_object()?
        .iter()
        .map(|(name, value)| (name.clone(), value_from_json(value)))
        .collect();
    Some(Struct { fields })
}

/// Any JSON value as a protobuf Value.
pub fn value_from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => ValueKind::NullValue(0),
        Json::Bool(b) => ValueKind::BoolValue(*b),
        Json::Number(n) => ValueKind::NumberValue(n.as_f64().unwrap_or_default()),
        Json::String(s) => ValueKind::StringValue(s.clone()),
        Json::Array(items) => ValueKind::ListValue(ListValue {
            values: items.iter().map(value_from_json).collect(),
        }),
        Json::Object(fields) => ValueKind::StructValue(Struct {
            fields: fields
                .iter()
                .map(|(name, value)| (name.clone(), value_from_json(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// A double as JSON: an integer where that loses nothing. What JSON cannot say (NaN, infinity) becomes a string, as in proto3 JSON.
pub(crate) fn number(n: f64) -> serde_json::Value {
    if n.fract() == 0.0 && n.abs() <= MAX_EXACT && !(n == 0.0 && n.is_sign_negative()) {
        return serde_json::Value::Number(Number::from(n as i64));
    }
    match Number::from_f64(n) {
        Some(number) => serde_json::Value::Number(number),
        None if n.is_nan() => "NaN".into(),
        None if n > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_numbers_are_integers_and_the_rest_survives() {
        let json = json!({"a": 1, "b": 1.5, "c": [true, null, "x"], "d": {"e": -3}});
        let back = to_json(&from_json(&json).expect("an object"));
        assert_eq!(back, json);
        assert_eq!(back["a"].to_string(), "1");
    }

    #[test]
    fn what_json_cannot_say_is_text() {
        assert_eq!(number(f64::INFINITY), json!("Infinity"));
        assert_eq!(number(f64::NAN), json!("NaN"));
    }
}
