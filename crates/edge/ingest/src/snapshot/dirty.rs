//! What a build must put together again, because a change touched it.

use std::collections::BTreeSet;

use mesh_model::object::Text;
use mesh_model::snapshot::ServiceKey;
use wire_kube::kinds::Kind;

use crate::key::Key;

/// What must be put together again.
#[derive(Default)]
pub(super) struct Dirty {
    pub everything: bool,
    pub namespaces: BTreeSet<(Kind, Text)>,
    pub services: bool,
    pub workloads: BTreeSet<Key>,
    pub all_workloads: bool,
    pub endpoints: BTreeSet<ServiceKey>,
    pub all_endpoints: bool,
}

impl Dirty {
    pub fn has_kind(&self, kind: Kind) -> bool {
        self.everything || self.namespaces.iter().any(|(k, _)| *k == kind)
    }

    pub fn is_clean(&self) -> bool {
        !self.everything && self.namespaces.is_empty()
    }
}
