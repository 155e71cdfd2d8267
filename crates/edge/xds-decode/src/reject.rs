//! Why a resource was refused: the text of the NACK.
//!
//! A refusal starts at the field that is wrong and collects its path on the way out, so the good
//! case pays nothing for it. [`Reject`] is what leaves the crate: resource, field, reason. One bad
//! resource never touches another.

use std::fmt;

/// One resource, or a part of one, that cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {resource}: {field}: {reason}{}{cost}", if cost.is_empty() { "" } else { "; " })]
pub struct Reject {
    /// `cluster`, `listener`, …
    pub kind: &'static str,
    /// Name of the resource; empty when not even that could be read.
    pub resource: String,
    /// Path of the field inside the resource, as `filter_chains[2].filters[0].typed_config`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What is lost where the rest of the resource is taken; empty: nothing of the resource can be
    /// used.
    pub cost: &'static str,
}

/// A refusal on its way out; knows its field, not yet its resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Innermost step first.
    steps: Vec<Step>,
    reason: String,
    cost: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Field(&'static str),
    Item(&'static str, usize),
    Key(&'static str, String),
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self {
            steps: Vec::new(),
            reason: reason.into(),
            cost: "",
        }
    }

    /// What is lost by it, when the rest of the resource is taken.
    pub(crate) fn costing(mut self, cost: &'static str) -> Self {
        self.cost = cost;
        self
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn path(&self) -> String {
        let mut field = String::new();
        for step in self.steps.iter().rev() {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(&step.to_string());
        }
        if field.is_empty() {
            field.push_str("(whole)");
        }
        field
    }

    pub(crate) fn at(field: &'static str, reason: impl Into<String>) -> Self {
        Self::new(reason).under(field)
    }

    pub(crate) fn missing(field: &'static str) -> Self {
        Self::at(field, "is required")
    }

    pub(crate) fn under(mut self, field: &'static str) -> Self {
        self.steps.push(Step::Field(field));
        self
    }

    pub(crate) fn into_reject(self, kind: &'static str, resource: &str) -> Reject {
        Reject {
            kind,
            resource: resource.to_owned(),
            field: self.path(),
            cost: self.cost,
            reason: self.reason,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path(), self.reason)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => f.write_str(name.trim_start_matches("r#")),
            Self::Item(name, index) => write!(f, "{}[{index}]", name.trim_start_matches("r#")),
            Self::Key(name, key) => write!(f, "{name}[{key}]"),
        }
    }
}

/// Adds a step to the path of a refusal.
pub(crate) trait Within<T> {
    fn within(self, field: &'static str) -> Result<T, Refusal>;
    fn within_item(self, field: &'static str, index: usize) -> Result<T, Refusal>;
    fn within_key(self, field: &'static str, key: &str) -> Result<T, Refusal>;
}

impl<T> Within<T> for Result<T, Refusal> {
    fn within(self, field: &'static str) -> Self {
        self.map_err(|refusal| refusal.under(field))
    }

    fn within_item(self, field: &'static str, index: usize) -> Self {
        self.map_err(|mut refusal| {
            refusal.steps.push(Step::Item(field, index));
            refusal
        })
    }

    fn within_key(self, field: &'static str, key: &str) -> Self {
        self.map_err(|mut refusal| {
            refusal.steps.push(Step::Key(field, key.to_owned()));
            refusal
        })
    }
}

/// Decodes every item of a list; a refusal names the item.
pub(crate) fn each<A, B, C: FromIterator<B>>(
    field: &'static str,
    items: impl IntoIterator<Item = A>,
    mut decode: impl FnMut(A) -> Result<B, Refusal>,
) -> Result<C, Refusal> {
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| decode(item).within_item(field, index))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_resource_field_and_reason() {
        let inner: Result<(), Refusal> = Err(Refusal::at("r#match", "is empty"));
        let refusal = inner
            .within_item("routes", 3)
            .within_key("typed_config", "a.b")
            .expect_err("refused");
        assert_eq!(
            refusal.into_reject("route table", "9080").to_string(),
            "route table 9080: typed_config[a.b].routes[3].match: is empty"
        );
    }
}
