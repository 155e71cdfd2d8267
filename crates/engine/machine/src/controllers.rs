//! What makes objects of objects: Deployments their ReplicaSets, ReplicaSets their pods, Services
//! their endpoints.
//!
//! Each controller's decisions are a pure function from the objects to a list of [`Action`]s. One
//! loop runs those that have something to look at after every change (level-triggered: it looks at
//! what is, not at what happened), so a controller that misses nothing needs no memory.

pub mod action;
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
use crate::store::Store;
use crate::store::kinds;
use action::{Action, carry_out};

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
