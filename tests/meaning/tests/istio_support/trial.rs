//! Leaves each field out where an object has it, and looks what is otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use ingest::{Problem, Severity, code};
use serde_json::Value as Json;
use wire_envoy::Descriptors;
use wire_kube::shapes;

use crate::sent::{Asked, Sent, asked, sent};
use crate::walk::{Field, Occurrence, occurrences, parents, root};
use crate::world::{World, store, worlds};

/// The best that was found out about a field, from worst to best.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// No object has it.
    Unmentioned,
    /// Without it nothing is otherwise.
    Nothing,
    /// Without it the object means something else, but no proxy is sent something else.
    Read,
    /// Without it the object is refused with these words; without what it is needed for, a proxy
    /// is sent something else: the file that shows it.
    Needed(String, Option<String>),
    /// It is refused, or has no effect, with these words.
    Unsupported(String),
    /// Without it a proxy is sent something else: the file that shows it.
    Sent(String),
}

/// How often a field is tried that makes no difference.
const TRIES: usize = 60;

struct Trial {
    outcomes: BTreeMap<Field, (Outcome, usize)>,
}

pub fn outcomes(fields: &BTreeMap<String, Vec<Field>>) -> BTreeMap<Field, Outcome> {
    let all = fields.values().flatten();
    let mut trial = Trial {
        outcomes: all
            .map(|field| (field.clone(), (Outcome::Unmentioned, 0)))
            .collect(),
    };
    let descriptors = Descriptors::load().expect("built-in");
    for mut world in worlds(&descriptors) {
        let snapshot = world.snapshot();
        let clients = world.clients.clone();
        let before: Vec<(Asked, Sent)> = clients
            .iter()
            .map(|client| {
                let asked = asked(&descriptors, &snapshot, client);
                let sent = sent(&snapshot, client, &asked);
                (asked, sent)
            })
            .collect();
        trial.objects(&mut world, &before);
        trial.mesh(&mut world, &before);
    }
    let outcomes = trial.outcomes.into_iter();
    let mut outcomes = outcomes
        .map(|(field, (outcome, _))| (field, outcome))
        .collect();
    spread(&mut outcomes);
    outcomes
}

/// A message that stands only below fields that are not supported is not supported as a whole.
fn spread(outcomes: &mut BTreeMap<Field, Outcome>) {
    let parents = parents();
    loop {
        let is_lost = |field: &Field| {
            let above = parents.get(&(field.module, field.message));
            above.is_some_and(|above| {
                above
                    .iter()
                    .all(|f| matches!(outcomes.get(f), Some(Outcome::Unsupported(_))))
            })
        };
        let lost: Vec<Field> = outcomes
            .iter()
            .filter(|(_, outcome)| **outcome < Outcome::Unsupported(String::new()))
            .map(|(field, _)| field.clone())
            .filter(is_lost)
            .collect();
        if lost.is_empty() {
            return;
        }
        for field in lost {
            let words = "part of a message that is not supported".to_owned();
            outcomes.insert(field, Outcome::Unsupported(words));
        }
    }
}

impl Trial {
    /// Is there something to find out yet?
    fn wants(&self, field: &Field) -> bool {
        match self.outcomes.get(field) {
            Some((Outcome::Sent(_) | Outcome::Unsupported(_), _)) | None => false,
            Some((_, tries)) => *tries < TRIES,
        }
    }

    fn found(&mut self, field: &Field, outcome: Outcome) {
        if let Some((best, tries)) = self.outcomes.get_mut(field) {
            *tries += 1;
            if outcome > *best {
                *best = outcome;
            }
        }
    }

    fn objects(&mut self, world: &mut World, before: &[(Asked, Sent)]) {
        for (key, object) in world.objects.clone() {
            let Some((prefix, shape)) = root(key.kind) else {
                continue;
            };
            let said: Vec<Problem> = world.store.problems_of(&key).to_vec();
            for Occurrence { field, pointer } in occurrences(&object, prefix, shape) {
                if !self.wants(&field) {
                    continue;
                }
                if let Some(words) = unsupported(&said, &pointer) {
                    self.found(&field, Outcome::Unsupported(words));
                    continue;
                }
                let outcome = leave_out(world, before, &object, &pointer, &said);
                self.found(&field, outcome);
                world.store.apply(object.clone());
            }
        }
        world.store.build();
    }

