//! Files of YAML or JSON: text in, objects out, each with the place of every field.
//!
//! Several documents a file, `kind: List`, anchors and merge keys are taken as kubectl takes them;
//! so are YAML 1.1's booleans (`on`, `yes`) and octal numbers (`0755`). JSON is read as the YAML
//! that it is. Refused with a place: duplicate keys, a document that is not an object, and whatever
//! grows beyond [`Limits`] (file size, documents, values, depth, aliases), so that no text can cost
//! more than a bounded amount of memory. Nothing of a file that does not parse is used.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde_json::Value;
use serde_saphyr::{Location, Options, Spanned};

use crate::kinds::Scope;

mod positions;
#[cfg(test)]
mod tests;
mod tree;

pub use positions::Positions;
use tree::Parsed;

/// What a file may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; a file of this size or more is refused unread.
    pub file_bytes_max: usize,
    pub documents_max: usize,
    /// Objects, lists, keys and scalars of all documents together, aliases counted each time they
    /// are used.
    pub values_max: usize,
    /// Nested objects and lists.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes_max: 10_000_000,
            documents_max: 20_000,
            values_max: 2_000_000,
            depth_max: 64,
        }
    }
}

/// Where an object was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub file: Arc<str>,
    /// First line of the object, from 1.
    pub line: u32,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One object of a file.
#[derive(Debug, Clone)]
pub struct Document {
    /// Always a JSON object.
    pub object: Value,
    pub source: Source,
    pub positions: Positions,
}

impl Document {
    /// `apiVersion` and `kind`, where both are there.
    pub fn type_meta(&self) -> Option<(&str, &str)> {
        let text = |name: &str| self.object.get(name).and_then(Value::as_str);
        Some((text("apiVersion")?, text("kind")?))
    }

    /// `file:line:column` of a field, or of the nearest thing around it that was written.
    pub fn place(&self, path: &str) -> String {
        let (line, column) = self.positions.find(path);
        format!("{}:{line}:{column}", self.source.file)
    }
}

/// Why a file could not be used. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error(
        "{file}: {bytes} bytes: a file of objects must be smaller than {limit} bytes; split it"
    )]
    FileTooLarge {
        file: Arc<str>,
        bytes: usize,
        limit: usize,
    },
    #[error("{file}:{line}:{column}: {message}")]
    Syntax {
        file: Arc<str>,
        line: u64,
        column: u64,
        message: String,
    },
    #[error(
        "{file}:{line}:{column}: a document must be an object with apiVersion, kind and metadata, but is {found}"
    )]
    NotAnObject {
        file: Arc<str>,
        line: u32,
        column: u32,
        found: &'static str,
    },
}

/// Reads the text of a file under the usual [`Limits`]. Empty documents are left out; lists are
/// taken apart.
pub fn load(file_name: &str, text: &str) -> Result<Vec<Document>, LoadError> {
    load_within(&Limits::default(), file_name, text)
}

/// As [`load`], with other limits.
pub fn load_within(
    limits: &Limits,
    file_name: &str,
    text: &str,
) -> Result<Vec<Document>, LoadError> {
    let file: Arc<str> = file_name.into();
    if text.len() >= limits.file_bytes_max {
        return Err(LoadError::FileTooLarge {
            file,
            bytes: text.len(),
            limit: limits.file_bytes_max,
        });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed: Vec<Spanned<Parsed>> =
        serde_saphyr::from_multiple_with_options(text, options(limits))
            .map_err(|error| syntax(file.clone(), limits, &error))?;
    let mut documents = Vec::with_capacity(parsed.len());
    for document in parsed {
        let (value, positions) = tree::finish(document);
        take_apart(&file, value, positions, &mut documents)?;
    }
    Ok(documents)
}

/// Two documents that are the same object: which one would hold depends on the order of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// Indexes into the documents.
    pub first: usize,
    pub again: usize,
}

