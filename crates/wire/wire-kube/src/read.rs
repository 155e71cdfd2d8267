//! Reading a JSON object into a struct, collecting everything that is wrong with it.
//!
//! The rules are proto3 JSON's, as Istio and the API server apply them: camelCase or snake_case
//! names, `null` as absent, integers as numbers or text, enums by name or number, 64-bit care. A
//! field that cannot be read is reported with its path and left at its default; reading goes on, so
//! that one look at the file shows every mistake. The caller decides which faults make the object
//! unusable ([`FaultKind::UnknownField`] does not).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::duration;
use crate::path::FieldPath;

mod nearest;
#[cfg(test)]
mod tests;

pub use nearest::nearest;

/// No object gets more faults listed than this.
pub const FAULTS_MAX: usize = 100;

/// One thing that is wrong with an object as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, as [`crate::path`] writes it.
    pub path: String,
    pub kind: FaultKind,
    /// What is wrong and what to do, without the path.
    pub message: String,
}

/// What sort of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A name that the kind does not have. The rest of the object is still good.
    UnknownField,
    /// A value of another JSON type, or out of its range.
    WrongType,
    /// Text that is none of an enum's names.
    UnknownName,
    /// Text that is not a duration.
    BadDuration,
}

/// A thing that can be read from JSON.
pub trait Read: Sized + Default {
    /// Reads `value`; `None` after a fault was recorded. Never called with `null`.
    fn read(value: &Value, reader: &mut Reader) -> Option<Self>;

    /// What may stand below such a value.
    fn shape() -> Shape {
        Shape::Value
    }
}

/// What may stand below a value, as its type declares it; for those who have to know every field.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Nothing that has names: text, a number, a name, free JSON.
    Value,
    List(fn() -> Shape),
    Map(fn() -> Shape),
    Message(MessageShape),
}

/// The fields of a message.
#[derive(Debug, Clone, Copy)]
pub struct MessageShape {
    /// The Rust module that declares it.
    pub module: &'static str,
    pub name: &'static str,
    pub fields: &'static [FieldShape],
}

/// A field's names, and the shape of its value.
pub type FieldShape = (FieldName, fn() -> Shape);

/// The names under which one field may be written.
#[derive(Debug, Clone, Copy)]
pub struct FieldName {
    /// The name in snake_case (perhaps with `r#`).
    pub snake: &'static str,
    /// An explicit JSON name, where camelCase of `snake` isn't it.
    pub json: &'static [&'static str],
}

impl FieldName {
    fn snake(&self) -> &'static str {
        self.snake.strip_prefix("r#").unwrap_or(self.snake)
    }

    /// Does `key` name this field?
    pub fn is(&self, key: &str) -> bool {
        if let Some(json) = self.json.first() {
            return key == *json;
        }
        key == self.snake() || camel_case(self.snake()).eq(key.chars())
    }

    /// The name to show.
    pub fn shown(&self) -> String {
        match self.json.first() {
            Some(json) => (*json).to_owned(),
            None => camel_case(self.snake()).collect(),
        }
    }
}

/// camelCase as protobuf makes it: an underscore goes, and what follows becomes upper case.
fn camel_case(snake: &str) -> impl Iterator<Item = char> + '_ {
    let mut upper = false;
    snake.chars().filter_map(move |c| match (c, upper) {
        ('_', _) => {
            upper = true;
            None
        }
        (c, true) => {
            upper = false;
            Some(c.to_ascii_uppercase())
        }
        (c, false) => Some(c),
    })
}

/// Where reading is, and what it found.
#[derive(Debug, Default)]
pub struct Reader {
    path: FieldPath,
    faults: Vec<Fault>,
}

/// Reads `value` into `T`, with everything that is wrong.
pub fn read<T: Read>(value: &Value) -> (T, Vec<Fault>) {
    read_at("", value)
}

/// As [`read`], for a value that stands at `root` of its object (`spec`), so that paths are
/// complete.
pub fn read_at<T: Read>(root: &str, value: &Value) -> (T, Vec<Fault>) {
    let mut reader = Reader::default();
    if !root.is_empty() {
        reader.path.enter_name(root);
    }
    let out = if value.is_null() {
        T::default()
    } else {
        T::read(value, &mut reader).unwrap_or_default()
    };
    (out, reader.faults)
}

