//! Secret → a credential that a gateway can name (reference row TM-073).
//!
//! Both of Istio's forms are read: `tls.crt`, `tls.key`, `ca.crt`, `ca.crl`, `tls.ocsp-staple`, and `cert`, `key`, `cacert`,
//! `crl`. Secrets that hold none of these mean nothing to the mesh and are passed over.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_model::object::Text;
use mesh_model::secret::{CertificatePair, Credential};
use wire_kube::kubernetes::secret as wire;

use crate::cx::Cx;
use crate::problem::{Severity, code};

pub fn parse(cx: &mut Cx, value: wire::Secret) -> Option<Credential> {
    let wire::Secret {
        metadata: _,
        r#type,
        data,
        string_data,
    } = value;
    if r#type == "kubernetes.io/service-account-token" {
        return None;
    }
    let mut read = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| bytes_of(cx, name, &data, &string_data))
    };
    let certificate = read(&["tls.crt", "cert"]);
    let key = read(&["tls.key", "key"]);
    let ca = read(&["ca.crt", "cacert"]);
    let crl = read(&["ca.crl", "crl"]);
    let ocsp_staple = read(&["tls.ocsp-staple"]);
    let pem = |cx: &mut Cx, bytes: Option<Vec<u8>>, marker: &str, what: &str| -> Option<Text> {
        let text = String::from_utf8(bytes?)
            .ok()
            .filter(|text| text.contains(marker));
        if text.is_none() {
            cx.report(
                Severity::Warning,
                code::GATEWAY_CREDENTIAL,
                format!("{what} is not PEM"),
            );
        }
        text.map(Text::from)
    };
    let chain_pem = pem(
        cx,
        certificate,
        "-----BEGIN CERTIFICATE-----",
        "the certificate",
    );
    let key_pem = pem(cx, key, "PRIVATE KEY-----", "the private key");
    let ca_pem = pem(cx, ca, "-----BEGIN CERTIFICATE-----", "the CA certificate");
    let crl_pem = pem(cx, crl, "-----BEGIN X509 CRL-----", "the revocation list");
    let certificate = match (chain_pem, key_pem) {
        (Some(chain_pem), Some(key_pem)) => checked_pair(cx, chain_pem, key_pem),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            if r#type == "kubernetes.io/tls" {
                cx.report(
                    Severity::Warning,
                    code::GATEWAY_CREDENTIAL,
                    "a certificate and its private key are both needed",
                );
            }
            None
        }
    };
    if certificate.is_none() && ca_pem.is_none() {
        return None;
    }
    Some(Credential {
        object: cx.meta.object.clone(),
        certificate,
        ca_pem,
        crl_pem,
        ocsp_staple: ocsp_staple.map(Into::into),
    })
}

/// A pair that does not belong together is worse than none: it is reported and left out.
fn checked_pair(cx: &mut Cx, chain_pem: Text, key_pem: Text) -> Option<CertificatePair> {
    match identity::TlsCertificate::from_pem(&chain_pem, &key_pem) {
        Ok(_) => Some(CertificatePair { chain_pem, key_pem }),
        Err(e) => {
            cx.report(
                Severity::Warning,
                code::GATEWAY_CREDENTIAL,
                format!("the certificate cannot be used: {e}"),
            );
            None
        }
    }
}

fn bytes_of(
    cx: &mut Cx,
    name: &str,
    data: &BTreeMap<String, String>,
    plain: &BTreeMap<String, String>,
) -> Option<Vec<u8>> {
    if let Some(text) = plain.get(name) {
        return Some(text.clone().into_bytes());
    }
    let encoded: String = data.get(name)?.split_ascii_whitespace().collect();
    match STANDARD.decode(encoded) {
        Ok(bytes) => Some(bytes),
        Err(_) => {
            cx.within("data", |cx| cx.error_at(name, "is not base64"));
            None
        }
    }
}
