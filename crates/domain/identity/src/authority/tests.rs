use rcgen::{CertificateParams, KeyUsagePurpose};

use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/sa/{name}")).unwrap()
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::self_signed(&TrustDomain::default(), now()).unwrap()
}

fn request(key: &PrivateKey) -> SigningRequest {
    SigningRequest::new(key, &id("asked-for")).unwrap()
}

#[test]
fn a_certificate_holds_the_proved_identity_and_nothing_of_the_request() {
    let key = PrivateKey::generate().unwrap();
    let mut hostile = CertificateParams::default();
    hostile.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    hostile.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    hostile
        .distinguished_name
        .push(DnType::CommonName, "istiod.istio-system.svc");
    hostile.subject_alt_names = vec![
        uri(&id("admin")).unwrap(),
        SanType::DnsName("istiod.istio-system.svc".try_into().unwrap()),
    ];
    let csr = hostile
        .serialize_request(&key.pair().unwrap())
        .unwrap()
        .pem()
        .unwrap();
    let chain = authority().sign(&csr, &id("web"), None, now()).unwrap();
    let (_, x509) = x509_parser::parse_x509_certificate(&chain.der()[0]).unwrap();
    assert!(!x509.is_ca());
    assert_eq!(x509.subject().iter().count(), 0);
    let names = x509.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    let leaf = chain.leaf().unwrap();
    assert_eq!(leaf.uri_sans, [id("web").as_str()]);
    assert!(leaf.dns_sans.is_empty());
    let usage = x509.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = x509.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert_eq!(leaf.not_before, 1_800_000_000 - 120);
    assert_eq!(leaf.not_after, 1_800_000_000 + 24 * 3600);
    assert_eq!(chain.len(), 2);
    WorkloadIdentity::new(key, chain, authority().bundle().clone()).unwrap();
}

#[test]
fn a_request_signed_with_another_key_is_refused() {
    let key = PrivateKey::generate().unwrap();
    let pem = request(&key).as_pem().to_owned();
    let block = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1;
    let mut der = block.contents;
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = crate::pem::encode("CERTIFICATE REQUEST", &der);
    assert!(matches!(
        authority().sign(&forged, &id("a"), None, now()),
        Err(IdentityError::Request(_))
    ));
    for text in [
        "",
        "hello",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ] {
        assert!(
            matches!(
                authority().sign(text, &id("a"), None, now()),
                Err(IdentityError::Request(_))
            ),
            "{text}"
        );
    }
    let huge = "A".repeat(MAX_REQUEST_BYTES + 1);
    assert!(authority().sign(&huge, &id("a"), None, now()).is_err());
}

#[test]
fn requests_with_rsa_keys_and_unknown_extensions_are_served() {
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params
        .custom_extensions
        .push(rcgen::CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 5, 5, 7, 1, 24],
            vec![0x30, 3, 2, 1, 5],
        ));
    let csr = params.serialize_request(&rsa).unwrap().pem().unwrap();
    let chain = authority().sign(&csr, &id("java"), None, now()).unwrap();
    let key = PrivateKey::from_pem(&rsa.serialize_pem()).unwrap();
    assert_eq!(key.algorithm(), crate::KeyAlgorithm::Rsa);
    TlsCertificate::new(key, chain).unwrap();
}

