//! A workload's own identity and the handle through which everything that speaks TLS sees its
//! renewal at once.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;

use crate::{CertificateChain, IdentityError, PrivateKey, SpiffeId, TlsCertificate, TrustBundle};

/// A key, the chain that a CA gave for it, and the roots to judge peers by.
#[derive(Debug, Clone)]
pub struct WorkloadIdentity {
    certificate: TlsCertificate,
    bundle: TrustBundle,
    id: SpiffeId,
}

/// The current [`WorkloadIdentity`], shared by every TLS configuration that uses it. Empty until
/// the first is published: handshakes fail until then.
#[derive(Debug, Clone, Default)]
pub struct IdentityHandle(Arc<Current>);

#[derive(Debug, Default)]
struct Current {
    identity: ArcSwapOption<WorkloadIdentity>,
    generation: AtomicU64,
}

impl WorkloadIdentity {
    /// Checks that the key matches the chain and that its leaf holds exactly one SPIFFE id
    /// (X509-SVID §2).
    pub fn new(
        key: PrivateKey,
        chain: CertificateChain,
        bundle: TrustBundle,
    ) -> Result<Self, IdentityError> {
        let certificate = TlsCertificate::new(key, chain)?;
        let [uri] = certificate.leaf().uri_sans.as_slice() else {
            return Err(IdentityError::Certificate(format!(
                "a workload's certificate has one URI name, this one has {}",
                certificate.leaf().uri_sans.len()
            )));
        };
        let id = SpiffeId::parse(uri)?;
        Ok(Self {
            certificate,
            bundle,
            id,
        })
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub fn certificate(&self) -> &TlsCertificate {
        &self.certificate
    }

    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }
}

impl IdentityHandle {
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that already holds an identity.
    pub fn with(identity: WorkloadIdentity) -> Self {
        let handle = Self::new();
        handle.publish(identity);
        handle
    }

    pub fn publish(&self, identity: WorkloadIdentity) {
        self.0.identity.store(Some(Arc::new(identity)));
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    pub fn load(&self) -> Option<Arc<WorkloadIdentity>> {
        self.0.identity.load_full()
    }

    /// Grows with each publish; 0 means that there is no identity yet.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }
}
