//! The certificate authority: from a CSR's public key and an identity proved by other means to a
//! workload's certificate.
//!
//! Of a CSR only the public key is used. Names, key usages, lifetime and the CA flag are ours, so a
//! hostile request gains nothing. Issued certificates have one critical URI name, no subject,
//! serverAuth and clientAuth, and are back-dated by two minutes for clocks that run behind (Istio's
//! grace period). The chain is answered leaf first, root last (`IstioCertificateService`).

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    CertificateChain, IdentityError, PrivateKey, SpiffeId, TlsCertificate, TrustBundle,
    TrustDomain, WorkloadIdentity,
};

#[cfg(test)]
mod tests;

/// Lifetime when none is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest lifetime that may be asked for (Istio's `MAX_WORKLOAD_CERT_TTL`).
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// Life of a self-signed root: Istio's 10 years.
const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Certificates are valid from this long before they are made, for clocks that run behind.
const BACKDATE: Duration = Duration::from_secs(120);
/// A CSR larger than this is not parsed.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// A signing certificate with its key, the certificates between it and the root, and the roots to
/// distribute.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    key: PrivateKey,
    /// The signing certificate and intermediates above it, without the root.
    chain: Option<CertificateChain>,
    signing: CertificateChain,
    bundle: TrustBundle,
    maximum_ttl: Duration,
    from: i64,
    until: i64,
}

/// The files of a `cacerts` secret, as PEM.
pub struct AuthorityPem {
    /// `ca-cert.pem`: the certificate that signs.
    pub ca_cert: String,
    /// `ca-key.pem`.
    pub ca_key: Zeroizing<String>,
    /// `cert-chain.pem`: from the signing certificate towards the root; may be empty when the signing certificate is the root.
    pub cert_chain: String,
    /// `root-cert.pem`.
    pub root_cert: String,
}

/// A PEM CSR for a key: the request a proxy sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest(String);

impl SigningRequest {
    /// Names the id that is hoped for; a CA decides by the caller's proof.
    pub fn new(key: &PrivateKey, id: &SpiffeId) -> Result<Self, IdentityError> {
        let failed = |e: rcgen::Error| IdentityError::Crypto(e.to_string());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id)?];
        let request = params.serialize_request(&key.pair()?).map_err(failed)?;
        Ok(Self(request.pem().map_err(failed)?))
    }

    pub fn as_pem(&self) -> &str {
        &self.0
    }
}

impl CertificateAuthority {
    /// A new root that signs by itself: ECDSA P-256, ten years, organisation = trust domain.
    pub fn self_signed(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, IdentityError> {
        let key = PrivateKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, trust_domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(now - BACKDATE)?;
        params.not_after = date(now + ROOT_TTL)?;
        params.serial_number = Some(serial()?);
        let root = params
            .self_signed(&key.pair()?)
            .map_err(|e| IdentityError::Crypto(e.to_string()))?
            .pem();
        let pem = AuthorityPem {
            ca_cert: root.clone(),
            ca_key: key.to_pem(),
            cert_chain: String::new(),
            root_cert: root,
        };
        Self::from_pem(&pem)
    }

    /// From the files of a `cacerts` secret. Checks that key and certificate match, that the
    /// certificate may sign, and that it chains to the root.
    pub fn from_pem(pem: &AuthorityPem) -> Result<Self, IdentityError> {
        let file = |name: &'static str| {
            move |e: IdentityError| IdentityError::Authority(format!("{name}: {e}"))
        };
        let key = PrivateKey::from_pem(&pem.ca_key).map_err(file("ca-key.pem"))?;
        let signing = CertificateChain::from_pem(&pem.ca_cert).map_err(file("ca-cert.pem"))?;
        let bundle = TrustBundle::from_pem(&pem.root_cert).map_err(file("root-cert.pem"))?;
        let checked = TlsCertificate::new(PrivateKey::from_pem(&pem.ca_key)?, signing.clone())
            .map_err(file("ca-cert.pem and ca-key.pem"))?;
        let pair = key.pair()?;
        let issuer = Issuer::from_ca_cert_der(signing_der(&signing)?, pair)
            .map_err(|e| IdentityError::Authority(format!("ca-cert.pem: {e}")))?;
        let chain = Self::intermediates(&signing, &pem.cert_chain, &bundle)?;
        let leaf = checked.leaf();
        let (from, until) = (leaf.not_before, leaf.not_after);
        check_may_sign(&signing)?;
        Ok(Self {
            issuer,
            key,
            chain,
            signing,
            bundle,
            maximum_ttl: MAX_TTL,
            from,
            until,
        })
    }

