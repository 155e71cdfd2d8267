//! The part of the Common Expression Language that Istio's log filters, metric tags and `%CEL()%` use.
//!
//! [`Expression::parse`] resolves attributes and functions at once, so that what is not supported is refused by name when
//! configuration arrives and not per request. Evaluation follows CEL: a missing key or attribute is an error, `||` and
//! `&&` absorb an error when the other side decides, and a filter whose expression fails does not match.
//!
//! Supported: literals, lists, `?:`, `|| && !`, comparisons, `in`, `+ - * / %`, indexes and fields, `has()`, `size()`,
//! `string()`, `int()`, `contains`, `startsWith`, `endsWith`, `matches` (literal pattern), `lowerAscii`, `upperAscii`,
//! and Envoy's attributes of request, response, connection, upstream, source, destination, metadata, filter_state, xds,
//! with Istio's `upstream_peer` and `downstream_peer`. Not supported: macros over lists, messages, timestamps' methods.

use std::cmp::Ordering;
use std::sync::Arc;

use regex::Regex;

pub use value::Value;

use crate::Error;
use crate::access_log::Needs;
use crate::record::Record;
use attribute::Attribute;

mod attribute;
mod parse;
mod value;

/// Deepest nesting of an expression.
const MAX_DEPTH: usize = 64;
/// Longest text of an expression, bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// A compiled expression. Cloning shares.
#[derive(Debug, Clone)]
pub struct Expression {
    text: Arc<str>,
    root: Arc<Node>,
}

/// Why an expression has no value for a record, for example a header that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undefined(pub(crate) String);

#[derive(Debug)]
enum Node {
    Literal(Value),
    Attribute(Attribute),
    List(Vec<Node>),
    Index(Box<Node>, Box<Node>),
    Has(Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional(Box<Node>, Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Arithmetic(char, Box<Node>, Box<Node>),
    TextTest(TextTest, Box<Node>, Box<Node>),
    Matches(Regex, Box<Node>),
    Convert(Conversion, Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Conversion {
    Size,
    Text,
    Int,
    Lower,
    Upper,
}

/// The text decides, so that configuration can be compared.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Expression {
    /// Compiles.
    ///
    /// # Errors
    /// Syntax, or an attribute or function that is not supported, with its place.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let root = parse::parse(text)?;
        Ok(Self {
            text: Arc::from(text),
            root: Arc::new(root),
        })
    }

    /// The text it was made from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value for one record.
    ///
    /// # Errors
    /// Something it reads is not there, or types do not fit.
    pub fn evaluate(&self, record: &Record) -> Result<Value, Undefined> {
        self.root.evaluate(record)
    }

    /// Whether the value is `true`; an error is `false`.
    pub fn matches(&self, record: &Record) -> bool {
        matches!(self.evaluate(record), Ok(Value::Bool(true)))
    }

    /// Adds the headers and metadata that it reads.
    pub fn add_needs(&self, needs: &mut Needs) {
        self.root.add_needs(needs);
    }
}

impl Node {
    fn evaluate(&self, record: &Record) -> Result<Value, Undefined> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Attribute(attribute) => attribute.read(record),
            Self::List(items) => Ok(Value::List(
                items
                    .iter()
                    .map(|item| item.evaluate(record))
                    .collect::<Result<_, _>>()?,
            )),
            Self::Index(object, key) => index(object, &key.evaluate(record)?, record),
            Self::Has(node) => Ok(Value::Bool(node.evaluate(record).is_ok())),
            Self::Not(node) => Ok(Value::Bool(!node.truth(record)?)),
            Self::Negate(node) => negate(node.evaluate(record)?),
            Self::And(left, right) => decide(left.truth(record), || right.truth(record), false),
            Self::Or(left, right) => decide(left.truth(record), || right.truth(record), true),
            Self::Conditional(condition, yes, no) => match condition.truth(record)? {
                true => yes.evaluate(record),
                false => no.evaluate(record),
            },
            Self::Compare(comparison, left, right) => compare(
                *comparison,
                &left.evaluate(record)?,
                &right.evaluate(record)?,
            ),
            Self::In(item, container) => contains(&item.evaluate(record)?, container, record),
            Self::Arithmetic(operator, left, right) => {
                value::arithmetic(*operator, left.evaluate(record)?, right.evaluate(record)?)
            }
            Self::TextTest(test, text, part) => {
                let (text, part) = (text.text(record)?, part.text(record)?);
                Ok(Value::Bool(match test {
                    TextTest::Contains => text.contains(&part),
                    TextTest::StartsWith => text.starts_with(&part),
                    TextTest::EndsWith => text.ends_with(&part),
                }))
            }
            Self::Matches(regex, text) => Ok(Value::Bool(regex.is_match(&text.text(record)?))),
            Self::Convert(conversion, node) => value::convert(*conversion, node.evaluate(record)?),
        }
    }

