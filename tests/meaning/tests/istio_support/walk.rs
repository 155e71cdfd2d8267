//! The fields that there are, by the structs that read them; and where an object has them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use wire_kube::kinds::{KINDS, Kind, Support};
use wire_kube::read::{MessageShape, Shape};
use wire_kube::shapes;

/// A field of a message: the module's last name (`virtual_service`), the message and the field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Field {
    pub module: &'static str,
    pub message: &'static str,
    pub field: String,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.module, self.message, self.field)
    }
}

/// Metadata is what every object has; it is not judged by kind.
const EVERYWHERE: &[&str] = &["ObjectMeta", "OwnerReference"];

/// A field where it stands in an object, as a JSON pointer.
pub struct Occurrence {
    pub field: Field,
    pub pointer: String,
}

/// What the objects of a kind are, and where their shape begins.
pub fn root(kind: Kind) -> Option<(&'static str, Shape)> {
    let prefix = match kind.info().group.ends_with("istio.io") {
        true => "/spec",
        false => "",
    };
    Some((prefix, shapes::of(kind)?))
}

/// Kind (or `MeshConfig`) → the fields of its messages, in order of declaration.
pub fn all_fields() -> BTreeMap<String, Vec<Field>> {
    let mut all = BTreeMap::new();
    for info in KINDS {
        let Some((_, shape)) = root(info.id) else {
            continue;
        };
        assert!(info.support == Support::Supported, "{}", info.kind);
        all.insert(info.kind.to_owned(), fields_of(shape));
    }
    all.insert("MeshConfig".to_owned(), fields_of(shapes::of_mesh()));
    all
}

fn fields_of(shape: Shape) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![shape];
    while let Some(shape) = open.pop() {
        match shape {
            Shape::Value => {}
            Shape::List(of) | Shape::Map(of) => open.push(of()),
            Shape::Message(message) => {
                if EVERYWHERE.contains(&message.name)
                    || !seen.insert((message.module, message.name))
                {
                    continue;
                }
                open.extend(message.fields.iter().rev().map(|(_, shape)| shape()));
                let own = message.fields.iter().map(|(name, _)| name.shown());
                fields.extend(
                    own.filter(|name| !is_general(name))
                        .map(|name| field(message, name)),
                );
            }
        }
    }
    fields
}

fn is_general(name: &str) -> bool {
    ["apiVersion", "kind", "metadata"].contains(&name)
}

fn field(message: MessageShape, field: String) -> Field {
    Field {
        module: message.module.rsplit("::").next().unwrap_or_default(),
        message: message.name,
        field,
    }
}

/// Every field that `value` has.
pub fn occurrences(value: &Json, prefix: &str, shape: Shape) -> Vec<Occurrence> {
    let mut found = Vec::new();
    if let Some(value) = value.pointer(prefix) {
        below(value, prefix, shape, &mut found);
    }
    found
}

fn below(value: &Json, pointer: &str, shape: Shape, found: &mut Vec<Occurrence>) {
    match (shape, value) {
        (Shape::List(of), Json::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                below(item, &format!("{pointer}/{index}"), of(), found);
            }
        }
        (Shape::Map(of), Json::Object(entries)) => {
            for (key, item) in entries {
                let key = key.replace('~', "~0").replace('/', "~1");
                below(item, &format!("{pointer}/{key}"), of(), found);
            }
        }
        (Shape::Message(message), Json::Object(entries)) => {
            if EVERYWHERE.contains(&message.name) {
                return;
            }
            for (key, item) in entries {
                let known = message.fields.iter().find(|(name, _)| name.is(key));
                let Some((name, shape)) = known.filter(|(name, _)| !is_general(&name.shown()))
                else {
                    continue;
                };
                let pointer = format!("{pointer}/{key}");
                below(item, &pointer, shape(), found);
                found.push(Occurrence {
                    field: field(message, name.shown()),
                    pointer,
                });
            }
        }
        _ => {}
    }
}

/// Message (with its module) → the fields that hold such a message. Roots have none.
pub fn parents() -> BTreeMap<(&'static str, &'static str), Vec<Field>> {
    let kinds = KINDS.iter().filter_map(|info| root(info.id));
    let mut open: Vec<Shape> = kinds.map(|(_, shape)| shape).collect();
    open.push(shapes::of_mesh());
    let mut parents: BTreeMap<_, Vec<Field>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(shape) = open.pop() {
        match shape {
            Shape::Value => {}
            Shape::List(of) | Shape::Map(of) => open.push(of()),
            Shape::Message(message) => {
                if !seen.insert((message.module, message.name)) {
                    continue;
                }
                for (name, shape) in message.fields {
                    let shape = shape();
                    open.push(shape);
                    if let Some(below) = innermost(shape) {
                        let below = field(below, String::new());
                        let above = parents.entry((below.module, below.message)).or_default();
                        above.push(field(message, name.shown()));
                    }
                }
            }
        }
    }
    parents
}

fn innermost(shape: Shape) -> Option<MessageShape> {
    match shape {
        Shape::Value => None,
        Shape::List(of) | Shape::Map(of) => innermost(of()),
        Shape::Message(message) => Some(message),
    }
}
