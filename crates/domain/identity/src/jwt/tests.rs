use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn account() -> ServiceAccountName {
    ServiceAccountName::new("default", "web").unwrap()
}

fn token(signer: &TokenSigner, account: &ServiceAccountName) -> String {
    let request = TokenRequest {
        account,
        account_uid: "uid-a",
        pod: Some(("web-1", "uid-p")),
        node: None,
        audiences: &["istio-ca"],
        ttl: Duration::from_secs(600),
    };
    signer.sign(&request, now()).unwrap()
}

#[test]
fn a_good_token_gives_its_claims() {
    let signer = TokenSigner::new(
        &PrivateKey::generate().unwrap(),
        "https://kubernetes.default.svc",
    )
    .unwrap();
    let text = token(&signer, &account());
    let claims = signer
        .verifier()
        .unwrap()
        .verify(&text, &["istio-ca"], now())
        .unwrap();
    assert_eq!(claims.account().unwrap(), account());
    assert_eq!(claims.sub, "system:serviceaccount:default:web");
    assert_eq!(
        claims.kubernetes.pod,
        Some(Named {
            name: "web-1".into(),
            uid: "uid-p".into()
        })
    );
    assert_eq!((claims.iat, claims.exp), (1_800_000_000, 1_800_000_600));
    assert_eq!(unverified_expiry(&text), Some(1_800_000_600));
    let jwks: serde_json::Value = serde_json::from_str(&signer.jwks()).unwrap();
    let key = &jwks["keys"][0];
    let decoding =
        DecodingKey::from_ec_components(key["x"].as_str().unwrap(), key["y"].as_str().unwrap())
            .unwrap();
    let by_jwks = TokenVerifier {
        decoding,
        ..signer.verifier().unwrap()
    };
    assert!(by_jwks.verify(&text, &[], now()).is_ok());
}

#[test]
fn time_audience_issuer_key_and_signature_are_checked() {
    let key = PrivateKey::generate().unwrap();
    let signer = TokenSigner::new(&key, "issuer").unwrap();
    let verifier = signer.verifier().unwrap();
    let text = token(&signer, &account());
    let why = |text: &str, audience: &str, at| {
        verifier
            .verify(text, &[audience], at)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        why(&text, "istio-ca", now() + Duration::from_secs(600)),
        "token: has expired"
    );
    assert_eq!(
        why(&text, "istio-ca", now() - Duration::from_secs(1)),
        "token: is not valid yet"
    );
    assert_eq!(
        why(&text, "vault", now()),
        "token: is meant for another audience"
    );
    let other_issuer = token(&TokenSigner::new(&key, "other").unwrap(), &account());
    assert_eq!(
        why(&other_issuer, "istio-ca", now()),
        "token: has another issuer"
    );
    let other_key = token(
        &TokenSigner::new(&PrivateKey::generate().unwrap(), "issuer").unwrap(),
        &account(),
    );
    assert!(why(&other_key, "istio-ca", now()).contains("not known"));
    let parts: Vec<&str> = text.split('.').collect();
    let payload = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap())
        .unwrap()
        .replace("web", "adm");
    let forged = format!(
        "{}.{}.{}",
        parts[0],
        URL_SAFE_NO_PAD.encode(payload),
        parts[2]
    );
    assert!(verifier.verify(&forged, &[], now()).is_err());
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, signer.key_id));
    assert!(
        verifier
            .verify(&format!("{header}.{}.", parts[1]), &[], now())
            .is_err()
    );
    assert!(
        verifier
            .verify(&"a".repeat(MAX_TOKEN_BYTES + 1), &[], now())
            .is_err()
    );
    assert!(verifier.verify("", &[], now()).is_err());
}