#[test]
fn lifetimes_have_a_default_a_limit_and_end_with_the_authority() {
    let authority = authority();
    let key = PrivateKey::generate().unwrap();
    let csr = request(&key);
    let ends = |ttl, at| {
        authority
            .sign(csr.as_pem(), &id("a"), ttl, at)
            .map(|c| c.leaf().unwrap().not_after)
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(ends(Some(hour), now()), Ok(1_800_000_000 + 3600));
    assert_eq!(
        ends(Some(Duration::ZERO), now()),
        Ok(1_800_000_000 + 24 * 3600)
    );
    assert!(matches!(
        ends(Some(MAX_TTL + hour), now()),
        Err(IdentityError::Lifetime { .. })
    ));
    let late = authority.not_after() - Duration::from_secs(60);
    assert_eq!(ends(Some(hour), late), Ok(authority.until));
    assert!(matches!(
        ends(Some(hour), authority.not_after()),
        Err(IdentityError::AuthorityExpired { .. })
    ));
    assert!(matches!(
        ends(Some(hour), now() - hour),
        Err(IdentityError::AuthorityExpired { .. })
    ));
}

#[test]
fn files_round_trip_and_an_intermediate_is_part_of_the_chain() {
    let first = authority();
    let again = CertificateAuthority::from_pem(&first.to_pem()).unwrap();
    assert_eq!(first.bundle(), again.bundle());

    let root_key = PrivateKey::from_pem(&first.to_pem().ca_key).unwrap();
    let root_pem = first.to_pem().root_cert;
    let issuer = Issuer::from_ca_cert_pem(&root_pem, root_key.pair().unwrap()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date(now()).unwrap();
    params.not_after = date(now() + DEFAULT_TTL).unwrap();
    let middle = params
        .signed_by(&key.pair().unwrap(), &issuer)
        .unwrap()
        .pem();
    let files = AuthorityPem {
        ca_cert: middle.clone(),
        ca_key: key.to_pem(),
        cert_chain: format!("{middle}{root_pem}"),
        root_cert: root_pem.clone(),
    };
    let plugged = CertificateAuthority::from_pem(&files).unwrap();
    let leaf_key = PrivateKey::generate().unwrap();
    let chain = plugged
        .sign(request(&leaf_key).as_pem(), &id("a"), None, now())
        .unwrap();
    assert_eq!(chain.len(), 3);
    assert_eq!(chain.last().to_pem(), root_pem.replace("\r\n", "\n"));
    assert_eq!(chain.without_root().len(), 2);

    let stranger =
        CertificateAuthority::self_signed(&TrustDomain::parse("other").unwrap(), now()).unwrap();
    let wrong_root = AuthorityPem {
        root_cert: stranger.to_pem().root_cert,
        ..files
    };
    assert!(matches!(
        CertificateAuthority::from_pem(&wrong_root),
        Err(IdentityError::Authority(_))
    ));
    let wrong_key = AuthorityPem {
        ca_key: leaf_key.to_pem(),
        ..first.to_pem()
    };
    let error = CertificateAuthority::from_pem(&wrong_key)
        .unwrap_err()
        .to_string();
    assert!(error.contains("does not belong"), "{error}");
    let leaf_as_ca = AuthorityPem {
        ca_cert: chain.to_pem(),
        ca_key: leaf_key.to_pem(),
        cert_chain: middle,
        root_cert: root_pem,
    };
    assert!(
        CertificateAuthority::from_pem(&leaf_as_ca)
            .unwrap_err()
            .to_string()
            .contains("CA:FALSE")
    );
}

#[test]
fn a_secret_whose_key_is_anothers_is_named() {
    let one = authority()
        .issue_server(&["a.example"], DEFAULT_TTL, now())
        .unwrap();
    let other = PrivateKey::generate().unwrap();
    let error = TlsCertificate::from_pem(&one.chain().to_pem(), &other.to_pem()).unwrap_err();
    assert_eq!(
        error,
        IdentityError::KeyMismatch {
            subject: "a.example".into()
        }
    );
    let read = TlsCertificate::from_pem(&one.chain().to_pem(), &one.key().to_pem()).unwrap();
    assert_eq!(read, one);
    assert!(
        TlsCertificate::from_pem("", &other.to_pem())
            .unwrap_err()
            .to_string()
            .contains("certificate")
    );
    assert!(
        TlsCertificate::from_pem(&one.chain().to_pem(), "")
            .unwrap_err()
            .to_string()
            .contains("private key")
    );
}

#[test]
fn secrets_are_not_printed() {
    let authority = authority();
    let key = PrivateKey::generate().unwrap();
    let secret = key.to_pem();
    let body: Vec<&str> = secret.lines().filter(|l| !l.starts_with('-')).collect();
    let printed = format!("{key:?} {authority:?} {:?}", authority.to_pem());
    assert!(body.iter().all(|line| !printed.contains(line)));
    assert!(printed.contains("redacted"));
}
