//! What one operator reads of one record, before it is text or JSON.

use std::borrow::Cow;

use serde_json::Value;

/// One operator's value for one record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field<'a> {
    Absent,
    Text(Cow<'a, str>),
    Number(u64),
    Json(Value),
}

impl<'a> Field<'a> {
    pub(super) fn text(text: Option<impl Into<Cow<'a, str>>>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(text.into()))
    }

    pub(super) fn display(value: Option<impl std::fmt::Display>) -> Self {
        value.map_or(Self::Absent, |value| {
            Self::Text(Cow::Owned(value.to_string()))
        })
    }

    pub(super) fn json(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Absent,
            Some(Value::String(text)) => Self::Text(Cow::Owned(text.clone())),
            Some(other) => Self::Json(other.clone()),
        }
    }

    /// Appends the text, at most `longest` characters.
    pub(super) fn write_text(self, longest: Option<usize>, out: &mut String) {
        match self {
            Self::Absent => {}
            Self::Text(text) => out.push_str(cut(&text, longest)),
            Self::Number(number) => out.push_str(cut(&number.to_string(), longest)),
            Self::Json(value) => out.push_str(cut(&value.to_string(), longest)),
        }
    }

    pub(super) fn into_json(self, longest: Option<usize>) -> Value {
        match self {
            Self::Absent => Value::Null,
            Self::Text(text) => Value::String(cut(&text, longest).to_string()),
            Self::Number(number) => number.into(),
            Self::Json(value) => value,
        }
    }
}

pub(super) fn cut(text: &str, longest: Option<usize>) -> &str {
    match longest.and_then(|longest| text.char_indices().nth(longest)) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// Spaces would break the columns of a text log.
pub(super) fn without_spaces(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_whitespace) {
        Cow::Owned(text.replace(char::is_whitespace, "_"))
    } else {
        Cow::Borrowed(text)
    }
}
