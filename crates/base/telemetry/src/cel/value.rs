//! Values of expressions and what can be done with them.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

/// Why an expression has no value for a record, for example a header that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undefined(pub(crate) String);

/// A CEL value. Unsigned integers are integers here: no attribute exceeds the signed range.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<Value>),
    /// Metadata, headers as a whole, peers.
    Map(serde_json::Map<String, serde_json::Value>),
    Duration(Duration),
    Timestamp(SystemTime),
}

impl Value {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Duration(_) => "duration",
            Self::Timestamp(_) => "timestamp",
        }
    }

    /// From JSON; numbers are doubles, as in protobuf's Struct, unless they are whole.
    pub(crate) fn from_json(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Int(whole),
                None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(items) => {
                Self::List(items.iter().map(Self::from_json).collect())
            }
            serde_json::Value::Object(map) => Self::Map(map.clone()),
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(truth) => (*truth).into(),
            Self::Int(number) => (*number).into(),
            Self::Double(number) => (*number).into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(map) => serde_json::Value::Object(map.clone()),
            Self::Text(_) | Self::Duration(_) | Self::Timestamp(_) => self.to_text().into(),
        }
    }

    /// As a label value or log text.
    pub fn to_text(&self) -> String {
        match self {
            Self::Null => "null".to_string(),
            Self::Bool(truth) => truth.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Double(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::List(_) | Self::Map(_) => self.to_json().to_string(),
            Self::Duration(duration) => format!("{}s", duration.as_secs_f64()),
            Self::Timestamp(time) => crate::time_format::iso_time(*time),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self.number(), other.number()) {
            (Some(left), Some(right)) => left == right,
            _ => self == other,
        }
    }

    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(right)),
            (Self::Text(left), Self::Text(right)) => Some(left.cmp(right)),
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::Duration(left), Self::Duration(right)) => Some(left.cmp(right)),
            (Self::Timestamp(left), Self::Timestamp(right)) => Some(left.cmp(right)),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }

    pub(super) fn index(&self, key: &Self) -> Result<Self, Undefined> {
        let missing = || Undefined(format!("no such key: {}", key.to_text()));
        match (self, key) {
            (Self::Map(map), Self::Text(key)) => {
                map.get(key).map(Self::from_json).ok_or_else(missing)
            }
            (Self::List(items), Self::Int(at)) => usize::try_from(*at)
                .ok()
                .and_then(|at| items.get(at))
                .cloned()
                .ok_or_else(missing),
            _ => Err(Undefined(format!(
                "{} has no element {}",
                self.type_name(),
                key.type_name()
            ))),
        }
    }

    pub(super) fn contains(&self, item: &Self) -> Result<Self, Undefined> {
        match (self, item) {
            (Self::List(items), _) => Ok(Self::Bool(items.iter().any(|known| known.equals(item)))),
            (Self::Map(map), Self::Text(key)) => Ok(Self::Bool(map.contains_key(key))),
            _ => Err(Undefined(format!(
                "`in` does not look into {}",
                self.type_name()
            ))),
        }
    }
}

pub(super) fn arithmetic(operator: char, left: Value, right: Value) -> Result<Value, Undefined> {
    let overflow = || Undefined("integer overflow or division by zero".to_string());
    match (operator, left, right) {
        ('+', Value::Text(left), Value::Text(right)) => Ok(Value::Text(left + &right)),
        (_, Value::Int(left), Value::Int(right)) => match operator {
            '+' => left.checked_add(right),
            '-' => left.checked_sub(right),
            '*' => left.checked_mul(right),
            '/' => left.checked_div(right),
            _ => left.checked_rem(right),
        }
        .map(Value::Int)
        .ok_or_else(overflow),
        (_, left, right) => match (left.number(), right.number()) {
            (Some(a), Some(b)) => Ok(Value::Double(match operator {
                '+' => a + b,
                '-' => a - b,
                '*' => a * b,
                '/' => a / b,
                _ => return Err(Undefined("`%` needs integers".to_string())),
            })),
            _ => Err(Undefined(format!(
                "no `{operator}` of {} and {}",
                left.type_name(),
                right.type_name()
            ))),
        },
    }
}

/// A function of one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Conversion {
    Size,
    Text,
    Int,
    Lower,
    Upper,
}

impl Conversion {
    pub(super) fn apply(self, value: Value) -> Result<Value, Undefined> {
        let unfit = |value: &Value| Undefined(format!("no conversion of {}", value.type_name()));
        match (self, value) {
            (Conversion::Size, Value::Text(text)) => Ok(Value::Int(text.chars().count() as i64)),
            (Conversion::Size, Value::List(items)) => Ok(Value::Int(items.len() as i64)),
            (Conversion::Size, Value::Map(map)) => Ok(Value::Int(map.len() as i64)),
            (Conversion::Text, value) => Ok(Value::Text(value.to_text())),
            (Conversion::Int, Value::Int(number)) => Ok(Value::Int(number)),
            (Conversion::Int, Value::Double(number)) => Ok(Value::Int(number as i64)),
            (Conversion::Int, Value::Text(text)) => text
                .parse()
                .map(Value::Int)
                .map_err(|_| Undefined(format!("`{text}` is no integer"))),
            (Conversion::Lower, Value::Text(text)) => Ok(Value::Text(text.to_ascii_lowercase())),
            (Conversion::Upper, Value::Text(text)) => Ok(Value::Text(text.to_ascii_uppercase())),
            (_, value) => Err(unfit(&value)),
        }
    }
}
