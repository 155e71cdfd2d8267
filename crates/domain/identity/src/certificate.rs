//! Certificates as they are held: a chain, a set of roots, and a chain with the key that belongs to
//! it.

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::{RootCertStore, crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{IdentityError, PeerCertificate, PrivateKey, pem::encode};

/// One or more certificates, the leaf first.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateChain(Arc<[CertificateDer<'static>]>);

/// The roots that a peer's chain may end in. Several at once while a root is rotated or meshes
/// trust each other.
#[derive(Clone)]
pub struct TrustBundle(Arc<Bundle>);

struct Bundle {
    certificates: Vec<CertificateDer<'static>>,
    store: RootCertStore,
}

/// A chain and its key, checked to belong together: what a server or client presents.
#[derive(Clone)]
pub struct TlsCertificate {
    key: Arc<PrivateKey>,
    chain: CertificateChain,
    leaf: Arc<PeerCertificate>,
    certified: Arc<CertifiedKey>,
}

impl CertificateChain {
    /// Every `CERTIFICATE` block of a PEM text, in its order. The first must be a well-formed X.509
    /// certificate.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        Self::from_der(certificates(text).map_err(IdentityError::Certificate)?)
    }

    /// From PEM blocks, one text per certificate (as a CSR service answers).
    pub fn from_pem_blocks<S: AsRef<str>>(blocks: &[S]) -> Result<Self, IdentityError> {
        let mut all = Vec::with_capacity(blocks.len());
        for block in blocks {
            all.extend(certificates(block.as_ref()).map_err(IdentityError::Certificate)?);
        }
        Self::from_der(all)
    }

    pub(crate) fn from_der(chain: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        let Some(leaf) = chain.first() else {
            return Err(IdentityError::Certificate(
                "no PEM block with a certificate".into(),
            ));
        };
        PeerCertificate::parse(leaf)?;
        Ok(Self(chain.into()))
    }

    pub fn to_pem(&self) -> String {
        self.to_pem_blocks().concat()
    }

    /// One PEM text per certificate, leaf first.
    pub fn to_pem_blocks(&self) -> Vec<String> {
        self.0.iter().map(|c| encode("CERTIFICATE", c)).collect()
    }

    /// Facts about the leaf.
    pub fn leaf(&self) -> Result<PeerCertificate, IdentityError> {
        match self.0.first() {
            Some(leaf) => PeerCertificate::parse(leaf),
            None => Err(IdentityError::Certificate("empty chain".into())),
        }
    }

    /// The last certificate alone: the root, in the chains that a CSR service answers with.
    pub fn last(&self) -> CertificateChain {
        Self(self.0.last().cloned().into_iter().collect())
    }

    /// The chain without a self-signed last certificate, as it is presented in a handshake.
    pub fn without_root(&self) -> CertificateChain {
        let is_root = |der: &CertificateDer<'_>| {
            x509_parser::parse_x509_certificate(der).is_ok_and(|(_, c)| c.subject() == c.issuer())
        };
        match self.0.split_last() {
            Some((last, rest)) if !rest.is_empty() && is_root(last) => Self(rest.into()),
            _ => self.clone(),
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn der(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl TrustBundle {
    /// Every certificate of a PEM text is a root. At least one, each usable as a trust anchor.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        Self::from_der(certificates(text).map_err(IdentityError::Bundle)?)
    }

    pub(crate) fn from_der(
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        if certificates.is_empty() {
            return Err(IdentityError::Bundle(
                "no PEM block with a certificate".into(),
            ));
        }
        let mut store = RootCertStore::empty();
        for (at, root) in certificates.iter().enumerate() {
            store.add(root.clone()).map_err(|e| {
                IdentityError::Bundle(format!("certificate {} is no trust anchor: {e}", at + 1))
            })?;
        }
        Ok(Self(Arc::new(Bundle {
            certificates,
            store,
        })))
    }

    /// Is this certificate, byte for byte, one of the roots?
    pub(crate) fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.0.certificates.iter().any(|root| root == certificate)
    }

    /// The roots that the operating system trusts. Reads files: call it once, at start.
    pub fn system() -> Result<Self, IdentityError> {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let why = found
                .errors
                .first()
                .map_or("none are installed".into(), ToString::to_string);
            return Err(IdentityError::Bundle(format!("the system's roots: {why}")));
        }
        let mut store = RootCertStore::empty();
        let (_, refused) = store.add_parsable_certificates(found.certs.iter().cloned());
        if refused > 0 {
            tracing::debug!(
                refused,
                "some of the system's root certificates cannot be used"
            );
        }
        Ok(Self(Arc::new(Bundle {
            certificates: found.certs,
            store,
        })))
    }

    /// Those of its certificates that are usable as trust anchors, in PEM.
    pub fn usable_pem(&self) -> String {
        let usable = self
            .0
            .certificates
            .iter()
            .filter(|certificate| RootCertStore::empty().add((*certificate).clone()).is_ok());
        usable.map(|c| encode("CERTIFICATE", c)).collect()
    }

    /// Both bundles' roots, each once.
    pub fn union(&self, other: &TrustBundle) -> TrustBundle {
        let mut certificates = self.0.certificates.clone();
        let mut store = self.0.store.clone();
        for root in &other.0.certificates {
            if !certificates.contains(root) && store.add(root.clone()).is_ok() {
                certificates.push(root.clone());
            }
        }
        Self(Arc::new(Bundle {
            certificates,
            store,
        }))
    }

    pub fn to_pem(&self) -> String {
        self.0
            .certificates
            .iter()
            .map(|c| encode("CERTIFICATE", c))
            .collect()
    }

    pub fn len(&self) -> usize {
        self.0.certificates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.certificates.is_empty()
    }

    /// Facts about each root.
    pub fn roots(&self) -> Vec<PeerCertificate> {
        self.0
            .certificates
            .iter()
            .filter_map(|c| PeerCertificate::parse(c).ok())
            .collect()
    }

    pub(crate) fn store(&self) -> &RootCertStore {
        &self.0.store
    }
}

