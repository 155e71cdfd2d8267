//! What makes objects of objects: Deployments their ReplicaSets, ReplicaSets their pods, Services their endpoints.
//!
//! Each controller's decisions are a pure function from the objects to a list of [`Action`]s. One loop runs those that have
//! something to look at after every change (level-triggered: it looks at what is, not at what happened), so a controller that
//! misses nothing needs no memory.

pub mod deployment;
pub mod endpoints;
pub mod garbage;
pub mod job;
pub mod namespace;
pub mod rehearse;
pub mod replica_set;
pub mod stateful_set;

use std::sync::Arc;

use serde_json::Value;

use crate::object;
use crate::store::kinds::{self, Kind};
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

/// Runs all controllers until the store is gone.
pub async fn run(store: Arc<Store>) {
    let mut version = store.version();
    loop {
        version.mark_unchanged();
        for action in decide(&store) {
            carry_out(&store, action);
        }
        if version.changed().await.is_err() {
            return;
        }
    }
}

/// What all controllers want done now.
fn decide(store: &Store) -> Vec<Action> {
    let mut actions = namespace::decide(store);
    let pods = store.all(&kinds::PODS);
    let replica_sets = store.all(&kinds::REPLICA_SETS);
    for deployment in store.all(&kinds::DEPLOYMENTS) {
        let own: Vec<&Value> = replica_sets
            .iter()
            .map(|set| &**set)
            .filter(|set| object::controlled_by(set, &deployment))
            .collect();
        actions.extend(deployment::decide(&deployment, &own));
    }
    let own_pods = |owner: &Value| -> Vec<&Value> {
        pods.iter()
            .map(|pod| &**pod)
            .filter(|pod| object::controlled_by(pod, owner))
            .collect()
    };
    for set in &replica_sets {
        actions.extend(replica_set::decide(
            &kinds::REPLICA_SETS,
            set,
            &own_pods(set),
        ));
    }
    for set in store.all(&kinds::DAEMON_SETS) {
        actions.extend(replica_set::decide_daemon(&set, &own_pods(&set)));
    }
    for set in store.all(&kinds::STATEFUL_SETS) {
        actions.extend(stateful_set::decide(&set, &own_pods(&set)));
    }
    for job in store.all(&kinds::JOBS) {
        actions.extend(job::decide(&job, &own_pods(&job)));
    }
    actions.extend(endpoints::decide(store, &pods));
    actions.extend(garbage::decide(store));
    actions
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
