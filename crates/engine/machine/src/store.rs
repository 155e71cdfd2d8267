//! The objects of this machine, in memory, with Kubernetes' meaning of versions.
//!
//! One counter is the resource version of every change. A bounded history of changes serves
//! watches; who asks for what is older gets [`Refusal::Expired`] and lists again. Objects are
//! shared, never changed in place. All rules that hold for every kind are here: names, uids,
//! generations, conflicts, finalizers, graceful deletion of pods, defaults on admission
//! ([`admission`]).
//!
//! Everything is bounded: the number of objects, the size of one, the history.

pub mod admission;
pub mod kinds;
pub mod selector;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::object;
use kinds::{Kind, Scope};
use wire_kube::kinds::Kind as Id;

/// Objects of all kinds together.
const MAX_OBJECTS: usize = 50_000;
/// JSON bytes of one object, as etcd's default.
const MAX_OBJECT_BYTES: usize = 1_572_864;
/// Changes that a watch can resume over.
const MAX_HISTORY: usize = 4_096;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// It is new.
    Added,
    /// It is different.
    Modified,
    /// It is gone; the object is its last state.
    Deleted,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The resource version that the change made.
    pub version: u64,
    /// The kind of the object.
    pub kind: &'static Kind,
    /// What happened.
    pub happening: Happening,
    /// The object after it (before it, when deleted).
    pub object: Arc<Value>,
    /// The object before it.
    pub previous: Option<Arc<Value>>,
}

/// Why the store did not do what was asked; each has its HTTP status and reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 404
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `deployments.apps`
        kind: String,
        /// The object.
        name: String,
    },
    /// 409 on creation
    #[error("{kind} \"{name}\" already exists")]
    AlreadyExists {
        /// `deployments.apps`
        kind: String,
        /// The object.
        name: String,
    },
    /// 409 on update
    #[error(
        "Operation cannot be fulfilled on {kind} \"{name}\": the object has been modified; please apply your changes to the latest version and try again"
    )]
    Conflict {
        /// `deployments.apps`
        kind: String,
        /// The object.
        name: String,
    },
    /// 422
    #[error("{0}")]
    Invalid(String),
    /// 422, about one field
    #[error("{path}: {message}")]
    Field {
        /// `metadata.labels.version`
        path: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// 400
    #[error("{0}")]
    BadRequest(String),
    /// 410
    #[error("too old resource version: {0}")]
    Expired(u64),
    /// 413
    #[error("the object is larger than {MAX_OBJECT_BYTES} bytes")]
    TooLarge,
    /// 507
    #[error("more than {MAX_OBJECTS} objects")]
    Full,
    /// 403
    #[error("{0}")]
    Forbidden(String),
    /// 405
    #[error("{0}")]
    NotAllowed(String),
    /// 415
    #[error("{0}")]
    MediaType(String),
    /// 501
    #[error("{0}")]
    NotImplemented(String),
    /// 503
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// HTTP status and Kubernetes' reason.
    pub fn status(&self) -> (u16, &'static str) {
        match self {
            Refusal::NotFound { .. } => (404, "NotFound"),
            Refusal::AlreadyExists { .. } => (409, "AlreadyExists"),
            Refusal::Conflict { .. } => (409, "Conflict"),
            Refusal::Invalid(_) | Refusal::Field { .. } => (422, "Invalid"),
            Refusal::BadRequest(_) => (400, "BadRequest"),
            Refusal::Expired(_) => (410, "Expired"),
            Refusal::TooLarge => (413, "RequestEntityTooLarge"),
            Refusal::Full => (507, "InsufficientStorage"),
            Refusal::Forbidden(_) => (403, "Forbidden"),
            Refusal::NotAllowed(_) => (405, "MethodNotAllowed"),
            Refusal::MediaType(_) => (415, "UnsupportedMediaType"),
            Refusal::NotImplemented(_) => (501, "NotImplemented"),
            Refusal::Unavailable(_) => (503, "ServiceUnavailable"),
        }
    }
}

/// Which part of an object an update may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but `status`.
    Main,
    /// Only `status`.
    Status,
}

