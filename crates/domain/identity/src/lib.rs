//! Who somebody is, and how that is proved: SPIFFE ids, keys, certificates, TLS configurations and
//! service-account tokens.
//!
//! This is the only crate that imports `rustls`. The data plane asks it for finished configurations
//! ([`tls::server_config`], [`tls::client_config`]) and for what a connection says about its peer
//! ([`ConnectionInfo`]); the control plane asks it to sign ([`CertificateAuthority`]); the
//! one-machine runtime asks it for tokens ([`jwt`]).
//!
//! Invariants: a private key is never printed and leaves its process only by an explicit call; of a
//! CSR only the public key is taken; a missing identity makes a handshake fail, never fall back to
//! plaintext; a resumed session has the identity that was verified when it was made, and no session
//! outlives a change of our own identity or trust bundle.
//!
//! It does no IO (but for [`TrustBundle::system`]) and reads no clock itself; rustls checks
//! validity against the system clock. Follows: SPIFFE-ID and X509-SVID standards, RFC 5280, RFC
//! 7519, Envoy's `transport_sockets.tls.v3`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests measure and wait in real time"
    )
)]

mod authority;
mod certificate;
mod error;
mod hello;
pub mod jwt;
mod key;
mod peer;
mod pem;
mod san;
mod spiffe;
pub mod tls;
mod workload;

pub use authority::{AuthorityPem, CertificateAuthority, DEFAULT_TTL, MAX_TTL, SigningRequest};
pub use certificate::{CertificateChain, TlsCertificate, TrustBundle};
pub use error::IdentityError;
pub use hello::{ClientHello, HelloPeek, peek_client_hello};
pub use key::{KeyAlgorithm, PrivateKey};
pub use peer::{ConnectionInfo, PeerCertificate};
pub use san::{SanKind, SanMatcher, SanPattern, SanRegex};
pub use spiffe::{ServiceAccountName, SpiffeId, TrustDomain};
pub use workload::{IdentityHandle, WorkloadIdentity};
