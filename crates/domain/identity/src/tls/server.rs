//! The server's side: sidecars' inbound mutual TLS and gateways' TLS.

use std::sync::Arc;

use rustls::{
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use super::{
    PeerValidation, Presented, TlsSettings,
    sessions::Tickets,
    verify::{Roots, judge_client},
};
use crate::{IdentityError, IdentityHandle, TlsCertificate, san::dns_name_matches};

/// What a listener's TLS is.
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub presented: Presented,
    pub client_auth: ClientAuth,
    /// In the server's order of preference. A client that offers none of these is let in without
    /// ALPN, as Envoy does.
    pub alpn: Vec<Vec<u8>>,
    pub settings: TlsSettings,
    pub resumption: bool,
}

/// Whether clients present certificates.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// Not asked for (gateway SIMPLE).
    None,
    /// Asked for; one that is presented must be good (OPTIONAL_MUTUAL).
    Optional(PeerValidation),
    /// Without a good one the handshake fails (MUTUAL, ISTIO_MUTUAL, sidecars).
    Required(PeerValidation),
}

impl ServerTls {
    /// A sidecar's inbound side: own identity, client certificate required and judged by the mesh's
    /// roots and `names`.
    pub fn workload(
        identity: IdentityHandle,
        names: Vec<crate::SanMatcher>,
        alpn: Vec<Vec<u8>>,
    ) -> Self {
        Self {
            presented: Presented::Workload(identity.clone()),
            client_auth: ClientAuth::Required(PeerValidation::workload(identity, names)),
            alpn,
            settings: TlsSettings::default(),
            resumption: true,
        }
    }
}

/// Makes the configuration for `tokio_rustls::TlsAcceptor`. Fails only on contradictory settings.
pub fn server_config(tls: &ServerTls) -> Result<Arc<rustls::ServerConfig>, IdentityError> {
    let settings = |e: rustls::Error| IdentityError::Settings(e.to_string());
    let verifier = match &tls.client_auth {
        ClientAuth::None => WebPkiClientVerifier::no_client_auth(),
        ClientAuth::Optional(validation) => judge_client(validation, false),
        ClientAuth::Required(validation) => judge_client(validation, true),
    };
    if let Presented::Fixed(certificates) = &tls.presented
        && certificates.is_empty()
    {
        return Err(IdentityError::Settings(
            "a TLS server needs a certificate".into(),
        ));
    }
    let mut config = rustls::ServerConfig::builder_with_provider(tls.settings.provider())
        .with_protocol_versions(&tls.settings.versions()?)
        .map_err(settings)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Choice(tls.presented.clone())));
    config.alpn_protocols.clone_from(&tls.alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = if tls.resumption { 1 } else { 0 };
    if tls.resumption {
        config.ticketer = Arc::new(Tickets::new(handles(tls)).map_err(settings)?);
    }
    Ok(Arc::new(config))
}

fn handles(tls: &ServerTls) -> Vec<IdentityHandle> {
    let mut handles = Vec::new();
    if let Presented::Workload(handle) = &tls.presented {
        handles.push(handle.clone());
    }
    if let ClientAuth::Optional(validation) | ClientAuth::Required(validation) = &tls.client_auth
        && let Roots::Workload(handle) = &validation.roots
    {
        handles.push(handle.clone());
    }
    handles
}

/// Chooses the certificate for a ClientHello.
#[derive(Debug)]
struct Choice(Presented);

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.0 {
            Presented::Workload(handle) => handle
                .load()
                .map(|identity| identity.certificate().certified().clone()),
            Presented::Fixed(certificates) => {
                let fits = |c: &&TlsCertificate| {
                    c.certified()
                        .key
                        .choose_scheme(hello.signature_schemes())
                        .is_some()
                };
                let named = |c: &&TlsCertificate| {
                    hello.server_name().is_some_and(|sni| {
                        c.leaf().dns_sans.iter().any(|n| dns_name_matches(n, sni))
                    })
                };
                let best = certificates.iter().filter(fits).find(named);
                best.or_else(|| certificates.iter().find(fits))
                    .map(|c| c.certified().clone())
            }
        }
    }
}
