use identity::TrustDomain;
use stdx::VirtualClock;

use super::*;

#[test]
fn the_own_certificate_is_renewed_at_half_its_life() {
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let now = SystemTime::now();
    let root = CertificateAuthority::self_signed(&domain, now).expect("a root");
    let authority = Arc::new(ArcSwap::from_pointee(root));
    let names = server_names("istio-system", "cluster.local");
    let own = ServerCertificate::issue(authority.clone(), names, Arc::new(VirtualClock::new(now)))
        .expect("a certificate");
    let first = own.current.load().config.clone();
    assert!(
        !own.renew(now + SERVER_CERTIFICATE_TTL / 4)
            .expect("nothing to do")
    );
    assert!(Arc::ptr_eq(&first, &own.current.load().config));
    assert!(
        own.renew(now + SERVER_CERTIFICATE_TTL / 2 + Duration::from_secs(60))
            .expect("a new certificate")
    );
    let second = own.current.load().config.clone();
    assert!(!Arc::ptr_eq(&first, &second));
    let other = CertificateAuthority::self_signed(&domain, now).expect("another root");
    authority.store(Arc::new(other));
    assert!(own.renew(now).expect("the new authority's certificate"));
    assert!(!Arc::ptr_eq(&second, &own.current.load().config));
}

#[test]
fn a_short_lived_authority_makes_renewals_earlier() {
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let made = SystemTime::now();
    let authority = CertificateAuthority::self_signed(&domain, made).expect("a root");
    let near_the_end = authority.not_after() - Duration::from_secs(1000);
    let issued =
        ServerCertificate::make(Arc::new(authority), &["localhost".to_owned()], near_the_end)
            .expect("a certificate");
    assert_eq!(issued.renew_at, near_the_end + Duration::from_secs(500));
}