impl Reader {
    /// Records a fault at the present path.
    pub fn fault(&mut self, kind: FaultKind, message: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault {
                path: self.path.as_str().to_owned(),
                kind,
                message,
            });
        }
    }

    /// The entries of an object.
    pub fn object<'v>(&mut self, value: &'v Value) -> Option<&'v Map<String, Value>> {
        match value {
            Value::Object(entries) => Some(entries),
            other => self.wrong_type("an object", other),
        }
    }

    /// Reads one field into `slot`; `null` leaves it as it is.
    pub fn field<T: Read>(&mut self, key: &str, value: &Value, slot: &mut T) {
        if value.is_null() {
            return;
        }
        self.path.enter_name(key);
        if let Some(read) = T::read(value, self) {
            *slot = read;
        }
        self.path.leave();
    }

    /// Records a name that isn't known, with the nearest that is.
    pub fn unknown_field(&mut self, key: &str, names: &[FieldName]) {
        let shown: Vec<String> = names.iter().map(FieldName::shown).collect();
        let hint = match nearest(key, shown.iter().map(String::as_str)) {
            Some(name) => format!("; did you mean {name:?}?"),
            None => String::new(),
        };
        self.path.enter_name(key);
        self.fault(FaultKind::UnknownField, format!("unknown field{hint}"));
        self.path.leave();
    }

    /// Reads an enum, by name or by number.
    pub fn name<T: Copy>(
        &mut self,
        value: &Value,
        all: &'static [(i64, &'static str, T)],
    ) -> Option<T> {
        let found = match value {
            Value::String(text) => all.iter().find(|(_, name, _)| name == text),
            Value::Number(number) => all.iter().find(|(n, _, _)| number.as_i64() == Some(*n)),
            other => return self.wrong_type("a name", other),
        };
        if let Some((_, _, value)) = found {
            return Some(*value);
        }
        let names: Vec<&str> = all.iter().map(|(_, name, _)| *name).collect();
        let written = match value {
            Value::String(text) => format!("{text:?}"),
            other => other.to_string(),
        };
        self.fault(
            FaultKind::UnknownName,
            format!("{written} is not known: use one of {}", names.join(", ")),
        );
        None
    }

    fn wrong_type<T>(&mut self, wanted: &str, found: &Value) -> Option<T> {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Number(n) => format!("the number {n}"),
            Value::String(text) => {
                let shown: String = text.chars().take(40).collect();
                format!("the text {shown:?}")
            }
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        let hint = match wanted {
            "text" if found.starts_with("the number") || found.starts_with("the boolean") => {
                "; put it in quotes"
            }
            _ => "",
        };
        self.fault(
            FaultKind::WrongType,
            format!("must be {wanted}, but is {found}{hint}"),
        );
        None
    }
}

impl Read for String {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        match value {
            Value::String(text) => Some(text.clone()),
            other => reader.wrong_type("text", other),
        }
    }
}

impl Read for bool {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(*b),
            other => reader.wrong_type("true or false", other),
        }
    }
}

macro_rules! integers {
    ($($type:ty => $range:literal),*) => {$(
        impl Read for $type {
            fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
                let whole: Option<i128> = match value {
                    Value::Number(n) => n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)).or_else(|| {
                        n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i128)
                    }),
                    Value::String(text) => text.parse().ok(),
                    _ => None,
                };
                match whole.and_then(|n| <$type>::try_from(n).ok()) {
                    Some(n) => Some(n),
                    None => reader.wrong_type($range, value),
                }
            }
        }
    )*};
}

integers! {
    i32 => "a whole number from -2147483648 to 2147483647",
    u32 => "a whole number from 0 to 4294967295",
    i64 => "a whole number of 64 bits",
    u64 => "a whole number, zero or more"
}

impl Read for f64 {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let number = match value {
            Value::Number(n) => n.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match number.filter(|n: &f64| n.is_finite()) {
            Some(n) => Some(n),
            None => reader.wrong_type("a number", value),
        }
    }
}

impl Read for Duration {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let Value::String(text) = value else {
            return reader.wrong_type("a duration such as 5s or 1m30s", value);
        };
        match duration::parse(text) {
            Ok(d) => Some(d),
            Err(reason) => {
                reader.fault(FaultKind::BadDuration, format!("{text:?} {reason}"));
                None
            }
        }
    }
}

impl Read for Value {
    fn read(value: &Value, _: &mut Reader) -> Option<Self> {
        Some(value.clone())
    }
}

impl<T: Read> Read for Option<T> {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        T::read(value, reader).map(Some)
    }

    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: Read> Read for Box<T> {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        T::read(value, reader).map(Box::new)
    }

    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: Read> Read for Vec<T> {
    /// An entry that cannot be read stands in the list as a default, so that indexes stay those of
    /// the text.
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let Value::Array(items) = value else {
            return reader.wrong_type("a list", value);
        };
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            reader.path.enter_index(index);
            if item.is_null() {
                let _: Option<T> = reader.wrong_type("a value", item);
            }
            out.push(T::read(item, reader).unwrap_or_default());
            reader.path.leave();
        }
        Some(out)
    }

    fn shape() -> Shape {
        Shape::List(T::shape)
    }
}

impl<T: Read> Read for BTreeMap<String, T> {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let entries = reader.object(value)?;
        let mut out = BTreeMap::new();
        for (key, value) in entries {
            let mut slot = T::default();
            reader.field(key, value, &mut slot);
            out.insert(key.clone(), slot);
        }
        Some(out)
    }

    fn shape() -> Shape {
        Shape::Map(T::shape)
    }
}

/// An integer or text, as Kubernetes has it for ports (`targetPort: 8080`, `targetPort: http`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntOrText {
    Int(i64),
    Text(String),
}

impl Default for IntOrText {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl Read for IntOrText {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(n) if n.as_i64().is_some() => n.as_i64().map(Self::Int),
            other => reader.wrong_type("a number or a name", other),
        }
    }
}

/// An empty message, whose presence is what counts (`{}`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Empty;

impl Read for Empty {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        for key in reader.object(value)?.keys() {
            reader.unknown_field(key, &[]);
        }
        Some(Self)
    }
}
