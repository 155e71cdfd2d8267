//! Namespaces: each has a `default` service account; one that is deleted takes its objects along,
//! pods first.

use super::action::Action;
use crate::object;
use crate::store::Store;
use crate::store::kinds::{self, ALL, NAMESPACES, SERVICE_ACCOUNTS};
use serde_json::json;

/// What is to be done about all namespaces.
pub fn decide(store: &Store) -> Vec<Action> {
    let mut actions = Vec::new();
    for namespace in store.all(&NAMESPACES) {
        let name = object::name(&namespace);
        if !object::deleting(&namespace) {
            if store.find(&SERVICE_ACCOUNTS, name, "default").is_none() {
                actions.push(Action::Create(
                    &SERVICE_ACCOUNTS,
                    json!({"metadata": {"name": "default", "namespace": name}}),
                ));
            }
            continue;
        }
        let mut left = false;
        for kind in ALL.iter().filter(|kind| kind.namespaced()) {
            for object in store.list(kind, Some(name)).0 {
                left = true;
                if !object::deleting(&object) {
                    actions.push(Action::delete(kind, &object));
                }
            }
        }
        if !left {
            store.remove(&kinds::NAMESPACES, "", name, object::uid(&namespace));
        }
    }
    actions
}
