//! `envoy.extensions.transport_sockets.tls.v3.Secret` → `Secret`.

use std::sync::Arc;

use proxy_config::{Secret, SecretName, secret::SecretValue};
use wire_envoy::pb::{self, tls::secret::Type};

use crate::{
    context::Cx,
    judgement::take,
    reject::{Refusal, Within},
    tls,
};

pub(crate) fn secret(cx: &mut Cx, value: pb::tls::Secret) -> Result<Secret, Refusal> {
    take!(cx, value => pb::tls::Secret { read { name, r#type } });
    let name = SecretName::parse(name).map_err(|e| Refusal::at("name", e.to_string()))?;
    let value = match r#type {
        Some(Type::TlsCertificate(certificate)) => SecretValue::Certificate(Arc::new(
            tls::certificate(cx, certificate).within("tls_certificate")?,
        )),
        Some(Type::ValidationContext(context)) => roots(context).within("validation_context")?,
        Some(Type::SessionTicketKeys(_)) => {
            return Err(Refusal::at(
                "session_ticket_keys",
                "ticket keys are the TLS library's own",
            ));
        }
        Some(Type::GenericSecret(_)) => {
            return Err(Refusal::at(
                "generic_secret",
                "no supported filter reads one",
            ));
        }
        None => return Err(Refusal::missing("type")),
    };
    Ok(Secret { name, value })
}

/// Roots, and nothing else: names to match stand where the secret is used.
fn roots(context: pb::tls::CertificateValidationContext) -> Result<SecretValue, Refusal> {
    let pb::tls::CertificateValidationContext { trusted_ca, .. } = context.clone();
    if context.crl.is_some() {
        return Err(Refusal::at("crl", "revocation lists are not read"));
    }
    let rest = pb::tls::CertificateValidationContext {
        trusted_ca: None,
        ..context
    };
    if rest != Default::default() {
        return Err(Refusal::new("only trusted_ca is supported in a secret"));
    }
    Ok(SecretValue::Roots {
        pem: tls::inline_text(trusted_ca.ok_or_else(|| Refusal::missing("trusted_ca"))?)
            .within("trusted_ca")?,
        crl_pem: None,
    })
}
