//! What a controller wants done, and what all controllers ask of a pod.

use serde_json::Value;

use crate::object;
use crate::store::kinds::Kind;
use crate::store::{Deletion, Part, Refusal, Store};

/// What a controller wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Add an object.
    Create(&'static Kind, Value),
    /// Delete an object: namespace, name, uid.
    Delete(&'static Kind, String, String, String),
    /// Replace everything but the status.
    Update(&'static Kind, Value),
    /// Replace the status.
    Status(&'static Kind, Value),
}

impl Action {
    /// The deletion of this very object.
    pub fn delete(kind: &'static Kind, object: &Value) -> Self {
        Action::Delete(
            kind,
            object::namespace(object).into(),
            object::name(object).into(),
            object::uid(object).into(),
        )
    }

    /// An object with another status; `None` when it has this one already.
    pub fn status(kind: &'static Kind, object: &Value, status: Value) -> Option<Self> {
        if object.get("status") == Some(&status) {
            return None;
        }
        let mut next = object.clone();
        next["status"] = status;
        Some(Action::Status(kind, next))
    }
}

/// Carries an action out; a conflict is settled by looking again.
pub fn carry_out(store: &Store, action: Action) {
    let described = format!("{action:.80?}");
    let result = match action {
        Action::Create(kind, object) => store.create(kind, object).map(drop),
        Action::Delete(kind, namespace, name, uid) => store
            .delete(
                kind,
                &namespace,
                &name,
                &Deletion {
                    uid: Some(uid),
                    ..Deletion::default()
                },
            )
            .map(drop),
        Action::Update(kind, object) => store.update(kind, object, Part::Main).map(drop),
        Action::Status(kind, object) => store.update(kind, object, Part::Status).map(drop),
    };
    match result {
        Ok(()) | Err(Refusal::Conflict { .. } | Refusal::NotFound { .. }) => {}
        Err(refusal) => tracing::warn!(%refusal, action = described, "a controller could not act"),
    }
}

/// A pod from a template, for its owner.
pub fn pod_of(owner: &Value, name: Name<'_>) -> Value {
    let template = owner.pointer("/spec/template").cloned().unwrap_or_default();
    let mut pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": template.get("metadata").cloned().unwrap_or_default(),
        "spec": template.get("spec").cloned().unwrap_or_default(),
    });
    object::set_metadata(&mut pod, "namespace", object::namespace(owner));
    match name {
        Name::Prefix(prefix) => {
            object::set_metadata(&mut pod, "generateName", format!("{prefix}-"))
        }
        Name::Exact(name) => object::set_metadata(&mut pod, "name", name),
    }
    object::set_metadata(
        &mut pod,
        "ownerReferences",
        vec![object::owner_reference(owner)],
    );
    pod
}

/// How a new pod is called.
#[derive(Debug, Clone, Copy)]
pub enum Name<'a> {
    /// This and a random end.
    Prefix(&'a str),
    /// Exactly this.
    Exact(&'a str),
}

/// Whether a pod's `Ready` condition holds.
pub fn ready(pod: &Value) -> bool {
    let conditions = object::list(pod, "/status/conditions");
    conditions.iter().any(|condition| {
        object::text(condition, "/type") == "Ready" && object::text(condition, "/status") == "True"
    })
}

/// Whether a pod is over.
pub fn finished(pod: &Value) -> bool {
    matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed")
}