/// How an object is to be deleted.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// Seconds that a pod gets to end; its own when absent.
    pub grace_seconds: Option<i64>,
    /// Only this very object.
    pub uid: Option<String>,
    /// Leave what it owns.
    pub orphan: bool,
}

type Names = BTreeMap<(String, String), Arc<Value>>;

/// Changes a new object before it is stored (sidecar injection): the kind, the object, its
/// namespace.
pub type Mutator =
    Arc<dyn Fn(&'static Kind, &mut Value, &Value) -> Result<(), Refusal> + Send + Sync>;

/// The objects.
pub struct Store {
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
    mutator: OnceLock<Mutator>,
}

#[derive(Debug, Default, Clone)]
struct Inner {
    objects: HashMap<Id, Names>,
    count: usize,
    version: u64,
    history: VecDeque<Change>,
    addresses: admission::Addresses,
}

fn not_found(kind: &Kind, name: &str) -> Refusal {
    Refusal::NotFound {
        kind: kind.qualified(),
        name: name.into(),
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                version: 1,
                ..Inner::default()
            }),
            version: watch::channel(1).0,
            mutator: OnceLock::new(),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Store")
            .field("version", &*self.version.borrow())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Sets what changes new objects; only the first call counts.
    pub fn set_mutator(&self, mutator: Mutator) {
        let _ = self.mutator.set(mutator);
    }

    /// A copy in which something can be tried without effect; nobody watches it.
    pub fn trial(&self) -> Self {
        let inner = self.inner.lock().clone();
        Self {
            version: watch::channel(inner.version).0,
            inner: Mutex::new(inner),
            mutator: self.mutator.clone(),
        }
    }

    /// One object.
    pub fn find(&self, kind: &'static Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let inner = self.inner.lock();
        inner
            .objects
            .get(&kind.id)?
            .get(&(namespace.to_string(), name.to_string()))
            .cloned()
    }

    /// One object, or [`Refusal::NotFound`].
    pub fn read(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, Refusal> {
        self.find(kind, namespace, name)
            .ok_or_else(|| not_found(kind, name))
    }

    /// All objects of a kind, in one namespace or in all, and the version at which that was so.
    pub fn list(&self, kind: &'static Kind, namespace: Option<&str>) -> (Vec<Arc<Value>>, u64) {
        let inner = self.inner.lock();
        let all = inner.objects.get(&kind.id).into_iter().flatten();
        let wanted = all.filter(|((of, _), _)| namespace.is_none_or(|namespace| of == namespace));
        (
            wanted.map(|(_, object)| object.clone()).collect(),
            inner.version,
        )
    }

    /// All objects of a kind in all namespaces.
    pub fn all(&self, kind: &'static Kind) -> Vec<Arc<Value>> {
        self.list(kind, None).0
    }

    /// Becomes another number with every change.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The changes after a version, at most `limit`.
    ///
    /// # Errors
    /// [`Refusal::Expired`] when the history does not reach back to it.
    pub fn changes_since(&self, version: u64, limit: usize) -> Result<Vec<Change>, Refusal> {
        let inner = self.inner.lock();
        let oldest = inner
            .history
            .front()
            .map_or(inner.version + 1, |change| change.version);
        if version + 1 < oldest && version < inner.version {
            return Err(Refusal::Expired(version));
        }
        let start = inner
            .history
            .partition_point(|change| change.version <= version);
        Ok(inner.history.range(start..).take(limit).cloned().collect())
    }

    /// Adds an object.
    pub fn create(&self, kind: &'static Kind, mut object: Value) -> Result<Arc<Value>, Refusal> {
        let mut inner = self.inner.lock();
        if inner.count >= MAX_OBJECTS {
            return Err(Refusal::Full);
        }
        if object::name(&object).is_empty() {
            let prefix = object::text(&object, "/metadata/generateName").to_string();
            if prefix.is_empty() {
                return Err(Refusal::Invalid(format!(
                    "{}: name or generateName is required",
                    kind.kind
                )));
            }
            object::set_metadata(&mut object, "name", format!("{prefix}{}", random_suffix()));
        }
        let (namespace, name) = key_of(kind, &mut object);
        let home = inner.check_namespace(kind, &namespace)?;
        if inner
            .objects
            .get(&kind.id)
            .is_some_and(|names| names.contains_key(&(namespace.clone(), name.clone())))
        {
            return Err(Refusal::AlreadyExists {
                kind: kind.qualified(),
                name,
            });
        }
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.into();
        let metadata = object::entry(&mut object, "metadata");
        metadata.retain(|key, _| {
            ![
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "managedFields",
                "selfLink",
            ]
            .contains(&key.as_str())
        });
        metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".into(), object::now().into());
        metadata.insert("generation".into(), 1.into());
        admission::admit(kind, &mut object, None, &mut inner.addresses)?;
        if let (Some(mutator), Some(home)) = (self.mutator.get(), home) {
            mutator(kind, &mut object, &home)?;
        }
        check_size(&object)?;
        let object = inner.put(kind, Happening::Added, object, None);
        inner.count += 1;
        self.version.send_replace(inner.version);
        Ok(object)
    }

    /// Replaces an object; a `metadata.resourceVersion` in it must be the present one.
    pub fn update(
        &self,
        kind: &'static Kind,
        object: Value,
        part: Part,
    ) -> Result<Arc<Value>, Refusal> {
        let mut object = object;
        let (namespace, name) = key_of(kind, &mut object);
        let wanted = object::version(&object);
        self.change(kind, &namespace, &name, part, |present| {
            if wanted != 0 && wanted != object::version(present) {
                return Err(Refusal::Conflict {
                    kind: kind.qualified(),
                    name: name.clone(),
                });
            }
            Ok(object.clone())
        })
    }

    /// Computes an object's next state from its present one, with nothing in between.
    ///
    /// `status` cannot be changed through [`Part::Main`] nor anything else through [`Part::Status`].
    pub fn change(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        part: Part,
        next: impl FnOnce(&Value) -> Result<Value, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let mut inner = self.inner.lock();
        let key = (namespace.to_string(), name.to_string());
        let present = inner
            .objects
            .get(&kind.id)
            .and_then(|names| names.get(&key))
            .cloned();
        let present = present.ok_or_else(|| not_found(kind, name))?;
        let mut object = next(&present)?;
        keep_what_the_server_owns(&present, &mut object, part);
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.into();
        if part == Part::Main {
            admission::admit(kind, &mut object, Some(&present), &mut inner.addresses)?;
            let changed = object.get("spec") != present.get("spec")
                || (object.get("spec").is_none() && object != *present);
            if changed {
                let generation = object::number(&present, "/metadata/generation").unwrap_or(1);
                object::set_metadata(&mut object, "generation", generation + 1);
            }
        }
        if object == *present {
            return Ok(present);
        }
        check_size(&object)?;
        let finished = object::deleting(&object)
            && finalizers(&object).is_empty()
            && kind.plural != "pods"
            && kind.plural != "namespaces";
        let object = if finished {
            inner
                .remove(kind, &key)
                .ok_or_else(|| not_found(kind, name))?
        } else {
            inner.put(kind, Happening::Modified, object, Some(present))
        };
        self.version.send_replace(inner.version);
        Ok(object)
    }

    /// Replaces an object's `status`; does nothing when it is so already or the object is gone.
    pub fn set_status(&self, kind: &'static Kind, namespace: &str, name: &str, status: Value) {
        let result = self.change(kind, namespace, name, Part::Status, |present| {
            let mut next = present.clone();
            next["status"] = status;
            Ok(next)
        });
        if let Err(refusal) = result
            && !matches!(refusal, Refusal::NotFound { .. })
        {
            tracing::warn!(%refusal, kind = kind.kind, namespace, name, "status not written");
        }
    }

    /// Begins or completes a deletion; the object as it is then.
    ///
    /// A pod with a grace period and an object with finalizers are only marked.
    pub fn delete(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        how: &Deletion,
    ) -> Result<Arc<Value>, Refusal> {
        let mut inner = self.inner.lock();
        let key = (namespace.to_string(), name.to_string());
        let present = inner
            .objects
            .get(&kind.id)
            .and_then(|names| names.get(&key))
            .cloned();
        let present = present.ok_or_else(|| not_found(kind, name))?;
        if how
            .uid
            .as_deref()
            .is_some_and(|uid| uid != object::uid(&present))
        {
            return Err(Refusal::Conflict {
                kind: kind.qualified(),
                name: name.into(),
            });
        }
        let pod = kind.id == kinds::PODS.id;
        let grace = how
            .grace_seconds
            .or_else(|| object::number(&present, "/spec/terminationGracePeriodSeconds"))
            .unwrap_or(30)
            .max(0);
        let mut object = (*present).clone();
        if how.orphan {
            let uid = object::uid(&present).to_string();
            inner.orphan(&uid);
        }
        let marked = (pod && !object::text(&present, "/status/phase").is_empty() && grace > 0)
            || !finalizers(&present).is_empty()
            || kind.id == kinds::NAMESPACES.id;
        let result = if marked {
            let earlier = object::number(&present, "/metadata/deletionGracePeriodSeconds");
            if object::deleting(&present)
                && (!pod || earlier.is_some_and(|earlier| earlier <= grace))
            {
                return Ok(present);
            }
            object::set_metadata(&mut object, "deletionTimestamp", object::now());
            if pod {
                object::set_metadata(&mut object, "deletionGracePeriodSeconds", grace);
            }
            if kind.kind == "Namespace" {
                object::entry(&mut object, "status").insert("phase".into(), "Terminating".into());
            }
            inner.put(kind, Happening::Modified, object, Some(present))
        } else {
            inner
                .remove(kind, &key)
                .ok_or_else(|| not_found(kind, name))?
        };
        self.version.send_replace(inner.version);
        Ok(result)
    }

    /// Takes an object away, whatever it waits for; `uid` guards against taking its successor.
    pub fn remove(&self, kind: &'static Kind, namespace: &str, name: &str, uid: &str) {
        let mut inner = self.inner.lock();
        let key = (namespace.to_string(), name.to_string());
        let same = inner
            .objects
            .get(&kind.id)
            .and_then(|names| names.get(&key))
            .is_some_and(|object| object::uid(object) == uid);
        if same {
            inner.remove(kind, &key);
            self.version.send_replace(inner.version);
        }
    }
}

impl Inner {
    fn put(
        &mut self,
        kind: &'static Kind,
        happening: Happening,
        mut object: Value,
        previous: Option<Arc<Value>>,
    ) -> Arc<Value> {
        self.version += 1;
        object::set_metadata(&mut object, "resourceVersion", self.version.to_string());
        let key = (
            object::namespace(&object).to_string(),
            object::name(&object).to_string(),
        );
        let object = Arc::new(object);
        self.objects
            .entry(kind.id)
            .or_default()
            .insert(key, object.clone());
        self.remember(Change {
            version: self.version,
            kind,
            happening,
            object: object.clone(),
            previous,
        });
        object
    }

    fn remove(&mut self, kind: &'static Kind, key: &(String, String)) -> Option<Arc<Value>> {
        let previous = self.objects.get_mut(&kind.id)?.remove(key)?;
        self.count = self.count.saturating_sub(1);
        self.version += 1;
        let mut object = (*previous).clone();
        object::set_metadata(&mut object, "resourceVersion", self.version.to_string());
        self.addresses.release(kind, &object);
        let object = Arc::new(object);
        let change = Change {
            version: self.version,
            kind,
            happening: Happening::Deleted,
            object: object.clone(),
            previous: Some(previous),
        };
        self.remember(change);
        Some(object)
    }

    fn remember(&mut self, change: Change) {
        if self.history.len() >= MAX_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(change);
    }

    /// The namespace of a new object.
    fn check_namespace(
        &self,
        kind: &'static Kind,
        namespace: &str,
    ) -> Result<Option<Arc<Value>>, Refusal> {
        if kind.scope == Scope::Cluster {
            return Ok(None);
        }
        let key = (String::new(), namespace.to_string());
        match self
            .objects
            .get(&Id::Namespace)
            .and_then(|names| names.get(&key))
        {
            None => Err(not_found(&kinds::NAMESPACES, namespace)),
            Some(object) if object::deleting(object) => Err(Refusal::Forbidden(format!(
                "namespace {namespace} is being terminated"
            ))),
            Some(home) => Ok(Some(home.clone())),
        }
    }

    fn orphan(&mut self, owner: &str) {
        let owned: Vec<(&'static Kind, Arc<Value>)> = kinds::ALL
            .iter()
            .flat_map(|kind| {
                self.objects
                    .get(&kind.id)
                    .into_iter()
                    .flatten()
                    .map(move |(_, object)| (kind, object.clone()))
            })
            .filter(|(_, object)| {
                object::list(object, "/metadata/ownerReferences")
                    .iter()
                    .any(|reference| object::text(reference, "/uid") == owner)
            })
            .collect();
        for (kind, object) in owned {
            let mut next = (*object).clone();
            if let Some(Value::Array(references)) = next.pointer_mut("/metadata/ownerReferences") {
                references.retain(|reference| object::text(reference, "/uid") != owner);
            }
            self.put(kind, Happening::Modified, next, Some(object));
        }
    }
}

fn finalizers(object: &Value) -> &[Value] {
    object::list(object, "/metadata/finalizers")
}

/// Namespace and name; a namespaced object without a namespace is in `default`.
fn key_of(kind: &Kind, object: &mut Value) -> (String, String) {
    let namespace = match kind.scope {
        Scope::Cluster => {
            object::entry(object, "metadata").remove("namespace");
            String::new()
        }
        Scope::Namespaced => {
            if object::namespace(object).is_empty() {
                object::set_metadata(object, "namespace", "default");
            }
            object::namespace(object).to_string()
        }
    };
    (namespace, object::name(object).to_string())
}

fn keep_what_the_server_owns(present: &Value, next: &mut Value, part: Part) {
    if part == Part::Status {
        let status = next.get("status").cloned();
        *next = present.clone();
        match (status, next.as_object_mut()) {
            (Some(status), Some(map)) => {
                map.insert("status".into(), status);
            }
            (None, Some(map)) => {
                map.remove("status");
            }
            _ => {}
        }
        return;
    }
    match (present.get("status"), next.as_object_mut()) {
        (Some(status), Some(map)) => {
            map.insert("status".into(), status.clone());
        }
        (None, Some(map)) => {
            map.remove("status");
        }
        _ => {}
    }
    let metadata = object::entry(next, "metadata");
    metadata.remove("managedFields");
    for key in [
        "uid",
        "name",
        "namespace",
        "creationTimestamp",
        "generation",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        match present.pointer(&format!("/metadata/{key}")) {
            Some(value) => metadata.insert(key.into(), value.clone()),
            None => metadata.remove(key),
        };
    }
}

fn check_size(object: &Value) -> Result<(), Refusal> {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, object) {
        Ok(()) if counter.0 <= MAX_OBJECT_BYTES => Ok(()),
        _ => Err(Refusal::TooLarge),
    }
}

/// Five characters as Kubernetes appends to generated names: no vowels, nothing that looks like
/// another.
pub fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .filter_map(|_| {
            ALPHABET
                .get(fastrand::usize(..ALPHABET.len()))
                .map(|byte| char::from(*byte))
        })
        .collect()
}

/// A `Status` object for a refusal, as Kubernetes answers.
pub fn status_object(refusal: &Refusal) -> Value {
    let (code, reason) = refusal.status();
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": refusal.to_string(), "reason": reason, "code": code,
    });
    if let Refusal::NotFound { kind, name }
    | Refusal::AlreadyExists { kind, name }
    | Refusal::Conflict { kind, name } = refusal
    {
        let (plural, group) = kind.split_once('.').unwrap_or((kind, ""));
        status["details"] = json!({"name": name, "group": group, "kind": plural});
    }
    status
}

#[cfg(test)]
mod tests;
