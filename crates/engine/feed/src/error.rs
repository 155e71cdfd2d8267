//! What can go wrong here, by who is to blame.

use identity::IdentityError;

#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    // --- operator
    #[error("the variable {0} is not set")]
    Missing(&'static str),
    #[error("the variable {name} {why}")]
    Variable { name: String, why: &'static str },
    #[error("bootstrap: {0}")]
    Bootstrap(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{path}: {error}")]
    File { path: String, error: std::io::Error },

    // --- peer
    #[error("{server}: {error}")]
    Connect {
        server: String,
        error: std::io::Error,
    },
    #[error("{server}: {status}")]
    Call { server: String, status: String },
    #[error("the certificate service answered with {0}")]
    Certificate(String),
}
