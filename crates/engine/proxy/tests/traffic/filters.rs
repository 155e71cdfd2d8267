//! Filters and balancing seen from outside: what clients get, what upstreams see, what is recorded and counted.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use proxy_config::{
    Listener,
    cluster::*,
    filter::{
        HttpFilter, HttpFilterKind, NetworkFilter, PerRouteConfig, PerRouteFilter,
        cors::CorsPolicy, fault::*, local_rate_limit::*, rbac::*,
    },
    hash_policy::{HashPolicy, HashSource},
    listener::Terminal,
    matcher::{
        Fraction, HeaderKey, HeaderMatcher, HeaderTest, Percent, StringMatcher, StringPattern,
    },
    route::Route,
};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    backend::{self, Backend},
    client,
    config::*,
    proxy::{Proxy, until},
};

/// A listener with these filters before the router.
fn filtered(filters: Vec<(&str, HttpFilterKind)>, route: Route) -> Listener {
    let mut listener = http_listener("in", vec![route]);
    let mut chain = (*listener.chains[0]).clone();
    let Terminal::Http(manager) = &chain.terminal else {
        panic!("an HTTP chain")
    };
    let mut manager = (**manager).clone();
    let first = filters.into_iter().map(|(name, kind)| HttpFilter {
        name: name.into(),
        kind,
        disabled: false,
    });
    manager.filters = first.chain(manager.filters.iter().cloned()).collect();
    chain.terminal = Terminal::Http(Arc::new(manager));
    listener.chains = Arc::from([Arc::new(chain)]);
    listener
}

async fn start(
    filters: Vec<(&str, HttpFilterKind)>,
    change: impl FnOnce(&mut Route),
) -> (Proxy, Backend) {
    let backend = backend::echo().await;
    let mut route = to("b");
    change(&mut route);
    let proxy = Proxy::start(
        vec![filtered(filters, route)],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    (proxy, backend)
}

fn header<'r>(response: &'r Response<()>, name: &str) -> Option<&'r str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

fn fault(delay: Option<u64>, abort: Option<AbortKind>) -> Fault {
    Fault {
        delay: delay.map(|milliseconds| Delay {
            kind: DelayKind::Fixed(Duration::from_millis(milliseconds)),
            fraction: Fraction::ALL,
        }),
        abort: abort.map(|kind| Abort {
            kind,
            fraction: Fraction::ALL,
        }),
        ..Fault::default()
    }
}

