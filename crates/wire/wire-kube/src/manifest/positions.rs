//! Where each field of an object stood in its file.
//!
//! The place of a map entry is its key's, of a list entry its first character's; what came in by an
//! alias stands where the alias stands. Whatever is asked for, an answer is given: the place of the
//! nearest thing around it that was written.

use std::sync::Arc;

use crate::path::{self, Step};

/// The places of one object's fields. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions(Arc<Spot>);

/// One value's place and those of the values in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spot {
    pub line: u32,
    pub column: u32,
    pub below: Below,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Below {
    #[default]
    Nothing,
    List(Vec<Arc<Spot>>),
    Map(Vec<(Box<str>, Arc<Spot>)>),
}

impl Positions {
    pub(super) fn new(spot: Spot) -> Self {
        Self(Arc::new(spot))
    }

    /// Positions of an object that came from no file: everything stands at line 1, column 1.
    pub fn none() -> Self {
        Self::new(Spot {
            line: 1,
            column: 1,
            below: Below::Nothing,
        })
    }

    /// Line and column where the object begins, from 1.
    pub fn start(&self) -> (u32, u32) {
        (self.0.line, self.0.column)
    }

    /// Line and column of the field at `path`, from 1.
    pub fn find(&self, path: &str) -> (u32, u32) {
        let mut at = &self.0;
        for step in path::split(path) {
            match at.child(&step) {
                Some(next) => at = next,
                None => break,
            }
        }
        (at.line, at.column)
    }

    /// The positions of one entry of a list field.
    pub(super) fn below(&self, name: &str, index: usize) -> Self {
        let list = self.0.child(&Step::Name(name.to_owned()));
        match list.and_then(|list| list.child(&Step::Index(index))) {
            Some(spot) => Self(spot.clone()),
            None => self.clone(),
        }
    }
}

impl Spot {
    fn child(&self, step: &Step) -> Option<&Arc<Spot>> {
        match (&self.below, step) {
            (Below::List(items), Step::Index(index)) => items.get(*index),
            (Below::Map(entries), Step::Name(name)) => entries
                .iter()
                .find(|(key, _)| **key == **name)
                .map(|(_, spot)| spot),
            _ => None,
        }
    }
}
