//! Access logs: Envoy's format language and log filters.
//!
//! A [`Format`] is parsed once from configuration; [`Format::write`] appends one line for a
//! [`Record`] to a buffer that the caller reuses. Grammar and meaning of the operators follow
//! Envoy's access log documentation: `%OPERATOR(arguments):N%`,
//! `%%` for a percent sign, `-` for what is absent in text and `null` in JSON. An unknown operator is an error that names it.
//! [`Needs`] tells the proxy which headers to keep in the record, so that without a log nothing is
//! copied.

use std::collections::BTreeMap;

use serde_json::Value;

pub use crate::environment::Environment;
pub use crate::needs::Needs;
pub use crate::time_format::iso_time;
pub use filter::{Comparison, Filter};

use crate::Error;
use crate::record::Record;
use field::Field;
use operator::{Part, add_needs};

pub(crate) use operator::metadata;

mod field;
mod filter;
mod operator;
mod template;

/// Deepest nesting of a JSON format.
const MAX_DEPTH: usize = 16;

/// A parsed log format.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    shape: Shape,
    omit_empty: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Text(Vec<Part>),
    Json(Node),
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Object(BTreeMap<String, Node>),
    List(Vec<Node>),
    Template(Vec<Part>),
    Constant(Value),
}

impl Format {
    /// A text format, taken as it is: a line ends where the format says `\n`.
    ///
    /// # Errors
    /// Syntax or unknown operator, by name.
    pub fn parse(text: &str, environment: &Environment, omit_empty: bool) -> Result<Self, Error> {
        Ok(Self {
            shape: Shape::Text(template::parse(text, environment)?),
            omit_empty,
        })
    }

    /// A JSON format (protobuf `Struct` as JSON): strings are templates, other leaves are printed
    /// as they are. A string of one operator keeps the operator's type. Keys are printed sorted, as
    /// Envoy does, and each line ends with a line feed.
    ///
    /// # Errors
    /// As [`Format::parse`]; or not an object, or nested deeper than 16.
    pub fn json(value: &Value, environment: &Environment, omit_empty: bool) -> Result<Self, Error> {
        if !value.is_object() {
            return Err(Error::Format("JSON format: not an object".to_string()));
        }
        Ok(Self {
            shape: Shape::Json(Node::parse(value, environment, 0)?),
            omit_empty,
        })
    }

    /// Appends the line for `record`.
    pub fn write(&self, record: &Record, out: &mut String) {
        match &self.shape {
            Shape::Text(parts) => {
                write_text(parts, record, if self.omit_empty { "" } else { "-" }, out)
            }
            Shape::Json(node) => {
                match node.value(record, self.omit_empty) {
                    Some(value) => write_json(&value, out),
                    None => out.push_str("{}"),
                }
                out.push('\n');
            }
        }
    }

    /// The line's value: an object for JSON formats, a string for text ones. For OTLP and gRPC
    /// loggers.
    pub fn value(&self, record: &Record) -> Value {
        match &self.shape {
            Shape::Text(_) => {
                let mut line = String::new();
                self.write(record, &mut line);
                Value::String(line)
            }
            Shape::Json(node) => node
                .value(record, self.omit_empty)
                .map_or_else(|| Value::Object(Default::default()), Sorted::into_json),
        }
    }

    /// What its operators read.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        match &self.shape {
            Shape::Text(parts) => add_needs(parts, &mut needs),
            Shape::Json(node) => node.add_needs(&mut needs),
        }
        needs
    }
}

/// Expands a template once, for example a span tag's or a header's value: absent parts are empty.
///
/// # Errors
/// As [`Format::parse`].
pub fn expand(text: &str, record: &Record, environment: &Environment) -> Result<String, Error> {
    let mut out = String::new();
    write_text(&template::parse(text, environment)?, record, "", &mut out);
    Ok(out)
}

fn write_text(parts: &[Part], record: &Record, absent: &str, out: &mut String) {
    for part in parts {
        match part {
            Part::Literal(text) => out.push_str(text),
            Part::Operator { operator, longest } => match operator.field(record) {
                Field::Absent => out.push_str(absent),
                field => field.write_text(*longest, out),
            },
        }
    }
}

/// A JSON value whose objects keep sorted keys whatever features serde_json was built with.
enum Sorted {
    Object(Vec<(String, Sorted)>),
    List(Vec<Sorted>),
    Leaf(Value),
}

impl Sorted {
    fn into_json(self) -> Value {
        match self {
            Self::Object(entries) => entries
                .into_iter()
                .map(|(key, value)| (key, value.into_json()))
                .collect(),
            Self::List(items) => items.into_iter().map(Self::into_json).collect(),
            Self::Leaf(value) => value,
        }
    }
}

impl Node {
    fn parse(value: &Value, environment: &Environment, depth: usize) -> Result<Self, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Format(format!(
                "JSON format: nested deeper than {MAX_DEPTH}"
            )));
        }
        Ok(match value {
            Value::String(text) => Self::Template(template::parse(text, environment)?),
            Value::Array(items) => Self::List(
                items
                    .iter()
                    .map(|item| Self::parse(item, environment, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| {
                    Ok((key.clone(), Self::parse(value, environment, depth + 1)?))
                };
                Self::Object(map.iter().map(entry).collect::<Result<_, Error>>()?)
            }
            other => Self::Constant(other.clone()),
        })
    }

    /// `None`: left out.
    fn value(&self, record: &Record, omit_empty: bool) -> Option<Sorted> {
        match self {
            Self::Constant(value) => Some(Sorted::Leaf(value.clone())),
            Self::List(items) => Some(Sorted::List(
                items
                    .iter()
                    .filter_map(|item| item.value(record, omit_empty))
                    .collect(),
            )),
            Self::Object(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .filter_map(|(key, node)| Some((key.clone(), node.value(record, omit_empty)?)))
                    .collect();
                (!omit_empty || !entries.is_empty()).then_some(Sorted::Object(entries))
            }
            Self::Template(parts) => match parts.as_slice() {
                [Part::Operator { operator, longest }] => {
                    match operator.field(record).into_json(*longest) {
                        Value::Null if omit_empty => None,
                        value => Some(Sorted::Leaf(value)),
                    }
                }
                parts => {
                    let mut text = String::new();
                    write_text(parts, record, if omit_empty { "" } else { "-" }, &mut text);
                    Some(Sorted::Leaf(Value::String(text)))
                }
            },
        }
    }

    fn add_needs(&self, needs: &mut Needs) {
        match self {
            Self::Constant(_) => {}
            Self::List(items) => items.iter().for_each(|item| item.add_needs(needs)),
            Self::Object(entries) => entries.values().for_each(|node| node.add_needs(needs)),
            Self::Template(parts) => add_needs(parts, needs),
        }
    }
}

fn write_json(value: &Sorted, out: &mut String) {
    match value {
        Sorted::Leaf(value) => out.push_str(&value.to_string()),
        Sorted::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write_json(item, out);
            }
            out.push(']');
        }
        Sorted::Object(entries) => {
            out.push('{');
            for (at, (key, item)) in entries.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_json(item, out);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests;
