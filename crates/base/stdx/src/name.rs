//! Names that are stored once.
//!
//! A [`Name`] is a shared string; a [`NameTable`] gives equal texts the same storage and holds a
//! bounded number of them. A full table still answers, with a name of its own, so nothing fails:
//! only the sharing is lost, and counted.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;

/// A shared, immutable string; cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared storage.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(Arc::from(text))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

/// A bounded table of names.
#[derive(Debug)]
pub struct NameTable {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: HashSet<Name>,
    overflows: u64,
}

impl NameTable {
    /// A table of at most `limit` names.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    /// The one name for `text`, or a fresh one when the table is full.
    pub fn intern(&self, text: &str) -> Name {
        let mut state = self.state.lock();
        if let Some(name) = state.names.get(text) {
            return name.clone();
        }
        let name = Name::from(text);
        if state.names.len() < self.limit {
            state.names.insert(name.clone());
        } else {
            // Names that nobody holds any more make room; one sweep per overflow keeps the bound
            // without a list of ages.
            state.names.retain(|name| Arc::strong_count(&name.0) > 1);
            if state.names.len() < self.limit {
                state.names.insert(name.clone());
            } else {
                state.overflows += 1;
            }
        }
        name
    }

    /// Names held now.
    pub fn len(&self) -> usize {
        self.state.lock().names.len()
    }

    /// Whether no name is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a name found no room.
    pub fn overflows(&self) -> u64 {
        self.state.lock().overflows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_and_the_bound_holds() {
        let table = NameTable::new(2);
        let (a, again, b) = (table.intern("a"), table.intern("a"), table.intern("b"));
        assert!(Arc::ptr_eq(&a.0, &again.0));
        assert_eq!(table.intern("c").as_str(), "c");
        assert_eq!((table.len(), table.overflows()), (2, 1));
        drop(b);
        let c = table.intern("c");
        assert_eq!((table.len(), table.overflows()), (2, 1));
        assert!(Arc::ptr_eq(&c.0, &table.intern("c").0));
    }
}
