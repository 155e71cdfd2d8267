//! Deciding whether a peer's certificate is good: its chain, its validity, its purpose, and its
//! names.
//!
//! rustls' own verifiers want a DNS name, which a SPIFFE certificate does not have. These check the
//! chain by webpki and the names by [`SanMatcher`]s. A peer judged by the mesh's own roots must
//! have exactly one URI name (X509-SVID §5.2).

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::WebPkiSupportedAlgorithms,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::provider::provider;
use crate::{IdentityHandle, PeerCertificate, SanMatcher, TrustBundle, san::dns_name_matches};

/// Which roots a chain must end in.
#[derive(Debug, Clone)]
pub enum Roots {
    /// The current bundle of the workload's identity. Without one every peer is refused.
    Workload(IdentityHandle),
    Bundle(TrustBundle),
    /// Nothing is checked but that the peer has its key. Only where configuration says so in words
    /// (`insecureSkipVerify`).
    Unverified,
}

/// How a peer is judged.
#[derive(Debug, Clone)]
pub struct PeerValidation {
    pub roots: Roots,
    /// Any of these must match; empty means that every name is good.
    pub names: Vec<SanMatcher>,
    /// Clients only: a DNS (or IP) name of the certificate must also cover the name that was asked
    /// for (`auto_san_validation`).
    pub match_server_name: bool,
}

impl PeerValidation {
    /// By the mesh's roots and these names.
    pub fn workload(identity: IdentityHandle, names: Vec<SanMatcher>) -> Self {
        Self {
            roots: Roots::Workload(identity),
            names,
            match_server_name: false,
        }
    }

    /// By these roots and the name asked for: what a web client does.
    pub fn web(roots: TrustBundle) -> Self {
        Self {
            roots: Roots::Bundle(roots),
            names: Vec::new(),
            match_server_name: true,
        }
    }

    pub fn unverified() -> Self {
        Self {
            roots: Roots::Unverified,
            names: Vec::new(),
            match_server_name: false,
        }
    }

    pub(super) fn identity(&self) -> Option<&IdentityHandle> {
        match &self.roots {
            Roots::Workload(handle) => Some(handle),
            Roots::Bundle(_) | Roots::Unverified => None,
        }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked_for: Option<&ServerName<'_>>,
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        match &self.roots {
            Roots::Unverified => {}
            Roots::Bundle(bundle) if is_its_own_proof(bundle, leaf, now) => {}
            Roots::Bundle(bundle) => check_chain(bundle, leaf, intermediates, now, usage)?,
            Roots::Workload(handle) => {
                let identity = handle
                    .load()
                    .ok_or(refused(CertificateError::UnknownIssuer))?;
                check_chain(identity.bundle(), leaf, intermediates, now, usage)?;
            }
        }
        self.check_names(leaf, asked_for)
    }

    fn check_names(
        &self,
        leaf: &CertificateDer<'_>,
        asked_for: Option<&ServerName<'_>>,
    ) -> Result<(), Error> {
        let strict = self.identity().is_some();
        if self.names.is_empty() && !self.match_server_name && !strict {
            return Ok(());
        }
        let facts =
            PeerCertificate::parse(leaf).map_err(|_| refused(CertificateError::BadEncoding))?;
        if strict && facts.uri_sans.len() != 1 {
            return Err(refused(CertificateError::ApplicationVerificationFailure));
        }
        if !self.names.is_empty() && !self.names.iter().any(|m| m.matches(&facts)) {
            return Err(refused(CertificateError::NotValidForName));
        }
        let covered = match asked_for {
            Some(ServerName::DnsName(host)) => facts
                .dns_sans
                .iter()
                .any(|n| dns_name_matches(n, host.as_ref())),
            Some(ServerName::IpAddress(ip)) => facts.ip_sans.contains(&std::net::IpAddr::from(*ip)),
            _ => false,
        };
        if self.match_server_name && !covered {
            return Err(refused(CertificateError::NotValidForName));
        }
        Ok(())
    }
}

/// A certificate that is itself one of the roots: who tries something out makes one for everything
/// (`openssl req -x509`), and OpenSSL and BoringSSL take it. webpki refuses it, since it may sign
/// others. Among the mesh's own roots nothing stands for a workload, see [`Roots::Workload`].
fn is_its_own_proof(bundle: &TrustBundle, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
    let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    bundle.has(leaf) && PeerCertificate::parse(leaf).is_ok_and(|facts| facts.is_valid_at(now))
}

fn check_chain(
    bundle: &TrustBundle,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(), Error> {
    let parsed = EndEntityCert::try_from(leaf).map_err(|e| refused(reason(e)))?;
    parsed
        .verify_for_usage(
            algorithms().all,
            &bundle.store().roots,
            intermediates,
            now,
            usage,
            None,
            None,
        )
        .map(|_| ())
        .map_err(|e| refused(reason(e)))
}

fn reason(error: webpki::Error) -> CertificateError {
    use webpki::Error as E;
    match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        _ => CertificateError::UnknownIssuer,
    }
}

fn refused(why: CertificateError) -> Error {
    Error::InvalidCertificate(why)
}

fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    &provider().signature_verification_algorithms
}

/// A client's view of a server.
#[derive(Debug)]
pub(super) struct JudgeServer(pub(super) PeerValidation);

/// A server's view of a client.
#[derive(Debug)]
pub(super) struct JudgeClient {
    pub(super) validation: PeerValidation,
    pub(super) mandatory: bool,
}

impl ServerCertVerifier for JudgeServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.check(
            leaf,
            intermediates,
            Some(server_name),
            now,
            KeyUsage::server_auth(),
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for JudgeClient {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.validation
            .check(leaf, intermediates, None, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

pub(super) fn judge_client(
    validation: &PeerValidation,
    mandatory: bool,
) -> Arc<dyn ClientCertVerifier> {
    let mut validation = validation.clone();
    validation.match_server_name = false;
    Arc::new(JudgeClient {
        validation,
        mandatory,
    })
}
