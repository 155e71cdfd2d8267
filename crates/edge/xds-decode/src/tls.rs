//! TLS contexts of both sides.

use std::sync::Arc;

use proxy_config::{
    SecretName,
    secret::Certificate,
    tls::{
        CertificateSource, CommonTls, DownstreamTls, Roots, SanKind, SanMatcher, TlsVersion,
        TrustChain, UpstreamTls, Validation,
    },
};
use wire_envoy::pb::{
    self,
    core::data_source::Specifier,
    tls::{
        CertificateValidationContext, CommonTlsContext, SdsSecretConfig, TlsParameters,
        certificate_validation_context::TrustChainVerification,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        downstream_tls_context::OcspStaplePolicy,
        subject_alt_name_matcher::SanType,
        tls_parameters::TlsProtocol,
    },
};

use crate::{
    config_source,
    context::Cx,
    judgement::{enumerated, take},
    matcher,
    reject::{Refusal, Within, each},
    scalar,
};

pub(crate) fn downstream(
    cx: &mut Cx,
    value: pb::tls::DownstreamTlsContext,
) -> Result<DownstreamTls, Refusal> {
    take!(cx, value => pb::tls::DownstreamTlsContext {
        read { common_tls_context, require_client_certificate, require_sni, ocsp_staple_policy }
        ignore "resumption is the TLS library's, with keys of its own that rotate" {
            disable_stateful_session_resumption, session_timeout, session_ticket_keys_type,
        }
        ignore "the first certificate answers an unknown name" { full_scan_certs_on_sni_mismatch }
        ignore "the order of ciphers decides no more than speed" { prefer_client_ciphers }
    });
    if enumerated!(ocsp_staple_policy => OcspStaplePolicy, "ocsp_staple_policy")?
        != OcspStaplePolicy::LenientStapling
    {
        return Err(Refusal::at(
            "ocsp_staple_policy",
            "only LENIENT_STAPLING is supported",
        ));
    }
    let common = common(cx, common_tls_context.unwrap_or_default()).within("common_tls_context")?;
    let require_client_certificate = scalar::flag_or(require_client_certificate, false);
    if require_client_certificate && common.validation.is_none() {
        return Err(Refusal::at(
            "require_client_certificate",
            "no validation context says whom to trust",
        ));
    }
    Ok(DownstreamTls {
        common,
        require_client_certificate,
        require_sni: scalar::flag_or(require_sni, false),
    })
}

pub(crate) fn upstream(
    cx: &mut Cx,
    value: pb::tls::UpstreamTlsContext,
) -> Result<UpstreamTls, Refusal> {
    take!(cx, value => pb::tls::UpstreamTlsContext {
        read { common_tls_context, sni, auto_host_sni, auto_sni_san_validation, max_session_keys }
        ignore "key usage is checked by the TLS library" { enforce_rsa_key_usage }
        ignore "renegotiation is never done" { allow_renegotiation }
    });
    Ok(UpstreamTls {
        common: common(cx, common_tls_context.unwrap_or_default()).within("common_tls_context")?,
        sni: scalar::text(sni),
        auto_sni: auto_host_sni,
        auto_san_validation: auto_sni_san_validation,
        max_session_keys: scalar::count(max_session_keys),
    })
}

fn common(cx: &mut Cx, value: CommonTlsContext) -> Result<CommonTls, Refusal> {
    take!(cx, value => CommonTlsContext {
        read { tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols, validation_context_type }
        reject "certificates come inline or by SDS" {
            tls_certificate_provider_instance, custom_tls_certificate_selector, tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance,
        }
        reject "keys are not logged" { key_log }
        reject "the TLS library is built in" { custom_handshaker }
    });
    let Parameters {
        min,
        max,
        cipher_suites,
    } = parameters(cx, tls_params.unwrap_or_default()).within("tls_params")?;
    let mut certificates: Vec<CertificateSource> =
        each("tls_certificates", tls_certificates, |c| {
            certificate(cx, c).map(|c| CertificateSource::Inline(Arc::new(c)))
        })?;
    certificates.extend(each::<_, _, Vec<_>>(
        "tls_certificate_sds_secret_configs",
        tls_certificate_sds_secret_configs,
        |c| secret_name(cx, c).map(CertificateSource::Secret),
    )?);
    Ok(CommonTls {
        min_version: min,
        max_version: max,
        cipher_suites,
        alpn: scalar::texts(alpn_protocols),
        certificates: certificates.into(),
        validation: validation_type(cx, validation_context_type)?,
    })
}

