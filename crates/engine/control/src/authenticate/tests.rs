use super::*;
use crate::fake_api::FakeApi;
use tonic::Code;

fn authenticator(api: &FakeApi) -> Authenticator {
    Authenticator::new(
        api.client.clone(),
        TrustDomain::parse("cluster.local").expect("a trust domain"),
    )
}

fn with_token(token: &str) -> Request<()> {
    let mut request = Request::new(());
    request.metadata_mut().insert(
        "authorization",
        format!("Bearer {token}").parse().expect("a header"),
    );
    request
}

fn with_certificate(mut request: Request<()>, id: &str) -> Request<()> {
    let id = SpiffeId::parse(id).expect("an id");
    request.extensions_mut().insert(Peer {
        id: Some(id),
        address: None,
    });
    request
}

const ACCOUNT: &str = "system:serviceaccount:shop:cart";

#[tokio::test]
async fn a_certificate_of_the_mesh_needs_no_review() {
    let api = FakeApi::start();
    let request = with_certificate(Request::new(()), "spiffe://cluster.local/ns/shop/sa/cart");
    let caller = authenticator(&api)
        .authenticate(&request)
        .await
        .expect("a caller");
    assert_eq!(
        (caller.account.namespace(), caller.account.name()),
        ("shop", "cart")
    );
    assert_eq!(api.reviews(), 0);
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain_counts_for_nothing() {
    let api = FakeApi::start();
    api.accept_token("good", ACCOUNT, &[AUDIENCE]);
    let foreign = "spiffe://elsewhere/ns/istio-system/sa/admin";
    let refused = authenticator(&api)
        .authenticate(&with_certificate(Request::new(()), foreign))
        .await
        .expect_err("a foreign id");
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused
            .message()
            .contains("not of the trust domain `cluster.local`"),
        "{refused}"
    );
    let caller = authenticator(&api)
        .authenticate(&with_certificate(with_token("good"), foreign))
        .await
        .expect("the token's account");
    assert_eq!(caller.id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
}

#[tokio::test]
async fn a_token_is_reviewed_once_and_its_account_is_remembered() {
    let api = FakeApi::start();
    api.accept_token("good", ACCOUNT, &[AUDIENCE, "other"]);
    let authenticator = authenticator(&api);
    for _ in 0..3 {
        let caller = authenticator
            .authenticate(&with_token("good"))
            .await
            .expect("a caller");
        assert_eq!(caller.id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    }
    assert_eq!(api.reviews(), 1);
    assert!(
        authenticator
            .reviews
            .lock()
            .keys()
            .all(|kept| kept != b"good"),
        "no token stays in memory"
    );
}

#[tokio::test]
async fn tokens_that_prove_no_service_account_are_refused_by_reason() {
    let api = FakeApi::start();
    api.accept_token("audience", ACCOUNT, &["other"]);
    api.accept_token("person", "jane", &[AUDIENCE]);
    let authenticator = authenticator(&api);
    for (request, why) in [
        (with_token("audience"), "not meant for `istio-ca`"),
        (
            with_token("person"),
            "`jane`, which is not a service account",
        ),
        (with_token("unknown"), "unknown token"),
        (
            Request::new(()),
            "neither a client certificate nor a bearer token",
        ),
    ] {
        let refused = authenticator.authenticate(&request).await.expect_err(why);
        assert_eq!(refused.code(), Code::Unauthenticated, "{why}");
        assert!(refused.message().contains(why), "{refused}");
    }
    assert!(
        authenticator.reviews.lock().is_empty(),
        "a refusal is not remembered"
    );
}

#[tokio::test]
async fn an_api_that_does_not_review_is_no_refusal() {
    let api = FakeApi::start();
    api.do_not_serve("tokenreviews");
    let refused = authenticator(&api)
        .authenticate(&with_token("good"))
        .await
        .expect_err("no review");
    assert_eq!(refused.code(), Code::Unavailable);
}
