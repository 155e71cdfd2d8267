//! Header operations: what is added, set and removed, and the values that carry format operators.

use std::sync::Arc;

use http::HeaderValue;
use proxy_config::header::{AppendMode, HeaderOperation, HeaderOperations, HeaderValueFormat};
use wire_envoy::pb::{self, core::header_value_option::HeaderAppendAction};

use crate::{
    context::Cx,
    judgement::enumerated,
    reject::{Refusal, Within, each},
    scalar,
};

/// The four lists that tables, virtual hosts, routes and weighted clusters have.
pub(crate) struct Lists {
    pub(crate) request_add: Vec<pb::core::HeaderValueOption>,
    pub(crate) request_remove: Vec<String>,
    pub(crate) response_add: Vec<pb::core::HeaderValueOption>,
    pub(crate) response_remove: Vec<String>,
}

pub(crate) fn operations(cx: &mut Cx, lists: Lists) -> Result<HeaderOperations, Refusal> {
    let Lists {
        request_add,
        request_remove,
        response_add,
        response_remove,
    } = lists;
    Ok(HeaderOperations {
        request: ordered(
            cx,
            "request_headers_to_remove",
            request_remove,
            "request_headers_to_add",
            request_add,
        )?,
        response: ordered(
            cx,
            "response_headers_to_remove",
            response_remove,
            "response_headers_to_add",
            response_add,
        )?,
    })
}

/// Envoy removes first, so that a header can be removed and set anew.
fn ordered(
    cx: &mut Cx,
    remove_field: &'static str,
    remove: Vec<String>,
    add_field: &'static str,
    add: Vec<pb::core::HeaderValueOption>,
) -> Result<Arc<[HeaderOperation]>, Refusal> {
    let mut operations: Vec<HeaderOperation> = each(remove_field, remove, |name| {
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            return Err(Refusal::new(format!("{name} must not be removed")));
        }
        scalar::header_name("name", &name).map(HeaderOperation::Remove)
    })?;
    operations.extend(additions::<Vec<_>>(cx, add_field, add)?);
    Ok(operations.into())
}

pub(crate) fn additions<C: FromIterator<HeaderOperation>>(
    cx: &mut Cx,
    field: &'static str,
    values: Vec<pb::core::HeaderValueOption>,
) -> Result<C, Refusal> {
    each(field, values, |v| addition(cx, v))
}

fn addition(cx: &Cx, value: pb::core::HeaderValueOption) -> Result<HeaderOperation, Refusal> {
    let pb::core::HeaderValueOption {
        header,
        append,
        append_action,
        keep_empty_value,
    } = value;
    let pb::core::HeaderValue {
        key,
        value,
        raw_value,
    } = header.ok_or_else(|| Refusal::missing("header"))?;
    let value = match String::from_utf8(raw_value) {
        Ok(raw) if value.is_empty() => raw,
        Ok(raw) if raw.is_empty() => value,
        Ok(_) => {
            return Err(Refusal::at(
                "header.raw_value",
                "value and raw_value are both set",
            ));
        }
        Err(_) => return Err(Refusal::at("header.raw_value", "is no text")),
    };
    let mode = match (
        append,
        enumerated!(append_action => HeaderAppendAction, "append_action")?,
    ) {
        (Some(pb::BoolValue { value: true }), _) => AppendMode::AppendOrAdd,
        (Some(pb::BoolValue { value: false }), _) => AppendMode::OverwriteOrAdd,
        (None, HeaderAppendAction::AppendIfExistsOrAdd) => AppendMode::AppendOrAdd,
        (None, HeaderAppendAction::AddIfAbsent) => AppendMode::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => AppendMode::OverwriteOrAdd,
        (None, HeaderAppendAction::OverwriteIfExists) => AppendMode::OverwriteIfExists,
    };
    let value = format(cx, &value).within("header.value")?;
    if key.eq_ignore_ascii_case("host") || key == ":authority" {
        return Ok(HeaderOperation::SetHost(value));
    }
    if key.starts_with(':') {
        return Err(Refusal::at(
            "header.key",
            format!("{key} must not be changed"),
        ));
    }
    let name = scalar::header_name("header.key", &key)?;
    Ok(HeaderOperation::Set {
        name,
        value,
        mode,
        keep_empty: keep_empty_value,
    })
}

/// A value without operators is kept as it is; `%%` stands for one percent sign.
pub(crate) fn format(cx: &Cx, text: &str) -> Result<HeaderValueFormat, Refusal> {
    if text.replace("%%", "").contains('%') {
        return cx.format(text, true).map(HeaderValueFormat::Format);
    }
    HeaderValue::from_str(&text.replace("%%", "%"))
        .map(HeaderValueFormat::Literal)
        .map_err(|_| Refusal::new("holds bytes that no header value may hold"))
}

/// A plain value, for CORS and the like; empty is none.
pub(crate) fn optional_value(
    field: &'static str,
    text: &str,
) -> Result<Option<HeaderValue>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(text)
        .map(Some)
        .map_err(|_| Refusal::at(field, "is no header value"))
}

#[cfg(test)]
mod tests;