struct Parameters {
    min: TlsVersion,
    max: TlsVersion,
    cipher_suites: Arc<[Arc<str>]>,
}

fn parameters(cx: &mut Cx, value: TlsParameters) -> Result<Parameters, Refusal> {
    take!(cx, value => TlsParameters {
        read { tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites }
        ignore "the TLS library's curves are offered, all of them strong" { ecdh_curves }
        ignore "the TLS library's signature algorithms are offered" { signature_algorithms }
        reject "compliance policies are not supported" { compliance_policies }
    });
    let minimum = match enumerated!(tls_minimum_protocol_version => TlsProtocol, "tls_minimum_protocol_version")?
    {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv12 => TlsVersion::Tls12,
        TlsProtocol::TlSv13 => TlsVersion::Tls13,
        // A lower bound that we do not speak: what we do speak is above it.
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            cx.note_text(
                "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
                "TLS below 1.2 is not offered",
            );
            TlsVersion::Tls12
        }
    };
    let maximum = match enumerated!(tls_maximum_protocol_version => TlsProtocol, "tls_maximum_protocol_version")?
    {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv13 => TlsVersion::Tls13,
        TlsProtocol::TlSv12 => TlsVersion::Tls12,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            return Err(Refusal::at(
                "tls_maximum_protocol_version",
                "TLS below 1.2 is not supported",
            ));
        }
    };
    if minimum > maximum {
        return Err(Refusal::at(
            "tls_minimum_protocol_version",
            "is above the maximum",
        ));
    }
    Ok(Parameters {
        min: minimum,
        max: maximum,
        cipher_suites: scalar::texts(cipher_suites),
    })
}

fn secret_name(cx: &mut Cx, value: SdsSecretConfig) -> Result<SecretName, Refusal> {
    let SdsSecretConfig { name, sds_config } = value;
    if sds_config.is_some() {
        config_source::subscribed(cx, sds_config).within("sds_config")?;
    }
    SecretName::parse(name).map_err(|e| Refusal::at("name", e.to_string()))
}

