use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use proxy_config::matcher::{HeaderKey, HeaderMatcher, HeaderTest, StringPattern, ValueMatcher};

use super::*;

fn connection() -> ConnectionFacts {
    ConnectionFacts {
        destination: "10.0.0.2:8080".parse().unwrap(),
        source: "10.1.0.1:4000".parse().unwrap(),
        direct_source: "192.168.0.9:4000".parse().unwrap(),
        server_name: Some("outbound_.80_._.a".into()),
        is_tls: true,
        application_protocols: Vec::new(),
    }
}

fn tls(mutual: bool) -> TlsInfo {
    TlsInfo {
        peer_uri_sans: vec!["spiffe://cluster.local/ns/default/sa/sleep".into()],
        peer_dns_sans: vec!["sleep.example.com".into()],
        peer_subject: Some("CN=sleep".into()),
        mutual,
        ..TlsInfo::default()
    }
}

fn head<'a>(headers: &'a HeaderMap, method: &'a str, path: &'a str) -> HeaderView<'a> {
    HeaderView {
        headers,
        authority: "a.example.com",
        method,
        path,
        scheme: "http",
        protocol: "",
        status: None,
    }
}

fn rules(action: Action, permissions: Vec<Permission>, principals: Vec<Principal>) -> Rules {
    let policy = Policy {
        name: "ns[foo]-policy[p]-rule[0]".into(),
        permissions: permissions.into(),
        principals: principals.into(),
    };
    Rules {
        action,
        policies: Arc::new([policy]),
    }
}

fn prefix(text: &str) -> StringMatcher {
    StringMatcher {
        pattern: StringPattern::Prefix(text.into()),
        ignore_case: false,
    }
}

fn header(name: &str, value: &str) -> HeaderMatcher {
    let name = match name {
        ":method" => HeaderKey::Method,
        name => HeaderKey::Name(name.parse().unwrap()),
    };
    HeaderMatcher {
        name,
        test: HeaderTest::String(StringMatcher::exact(value)),
        invert: false,
        missing_as_empty: false,
    }
}

fn cidr(net: &str) -> CidrSet {
    CidrSet(Arc::from([net.parse().unwrap()]))
}

/// Whether an ALLOW policy of this permission and principal lets a `GET /admin/x?y` of `sleep`
/// pass.
fn allows(permission: Permission, principal: Principal) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("x-team", HeaderValue::from_static("red"));
    let mut metadata = Metadata::default();
    note(
        &mut metadata,
        "jwt",
        [(Arc::from("iss"), Value::String("issuer".into()))],
    );
    let (connection, tls) = (connection(), tls(true));
    let facts = Facts {
        head: Some(head(&headers, "GET", "/admin/x?y")),
        connection: &connection,
        remote: "203.0.113.7".parse().unwrap(),
        tls: Some(&tls),
        metadata: &metadata,
    };
    decide(
        &rules(Action::Allow, vec![permission], vec![principal]),
        &facts,
    )
    .allowed
}

#[test]
fn each_permission_looks_at_its_fact() {
    let claim = |value: &str| {
        let value = ValueMatcher::String(StringMatcher::exact(value));
        Permission::Metadata(MetadataMatcher {
            filter: "jwt".into(),
            path: Arc::from([Arc::from("iss")]),
            value,
            invert: false,
        })
    };
    let table = [
        (Permission::Any, true),
        (Permission::And(Arc::from([])), true),
        (Permission::Or(Arc::from([])), false),
        (Permission::Not(Box::new(Permission::Any)), false),
        (Permission::Header(header(":method", "GET")), true),
        (Permission::Header(header("x-team", "blue")), false),
        (Permission::UrlPath(StringMatcher::exact("/admin/x")), true),
        (
            Permission::UrlPath(StringMatcher::exact("/admin/x?y")),
            false,
        ),
        (Permission::DestinationIp(cidr("10.0.0.0/24")), true),
        (Permission::DestinationIp(cidr("10.1.0.0/24")), false),
        (Permission::DestinationPort(8080), true),
        (Permission::DestinationPort(80), false),
        (
            Permission::DestinationPortRange {
                start: 8000,
                end: 8080,
            },
            false,
        ),
        (
            Permission::DestinationPortRange {
                start: 8080,
                end: 8081,
            },
            true,
        ),
        (claim("issuer"), true),
        (claim("other"), false),
        (Permission::RequestedServerName(prefix("outbound_")), true),
        (Permission::Unsupported("x".into()), false),
        (
            Permission::Not(Box::new(Permission::Unsupported("x".into()))),
            false,
        ),
    ];
    for (permission, expected) in table {
        assert_eq!(
            allows(permission.clone(), Principal::Any),
            expected,
            "{permission:?}"
        );
    }
}

