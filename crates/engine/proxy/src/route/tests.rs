//! Tables of requests against route tables.

use http::{HeaderMap, HeaderName, HeaderValue};
use proxy_config::{
    RouteTableName,
    header::HeaderOperations,
    matcher::{
        Fraction, FullRegex, HeaderKey, HeaderMatcher, HeaderTest, MetadataMatcher, StringMatcher,
        ValueMatcher,
    },
    metadata::Value,
    route::{RequireTls, RouteAction},
};

use proxy_config::route::WeightedCluster;

use super::*;

fn host(domains: &[&str], routes: Vec<Route>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        name: domains[0].into(),
        domains: domains.iter().map(|domain| Arc::from(*domain)).collect(),
        routes: routes.into_iter().map(Arc::new).collect(),
        headers: HeaderOperations::default(),
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        require_tls: RequireTls::No,
        cors: None,
        retry: None,
        filters: Arc::from([]),
        mirrors: Arc::from([]),
        metadata: Default::default(),
    })
}

fn table(hosts: Vec<Arc<VirtualHost>>, ignore_port_in_host: bool) -> LiveRouteTable {
    LiveRouteTable::new(Arc::new(RouteTable {
        name: RouteTableName::parse("t").unwrap(),
        virtual_hosts: hosts.into(),
        headers: HeaderOperations::default(),
        ignore_port_in_host,
        most_specific_header_mutations_wins: false,
        filters: Arc::from([]),
        mirrors: Arc::from([]),
    }))
}

fn route(name: &str, path: PathMatch, change: impl FnOnce(&mut RouteMatch)) -> Route {
    let mut matches = RouteMatch {
        path,
        case_sensitive: true,
        headers: Arc::from([]),
        query: Arc::from([]),
        runtime_fraction: None,
        grpc_only: false,
        metadata: Arc::from([]),
        tls: None,
    };
    change(&mut matches);
    Route {
        name: name.into(),
        matches,
        action: RouteAction::NonForwarding,
        headers: HeaderOperations::default(),
        decorator: None,
        decorator_propagate: true,
        metadata: Metadata::default(),
        filters: Arc::from([]),
        stat_prefix: None,
    }
}

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.into())
}

struct Request {
    authority: &'static str,
    method: &'static str,
    path: &'static str,
    headers: HeaderMap,
    metadata: Metadata,
    random: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            authority: "a.test",
            method: "GET",
            path: "/",
            headers: HeaderMap::new(),
            metadata: Metadata::default(),
            random: 0,
        }
    }
}

impl Request {
    fn path(path: &'static str) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    fn header(name: &'static str, value: &'static str) -> Self {
        let mut request = Self::default();
        request.headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        request
    }

    fn route(&self, table: &LiveRouteTable) -> String {
        let head = HeaderView {
            headers: &self.headers,
            authority: self.authority,
            method: self.method,
            path: self.path,
            scheme: "http",
            protocol: "",
            status: None,
        };
        let facts = RouteFacts {
            head,
            metadata: &self.metadata,
            is_connect: self.method == "CONNECT",
            is_grpc: crate::grpc::is_grpc(&self.headers),
            certificate: (false, false),
            random: self.random,
        };
        match_route(table, &facts)
            .map_or("none".to_owned(), |matched| matched.route.name.to_string())
    }
}

#[test]
fn domains_have_envoys_precedence() {
    let names = [
        &[
            "reviews.default.svc.cluster.local",
            "reviews",
            "reviews:9080",
        ][..],
        &["*.svc.cluster.local"],
        &["*.local"],
        &["api.*"],
        &["api.v2.*"],
        &["*"],
    ];
    let hosts = || {
        names
            .iter()
            .map(|domains| host(domains, vec![]))
            .collect::<Vec<_>>()
    };
    let find =
        |table: &LiveRouteTable, authority| table.virtual_host(authority).unwrap().name.to_string();
    let strict = table(hosts(), false);
    for (authority, expected) in [
        ("reviews", "reviews.default.svc.cluster.local"),
        ("Reviews", "reviews.default.svc.cluster.local"),
        ("reviews:9080", "reviews.default.svc.cluster.local"),
        ("reviews:9081", "*"),
        ("ratings.default.svc.cluster.local", "*.svc.cluster.local"),
        ("svc.cluster.local", "*.local"),
        (".svc.cluster.local", "*.local"),
        ("api.test", "api.*"),
        ("api.v2.test", "api.v2.*"),
        ("api.x.local", "*.local"),
        ("", "*"),
    ] {
        assert_eq!(find(&strict, authority), expected, "{authority}");
    }
    let ignoring = table(hosts(), true);
    for authority in ["reviews:9081", "reviews:80", "reviews"] {
        assert_eq!(
            find(&ignoring, authority),
            "reviews.default.svc.cluster.local",
            "{authority}"
        );
    }
    assert!(
        table(vec![host(&["a"], vec![])], false)
            .virtual_host("b")
            .is_none()
    );
}

