//! Secrets (`envoy.extensions.transport_sockets.tls.v3.Secret`). Private keys are redacted in
//! `Debug`.

use std::{fmt, sync::Arc};

use crate::SecretName;

#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    pub name: SecretName,
    pub value: SecretValue,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SecretValue {
    Certificate(Arc<Certificate>),
    /// Trusted roots, PEM, and optionally a revocation list, PEM.
    Roots {
        pem: Arc<str>,
        crl_pem: Option<Arc<str>>,
    },
}

/// A certificate chain with its key, both PEM.
#[derive(Clone, PartialEq)]
pub struct Certificate {
    pub chain_pem: Arc<str>,
    pub key_pem: Arc<str>,
    pub ocsp_staple: Option<Arc<[u8]>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain_pem", &self.chain_pem)
            .field("key_pem", &"[redacted]")
            .finish()
    }
}