#[test]
fn each_principal_looks_at_its_fact() {
    let sleep = "spiffe://cluster.local/ns/default/sa/sleep";
    let table = [
        (Principal::Any, true),
        (Principal::Authenticated(None), true),
        (
            Principal::Authenticated(Some(StringMatcher::exact(sleep))),
            true,
        ),
        (
            Principal::Authenticated(Some(StringMatcher::exact("sleep.example.com"))),
            true,
        ),
        (
            Principal::Authenticated(Some(StringMatcher::exact("CN=sleep"))),
            true,
        ),
        (
            Principal::Authenticated(Some(StringMatcher::exact(
                "spiffe://cluster.local/ns/default/sa/other",
            ))),
            false,
        ),
        (Principal::DirectRemoteIp(cidr("192.168.0.9/32")), true),
        (Principal::RemoteIp(cidr("203.0.113.0/24")), true),
        (Principal::RemoteIp(cidr("10.1.0.0/24")), false),
        (Principal::SourceIp(cidr("10.1.0.0/24")), true),
        (Principal::Header(header("x-team", "red")), true),
        (Principal::UrlPath(prefix("/admin")), true),
        (
            Principal::FilterState {
                key: PEER_PRINCIPAL.into(),
                matcher: StringMatcher::exact(sleep),
            },
            true,
        ),
        (
            Principal::FilterState {
                key: "other".into(),
                matcher: prefix(""),
            },
            false,
        ),
        (
            Principal::Not(Box::new(Principal::Unsupported("x".into()))),
            false,
        ),
        (
            Principal::Not(Box::new(Principal::Authenticated(Some(
                StringMatcher::exact("x"),
            )))),
            true,
        ),
    ];
    for (principal, expected) in table {
        assert_eq!(
            allows(Permission::Any, principal.clone()),
            expected,
            "{principal:?}"
        );
    }
}

#[test]
fn a_certificate_that_was_not_verified_names_nobody() {
    let (connection, tls, metadata) = (connection(), tls(false), Metadata::default());
    let remote = connection.source.ip();
    let facts = Facts {
        head: None,
        connection: &connection,
        remote,
        tls: Some(&tls),
        metadata: &metadata,
    };
    for principal in [
        Principal::Authenticated(None),
        Principal::Authenticated(Some(prefix(""))),
    ] {
        assert!(
            !decide(
                &rules(Action::Allow, vec![Permission::Any], vec![principal]),
                &facts
            )
            .allowed
        );
    }
}

#[test]
fn on_a_connection_http_rules_never_allow_and_always_deny() {
    let (connection, metadata) = (connection(), Metadata::default());
    let facts = Facts {
        head: None,
        connection: &connection,
        remote: connection.source.ip(),
        tls: None,
        metadata: &metadata,
    };
    let get = || Permission::Header(header(":method", "GET"));
    let both = |action| {
        let plain = decide(&rules(action, vec![get()], vec![Principal::Any]), &facts).allowed;
        let negated = decide(
            &rules(
                action,
                vec![Permission::Not(Box::new(get()))],
                vec![Principal::Any],
            ),
            &facts,
        )
        .allowed;
        (plain, negated)
    };
    assert_eq!(both(Action::Allow), (false, false));
    assert_eq!(both(Action::Deny), (false, false));
    // What is certainly another port is not this rule's.
    let other_port = Permission::And(Arc::from([get(), Permission::DestinationPort(1)]));
    assert!(
        decide(
            &rules(Action::Deny, vec![other_port], vec![Principal::Any]),
            &facts
        )
        .allowed
    );
}

#[test]
fn actions_decide_by_the_first_policy_that_matches() {
    let (connection, metadata) = (connection(), Metadata::default());
    let facts = Facts {
        head: None,
        connection: &connection,
        remote: connection.source.ip(),
        tls: None,
        metadata: &metadata,
    };
    let policy = |name: &str, port| Policy {
        name: name.into(),
        permissions: Arc::from([Permission::DestinationPort(port)]),
        principals: Arc::from([Principal::Any]),
    };
    let decide_with = |action, ports: &[u16]| {
        let policies = ports
            .iter()
            .enumerate()
            .map(|(at, port)| policy(&format!("p{at}"), *port))
            .collect();
        let rules = Rules { action, policies };
        let decision = decide(&rules, &facts);
        (decision.allowed, decision.policy.map(ToString::to_string))
    };
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(decide_with(Action::Allow, &[]), (false, None));
    assert_eq!(
        decide_with(Action::Allow, &[1, 8080, 8080]),
        (true, named("p1"))
    );
    assert_eq!(decide_with(Action::Deny, &[]), (true, None));
    assert_eq!(decide_with(Action::Deny, &[8080]), (false, named("p0")));
    assert_eq!(decide_with(Action::Log, &[1]), (true, None));
    assert_eq!(decide_with(Action::Log, &[8080]), (true, named("p0")));
}

