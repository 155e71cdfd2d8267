//! A compiled expression as a tree, and its value for a record.

use std::cmp::Ordering;

use regex::Regex;

use super::attribute::Attribute;
use super::value::{Conversion, Undefined, Value, arithmetic};
use crate::needs::Needs;
use crate::record::Record;

#[derive(Debug)]
pub(super) enum Node {
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
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

impl Node {
    pub(super) fn evaluate(&self, record: &Record) -> Result<Value, Undefined> {
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
                arithmetic(*operator, left.evaluate(record)?, right.evaluate(record)?)
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
            Self::Convert(conversion, node) => conversion.apply(node.evaluate(record)?),
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

    pub(super) fn add_needs(&self, needs: &mut Needs) {
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
