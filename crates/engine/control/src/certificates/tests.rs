use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use identity::{
    CertificateAuthority, CertificateChain, PrivateKey, SigningRequest, SpiffeId, TrustDomain,
};
use tonic::Code;
use wire_envoy::pb::{Struct, Value, ValueKind};

use super::*;
use crate::{fake_api::FakeApi, peer::Peer};

const HOUR: i64 = 3600;
const OWN: &str = "spiffe://cluster.local/ns/shop/sa/cart";

struct World {
    _api: FakeApi,
    service: CertificateService,
}

fn world(default_ttl: Duration) -> World {
    let api = FakeApi::start();
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let authority = Arc::new(ArcSwap::from_pointee(
        CertificateAuthority::self_signed(&domain, SystemTime::now()).expect("a root"),
    ));
    let authenticator = Arc::new(Authenticator::new(api.client.clone(), domain));
    World {
        service: CertificateService {
            authority,
            authenticator,
            default_ttl,
            clock: Arc::new(stdx::SystemClock),
            metrics: Metrics::new(Arc::new(stdx::SystemClock)),
        },
        _api: api,
    }
}

fn request(asked_id: &str, seconds: i64) -> Request<IstioCertificateRequest> {
    let key = PrivateKey::generate().expect("a key");
    let asked =
        SigningRequest::new(&key, &SpiffeId::parse(asked_id).expect("an id")).expect("a request");
    let mut request = Request::new(IstioCertificateRequest {
        csr: asked.as_pem().to_owned(),
        validity_duration: seconds,
        metadata: None,
    });
    request.extensions_mut().insert(Peer {
        id: Some(SpiffeId::parse(OWN).expect("an id")),
        address: None,
    });
    request
}

async fn chain(world: &World, request: Request<IstioCertificateRequest>) -> CertificateChain {
    let answer = world
        .service
        .create_certificate(request)
        .await
        .expect("a certificate")
        .into_inner();
    CertificateChain::from_pem_blocks(&answer.cert_chain).expect("a chain")
}

fn life(chain: &CertificateChain) -> i64 {
    let leaf = chain.leaf().expect("a leaf");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    leaf.not_after - i64::try_from(now).expect("seconds")
}

#[tokio::test]
async fn the_identity_is_the_callers_whatever_the_request_says() {
    let world = world(Duration::from_secs(24 * 3600));
    let chain = chain(
        &world,
        request("spiffe://cluster.local/ns/istio-system/sa/admin", 0),
    )
    .await;
    let leaf = chain.leaf().expect("a leaf");
    assert_eq!(leaf.uri_sans, [OWN]);
    assert_eq!(chain.len(), 2, "leaf, then root");
    assert_eq!(world.service.metrics.authority.csr_count.get(), 1);
    assert_eq!(world.service.metrics.authority.issued.get(), 1);
}

#[tokio::test]
async fn lifetimes_are_the_askers_or_the_default() {
    let world = world(Duration::from_secs(12 * 3600));
    for (asked, wanted) in [
        (0, 12 * HOUR),
        (-5, 12 * HOUR),
        (HOUR, HOUR),
        (90 * 24 * HOUR, 90 * 24 * HOUR),
    ] {
        let got = life(&chain(&world, request(OWN, asked)).await);
        assert!(
            (wanted - 60..=wanted + 1).contains(&got),
            "asked {asked} s, got {got} s"
        );
    }
}

#[tokio::test]
async fn a_lifetime_above_the_maximum_is_refused_with_both_numbers() {
    let world = world(Duration::from_secs(24 * 3600));
    for asked in [90 * 24 * HOUR + 1, i64::MAX] {
        let refused = world
            .service
            .create_certificate(request(OWN, asked))
            .await
            .expect_err("too long");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().contains(&asked.to_string()) && refused.message().contains("7776000"),
            "{refused}"
        );
    }
    assert_eq!(world.service.metrics.authority.issued.get(), 0);
}

#[tokio::test]
async fn strangers_impersonators_and_broken_requests_get_nothing() {
    let world = world(Duration::from_secs(24 * 3600));
    let mut stranger = request(OWN, 0);
    stranger.extensions_mut().remove::<Peer>();
    let mut impersonator = request(OWN, 0);
    let value = Value {
        kind: Some(ValueKind::StringValue(
            "spiffe://cluster.local/ns/a/sa/b".into(),
        )),
    };
    impersonator.get_mut().metadata = Some(Struct {
        fields: [("ImpersonatedIdentity".to_owned(), value)].into(),
    });
    let mut broken = request(OWN, 0);
    broken.get_mut().csr = "no request".into();
    for (request, code) in [
        (stranger, Code::Unauthenticated),
        (impersonator, Code::PermissionDenied),
        (broken, Code::InvalidArgument),
    ] {
        let refused = world
            .service
            .create_certificate(request)
            .await
            .expect_err("a refusal");
        assert_eq!(refused.code(), code, "{refused}");
    }
    assert_eq!(
        world
            .service
            .metrics
            .authority
            .authentication_failures
            .get(),
        1
    );
}
