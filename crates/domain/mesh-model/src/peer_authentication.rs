//! PeerAuthentication: whether a workload takes mutual TLS only (row SEC-030).

use std::sync::Arc;

use crate::object::{Meta, Selector};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    pub meta: Meta,
    /// `None`: the whole namespace (or mesh, in the root namespace).
    pub selector: Option<Selector>,
    /// `None`: inherits.
    pub mode: Option<MtlsMode>,
    /// Workload port → mode; only with a selector.
    pub port_level: Arc<[(u16, Option<MtlsMode>)]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    Disable,
    Permissive,
    Strict,
}
