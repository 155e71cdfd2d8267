//! Secrets (SDS) that a gateway names in its listeners and clusters: `kubernetes://[namespace/]name`, and `…-cacert` for the roots alone.
//!
//! Only gateways get them, and only from the namespace that they run in. Workload certificates never pass here: their keys stay in the proxy's pod.

use mesh_model::{Credential, Snapshot, object::Text};
use wire_envoy::pb::{
    core::{DataSource, data_source::Specifier},
    tls::{CertificateValidationContext, Secret, TlsCertificate, secret::Type},
};

use crate::{Client, ClientKind, error::SecretError};

const SCHEME: &str = "kubernetes://";
const ROOTS: &str = "-cacert";

/// Roots of certificates are no secret, whoever asks.
pub fn is_public(name: &str) -> bool {
    name.ends_with(ROOTS)
}

/// Builds the secret called `name` for a client. Errors name what is missing; the proxy keeps waiting (or keeps what it has).
pub fn secret(name: &str, snapshot: &Snapshot, client: &Client) -> Result<Secret, SecretError> {
    let path = name
        .strip_prefix(SCHEME)
        .filter(|path| !path.is_empty())
        .ok_or_else(|| SecretError::Name(name.to_owned()))?;
    if client.kind != ClientKind::Gateway {
        return Err(SecretError::NotAGateway);
    }
    let (namespace, object) = path.split_once('/').unwrap_or((&client.namespace, path));
    if namespace != &*client.namespace {
        return Err(SecretError::OtherNamespace {
            namespace: namespace.to_owned(),
            name: object.to_owned(),
        });
    }
    let stored = |object: &str| {
        snapshot
            .credentials
            .get(&(Text::from(namespace), Text::from(object)))
    };
    let content = match object.strip_suffix(ROOTS) {
        Some(base) => {
            let credential = stored(object)
                .filter(|credential| credential.ca_pem.is_some())
                .or_else(|| stored(base));
            roots(
                credential.ok_or_else(|| missing(namespace, object))?,
                namespace,
                object,
            )?
        }
        None => certificate(
            stored(object).ok_or_else(|| missing(namespace, object))?,
            namespace,
            object,
        )?,
    };
    Ok(Secret {
        name: name.to_owned(),
        r#type: Some(content),
    })
}

fn missing(namespace: &str, name: &str) -> SecretError {
    SecretError::Missing {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn bytes(content: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(content.to_vec())),
        ..Default::default()
    }
}

fn certificate(credential: &Credential, namespace: &str, name: &str) -> Result<Type, SecretError> {
    let part = || SecretError::Part {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        part: "certificate and key",
    };
    let pair = credential.certificate.as_ref().ok_or_else(part)?;
    Ok(Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(bytes(pair.chain_pem.as_bytes())),
        private_key: Some(bytes(pair.key_pem.as_bytes())),
        ocsp_staple: credential.ocsp_staple.as_deref().map(bytes),
        ..Default::default()
    }))
}

fn roots(credential: &Credential, namespace: &str, name: &str) -> Result<Type, SecretError> {
    let part = || SecretError::Part {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        part: "CA certificate",
    };
    let roots = credential.ca_pem.as_ref().ok_or_else(part)?;
    Ok(Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(bytes(roots.as_bytes())),
        crl: credential.crl_pem.as_ref().map(|crl| bytes(crl.as_bytes())),
        ..Default::default()
    }))
}
