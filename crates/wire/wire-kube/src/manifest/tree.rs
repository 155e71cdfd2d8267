//! The visitor that builds a JSON value and its positions in one pass over the parser's events.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use super::positions::{Below, Positions, Spot};

/// A value and the places of what is in it.
#[derive(Debug)]
pub(super) struct Parsed {
    value: Value,
    below: Below,
}

/// Splits a parsed document into its value and its positions.
pub(super) fn finish(parsed: Spanned<Parsed>) -> (Value, Positions) {
    let Parsed { value, below } = parsed.value;
    (value, Positions::new(spot(parsed.referenced, below)))
}

fn spot(location: Location, below: Below) -> Spot {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    Spot {
        line: small(location.line()),
        column: small(location.column()),
        below,
    }
}

impl Parsed {
    fn scalar(value: Value) -> Self {
        Self {
            value,
            below: Below::Nothing,
        }
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_any(Build)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::scalar(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::scalar(Value::Number(value.into())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Parsed, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Parsed::scalar(Value::Number(number))),
            None => Err(E::custom("a number must be finite")),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::scalar(Value::String(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Parsed, E> {
        Ok(Parsed::scalar(Value::String(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut values = Vec::new();
        let mut spots = Vec::new();
        while let Some(Spanned {
            value: Parsed { value, below },
            referenced,
            ..
        }) = items.next_element::<Spanned<Parsed>>()?
        {
            values.push(value);
            spots.push(Arc::new(spot(referenced, below)));
        }
        Ok(Parsed {
            value: Value::Array(values),
            below: Below::List(spots),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut values = Map::new();
        let mut spots = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let Parsed { value, below } = entries.next_value::<Parsed>()?;
            spots.push((
                key.value.as_str().into(),
                Arc::new(spot(key.referenced, below)),
            ));
            values.insert(key.value, value);
        }
        Ok(Parsed {
            value: Value::Object(values),
            below: Below::Map(spots),
        })
    }
}