#[test]
fn shadow_rules_are_told_and_never_decide() {
    let stats = Store::new(telemetry::stats::Options::default());
    let config = Rbac {
        rules: None,
        shadow_rules: Some(rules(
            Action::Deny,
            vec![Permission::Any],
            vec![Principal::Any],
        )),
        shadow_rules_stat_prefix: "istio_dry_run_deny_".into(),
        rules_stat_prefix: "".into(),
        stat_prefix: "tcp.".into(),
    };
    let state = State::new(&stats, "tcp.", &config);
    let (connection, mut metadata) = (connection(), Metadata::default());
    let none = Metadata::default();
    let facts = Facts {
        head: None,
        connection: &connection,
        remote: connection.source.ip(),
        tls: None,
        metadata: &none,
    };
    assert_eq!(
        state.judge_connection(&config, &facts, &mut metadata),
        Ok(())
    );
    let told = |key: &str| {
        metadata
            .lookup(NETWORK_NAMESPACE, &[key])
            .and_then(Value::as_str)
    };
    assert_eq!(
        told("istio_dry_run_deny_shadow_engine_result"),
        Some("denied")
    );
    assert_eq!(
        told("istio_dry_run_deny_shadow_effective_policy_id"),
        Some("ns[foo]-policy[p]-rule[0]")
    );
    assert_eq!(
        stats
            .scope("tcp.rbac.")
            .counter("istio_dry_run_deny_.shadow_denied")
            .value(),
        1
    );
}

#[test]
fn a_refused_connection_says_which_policy() {
    let stats = Store::new(telemetry::stats::Options::default());
    let mut config = Rbac {
        rules: Some(rules(
            Action::Deny,
            vec![Permission::Any],
            vec![Principal::Any],
        )),
        shadow_rules: None,
        shadow_rules_stat_prefix: "".into(),
        rules_stat_prefix: "".into(),
        stat_prefix: "".into(),
    };
    let state = State::new(&stats, "", &config);
    let (connection, mut metadata) = (connection(), Metadata::default());
    let none = Metadata::default();
    let facts = Facts {
        head: None,
        connection: &connection,
        remote: connection.source.ip(),
        tls: None,
        metadata: &none,
    };
    let refused = |config: &Rbac, metadata: &mut Metadata| {
        state
            .judge_connection(config, &facts, metadata)
            .unwrap_err()
    };
    assert_eq!(
        refused(&config, &mut metadata),
        "rbac_access_denied_matched_policy[ns[foo]-policy[p]-rule[0]]"
    );
    config.rules = Some(Rules {
        action: Action::Allow,
        policies: Arc::from([]),
    });
    assert_eq!(
        refused(&config, &mut metadata),
        "rbac_access_denied_matched_policy[none]"
    );
    assert_eq!(
        details(Some("a policy\tx")),
        "rbac_access_denied_matched_policy[a_policy_x]"
    );
    assert_eq!(stats.scope("rbac.").counter("denied").value(), 2);
}

fn any_permission() -> impl Strategy<Value = Permission> {
    let leaf = prop_oneof![
        Just(Permission::Any),
        Just(Permission::DestinationPort(8080)),
        Just(Permission::DestinationPort(1)),
        Just(Permission::Unsupported("x".into())),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| Permission::And(all.into())),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|any| Permission::Or(any.into())),
            inner.prop_map(|p| Permission::Not(Box::new(p))),
        ]
    })
}

/// The permission with the unsupported matchers decided one way.
fn settled(permission: &Permission, way: bool) -> bool {
    match permission {
        Permission::Any => true,
        Permission::And(all) => all.iter().all(|p| settled(p, way)),
        Permission::Or(any) => any.iter().any(|p| settled(p, way)),
        Permission::Not(inner) => !settled(inner, way),
        Permission::DestinationPort(port) => *port == 8080,
        _ => way,
    }
}

proptest! {
    /// Whatever an unsupported matcher would have said: ALLOW lets nothing pass that it might not,
    /// DENY refuses all that it might.
    #[test]
    fn what_cannot_be_evaluated_fails_closed(permission in any_permission()) {
        let (connection, metadata) = (connection(), Metadata::default());
        let facts = Facts { head: None, connection: &connection, remote: connection.source.ip(), tls: None, metadata: &metadata };
        let allow = decide(&rules(Action::Allow, vec![permission.clone()], vec![Principal::Any]), &facts).allowed;
        let deny = decide(&rules(Action::Deny, vec![permission.clone()], vec![Principal::Any]), &facts).allowed;
        for way in [true, false] {
            prop_assert!(!allow || settled(&permission, way));
            prop_assert!(!deny || !settled(&permission, way));
        }
    }
}
