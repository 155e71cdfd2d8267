use proxy_config::matcher::{Fraction, StringMatcher, StringPattern};

use super::*;

fn cors() -> CorsPolicy {
    CorsPolicy {
        allow_origins: Arc::from([StringMatcher::exact("https://a.example.com")]),
        allow_methods: Some(HeaderValue::from_static("GET,POST")),
        allow_headers: None,
        expose_headers: None,
        max_age: Some(HeaderValue::from_static("86400")),
        allow_credentials: true,
        enabled: Fraction::ALL,
        shadow_enabled: None,
        forward_not_matching_preflights: true,
        allow_private_network: true,
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

#[test]
fn an_origin_is_allowed_by_a_pattern_or_by_the_star() {
    let origin = HeaderValue::from_static;
    let mut policy = cors();
    assert!(is_allowed(&policy, &origin("https://a.example.com")));
    assert!(!is_allowed(&policy, &origin("https://b.example.com")));
    assert!(!is_allowed(
        &policy,
        &HeaderValue::from_bytes(b"\xff").unwrap()
    ));
    policy.allow_origins = Arc::from([StringMatcher::exact("*")]);
    assert!(is_allowed(&policy, &origin("https://b.example.com")));
    let pattern = StringPattern::Suffix(".example.com".into());
    policy.allow_origins = Arc::from([StringMatcher {
        pattern,
        ignore_case: false,
    }]);
    assert!(is_allowed(&policy, &origin("https://c.example.com")));
    policy.allow_origins = Arc::from([]);
    assert!(!is_allowed(&policy, &origin("https://c.example.com")));
}

#[test]
fn a_preflight_is_an_options_request_that_asks_for_a_method() {
    let asks = headers(&[("access-control-request-method", "PUT")]);
    assert!(is_preflight(&Method::OPTIONS, &asks));
    assert!(!is_preflight(&Method::GET, &asks));
    assert!(!is_preflight(&Method::OPTIONS, &HeaderMap::new()));
    assert!(!is_preflight(
        &Method::OPTIONS,
        &headers(&[("access-control-request-method", "")])
    ));
}

#[test]
fn a_preflight_is_told_what_the_policy_says() {
    let request = headers(&[
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-a,x-b"),
        ("access-control-request-private-network", "true"),
    ]);
    let mut policy = cors();
    let expected = [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET,POST"),
        ("access-control-max-age", "86400"),
        ("access-control-allow-private-network", "true"),
    ];
    assert_eq!(preflight(&policy, &request), headers(&expected));
    policy.allow_methods = Some(HeaderValue::from_static("*"));
    policy.allow_headers = Some(HeaderValue::from_static("*"));
    let told = preflight(&policy, &request);
    assert_eq!(
        (
            &told["access-control-allow-methods"],
            &told["access-control-allow-headers"]
        ),
        (&"PUT".parse().unwrap(), &"x-a,x-b".parse().unwrap())
    );
    let minimal = CorsPolicy {
        allow_methods: None,
        max_age: None,
        allow_credentials: false,
        allow_private_network: false,
        ..cors()
    };
    assert_eq!(preflight(&minimal, &request), HeaderMap::new());
}
