//! Which statuses have to be written: the snapshot writer's side.
//!
//! [`Reporter`] sees every object as it comes from the API and of which of them something changed.
//! What differs from what an object says is left with the status writer as a [`Wish`], one for each
//! object, the newest. So there are never more wishes than objects, and none is lost.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ingest::{Key, Problem};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::{Addresses, ObjectStatus, generation, says_something};

/// A status to write, and what it is about.
#[derive(Debug, Clone)]
pub struct Wish {
    pub status: ObjectStatus,
    /// The object that was looked at.
    pub object: Arc<Value>,
}

/// Wishes on their way to the status writer.
#[derive(Default)]
pub struct Wishes {
    waiting: Mutex<HashMap<Key, Wish>>,
    came: Notify,
}

impl Wishes {
    /// Takes the place of an older wish for the same object.
    pub fn put(&self, key: Key, wish: Wish) {
        self.waiting.lock().insert(key, wish);
        self.came.notify_one();
    }

    /// Everything that waits; waits for something.
    pub async fn take(&self) -> HashMap<Key, Wish> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.came.notified().await;
        }
    }
}

/// What was wished for last, and the version of the object with which it was compared.
#[derive(PartialEq)]
struct Wished {
    status: ObjectStatus,
    version: String,
}

/// Remembers what objects say and what was wished for.
pub struct Reporter {
    wishes: Arc<Wishes>,
    /// Objects that may say something else than what is known of them.
    due: BTreeSet<Key>,
    /// Objects whose status holds something of ours.
    speaking: BTreeSet<Key>,
    addresses: HashMap<Key, Addresses>,
    wished: HashMap<Key, Wished>,
}

impl Reporter {
    pub fn new(wishes: Arc<Wishes>) -> Self {
        Self {
            wishes,
            due: BTreeSet::new(),
            speaking: BTreeSet::new(),
            addresses: HashMap::new(),
            wished: HashMap::new(),
        }
    }

    /// Sees an object as the API has it. What an earlier run wrote into its status counts as ours.
    pub fn found(&mut self, key: &Key, object: &Value) {
        let speaks = says_something(object);
        match speaks {
            true => drop(self.speaking.insert(key.clone())),
            false => drop(self.speaking.remove(key)),
        }
        // Its generation may be another one, or somebody may have overwritten what we said.
        if speaks || self.wished.contains_key(key) {
            self.due.insert(key.clone());
        }
    }

    /// What is known of these objects may have changed, or they are gone.
    pub fn changed(&mut self, keys: impl Iterator<Item = Key>) {
        self.due.extend(keys);
    }

    /// `current` holds every ServiceEntry that was given addresses.
    pub fn addresses_changed(&mut self, current: HashMap<Key, Addresses>) {
        let before = std::mem::replace(&mut self.addresses, current);
        let either = before.keys().chain(self.addresses.keys());
        let differ = either.filter(|key| before.get(*key) != self.addresses.get(*key));
        self.due.extend(differ.cloned());
    }

    /// Compares every object that is due. `look` gives an object as it was seen last and all its
    /// problems, or `None` when it is gone.
    pub fn report(&mut self, look: impl Fn(&Key) -> Option<(Arc<Value>, Vec<Problem>)>) {
        for key in std::mem::take(&mut self.due) {
            // Kubernetes' own kinds have a status that is not ours to write.
            if !key.kind.info().group.ends_with("istio.io") {
                continue;
            }
            let Some((object, problems)) = look(&key) else {
                self.speaking.remove(&key);
                self.wished.remove(&key);
                continue;
            };
            let addresses = self.addresses.get(&key).cloned().unwrap_or_default();
            let status = ObjectStatus {
                problems,
                addresses,
            };
            self.wish(key, status, object);
        }
    }

    fn wish(&mut self, key: Key, status: ObjectStatus, object: Arc<Value>) {
        let version = object.pointer("/metadata/resourceVersion");
        let version = version.and_then(Value::as_str).unwrap_or_default();
        let wished = Wished {
            status,
            version: version.to_owned(),
        };
        let before = self.wished.get(&key);
        if before == Some(&wished) {
            return;
        }
        let told = before.map_or(&[][..], |before| &before.status.problems);
        if told != wished.status.problems {
            tell(&key, &wished.status.problems);
        }
        // The time is written by the writer; here only the difference counts.
        if wished.status.body(&object, "").is_some() {
            let status = wished.status.clone();
            self.wishes.put(key.clone(), Wish { status, object });
        }
        match wished.status == ObjectStatus::default() && !self.speaking.contains(&key) {
            true => drop(self.wished.remove(&key)),
            false => drop(self.wished.insert(key, wished)),
        }
    }
}

fn tell(key: &Key, problems: &[Problem]) {
    for problem in problems {
        tracing::warn!(object = %named(key), "{problem}");
    }
}

/// `VirtualService default/reviews`.
pub fn named(key: &Key) -> String {
    format!("{} {}/{}", key.kind, key.namespace, key.name)
}

impl Wish {
    /// Whether the wish is about this state of the object: what is wrong with one generation says
    /// nothing of the next.
    pub fn is_about(&self, object: &Value) -> bool {
        generation(&self.object) == generation(object)
    }
}
