//! The path of a field inside an object, as messages show it:
//! `spec.http[0].match[1].headers["x.y"].exact`.
//!
//! A name that holds anything but letters, digits, `_` and `-` is written in brackets and quotes,
//! so that a path can be taken apart again. [`split`] does that and never fails: a part that is not
//! well formed becomes a name.

use std::fmt::Write;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A field or map entry by name.
    Name(String),
    /// An entry of a list, from 0.
    Index(usize),
}

/// A path while an object is being walked.
#[derive(Debug, Default, Clone)]
pub struct FieldPath {
    text: String,
    marks: Vec<usize>,
}

impl FieldPath {
    /// Goes down into a field; every call is paired with one of [`FieldPath::leave`].
    pub fn enter_name(&mut self, name: &str) {
        self.marks.push(self.text.len());
        push_name(&mut self.text, name);
    }

    /// Goes down into an entry of a list.
    pub fn enter_index(&mut self, index: usize) {
        self.marks.push(self.text.len());
        push_index(&mut self.text, index);
    }

    /// Goes back up one step.
    pub fn leave(&mut self) {
        if let Some(mark) = self.marks.pop() {
            self.text.truncate(mark);
        }
    }

    /// The path so far; empty at the object itself.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Appends a field name to a path.
pub fn push_name(path: &mut String, name: &str) {
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
    } else {
        path.push_str("[\"");
        for c in name.chars() {
            if matches!(c, '"' | '\\') {
                path.push('\\');
            }
            path.push(c);
        }
        path.push_str("\"]");
    }
}

/// Appends a list index to a path.
pub fn push_index(path: &mut String, index: usize) {
    // Writing to a String cannot fail.
    let _ = write!(path, "[{index}]");
}

/// Takes a path apart.
pub fn split(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (name, after) = quoted_name(quoted);
            steps.push(Step::Name(name));
            rest = after;
        } else if let Some(bracket) = rest.strip_prefix('[') {
            let (inside, after) = bracket.split_once(']').unwrap_or((bracket, ""));
            steps.push(match inside.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => Step::Name(inside.to_owned()),
            });
            rest = after;
        } else {
            let rest_of_name = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest_of_name.find(['.', '[']).unwrap_or(rest_of_name.len());
            let (name, after) = rest_of_name.split_at(end);
            if !name.is_empty() {
                steps.push(Step::Name(name.to_owned()));
            }
            rest = after;
        }
    }
    steps
}

fn quoted_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '"' => {
                let after = text.get(at + 1..).unwrap_or_default();
                return (name, after.strip_prefix(']').unwrap_or(after));
            }
            other => name.push(other),
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_comes_apart_as_it_was_put_together() {
        let mut path = FieldPath::default();
        path.enter_name("metadata");
        path.enter_name("annotations");
        path.enter_name("istio.io/dry-run \"x\"");
        path.enter_index(3);
        path.enter_name("tail");
        assert_eq!(
            path.as_str(),
            r#"metadata.annotations["istio.io/dry-run \"x\""][3].tail"#
        );
        assert_eq!(
            split(path.as_str()),
            vec![
                Step::Name("metadata".into()),
                Step::Name("annotations".into()),
                Step::Name("istio.io/dry-run \"x\"".into()),
                Step::Index(3),
                Step::Name("tail".into()),
            ]
        );
        path.leave();
        path.leave();
        path.leave();
        assert_eq!(path.as_str(), "metadata.annotations");
    }

    #[test]
    fn broken_paths_end() {
        for path in ["[", "[\"", "a..b", "[x", "a[\"q\\", "]"] {
            assert!(split(path).len() <= 2, "{path}");
        }
    }
}
