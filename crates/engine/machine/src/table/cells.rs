//! Cells that many kinds have: numbers, and a name and an age around what a kind has of its own.
//! Pure.

use serde_json::Value;

use super::words::age;
use crate::object::name;

pub fn number(object: &Value, pointer: &str) -> i64 {
    crate::object::number(object, pointer).unwrap_or(0)
}

/// Name, what a kind has between, and age.
pub fn framed(object: &Value, between: Vec<String>, now: jiff::Timestamp) -> Vec<String> {
    let mut cells = vec![name(object).to_owned()];
    cells.extend(between);
    cells.push(age(object, now));
    cells
}
