//! Versions, ciphers and curves: from Envoy's (BoringSSL's) names to what rustls has.

use std::sync::Arc;

use rustls::{
    CipherSuite, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs::kx_group},
    version::{TLS12, TLS13},
};

use super::provider::provider;
use crate::IdentityError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// Parameters of the handshake. The default is TLS 1.2 to 1.3 with every supported cipher and
/// curve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    pub minimum: TlsVersion,
    pub maximum: TlsVersion,
    /// For TLS 1.2; those of TLS 1.3 cannot be chosen (as in Envoy).
    pub ciphers: CipherSuites,
    pub curves: Curves,
}

/// Which TLS 1.2 ciphers are offered. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CipherSuites(Vec<&'static str>);

/// Which key-exchange groups are offered. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Curves(Vec<&'static str>);

const CIPHERS: [(&str, CipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

const CURVES: [&str; 4] = ["X25519MLKEM768", "X25519", "P-256", "P-384"];

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            minimum: TlsVersion::V1_2,
            maximum: TlsVersion::V1_3,
            ciphers: CipherSuites::default(),
            curves: Curves::default(),
        }
    }
}

impl CipherSuites {
    /// Reads Envoy's list, in which `[A|B]` are ciphers of equal preference. Answers the names that
    /// are not supported here too (those without forward secrecy, CBC), for the caller to report.
    /// Fails when names were given and none is supported.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<(Self, Vec<String>), IdentityError> {
        let mut known = Vec::new();
        let mut unknown = Vec::new();
        let flat = names
            .iter()
            .flat_map(|n| n.as_ref().trim_matches(['[', ']']).split('|'));
        for name in flat.map(str::trim).filter(|n| !n.is_empty()) {
            // BoringSSL has two spellings of the ChaCha20 suites.
            let short = name
                .strip_suffix("-SHA256")
                .filter(|n| n.ends_with("POLY1305"))
                .unwrap_or(name);
            match CIPHERS.iter().find(|(openssl, _)| *openssl == short) {
                Some((openssl, _)) if !known.contains(openssl) => known.push(*openssl),
                Some(_) => {}
                None => unknown.push(name.to_owned()),
            }
        }
        if known.is_empty() && !unknown.is_empty() {
            return Err(IdentityError::Settings(format!(
                "none of the ciphers is supported: {}",
                unknown.join(", ")
            )));
        }
        Ok((Self(known), unknown))
    }
}

impl Curves {
    /// As [`CipherSuites::parse`], for `ecdh_curves`.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<(Self, Vec<String>), IdentityError> {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for name in names.iter().map(AsRef::as_ref) {
            let same = match name {
                "prime256v1" | "secp256r1" => "P-256",
                "secp384r1" => "P-384",
                other => other,
            };
            match CURVES.iter().find(|c| **c == same) {
                Some(curve) => known.push(*curve),
                None => unknown.push(name.to_owned()),
            }
        }
        if known.is_empty() && !unknown.is_empty() {
            return Err(IdentityError::Settings(format!(
                "none of the curves is supported: {}",
                unknown.join(", ")
            )));
        }
        Ok((Self(known), unknown))
    }
}

impl TlsSettings {
    pub(super) fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, IdentityError> {
        match (self.minimum, self.maximum) {
            (TlsVersion::V1_2, TlsVersion::V1_2) => Ok(vec![&TLS12]),
            (TlsVersion::V1_2, TlsVersion::V1_3) => Ok(vec![&TLS13, &TLS12]),
            (TlsVersion::V1_3, TlsVersion::V1_3) => Ok(vec![&TLS13]),
            (TlsVersion::V1_3, TlsVersion::V1_2) => Err(IdentityError::Settings(
                "the lowest TLS version is above the highest".into(),
            )),
        }
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        if self.ciphers.0.is_empty() && self.curves.0.is_empty() {
            return provider().clone();
        }
        let mut own = CryptoProvider::clone(provider());
        if !self.ciphers.0.is_empty() {
            let chosen: Vec<SupportedCipherSuite> = self
                .ciphers
                .0
                .iter()
                .filter_map(|name| tls12_suite(name))
                .collect();
            own.cipher_suites
                .retain(|s| matches!(s, SupportedCipherSuite::Tls13(_)));
            own.cipher_suites.extend(chosen);
        }
        if !self.curves.0.is_empty() {
            own.kx_groups = self.curves.0.iter().map(|name| group(name)).collect();
        }
        Arc::new(own)
    }
}

fn tls12_suite(name: &str) -> Option<SupportedCipherSuite> {
    let (_, wanted) = CIPHERS.iter().find(|(openssl, _)| *openssl == name)?;
    provider()
        .cipher_suites
        .iter()
        .copied()
        .find(|s| s.suite() == *wanted)
}

fn group(name: &str) -> &'static dyn SupportedKxGroup {
    match name {
        "X25519MLKEM768" => kx_group::X25519MLKEM768,
        "P-256" => kx_group::SECP256R1,
        "P-384" => kx_group::SECP384R1,
        _ => kx_group::X25519,
    }
}

/// OpenSSL's name of a negotiated cipher.
pub(crate) fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => CIPHERS
            .iter()
            .find(|(_, s)| *s == other)
            .map_or("", |(openssl, _)| openssl),
    }
}
