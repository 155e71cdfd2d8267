//! Credentials that gateways refer to by name.

use std::{fmt, sync::Arc};

use crate::object::{ObjectRef, Text};

/// A certificate with its key and/or trusted roots, from a Secret. The key is redacted in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub object: ObjectRef,
    pub certificate: Option<CertificatePair>,
    /// Roots for client certificates, PEM.
    pub ca_pem: Option<Text>,
    pub crl_pem: Option<Text>,
    pub ocsp_staple: Option<Arc<[u8]>>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct CertificatePair {
    pub chain_pem: Text,
    pub key_pem: Text,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("object", &self.object)
            .field(
                "certificate",
                &self.certificate.as_ref().map(|_| "[redacted]"),
            )
            .finish_non_exhaustive()
    }
}