    /// What goes between leaf and root: nothing when the signer is a root, else the signer and
    /// `cert-chain.pem`.
    fn intermediates(
        signing: &CertificateChain,
        cert_chain: &str,
        bundle: &TrustBundle,
    ) -> Result<Option<CertificateChain>, IdentityError> {
        let roots = CertificateChain::from_pem(&bundle.to_pem())?;
        let signer = signing_der(signing)?;
        if roots.der().contains(signer) {
            return Ok(None);
        }
        let mut chain = vec![signer.clone()];
        if cert_chain.contains("-----BEGIN") {
            let more = CertificateChain::from_pem(cert_chain)
                .map_err(|e| IdentityError::Authority(format!("cert-chain.pem: {e}")))?;
            for certificate in more.der() {
                if !chain.contains(certificate) && !roots.der().contains(certificate) {
                    chain.push(certificate.clone());
                }
            }
        }
        let last = chain.last().map(|c| issuer_of(c));
        let root_names: Vec<_> = roots.der().iter().map(|c| subject_of(c)).collect();
        if !last.is_some_and(|name| root_names.contains(&name)) {
            return Err(IdentityError::Authority(
                "ca-cert.pem with cert-chain.pem does not lead to root-cert.pem".into(),
            ));
        }
        CertificateChain::from_der(chain).map(Some)
    }

    /// Lowers the longest lifetime that may be asked for.
    pub fn with_maximum_ttl(mut self, maximum: Duration) -> Self {
        self.maximum_ttl = maximum.min(MAX_TTL);
        self
    }

    /// Accepts further roots beside the own one (rotation, other meshes).
    pub fn with_additional_roots(mut self, roots: &TrustBundle) -> Self {
        self.bundle = self.bundle.union(roots);
        self
    }

    /// The files to keep: the caller writes them with restrictive permissions.
    pub fn to_pem(&self) -> AuthorityPem {
        AuthorityPem {
            ca_cert: self.signing.to_pem(),
            ca_key: self.key.to_pem(),
            cert_chain: self
                .chain
                .as_ref()
                .map(CertificateChain::to_pem)
                .unwrap_or_default(),
            root_cert: self.bundle.to_pem(),
        }
    }

