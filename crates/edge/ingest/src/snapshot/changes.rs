//! What a store tells those who keep results of their own up to date: which objects, hosts,
//! endpoints and workloads are others now.
//!
//! Changes gather from build to build until somebody takes them. They hold names only, each once,
//! so they never grow beyond what the store has held. Whoever has taken them looks at the snapshot
//! of the last build.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_model::Snapshot;
use mesh_model::object::Text;
use mesh_model::snapshot::ServiceKey;

use super::dirty::Dirty;
use crate::key::Key;

/// What is otherwise than when changes were last taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// The mesh configuration is another one: everything may be.
    pub everything: bool,
    /// Objects that came or went, or mean something else, or have other problems of their own.
    pub objects: BTreeSet<Key>,
    /// Hosts for which services came, changed or went.
    pub hosts: BTreeSet<Text>,
    /// Services whose endpoints came, changed or went.
    pub endpoints: BTreeSet<ServiceKey>,
    /// Namespace and name of workloads that came, changed or went.
    pub workloads: BTreeSet<(Text, Text)>,
}

impl Changes {
    /// Notes how `after` differs from the snapshot before it.
    pub(super) fn note(&mut self, before: Option<&Snapshot>, after: &Snapshot, dirty: &Dirty) {
        let Some(before) = before else {
            self.everything = true;
            return;
        };
        if !Arc::ptr_eq(&before.mesh, &after.mesh) {
            self.everything = true;
            return;
        }
        if !Arc::ptr_eq(&before.services, &after.services) {
            let hosts = before.services.keys().chain(after.services.keys());
            let others = hosts.filter(|host| {
                match (before.services.get(*host), after.services.get(*host)) {
                    (Some(a), Some(b)) => !Arc::ptr_eq(a, b),
                    _ => true,
                }
            });
            self.hosts.extend(others.cloned());
        }
        let is_other =
            |key: &ServiceKey| match (before.endpoints.get(key), after.endpoints.get(key)) {
                (Some(a), Some(b)) => !Arc::ptr_eq(a, b),
                (a, b) => a.is_some() != b.is_some(),
            };
        if dirty.everything || dirty.all_endpoints {
            let all = before.endpoints.keys().chain(after.endpoints.keys());
            let others = all.filter(|key| is_other(key));
            self.endpoints.extend(others.cloned());
        } else {
            let others = dirty.endpoints.iter().filter(|key| is_other(key));
            self.endpoints.extend(others.cloned());
        }
        if dirty.everything || dirty.all_workloads {
            let all = before.workloads.keys().chain(after.workloads.keys());
            self.workloads.extend(all.cloned());
        } else {
            let touched = dirty.workloads.iter();
            let touched = touched.map(|key| (key.namespace.clone(), key.name.clone()));
            self.workloads.extend(touched);
        }
    }
}
