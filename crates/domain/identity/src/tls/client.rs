//! The client's side: mutual TLS between sidecars, TLS origination to other servers, and our own
//! calls to the control plane.

use std::sync::Arc;

use rustls::{SignatureScheme, client::ResolvesClientCert, client::Resumption, sign::CertifiedKey};

use super::{
    PeerValidation, Presented, TlsSettings,
    sessions::Remembered,
    verify::{JudgeServer, Roots},
};
use crate::{IdentityError, IdentityHandle};

pub use rustls_pki_types::ServerName;

/// What a cluster's TLS is.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// Own certificate, when the server may ask for one (MUTUAL, ISTIO_MUTUAL).
    pub presented: Option<Presented>,
    pub validation: PeerValidation,
    /// Sent as SNI and, with `validation.match_server_name`, looked for in the certificate. `None`:
    /// no SNI is sent.
    pub sni: Option<String>,
    /// In the client's order of preference.
    pub alpn: Vec<Vec<u8>>,
    pub settings: TlsSettings,
    pub resumption: bool,
}

/// A client configuration with the name to connect with:
/// `TlsConnector::from(c.rustls.clone()).connect(c.server_name.clone(), io)`.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub rustls: Arc<rustls::ClientConfig>,
    pub server_name: ServerName<'static>,
}

impl ClientTls {
    /// Mutual TLS inside the mesh (ISTIO_MUTUAL).
    pub fn workload(
        identity: IdentityHandle,
        names: Vec<crate::SanMatcher>,
        sni: Option<String>,
        alpn: Vec<Vec<u8>>,
    ) -> Self {
        Self {
            presented: Some(Presented::Workload(identity.clone())),
            validation: PeerValidation::workload(identity, names),
            sni,
            alpn,
            settings: TlsSettings::default(),
            resumption: true,
        }
    }
}

impl ClientConfig {
    /// The same configuration with another name, for hosts that are known only per request
    /// (`auto_sni`). Shares the sessions.
    pub fn with_server_name(&self, name: &str) -> Result<Self, IdentityError> {
        Ok(Self {
            rustls: self.rustls.clone(),
            server_name: server_name(name)?,
        })
    }

    /// The same configuration with other protocols, for a cluster whose codec is known only per
    /// request. Shares the sessions.
    pub fn with_alpn(&self, alpn: Vec<Vec<u8>>) -> Self {
        let mut rustls = rustls::ClientConfig::clone(&self.rustls);
        rustls.alpn_protocols = alpn;
        Self {
            rustls: Arc::new(rustls),
            server_name: self.server_name.clone(),
        }
    }
}

/// Makes the configuration. Fails on a name that is none, or on contradictory settings.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfig, IdentityError> {
    let settings = |e: rustls::Error| IdentityError::Settings(e.to_string());
    let builder = rustls::ClientConfig::builder_with_provider(tls.settings.provider())
        .with_protocol_versions(&tls.settings.versions()?)
        .map_err(settings)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(JudgeServer(tls.validation.clone())));
    let mut config = match &tls.presented {
        None => builder.with_no_client_auth(),
        Some(presented) => builder.with_client_cert_resolver(Arc::new(Own(presented.clone()))),
    };
    config.alpn_protocols.clone_from(&tls.alpn);
    config.enable_sni = tls.sni.is_some();
    config.resumption = if tls.resumption {
        Resumption::store(Arc::new(Remembered::new(handles(tls))))
    } else {
        Resumption::disabled()
    };
    let server_name = match &tls.sni {
        Some(name) => server_name(name)?,
        // Never sent: rustls wants a name to remember sessions by. The reserved name can match no
        // certificate.
        None => server_name("unnamed.invalid")?,
    };
    Ok(ClientConfig {
        rustls: Arc::new(config),
        server_name,
    })
}

fn server_name(name: &str) -> Result<ServerName<'static>, IdentityError> {
    ServerName::try_from(name.to_owned()).map_err(|_| IdentityError::ServerName(name.to_owned()))
}

fn handles(tls: &ClientTls) -> Vec<IdentityHandle> {
    let mut handles = Vec::new();
    if let Some(Presented::Workload(handle)) = &tls.presented {
        handles.push(handle.clone());
    }
    if let Roots::Workload(handle) = &tls.validation.roots {
        handles.push(handle.clone());
    }
    handles
}

/// Chooses the client's own certificate.
#[derive(Debug)]
struct Own(Presented);

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        match &self.0 {
            Presented::Workload(handle) => handle
                .load()
                .map(|identity| identity.certificate().certified().clone()),
            Presented::Fixed(certificates) => certificates
                .iter()
                .find(|c| c.certified().key.choose_scheme(schemes).is_some())
                .map(|c| c.certified().clone()),
        }
    }

    fn has_certs(&self) -> bool {
        true
    }
}