    /// The roots that everyone in the mesh trusts.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// End of the signing certificate's validity.
    pub fn not_after(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(self.until).unwrap_or(0))
    }

    /// Signs a PEM CSR for `id`, which the caller has proved by other means. `ttl` of `None` or
    /// zero means [`DEFAULT_TTL`]; it is cut at the end of the signing certificate.
    pub fn sign(
        &self,
        csr_pem: &str,
        id: &SpiffeId,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<CertificateChain, IdentityError> {
        if csr_pem.len() > MAX_REQUEST_BYTES {
            return Err(IdentityError::Request("is larger than 64 KiB".into()));
        }
        let key = public_key(csr_pem)?;
        let until = self.end_of(ttl, now)?;
        let mut params = leaf_params(now, until)?;
        params.subject_alt_names = vec![uri(id)?];
        self.finish(params, &key)
    }

    /// A key and certificate made here, for a server of the control plane itself: DNS names instead
    /// of a SPIFFE id.
    pub fn issue_server(
        &self,
        dns_names: &[&str],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<TlsCertificate, IdentityError> {
        let key = PrivateKey::generate()?;
        let mut params = leaf_params(now, self.end_of(Some(ttl), now)?)?;
        for name in dns_names {
            let name = (*name)
                .try_into()
                .map_err(|_| IdentityError::ServerName((*name).to_owned()))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let chain = self.finish(params, &key.pair()?)?;
        TlsCertificate::new(key, chain)
    }

    /// A whole identity made here, for parts that live in the same process as the CA (and for
    /// tests).
    pub fn issue_workload(
        &self,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<WorkloadIdentity, IdentityError> {
        let key = PrivateKey::generate()?;
        let request = SigningRequest::new(&key, id)?;
        let chain = self.sign(request.as_pem(), id, Some(ttl), now)?;
        WorkloadIdentity::new(key, chain, self.bundle.clone())
    }

    fn end_of(&self, ttl: Option<Duration>, now: SystemTime) -> Result<SystemTime, IdentityError> {
        let ttl = ttl
            .filter(|t| !t.is_zero())
            .unwrap_or(DEFAULT_TTL.min(self.maximum_ttl));
        if ttl > self.maximum_ttl {
            return Err(IdentityError::Lifetime {
                requested_seconds: ttl.as_secs(),
                maximum_seconds: self.maximum_ttl.as_secs(),
            });
        }
        let seconds = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
            .unwrap_or(i64::MAX);
        if seconds < self.from || seconds >= self.until {
            return Err(IdentityError::AuthorityExpired {
                from: self.from,
                until: self.until,
            });
        }
        Ok((now + ttl).min(self.not_after()))
    }

    fn finish(
        &self,
        params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateChain, IdentityError> {
        let leaf = params
            .signed_by(key, &self.issuer)
            .map_err(|e| IdentityError::Authority(e.to_string()))?;
        let mut chain = vec![leaf.der().clone()];
        if let Some(above) = &self.chain {
            chain.extend(above.der().iter().cloned());
        }
        let roots = CertificateChain::from_pem(&self.bundle.to_pem())?;
        chain.extend(roots.der().first().cloned());
        CertificateChain::from_der(chain)
    }
}

/// Verifies the request's own signature (proof of possession) and takes its public key, nothing
/// else.
fn public_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, IdentityError> {
    use x509_parser::{
        certification_request::X509CertificationRequest, prelude::FromDer, public_key::PublicKey,
    };
    let refuse = |why: &str| IdentityError::Request(why.to_owned());
    let block = x509_parser::pem::parse_x509_pem(csr_pem.as_bytes())
        .map_err(|_| refuse("is not PEM"))?
        .1;
    if !matches!(
        block.label.as_str(),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"
    ) {
        return Err(refuse("the PEM block is no certificate request"));
    }
    let (_, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|_| refuse("cannot be parsed"))?;
    request
        .verify_signature()
        .map_err(|_| refuse("its signature is not by its own key"))?;
    let spki = &request.certification_request_info.subject_pki;
    if let Ok(PublicKey::RSA(rsa)) = spki.parsed()
        && rsa.key_size() < 2048
    {
        return Err(refuse("RSA keys must have at least 2048 bits"));
    }
    SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| refuse("its kind of key is not supported"))
}

fn leaf_params(now: SystemTime, until: SystemTime) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    params.not_before = date(now - BACKDATE)?;
    params.not_after = date(until)?;
    Ok(params)
}

fn check_may_sign(signing: &CertificateChain) -> Result<(), IdentityError> {
    let der = signing_der(signing)?;
    let (_, x509) = x509_parser::parse_x509_certificate(der)
        .map_err(|e| IdentityError::Authority(e.to_string()))?;
    if !x509.is_ca() {
        return Err(IdentityError::Authority(
            "ca-cert.pem is no CA certificate (basic constraints CA:FALSE)".into(),
        ));
    }
    match x509.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => Err(IdentityError::Authority(
            "ca-cert.pem lacks the key usage keyCertSign".into(),
        )),
        _ => Ok(()),
    }
}

fn signing_der(
    chain: &CertificateChain,
) -> Result<&rustls_pki_types::CertificateDer<'static>, IdentityError> {
    chain
        .der()
        .first()
        .ok_or_else(|| IdentityError::Authority("no signing certificate".into()))
}

fn issuer_of(der: &[u8]) -> Vec<u8> {
    x509_parser::parse_x509_certificate(der)
        .map(|(_, c)| c.issuer().as_raw().to_vec())
        .unwrap_or_default()
}

fn subject_of(der: &[u8]) -> Vec<u8> {
    x509_parser::parse_x509_certificate(der)
        .map(|(_, c)| c.subject().as_raw().to_vec())
        .unwrap_or_default()
}

fn uri(id: &SpiffeId) -> Result<SanType, IdentityError> {
    let text = id
        .as_str()
        .try_into()
        .map_err(|_| IdentityError::SpiffeId(id.to_string(), "is not ASCII"))?;
    Ok(SanType::URI(text))
}

/// 128 random bits, positive.
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| IdentityError::Crypto("no random numbers".into()))?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn date(at: SystemTime) -> Result<OffsetDateTime, IdentityError> {
    let seconds = at
        .duration_since(UNIX_EPOCH)
        .map(|d| d.as_secs())
        .unwrap_or(0);
    let seconds =
        i64::try_from(seconds).map_err(|_| IdentityError::Crypto("time out of range".into()))?;
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| IdentityError::Crypto("time out of range".into()))
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CertificateAuthority({:?}, {:?})",
            self.signing, self.bundle
        )
    }
}

impl fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorityPem(redacted)")
    }
}
