//! What is owned goes when its last owner is gone.

use std::collections::HashSet;

use super::action::Action;
use crate::object;
use crate::store::Store;
use crate::store::kinds::{ALL, EVENTS};

/// The deletions of everything whose owners are all gone.
pub fn decide(store: &Store) -> Vec<Action> {
    let kinds = ALL.iter().filter(|kind| kind.id != EVENTS.id);
    let objects: Vec<_> = kinds
        .flat_map(|kind| {
            store
                .all(kind)
                .into_iter()
                .map(move |object| (kind, object))
        })
        .collect();
    let present: HashSet<&str> = objects
        .iter()
        .map(|(_, object)| object::uid(object))
        .collect();
    let orphaned = objects.iter().filter(|(_, object)| {
        let owners = object::list(object, "/metadata/ownerReferences");
        !owners.is_empty()
            && !object::deleting(object)
            && owners
                .iter()
                .all(|owner| !present.contains(object::text(owner, "/uid")))
    });
    orphaned
        .map(|(kind, object)| Action::delete(kind, object))
        .collect()
}