impl TlsCertificate {
    /// A secret's `tls.crt` and `tls.key`. Errors say which of the two is wrong, or that they do
    /// not belong together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, IdentityError> {
        Self::new(
            PrivateKey::from_pem(key)?,
            CertificateChain::from_pem(chain)?,
        )
    }

    pub fn new(key: PrivateKey, chain: CertificateChain) -> Result<Self, IdentityError> {
        let leaf = chain.leaf()?;
        let signer =
            any_supported_type(&key.to_der()).map_err(|e| IdentityError::Key(e.to_string()))?;
        let certified = CertifiedKey::new(chain.without_root().der().to_vec(), signer);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err(IdentityError::KeyMismatch {
                    subject: leaf.name(),
                });
            }
            Err(other) => return Err(IdentityError::Certificate(other.to_string())),
        }
        Ok(Self {
            key: Arc::new(key),
            chain,
            leaf: Arc::new(leaf),
            certified: Arc::new(certified),
        })
    }

    /// With an OCSP response (RFC 6960, DER) that servers staple to the handshake.
    pub fn with_ocsp_staple(mut self, response: Option<&[u8]>) -> Self {
        if let Some(response) = response {
            let mut certified = (*self.certified).clone();
            certified.ocsp = Some(response.to_vec());
            self.certified = Arc::new(certified);
        }
        self
    }

    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    pub fn chain(&self) -> &CertificateChain {
        &self.chain
    }

    /// Facts about the leaf.
    pub fn leaf(&self) -> &Arc<PeerCertificate> {
        &self.leaf
    }

    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.leaf.is_valid_at(now)
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.0.certificates == other.0.certificates
    }
}

impl Eq for TrustBundle {}

impl PartialEq for TlsCertificate {
    /// Equal when the chains are: a key belongs to its chain.
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for TlsCertificate {}

impl fmt::Debug for CertificateChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateChain({} certificates)", self.0.len())
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustBundle({} roots)", self.0.certificates.len())
    }
}

impl fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsCertificate({})", self.leaf.name())
    }
}