/// Objects that are written more than once, perhaps in different files or versions. Documents
/// without a name are passed over.
pub fn duplicates<'d>(documents: impl IntoIterator<Item = &'d Document>) -> Vec<Duplicate> {
    let mut seen: HashMap<[&str; 4], usize> = HashMap::new();
    let mut found = Vec::new();
    for (again, document) in documents.into_iter().enumerate() {
        let field = |path: &str| document.object.pointer(path).and_then(Value::as_str);
        let (Some((api_version, kind)), Some(name)) =
            (document.type_meta(), field("/metadata/name"))
        else {
            continue;
        };
        let (group, _) = crate::kinds::split_api_version(api_version);
        let is_cluster_wide =
            crate::kinds::find(api_version, kind).is_some_and(|k| k.scope == Scope::Cluster);
        let namespace = match field("/metadata/namespace") {
            _ if is_cluster_wide => "",
            None | Some("") => "default",
            Some(namespace) => namespace,
        };
        match seen.entry([group, kind, namespace, name]) {
            Entry::Occupied(first) => found.push(Duplicate {
                first: *first.get(),
                again,
            }),
            Entry::Vacant(place) => {
                place.insert(again);
            }
        }
    }
    found
}

fn options(limits: &Limits) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: limits.documents_max,
            max_nodes: limits.values_max,
            max_events: limits.values_max.saturating_mul(2),
            max_depth: limits.depth_max,
            max_total_scalar_bytes: limits.file_bytes_max.saturating_mul(2),
            max_aliases: 5_000,
            max_anchors: 5_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 200_000,
            max_replay_stack_depth: 16,
        },
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// A document that is a list of objects becomes those objects.
fn take_apart(
    file: &Arc<str>,
    value: Value,
    positions: Positions,
    out: &mut Vec<Document>,
) -> Result<(), LoadError> {
    let (line, column) = positions.start();
    match value {
        Value::Null => Ok(()),
        Value::Object(mut object) if is_list(&object) => {
            let items = match object.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            for (index, item) in items.into_iter().enumerate() {
                take_apart(file, item, positions.below("items", index), out)?;
            }
            Ok(())
        }
        Value::Object(object) => {
            let source = Source {
                file: file.clone(),
                line,
            };
            out.push(Document {
                object: Value::Object(object),
                source,
                positions,
            });
            Ok(())
        }
        other => Err(LoadError::NotAnObject {
            file: file.clone(),
            line,
            column,
            found: describe(&other),
        }),
    }
}

fn is_list(object: &serde_json::Map<String, Value>) -> bool {
    let kind = object.get("kind").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.ends_with("List"))
        && object.get("items").is_some_and(Value::is_array)
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "plain text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The parser's error, with its place taken out of the text and put in front.
fn syntax(file: Arc<str>, limits: &Limits, error: &serde_saphyr::Error) -> LoadError {
    let error = error.without_snippet();
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let text = match error {
        serde_saphyr::Error::Budget { breach, .. } => {
            format!(
                "refused: the text grows beyond a limit ({breach:?}); at most {} values in {} documents, {} deep, are read from one file",
                limits.values_max, limits.documents_max, limits.depth_max
            )
        }
        other => in_other_words(other.to_string()),
    };
    LoadError::Syntax {
        file,
        line: location.line().max(1),
        column: location.column().max(1),
        message: without_place(&text, location),
    }
}

/// Some of the parser's messages speak to programmers.
fn in_other_words(text: String) -> String {
    if text.starts_with("alias replay limit") {
        return "refused: aliases repeat too much text; write it out, or use fewer aliases"
            .to_owned();
    }
    if text.starts_with("non-finite float") {
        return "a number must be finite: .nan and .inf have no meaning here".to_owned();
    }
    if text.starts_with("recursive references") {
        return "an alias stands inside the anchor that it refers to".to_owned();
    }
    text
}

fn without_place(text: &str, location: Location) -> String {
    let place = format!("line {}, column {}", location.line(), location.column());
    let other_place = format!("line {} column {}", location.line(), location.column());
    let first_line = text.lines().next().unwrap_or_default();
    let advice_for_programmers = ", set DuplicateKeyPolicy in Options if acceptable";
    let mut text = first_line.replace(advice_for_programmers, "");
    for place in [place, other_place] {
        for joined in [
            format!(" at {place}"),
            format!("error: {place}: "),
            format!("{place}: "),
        ] {
            text = text.replace(&joined, "");
        }
    }
    text
}
