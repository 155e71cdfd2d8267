use proxy_config::tls::{CertificateSource, DownstreamTls, Roots, SanKind, TlsVersion};

use crate::{
    reject::Reject,
    testing::{decode, refused},
};

fn downstream(yaml: &str) -> Result<DownstreamTls, Reject> {
    decode(yaml, super::downstream)
}

#[test]
fn secrets_and_names_come_together() {
    let found = downstream(
        "{require_client_certificate: true, common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_3}, \
         tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}], \
         combined_validation_context: {default_validation_context: {match_subject_alt_names: [{prefix: 'spiffe://a/'}]}, \
         validation_context_sds_secret_config: {name: ROOTCA}}, alpn_protocols: [h2]}}",
    )
    .expect("decoded");
    assert!(found.require_client_certificate);
    assert_eq!(
        (found.common.min_version, found.common.max_version),
        (TlsVersion::Tls13, TlsVersion::Tls13)
    );
    assert!(
        matches!(&found.common.certificates[0], CertificateSource::Secret(name) if name.as_str() == "default")
    );
    let validation = found.common.validation.expect("present");
    assert!(matches!(&validation.roots, Roots::Secret(name) if name.as_str() == "ROOTCA"));
    assert_eq!(validation.subject_alt_names[0].kind, SanKind::Any);
    assert!(
        validation.subject_alt_names[0]
            .matcher
            .is_match("spiffe://a/ns/b")
    );
}

#[test]
fn a_client_certificate_without_anyone_to_trust_is_refused() {
    assert_eq!(
        refused(downstream("{require_client_certificate: true}")).0,
        "require_client_certificate"
    );
}

#[test]
fn files_are_not_read_and_checks_are_not_dropped() {
    let file = "{common_tls_context: {tls_certificates: [{certificate_chain: {filename: /a}, private_key: {inline_string: k}}]}}";
    assert_eq!(
        refused(downstream(file)).0,
        "common_tls_context.tls_certificates[0].certificate_chain.filename"
    );
    let depth = "{common_tls_context: {validation_context: {max_verify_depth: 1}}}";
    assert_eq!(
        refused(downstream(depth)).0,
        "common_tls_context.validation_context.max_verify_depth"
    );
    assert!(
        downstream("{common_tls_context: {tls_params: {tls_maximum_protocol_version: TLSv1_1}}}")
            .is_err()
    );
}

#[test]
fn pinned_certificates_are_refused_by_the_fields_name() {
    for field in ["verify_certificate_hash", "verify_certificate_spki"] {
        let yaml = format!("{{common_tls_context: {{validation_context: {{{field}: ['AAAA']}}}}}}");
        assert_eq!(
            refused(downstream(&yaml)).0,
            format!("common_tls_context.validation_context.{field}")
        );
    }
}
