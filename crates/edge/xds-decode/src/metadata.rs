//! `Metadata` and `Struct` → the domain's values.

use std::sync::Arc;

use proxy_config::metadata::{Metadata, Value};
use wire_envoy::pb;

use crate::{context::Cx, judgement::take, reject::Refusal};

pub(crate) fn metadata(
    cx: &mut Cx,
    value: Option<pb::core::Metadata>,
) -> Result<Metadata, Refusal> {
    let Some(value) = value else {
        return Ok(Metadata::default());
    };
    take!(cx, value => pb::core::Metadata {
        read { filter_metadata }
        ignore "no supported filter reads typed metadata" { typed_filter_metadata }
    });
    Ok(Metadata(Arc::new(
        filter_metadata
            .into_iter()
            .map(|(name, fields)| (name.into(), structure(fields)))
            .collect(),
    )))
}

/// `None` when there is none, or an empty one.
pub(crate) fn optional(
    cx: &mut Cx,
    value: Option<pb::core::Metadata>,
) -> Result<Option<Metadata>, Refusal> {
    metadata(cx, value).map(|m| (!m.is_empty()).then_some(m))
}

pub(crate) fn structure(value: pb::Struct) -> Value {
    Value::Struct(Arc::new(
        value
            .fields
            .into_iter()
            .map(|(name, value)| (name.into(), self::value(value)))
            .collect(),
    ))
}

/// Depth is bounded by the protobuf decoder's own recursion limit.
fn value(value: pb::Value) -> Value {
    use pb::ValueKind;
    match value.kind {
        None | Some(ValueKind::NullValue(_)) => Value::Null,
        Some(ValueKind::BoolValue(b)) => Value::Bool(b),
        Some(ValueKind::NumberValue(n)) => Value::Number(n),
        Some(ValueKind::StringValue(s)) => Value::String(s.into()),
        Some(ValueKind::ListValue(list)) => {
            Value::List(list.values.into_iter().map(self::value).collect())
        }
        Some(ValueKind::StructValue(fields)) => structure(fields),
    }
}