#[test]
fn ports_are_cut_from_names_and_addresses() {
    let given = [
        ("a", "a"),
        ("a:80", "a"),
        ("1.2.3.4:80", "1.2.3.4"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
        ("a:b", "a:b"),
    ];
    for (authority, host) in given {
        assert_eq!(without_port(authority), host, "{authority}");
    }
}

#[test]
fn paths_match_by_kind_and_in_order() {
    let routes = vec![
        route("exact", PathMatch::Exact("/exact".into()), |_| ()),
        route("folded", PathMatch::Exact("/folded".into()), |m| {
            m.case_sensitive = false
        }),
        route(
            "separated",
            PathMatch::SeparatedPrefix("/dir".into()),
            |_| (),
        ),
        route(
            "regex",
            PathMatch::Regex(FullRegex::parse("/r[0-9]+").unwrap()),
            |_| (),
        ),
        route("connect", PathMatch::Connect, |_| ()),
        route("prefix", prefix("/foo"), |_| ()),
    ];
    let table = table(vec![host(&["*"], routes)], false);
    for (path, expected) in [
        ("/exact", "exact"),
        ("/exact?q", "exact"),
        ("/exact#f", "exact"),
        ("/exact/", "none"),
        ("/Exact", "none"),
        ("/FOLDED", "folded"),
        ("/dir", "separated"),
        ("/dir/x", "separated"),
        ("/dir?x", "separated"),
        ("/directory", "none"),
        ("/r12", "regex"),
        ("/r12x", "none"),
        ("/foobar", "prefix"),
        ("/Foo", "none"),
    ] {
        assert_eq!(Request::path(path).route(&table), expected, "{path}");
    }
    let connect = Request {
        method: "CONNECT",
        path: "",
        authority: "far:443",
        ..Request::default()
    };
    assert_eq!(connect.route(&table), "connect");
}

#[test]
fn headers_queries_claims_and_fractions_match() {
    let header = |name: &'static str, test: HeaderTest, invert: bool| HeaderMatcher {
        name: HeaderKey::Name(HeaderName::from_static(name)),
        test,
        invert,
        missing_as_empty: false,
    };
    let query = |name: &str, value: Option<&str>| QueryMatcher {
        name: name.into(),
        value: value.map(StringMatcher::exact),
    };
    let routes = vec![
        route("user", prefix("/"), |m| {
            m.headers = Arc::from([header(
                "end-user",
                HeaderTest::String(StringMatcher::exact("jason")),
                false,
            )]);
        }),
        route("number", prefix("/"), |m| {
            m.headers = Arc::from([header("n", HeaderTest::Range { start: 1, end: 10 }, false)])
        }),
        route("grpc", prefix("/"), |m| m.grpc_only = true),
        route("claim", prefix("/"), |m| {
            m.metadata = Arc::from([MetadataMatcher {
                filter: "jwt".into(),
                path: Arc::from(["sub".into()]),
                value: ValueMatcher::String(StringMatcher::exact("me")),
                invert: false,
            }]);
        }),
        route("query", prefix("/"), |m| {
            m.query = Arc::from([query("a", Some("1%202")), query("b", None)])
        }),
        route("half", prefix("/half"), |m| {
            m.runtime_fraction = Some(Fraction::new(50, 100))
        }),
        route("put", prefix("/"), |m| {
            m.headers = Arc::from([HeaderMatcher {
                name: HeaderKey::Method,
                ..header("x", HeaderTest::String(StringMatcher::exact("PUT")), false)
            }]);
        }),
    ];
    let table = table(vec![host(&["*"], routes)], false);
    let claim = Value::Struct(Arc::new(
        [(Arc::from("sub"), Value::String("me".into()))].into(),
    ));
    let with_claim = Request {
        metadata: Metadata(Arc::new([(Arc::from("jwt"), claim)].into())),
        ..Request::default()
    };
    for (request, expected) in [
        (Request::header("end-user", "jason"), "user"),
        (Request::header("end-user", "jasons"), "none"),
        (Request::header("n", "9"), "number"),
        (Request::header("n", "10"), "none"),
        (
            Request::header("content-type", "application/grpc+proto"),
            "grpc",
        ),
        (
            Request::header("content-type", "application/grpc-web"),
            "none",
        ),
        (with_claim, "claim"),
        (Request::path("/?b&a=1%202"), "query"),
        // Compared as sent: what means the same is not the same.
        (Request::path("/?b&a=%31%202"), "none"),
        (Request::path("/?a=1%202"), "none"),
        (
            Request {
                random: 49,
                ..Request::path("/half")
            },
            "half",
        ),
        (
            Request {
                random: 50,
                ..Request::path("/half")
            },
            "none",
        ),
        (
            Request {
                method: "PUT",
                ..Request::default()
            },
            "put",
        ),
    ] {
        assert_eq!(
            request.route(&table),
            expected,
            "{} {} {:?}",
            request.method,
            request.path,
            request.headers
        );
    }
}

#[test]
fn weights_split_the_numbers() {
    let weighted = |name: &str, weight| WeightedCluster {
        name: ClusterName::parse(name).unwrap(),
        weight,
        headers: HeaderOperations::default(),
        metadata_match: None,
        host_rewrite: None,
        filters: Arc::from([]),
    };
    let target = Target::Weighted {
        clusters: Arc::from([weighted("a", 90), weighted("none", 0), weighted("b", 10)]),
        total_weight: 100,
    };
    let drawn = |random| {
        choose_cluster(&target, &HeaderMap::new(), random)
            .unwrap()
            .0
            .as_str()
            .to_owned()
    };
    assert_eq!(
        (drawn(0), drawn(89), drawn(90), drawn(99), drawn(100)),
        ("a".into(), "a".into(), "b".into(), "b".into(), "a".into())
    );
    let by_header = Target::ClusterHeader(HeaderName::from_static("x-cluster"));
    assert!(choose_cluster(&by_header, &HeaderMap::new(), 0).is_none());
    assert_eq!(
        choose_cluster(&by_header, &Request::header("x-cluster", "c").headers, 0)
            .unwrap()
            .0
            .as_str(),
        "c"
    );
}
