//! What a rule is: words for users, what it may read, and how its work is cut into units.

use ingest::{Domain, Key, Severity};
use wire_kube::kinds::Kind;

use crate::cx::Cx;

/// One rule of [`crate::RULES`].
#[derive(Debug)]
pub struct Rule {
    /// Of its file: `<kind>_<rule>`.
    pub name: &'static str,
    /// The codes that it reports, each with its severity.
    pub codes: &'static [(&'static str, Severity)],
    /// What it looks for, and what it means to users when it is found.
    pub docs: &'static str,
    /// All that its check looks at. (Debug builds refuse a look at something else.)
    pub reads: &'static [Source],
    pub units: Units,
}

/// Something that a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Objects of a kind.
    Objects(Kind),
    /// Services by host, of Kubernetes and of ServiceEntries.
    Services,
    Endpoints,
    /// The labels of workloads.
    Workloads,
}

/// How a rule's work is cut. A unit is checked again as a whole when something that it looked at
/// changes.
#[derive(Debug)]
pub enum Units {
    /// Each object of the kinds whose newest version is in force.
    Each {
        kinds: &'static [Kind],
        check: fn(&mut Cx, &Key, &Domain),
    },
    /// Objects, in force, that claim the same thing.
    Claims {
        kinds: &'static [Kind],
        /// What an object claims, each claim as a text that is equal for those who claim the same.
        claims: fn(&Key, &Domain) -> Vec<String>,
        /// Called for a claim of two or more objects, which come in order of their keys.
        check: fn(&mut Cx, &str, &[(&Key, &Domain)]),
    },
}

impl Units {
    pub fn kinds(&self) -> &'static [Kind] {
        match self {
            Self::Each { kinds, .. } | Self::Claims { kinds, .. } => kinds,
        }
    }
}