fn validation_type(
    cx: &mut Cx,
    value: Option<ValidationContextType>,
) -> Result<Option<Validation>, Refusal> {
    let by_secret = |name| Validation {
        roots: Roots::Secret(name),
        subject_alt_names: Arc::from([]),
        trust_chain: TrustChain::Verify,
    };
    Ok(Some(match value {
        None => return Ok(None),
        Some(ValidationContextType::ValidationContext(context)) => {
            validation(cx, context).within("validation_context")?
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            by_secret(secret_name(cx, config).within("validation_context_sds_secret_config")?)
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            take!(cx, combined => CombinedCertificateValidationContext {
                read { default_validation_context, validation_context_sds_secret_config }
                reject "trust anchors come inline or by SDS" {
                    validation_context_certificate_provider, validation_context_certificate_provider_instance,
                }
            });
            let field = "combined_validation_context";
            let mut context = validation(cx, default_validation_context.unwrap_or_default())
                .within("default_validation_context")
                .within(field)?;
            let config = validation_context_sds_secret_config
                .ok_or_else(|| Refusal::missing("validation_context_sds_secret_config"))
                .within(field)?;
            context.roots = Roots::Secret(
                secret_name(cx, config)
                    .within("validation_context_sds_secret_config")
                    .within(field)?,
            );
            context
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => {
            return Err(Refusal::at(
                "validation_context_certificate_provider",
                "certificate providers are not supported",
            ));
        }
    }))
}

fn validation(cx: &mut Cx, value: CertificateValidationContext) -> Result<Validation, Refusal> {
    take!(cx, value => CertificateValidationContext {
        read {
            trusted_ca, system_root_certs, match_typed_subject_alt_names, match_subject_alt_names, trust_chain_verification,
        }
        ignore "what is inline does not change" { watched_directory }
        ignore "names of authorities are hints for clients" { suppress_client_ca_list }
        reject "certificate providers are not supported" { ca_certificate_provider_instance }
        reject "signed timestamps are not verified" { require_signed_certificate_timestamp }
        reject "certificates are not pinned; match names" { verify_certificate_spki, verify_certificate_hash }
        reject "revocation lists are not read" { crl, only_verify_leaf_cert_crl }
        reject "expired certificates are not accepted" { allow_expired_certificate }
        reject "certificates are verified here" { custom_validator_config }
        reject "the TLS library limits the depth" { max_verify_depth }
    });
    let roots = match (trusted_ca, system_root_certs) {
        (Some(source), None) => Roots::InlinePem(inline_text(source).within("trusted_ca")?),
        (None, Some(_)) => Roots::System,
        (None, None) => Roots::None,
        (Some(_), Some(_)) => {
            return Err(Refusal::at(
                "system_root_certs",
                "and trusted_ca are both set",
            ));
        }
    };
    let mut subject_alt_names: Vec<SanMatcher> = each(
        "match_typed_subject_alt_names",
        match_typed_subject_alt_names,
        san,
    )?;
    subject_alt_names.extend(each::<_, _, Vec<_>>(
        "match_subject_alt_names",
        match_subject_alt_names,
        |m| {
            matcher::string(m).map(|matcher| SanMatcher {
                kind: SanKind::Any,
                matcher,
            })
        },
    )?);
    let trust_chain = match enumerated!(trust_chain_verification => TrustChainVerification, "trust_chain_verification")?
    {
        TrustChainVerification::VerifyTrustChain => TrustChain::Verify,
        TrustChainVerification::AcceptUntrusted => TrustChain::AcceptUntrusted,
    };
    Ok(Validation {
        roots,
        subject_alt_names: subject_alt_names.into(),
        trust_chain,
    })
}

fn san(value: pb::tls::SubjectAltNameMatcher) -> Result<SanMatcher, Refusal> {
    let pb::tls::SubjectAltNameMatcher {
        san_type,
        matcher,
        oid: _,
    } = value;
    let kind = match enumerated!(san_type => SanType, "san_type")? {
        SanType::Email => SanKind::Email,
        SanType::Dns => SanKind::Dns,
        SanType::Uri => SanKind::Uri,
        SanType::IpAddress => SanKind::IpAddress,
        SanType::Unspecified | SanType::OtherName => {
            return Err(Refusal::at("san_type", "is not supported"));
        }
    };
    let matcher =
        matcher::string(matcher.ok_or_else(|| Refusal::missing("matcher"))?).within("matcher")?;
    Ok(SanMatcher { kind, matcher })
}

pub(crate) fn certificate(
    cx: &mut Cx,
    value: pb::tls::TlsCertificate,
) -> Result<Certificate, Refusal> {
    take!(cx, value => pb::tls::TlsCertificate {
        read { certificate_chain, private_key, ocsp_staple }
        ignore "what is inline does not change" { watched_directory }
        ignore "timestamps are not sent" { signed_certificate_timestamp }
        reject "certificates are PEM" { pkcs12 }
        reject "keys are PEM without a password" { private_key_provider, password }
        reject "parameters belong to the context" { tls_params }
    });
    Ok(Certificate {
        chain_pem: inline_text(
            certificate_chain.ok_or_else(|| Refusal::missing("certificate_chain"))?,
        )
        .within("certificate_chain")?,
        key_pem: inline_text(private_key.ok_or_else(|| Refusal::missing("private_key"))?)
            .within("private_key")?,
        ocsp_staple: ocsp_staple
            .map(inline)
            .transpose()
            .within("ocsp_staple")?
            .filter(|b| !b.is_empty())
            .map(Arc::from),
    })
}

/// Inline bytes; decoding does no IO, so files and environment variables are refused.
pub(crate) fn inline(source: pb::core::DataSource) -> Result<Vec<u8>, Refusal> {
    let pb::core::DataSource {
        watched_directory: _,
        specifier,
    } = source;
    match specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::InlineString(text)) => Ok(text.into_bytes()),
        Some(Specifier::Filename(_)) => Err(Refusal::at(
            "filename",
            "files are not read; send it inline or by SDS",
        )),
        Some(Specifier::EnvironmentVariable(_)) => {
            Err(Refusal::at("environment_variable", "is not supported"))
        }
        None => Err(Refusal::missing("specifier")),
    }
}

pub(crate) fn inline_text(source: pb::core::DataSource) -> Result<Arc<str>, Refusal> {
    String::from_utf8(inline(source)?)
        .map(Arc::from)
        .map_err(|_| Refusal::new("is no text"))
}

#[cfg(test)]
mod tests;
