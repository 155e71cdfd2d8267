//! TLS contexts (`envoy.extensions.transport_sockets.tls.v3`); `identity` turns them into live
//! configurations.

use std::sync::Arc;

use crate::{SecretName, matcher::StringMatcher, secret::Certificate};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Fields of `CommonTlsContext` that both sides share.
#[derive(Debug, Clone, PartialEq)]
pub struct CommonTls {
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// Envoy/BoringSSL names; empty: defaults. Names that do not exist in TLS 1.2 of our library
    /// were reported by the decoder.
    pub cipher_suites: Arc<[Arc<str>]>,
    /// In order of preference.
    pub alpn: Arc<[Arc<str>]>,
    /// Own certificates; several for RSA + ECDSA. Empty on a client: none is presented.
    pub certificates: Arc<[CertificateSource]>,
    pub validation: Option<Validation>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CertificateSource {
    Secret(SecretName),
    Inline(Arc<Certificate>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    pub roots: Roots,
    /// One must match one SAN of the peer; empty: any name of a trusted chain.
    pub subject_alt_names: Arc<[SanMatcher]>,
    pub trust_chain: TrustChain,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Roots {
    Secret(SecretName),
    InlinePem(Arc<str>),
    /// The machine's own store.
    System,
    /// No chain verification asked for.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustChain {
    Verify,
    /// `ACCEPT_UNTRUSTED`.
    AcceptUntrusted,
}

/// Matches a SAN of the given kind. `Any` is Istio's deprecated `match_subject_alt_names`, which
/// looks at every kind.
#[derive(Debug, Clone, PartialEq)]
pub struct SanMatcher {
    pub kind: SanKind,
    pub matcher: StringMatcher,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    Any,
    Uri,
    Dns,
    Email,
    IpAddress,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTls {
    pub common: CommonTls,
    pub require_client_certificate: bool,
    /// Answer only clients whose SNI matches a certificate; default off.
    pub require_sni: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    pub common: CommonTls,
    pub sni: Option<Arc<str>>,
    /// The SNI is the request's Host.
    pub auto_sni: bool,
    /// The SNI must be among the peer's DNS SANs.
    pub auto_san_validation: bool,
    pub max_session_keys: Option<u32>,
}