    fn mesh(&mut self, world: &mut World, before: &[(Asked, Sent)]) {
        let mesh = world.mesh.clone();
        let (parsed, said) = ingest::parse_mesh(&mesh);
        for Occurrence { field, pointer } in occurrences(&mesh, "", shapes::of_mesh()) {
            if !self.wants(&field) {
                continue;
            }
            if let Some(words) = unsupported(&said, &pointer) {
                self.found(&field, Outcome::Unsupported(words));
                continue;
            }
            let other = without(&mesh, &pointer);
            let (meaning, problems) = ingest::parse_mesh(&other);
            let refusal = problems.iter().find(|p| p.severity == Severity::Error);
            let outcome = match refusal {
                Some(problem) => Outcome::Needed(problem.message.clone(), None),
                None if meaning == parsed => Outcome::Nothing,
                None => {
                    let mut store = store(&other);
                    for (_, object) in &world.objects {
                        store.apply(object.clone());
                    }
                    std::mem::swap(&mut store, &mut world.store);
                    let outcome = changed(world, before);
                    std::mem::swap(&mut store, &mut world.store);
                    outcome
                }
            };
            self.found(&field, outcome);
        }
    }
}

/// Where the object is refused without the field, the message around it is left out, and so on,
/// until the object is left out as a whole.
fn leave_out(
    world: &mut World,
    before: &[(Asked, Sent)],
    object: &Arc<Json>,
    pointer: &str,
    said: &[Problem],
) -> Outcome {
    let mut words: Option<String> = None;
    let mut pointer = pointer.to_owned();
    while pointer.matches('/').count() > 1 {
        let applied = world.store.apply(Arc::new(without(object, &pointer)));
        let refusal = applied
            .problems
            .iter()
            .find(|p| p.severity == Severity::Error && !said.contains(p));
        match (refusal, words) {
            (Some(problem), known) => words = Some(known.unwrap_or(problem.message.clone())),
            (None, None) if !applied.changed => return Outcome::Nothing,
            (None, None) => return changed(world, before),
            (None, Some(words)) => return needed(words, changed(world, before)),
        }
        pointer.truncate(pointer.rfind('/').unwrap_or(0));
    }
    if let Ok(key) = ingest::Key::of(object) {
        world.store.delete(&key);
    }
    needed(words.unwrap_or_default(), changed(world, before))
}

fn needed(words: String, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Sent(file) => Outcome::Needed(words, Some(file)),
        _ => Outcome::Needed(words, None),
    }
}

/// Is some client sent something else now?
fn changed(world: &mut World, before: &[(Asked, Sent)]) -> Outcome {
    let snapshot = world.snapshot();
    let differs = world
        .clients
        .iter()
        .zip(before)
        .any(|(client, (asked, before))| sent(&snapshot, client, asked).differs(before));
    match differs {
        true => Outcome::Sent(world.name.clone()),
        false => Outcome::Read,
    }
}

/// What is said of the field at this pointer, or of one above it, if that is not supported.
fn unsupported(said: &[Problem], pointer: &str) -> Option<String> {
    let path = path_of(pointer);
    let is_below = |of: &str| {
        let rest = path.strip_prefix(of);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let is_it = |problem: &&Problem| {
        is_below(&problem.path)
            && (problem.code == code::UNSUPPORTED_FIELD
                || problem.message.contains("not supported"))
    };
    said.iter()
        .find(is_it)
        .map(|problem| problem.message.clone())
}

/// `/spec/http/0/match` → `spec.http[0].match`.
fn path_of(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.bytes().all(|b| b.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            let dot = if path.is_empty() { "" } else { "." };
            path.push_str(&format!("{dot}{part}"));
        }
    }
    path
}

fn without(object: &Json, pointer: &str) -> Json {
    let mut object = object.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("below the root");
    let parent = object.pointer_mut(parent).expect("it was there");
    match parent {
        Json::Object(fields) => drop(fields.remove(&key.replace("~1", "/").replace("~0", "~"))),
        Json::Array(items) => drop(items.remove(key.parse().expect("an index"))),
        _ => {}
    }
    object
}
