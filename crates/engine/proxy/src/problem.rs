//! What a publication reports about configuration that cannot be used as it stands.

use std::sync::Arc;

/// Something in an update that cannot be used as it stands. The rest of the update is in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {problem}")]
pub struct PublishProblem {
    /// `listener`, `cluster` or `secret`.
    pub kind: &'static str,
    pub name: Arc<str>,
    pub problem: String,
}
