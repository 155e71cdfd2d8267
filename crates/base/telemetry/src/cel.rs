//! The part of the Common Expression Language that Istio's log filters, metric tags and `%CEL()%`
//! use.
//!
//! [`Expression::parse`] resolves attributes and functions at once, so that what is not supported
//! is refused by name when configuration arrives and not per request. Evaluation follows CEL: a
//! missing key or attribute is an error, `||` and
//! `&&` absorb an error when the other side decides, and a filter whose expression fails does not match.
//!
//! Supported: literals, lists, `?:`, `|| && !`, comparisons, `in`, `+ - * / %`, indexes and fields,
//! `has()`, `size()`,
//! `string()`, `int()`, `contains`, `startsWith`, `endsWith`, `matches` (literal pattern), `lowerAscii`, `upperAscii`,
//! and Envoy's attributes of request, response, connection, upstream, source, destination,
//! metadata, filter_state, xds, with Istio's `upstream_peer` and `downstream_peer`. Not supported:
//! macros over lists, messages, timestamps' methods.

use std::sync::Arc;

pub use value::{Undefined, Value};

use crate::Error;
use crate::needs::Needs;
use crate::record::Record;
use node::Node;

mod attribute;
mod node;
mod parse;
mod value;

/// A compiled expression. Cloning shares.
#[derive(Debug, Clone)]
pub struct Expression {
    text: Arc<str>,
    root: Arc<Node>,
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

#[cfg(test)]
mod tests;