    fn truth(&self, record: &Record) -> Result<bool, Undefined> {
        match self.evaluate(record)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(Undefined(format!(
                "{} where a bool is needed",
                other.type_name()
            ))),
        }
    }

    fn text(&self, record: &Record) -> Result<String, Undefined> {
        match self.evaluate(record)? {
            Value::Text(text) => Ok(text),
            other => Err(Undefined(format!(
                "{} where a string is needed",
                other.type_name()
            ))),
        }
    }

    fn add_needs(&self, needs: &mut Needs) {
        match self {
            Self::Literal(_) => {}
            Self::Attribute(attribute) => attribute.add_needs(None, needs),
            Self::Index(object, key) => match (&**object, &**key) {
                (Self::Attribute(attribute), Self::Literal(Value::Text(name))) => {
                    attribute.add_needs(Some(name), needs)
                }
                _ => [object, key]
                    .into_iter()
                    .for_each(|node| node.add_needs(needs)),
            },
            Self::List(items) => items.iter().for_each(|item| item.add_needs(needs)),
            Self::Has(node)
            | Self::Not(node)
            | Self::Negate(node)
            | Self::Matches(_, node)
            | Self::Convert(_, node) => {
                node.add_needs(needs);
            }
            Self::And(left, right)
            | Self::Or(left, right)
            | Self::Compare(_, left, right)
            | Self::In(left, right)
            | Self::Arithmetic(_, left, right)
            | Self::TextTest(_, left, right) => [left, right]
                .into_iter()
                .for_each(|node| node.add_needs(needs)),
            Self::Conditional(condition, yes, no) => {
                [condition, yes, no]
                    .into_iter()
                    .for_each(|node| node.add_needs(needs));
            }
        }
    }
}

/// `&&` (`deciding` false) or `||` (`deciding` true): a deciding side wins over an error of the other.
fn decide(
    left: Result<bool, Undefined>,
    right: impl FnOnce() -> Result<bool, Undefined>,
    deciding: bool,
) -> Result<Value, Undefined> {
    if left == Ok(deciding) {
        return Ok(Value::Bool(deciding));
    }
    match (left, right()) {
        (_, Ok(right)) if right == deciding => Ok(Value::Bool(deciding)),
        (Err(error), _) | (_, Err(error)) => Err(error),
        _ => Ok(Value::Bool(!deciding)),
    }
}

fn index(object: &Node, key: &Value, record: &Record) -> Result<Value, Undefined> {
    // Header maps are looked up in place instead of being made into a value first.
    if let (Node::Attribute(attribute), Value::Text(name)) = (object, key)
        && let Some(found) = attribute.lookup(name, record)
    {
        return found;
    }
    object.evaluate(record)?.index(key)
}

fn contains(item: &Value, container: &Node, record: &Record) -> Result<Value, Undefined> {
    if let (Node::Attribute(attribute), Value::Text(name)) = (container, item)
        && let Some(found) = attribute.lookup(name, record)
    {
        return Ok(Value::Bool(found.is_ok()));
    }
    container.evaluate(record)?.contains(item)
}

fn negate(value: Value) -> Result<Value, Undefined> {
    match value {
        Value::Int(number) => number
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| Undefined("integer overflow".into())),
        Value::Double(number) => Ok(Value::Double(-number)),
        other => Err(Undefined(format!("{} has no negative", other.type_name()))),
    }
}

fn compare(comparison: Comparison, left: &Value, right: &Value) -> Result<Value, Undefined> {
    let truth = match comparison {
        Comparison::Equal => left.equals(right),
        Comparison::NotEqual => !left.equals(right),
        _ => {
            let order = left.order(right).ok_or_else(|| {
                Undefined(format!(
                    "{} and {} have no order",
                    left.type_name(),
                    right.type_name()
                ))
            })?;
            match comparison {
                Comparison::Less => order == Ordering::Less,
                Comparison::LessOrEqual => order != Ordering::Greater,
                Comparison::Greater => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }
        }
    };
    Ok(Value::Bool(truth))
}

#[cfg(test)]
mod tests;
