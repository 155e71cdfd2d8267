//! What can be wrong with an identity, grouped by who is to blame.

/// Every failure of this crate. The text names the thing and what is wrong with it; it never
/// contains key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    // --- configuration
    #[error("trust domain {0:?}: {1}")]
    TrustDomain(String, &'static str),
    #[error("SPIFFE id {0:?}: {1}")]
    SpiffeId(String, &'static str),
    #[error("service account {0:?}: {1}")]
    ServiceAccount(String, &'static str),
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("private key: {0}")]
    Key(String),
    #[error("the private key does not belong to the certificate (subject {subject:?})")]
    KeyMismatch { subject: String },
    #[error("trust bundle: {0}")]
    Bundle(String),
    #[error("TLS settings: {0}")]
    Settings(String),
    #[error("server name {0:?} is neither a DNS name nor an IP address")]
    ServerName(String),

    // --- peer
    #[error("certificate signing request: {0}")]
    Request(String),
    #[error(
        "requested lifetime of {requested_seconds} s is more than the allowed {maximum_seconds} s"
    )]
    Lifetime {
        requested_seconds: u64,
        maximum_seconds: u64,
    },
    #[error("token: {0}")]
    Token(String),

    // --- operator
    #[error("certificate authority: {0}")]
    Authority(String),
    #[error(
        "the certificate authority's own certificate is not valid at this time (from {from} to {until}, seconds since 1970)"
    )]
    AuthorityExpired { from: i64, until: i64 },

    // --- crypto library
    #[error("cryptography: {0}")]
    Crypto(String),
}