#[tokio::test]
async fn an_injected_fault_delays_and_aborts() {
    let both = fault(Some(60), Some(AbortKind::Http(StatusCode::IM_A_TEAPOT)));
    let (proxy, backend) = start(
        vec![("fault", HttpFilterKind::Fault(Arc::new(both)))],
        |_| (),
    )
    .await;
    let begun = std::time::Instant::now();
    let (head, body) = client::get(proxy.address("in"), "/").await;
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert_eq!(
        (head.status(), &*body),
        (StatusCode::IM_A_TEAPOT, "fault filter abort")
    );
    let record = proxy.record(0).await;
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("DI,FI".into(), Some("fault_filter_abort"))
    );
    assert_eq!(
        (
            backend.requests(),
            proxy.counter("http.test.fault.aborts_injected")
        ),
        (0, 1)
    );
    assert_eq!(
        (
            proxy.counter("http.test.fault.delays_injected"),
            proxy.counter("http.test.fault.active_faults")
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn a_route_has_its_own_fault_and_grpc_calls_get_a_status() {
    let own = PerRouteFilter {
        name: "fault".into(),
        config: PerRouteConfig::Fault(Arc::new(fault(None, Some(AbortKind::Grpc(14))))),
    };
    let filters = vec![("fault", HttpFilterKind::Fault(Arc::new(Fault::default())))];
    let (proxy, _) = start(filters, |route| route.filters = Arc::from([own])).await;
    let call = Request::post("/s/m")
        .header("host", "a.test")
        .header("content-type", "application/grpc")
        .body(client::Body::default())
        .unwrap();
    let (head, _) = client::send(proxy.address("in"), call).await;
    assert_eq!(
        (
            head.status(),
            header(&head, "grpc-status"),
            header(&head, "grpc-message")
        ),
        (StatusCode::OK, Some("14"), Some("fault filter abort"))
    );
    assert_eq!(proxy.record(0).await.grpc_status, Some(14));
}

#[tokio::test]
async fn a_delayed_request_ends_when_its_client_leaves() {
    let (proxy, backend) = start(
        vec![(
            "fault",
            HttpFilterKind::Fault(Arc::new(fault(Some(3_600_000), None))),
        )],
        |_| (),
    )
    .await;
    let mut sender = client::http1(proxy.address("in")).await;
    let request = tokio::spawn(async move {
        sender
            .send_request(client::request("GET", "/"))
            .await
            .is_ok()
    });
    until(|| proxy.counter("http.test.fault.active_faults") == 1).await;
    request.abort();
    until(|| proxy.counter("http.test.fault.active_faults") == 0).await;
    assert_eq!(
        (proxy.record(0).await.flags.to_string(), backend.requests()),
        ("DI,DC".into(), 0)
    );
}

fn policy(name: &str, permission: Permission) -> Policy {
    Policy {
        name: name.into(),
        permissions: Arc::from([permission]),
        principals: Arc::from([Principal::Any]),
    }
}

fn rbac(rules: Option<Rules>, shadow: Option<Rules>) -> Rbac {
    Rbac {
        rules,
        shadow_rules: shadow,
        shadow_rules_stat_prefix: "istio_dry_run_deny_".into(),
        rules_stat_prefix: "".into(),
        stat_prefix: "tcp.".into(),
    }
}

fn admin() -> Permission {
    let method = HeaderTest::String(StringMatcher::exact("GET"));
    let get = Permission::Header(HeaderMatcher {
        name: HeaderKey::Method,
        test: method,
        invert: false,
        missing_as_empty: false,
    });
    let path = StringMatcher {
        pattern: StringPattern::Prefix("/admin".into()),
        ignore_case: false,
    };
    Permission::And(Arc::from([get, Permission::UrlPath(path)]))
}

#[tokio::test]
async fn authorization_refuses_by_policy_and_says_which() {
    let deny = Rules {
        action: Action::Deny,
        policies: Arc::from([policy("ns[foo]-policy[no admin]-rule[0]", admin())]),
    };
    let (proxy, backend) = start(
        vec![(
            "rbac",
            HttpFilterKind::Rbac(Arc::new(rbac(Some(deny), None))),
        )],
        |_| (),
    )
    .await;
    let (head, body) = client::get(proxy.address("in"), "/admin/x?y").await;
    assert_eq!(
        (head.status(), &*body),
        (StatusCode::FORBIDDEN, "RBAC: access denied")
    );
    let details = proxy.record(0).await.response_code_details;
    assert_eq!(
        details.as_deref(),
        Some("rbac_access_denied_matched_policy[ns[foo]-policy[no_admin]-rule[0]]")
    );
    assert_eq!(
        client::get(proxy.address("in"), "/open").await.0.status(),
        StatusCode::OK
    );
    assert_eq!(
        client::send(proxy.address("in"), client::request("PUT", "/admin"))
            .await
            .0
            .status(),
        StatusCode::OK
    );
    assert_eq!(backend.requests(), 2);
    assert_eq!(
        (
            proxy.counter("http.test.rbac.denied"),
            proxy.counter("http.test.rbac.allowed")
        ),
        (1, 2)
    );
}

#[tokio::test]
async fn authorization_can_be_off_on_a_route_and_dry_runs_only_tell() {
    let nothing = || Rules {
        action: Action::Allow,
        policies: none(),
    };
    let off = PerRouteFilter {
        name: "rbac".into(),
        config: PerRouteConfig::Rbac(None),
    };
    let filters = vec![
        (
            "rbac",
            HttpFilterKind::Rbac(Arc::new(rbac(Some(nothing()), None))),
        ),
        (
            "dry",
            HttpFilterKind::Rbac(Arc::new(rbac(None, Some(nothing())))),
        ),
    ];
    let (proxy, _) = start(filters, |route| route.filters = Arc::from([off])).await;
    assert_eq!(
        client::get(proxy.address("in"), "/").await.0.status(),
        StatusCode::OK
    );
    // From here span tags and access logs read it.
    let told = proxy.record(0).await.dynamic_metadata.unwrap();
    assert_eq!(
        told["envoy.filters.http.rbac"]["istio_dry_run_deny_shadow_engine_result"],
        "denied"
    );
    assert_eq!(
        proxy.counter("http.test.rbac.istio_dry_run_deny_.shadow_denied"),
        1
    );
    assert_eq!(proxy.counter("http.test.rbac.denied"), 0);
}

#[tokio::test]
async fn a_refused_connection_is_closed_before_its_upstream_hears_of_it() {
    let backend = backend::echo().await;
    let mut listener = listener("in", tcp("b"));
    let mut chain = (*listener.chains[0]).clone();
    let rules = Rules {
        action: Action::Allow,
        policies: Arc::from([policy("p", Permission::DestinationPort(1))]),
    };
    chain.network_filters = Arc::from([NetworkFilter::Rbac(Arc::new(rbac(Some(rules), None)))]);
    listener.chains = Arc::from([Arc::new(chain)]);
    let proxy = Proxy::start(vec![listener], vec![cluster("b", &[backend.address])]).await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    let record = proxy.record(0).await;
    assert_eq!(
        record.connection_termination_details.as_deref(),
        Some("rbac_access_denied_matched_policy[none]")
    );
    assert_eq!(
        (backend.connections(), proxy.counter("tcp.rbac.denied")),
        (0, 1)
    );
}

fn cors() -> CorsPolicy {
    CorsPolicy {
        allow_origins: Arc::from([StringMatcher::exact("https://ok.test")]),
        allow_methods: Some(http::HeaderValue::from_static("GET")),
        allow_headers: None,
        expose_headers: Some(http::HeaderValue::from_static("x-seen")),
        max_age: None,
        allow_credentials: false,
        enabled: Fraction::ALL,
        shadow_enabled: None,
        forward_not_matching_preflights: true,
        allow_private_network: false,
    }
}

fn preflight(origin: &str) -> Request<client::Body> {
    let asked = Request::options("/")
        .header("host", "a.test")
        .header("origin", origin)
        .header("access-control-request-method", "GET");
    asked.body(client::Body::default()).unwrap()
}

#[tokio::test]
async fn preflights_are_answered_here_and_responses_name_the_origin() {
    let backend = backend::echo().await;
    let route = to_with("b", |rules| rules.cors = Some(Arc::new(cors())));
    let proxy = Proxy::start(
        vec![filtered(vec![("cors", HttpFilterKind::Cors)], route)],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let (head, body) = client::send(proxy.address("in"), preflight("https://ok.test")).await;
    assert_eq!((head.status(), &*body), (StatusCode::OK, ""));
    assert_eq!(
        (
            header(&head, "access-control-allow-origin"),
            header(&head, "access-control-allow-methods")
        ),
        (Some("https://ok.test"), Some("GET"))
    );
    assert_eq!(backend.requests(), 0);
    // Of another origin: the upstream decides.
    let (head, _) = client::send(proxy.address("in"), preflight("https://other.test")).await;
    assert_eq!(
        (
            head.status(),
            header(&head, "access-control-allow-origin"),
            backend.requests()
        ),
        (StatusCode::OK, None, 1)
    );
    let mut get = client::request("GET", "/");
    get.headers_mut()
        .insert("origin", "https://ok.test".parse().unwrap());
    let (head, _) = client::send(proxy.address("in"), get).await;
    assert_eq!(
        (
            header(&head, "access-control-allow-origin"),
            header(&head, "access-control-expose-headers")
        ),
        (Some("https://ok.test"), Some("x-seen"))
    );
    assert_eq!(
        (
            proxy.counter("http.test.cors.origin_valid"),
            proxy.counter("http.test.cors.origin_invalid")
        ),
        (2, 1)
    );
}

#[tokio::test]
async fn a_preflight_that_is_not_to_be_forwarded_is_answered_without_permission() {
    let strict = CorsPolicy {
        forward_not_matching_preflights: false,
        ..cors()
    };
    let own = PerRouteFilter {
        name: "cors".into(),
        config: PerRouteConfig::Cors(Arc::new(strict)),
    };
    let (proxy, backend) = start(vec![("cors", HttpFilterKind::Cors)], |route| {
        route.filters = Arc::from([own])
    })
    .await;
    let (head, _) = client::send(proxy.address("in"), preflight("https://other.test")).await;
    assert_eq!(
        (
            head.status(),
            header(&head, "access-control-allow-origin"),
            backend.requests()
        ),
        (StatusCode::OK, None, 0)
    );
}

fn limit(max_tokens: u32) -> LocalRateLimit {
    LocalRateLimit {
        stat_prefix: "limit".into(),
        status: StatusCode::TOO_MANY_REQUESTS,
        bucket: Some(TokenBucket {
            max_tokens,
            tokens_per_fill: 1,
            fill_interval: Duration::from_secs(3600),
        }),
        enabled: Fraction::ALL,
        enforced: Fraction::ALL,
        response_headers: none(),
        per_connection: false,
        x_ratelimit_headers: true,
        descriptors: none(),
        actions: none(),
    }
}

#[tokio::test]
async fn a_rate_limit_refuses_what_is_too_much() {
    let (proxy, backend) = start(
        vec![("limit", HttpFilterKind::LocalRateLimit(Arc::new(limit(2))))],
        |_| (),
    )
    .await;
    for left in ["1", "0"] {
        let (head, _) = client::get(proxy.address("in"), "/").await;
        assert_eq!(
            (
                head.status(),
                header(&head, "x-ratelimit-limit"),
                header(&head, "x-ratelimit-remaining")
            ),
            (StatusCode::OK, Some("2"), Some(left))
        );
    }
    let (head, body) = client::get(proxy.address("in"), "/").await;
    assert_eq!(
        (head.status(), &*body),
        (StatusCode::TOO_MANY_REQUESTS, "local_rate_limited")
    );
    let record = proxy.record(2).await;
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("RL".into(), Some("local_rate_limited"))
    );
    assert_eq!(backend.requests(), 2);
    let counts = ["enabled", "ok", "rate_limited", "enforced"]
        .map(|name| proxy.counter(&format!("limit.http_local_rate_limit.{name}")));
    assert_eq!(counts, [3, 2, 1, 1]);
}

#[tokio::test]
async fn a_limit_for_each_connection_is_not_shared() {
    let each = LocalRateLimit {
        per_connection: true,
        ..limit(1)
    };
    let (proxy, _) = start(
        vec![("limit", HttpFilterKind::LocalRateLimit(Arc::new(each)))],
        |_| (),
    )
    .await;
    for _ in 0..2 {
        let mut connection = client::http1(proxy.address("in")).await;
        for expected in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
            connection.ready().await.unwrap();
            let (head, _) = client::read(
                connection
                    .send_request(client::request("GET", "/"))
                    .await
                    .unwrap(),
            )
            .await;
            assert_eq!(head.status(), expected);
        }
    }
}

/// Upstreams that answer their number.
async fn numbered(count: usize) -> Vec<Backend> {
    let mut backends = Vec::new();
    for number in 0..count {
        backends.push(
            backend::serve(move |_, _| async move { backend::text(number.to_string()) }).await,
        );
    }
    backends
}

#[tokio::test]
async fn a_cookie_is_made_up_and_keeps_its_client_at_one_host() {
    let backends = numbered(5).await;
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let ring = Balancer::RingHash {
        minimum_size: 1024,
        maximum_size: 8 << 20,
        hash: RingHashFunction::XxHash,
        use_hostname: false,
    };
    let source = HashSource::Cookie {
        name: "session".into(),
        ttl: Some(Duration::from_secs(60)),
        path: "/".into(),
        attributes: none(),
    };
    let route = to_with("b", |rules| {
        rules.hash_policies = Arc::from([HashPolicy {
            source,
            terminal: false,
        }])
    });
    let cluster = cluster_with("b", &addresses, |cluster| cluster.balancer = ring);
    let proxy = Proxy::start(vec![http_listener("in", vec![route])], vec![cluster]).await;
    let (head, first) = client::get(proxy.address("in"), "/").await;
    let cookie = header(&head, "set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    for _ in 0..10 {
        let mut again = client::request("GET", "/");
        again
            .headers_mut()
            .insert("cookie", cookie.parse().unwrap());
        let (head, body) = client::send(proxy.address("in"), again).await;
        assert_eq!((body, header(&head, "set-cookie")), (first.clone(), None));
    }
    let mut others = BTreeSet::new();
    for _ in 0..40 {
        others.insert(client::get(proxy.address("in"), "/").await.1);
    }
    assert!(others.len() > 1, "clients without the cookie are spread");
}

#[tokio::test]
async fn a_host_that_fails_gets_no_more_traffic_and_without_any_the_answer_is_uh() {
    let bad = backend::serve(|_, _| async { backend::status(500) }).await;
    let good = backend::echo().await;
    let rules = |percent| OutlierDetection {
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: Percent::new(percent).unwrap(),
        always_eject_one_host: false,
        consecutive_5xx: Some(Consecutive {
            count: 1,
            enforcing: Percent::HUNDRED,
        }),
        consecutive_gateway_failure: None,
        consecutive_local_origin_failure: None,
        split_external_local_origin_errors: false,
        success_rate: None,
        failure_percentage: None,
        error_statuses: None,
    };
    let two = cluster_with("b", &[bad.address, good.address], |cluster| {
        cluster.outlier_detection = Some(Arc::new(rules(100)))
    });
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![two]).await;
    for _ in 0..20 {
        client::get(proxy.address("in"), "/").await;
    }
    assert_eq!(bad.requests(), 1);
    assert_eq!(
        proxy.counter("cluster.b.outlier_detection.ejections_active"),
        1
    );
    let one = cluster_with("b", &[bad.address], |cluster| {
        cluster.outlier_detection = Some(Arc::new(rules(100)))
    });
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![one]).await;
    client::get(proxy.address("in"), "/").await;
    let (head, body) = client::get(proxy.address("in"), "/").await;
    assert_eq!(
        (head.status(), &*body),
        (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream")
    );
    assert_eq!(proxy.record(1).await.flags.to_string(), "UH");
}
