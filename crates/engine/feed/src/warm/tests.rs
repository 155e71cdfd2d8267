//! Resources are made by decoding wire messages, as they come in real life.

mod interop;

use wire_envoy::{
    any,
    pb::{self, cluster, core, endpoint, route, tls},
};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(5);

struct World {
    warming: Warming,
    now: Instant,
}

fn decoded(body: &pb::Any) -> Change {
    let decoded = crate::decode::decode(&mut xds_decode::Decoder::default(), body);
    assert_eq!(decoded.refused, None);
    decoded.change.unwrap()
}

fn ads() -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

/// An EDS cluster; with a secret when one is named.
fn eds_cluster(name: &str, secret: Option<&str>) -> Change {
    let transport_socket = secret.map(|secret| core::TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(
            &tls::UpstreamTlsContext {
                common_tls_context: Some(tls::CommonTlsContext {
                    tls_certificate_sds_secret_configs: vec![tls::SdsSecretConfig {
                        name: secret.into(),
                        sds_config: Some(ads()),
                    }],
                    ..Default::default()
                }),
                ..Default::default()
            },
        ))),
    });
    decoded(&any(&cluster::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Eds.into(),
        )),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: format!("eds {name}"),
        }),
        transport_socket,
        ..Default::default()
    }))
}

fn endpoints(cluster: &str, port: u32) -> Change {
    let address = core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: "10.0.0.1".into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    };
    let host = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
            endpoint::Endpoint {
                address: Some(address),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    decoded(&any(&endpoint::ClusterLoadAssignment {
        cluster_name: format!("eds {cluster}"),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![host],
            ..Default::default()
        }],
        ..Default::default()
    }))
}

fn routes(name: &str, cluster: &str) -> Change {
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(
            cluster.into(),
        )),
        ..Default::default()
    };
    let rule = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![rule],
        ..Default::default()
    };
    decoded(&any(&route::RouteConfiguration {
        name: name.into(),
        virtual_hosts: vec![host],
        ..Default::default()
    }))
}

fn http_listener(name: &str, table: &str) -> Change {
    decoded(&super::tests_support::http_listener(name, table))
}

fn secret(name: &str) -> Change {
    let context = tls::CertificateValidationContext {
        trusted_ca: Some(core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString("roots".into())),
            ..Default::default()
        }),
        ..Default::default()
    };
    decoded(&any(&tls::Secret {
        name: name.into(),
        r#type: Some(tls::secret::Type::ValidationContext(context)),
    }))
}

impl World {
    fn new() -> Self {
        Self {
            warming: Warming::new(TIMEOUT, GRACE, true),
            now: Instant::now(),
        }
    }

    fn set(&mut self, change: Change) -> &mut Self {
        self.warming.set(change, self.now);
        self
    }

    fn remove(&mut self, kind: Kind, name: &str) -> &mut Self {
        self.warming.remove(kind, name, self.now);
        self
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// What is published, in words.
    fn settle(&mut self) -> Vec<String> {
        let Update {
            listeners,
            routes,
            clusters,
            endpoints,
            secrets,
            waiting,
        } = self.warming.settle(self.now);
        let mut words = Vec::new();
        words.extend(clusters.set.iter().map(|r| format!("+cluster {}", r.name)));
        words.extend(
            endpoints
                .set
                .iter()
                .map(|r| format!("+endpoints {}", r.cluster)),
        );
        words.extend(routes.set.iter().map(|r| format!("+routes {}", r.name)));
        words.extend(
            listeners
                .set
                .iter()
                .map(|r| format!("+listener {}", r.name)),
        );
        words.extend(secrets.set.iter().map(|r| format!("+secret {}", r.name)));
        words.extend(listeners.removed.iter().map(|n| format!("-listener {n}")));
        words.extend(routes.removed.iter().map(|n| format!("-routes {n}")));
        words.extend(clusters.removed.iter().map(|n| format!("-cluster {n}")));
        words.extend(endpoints.removed.iter().map(|n| format!("-endpoints {n}")));
        words.extend(secrets.removed.iter().map(|n| format!("-secret {n}")));
        if let Some(waiting) = waiting {
            let Waiting {
                clusters,
                routes,
                secrets,
            } = &*waiting;
            let clusters = clusters.iter().map(|n| format!("cluster {n}"));
            let routes = routes.iter().map(|n| format!("routes {n}"));
            let secrets = secrets.iter().map(|n| format!("secret {n}"));
            let mut names: Vec<String> = clusters.chain(routes).chain(secrets).collect();
            names.sort();
            words.push(format!("waiting for [{}]", names.join(", ")));
        }
        words
    }

    /// One listener, one route table, one cluster, in use.
    fn running() -> Self {
        let mut world = Self::new();
        world
            .set(eds_cluster("a", None))
            .set(endpoints("a", 80))
            .set(http_listener("l", "80"));
        assert_eq!(
            world.settle(),
            [
                "+cluster a",
                "+endpoints eds a",
                "+listener l",
                "waiting for [routes 80]"
            ]
        );
        world.set(routes("80", "a"));
        assert_eq!(world.settle(), ["+routes 80", "waiting for []"]);
        assert_eq!(world.warming.waiting(), 0);
        world
    }
}

#[test]
fn a_cluster_is_waited_for_until_its_endpoints_are_there() {
    let mut world = World::new();
    assert_eq!(
        world.set(eds_cluster("a", None)).settle(),
        ["+cluster a", "waiting for [cluster a]"]
    );
    assert_eq!(
        world.warming.wanted().endpoints,
        BTreeSet::from(["eds a".to_owned()])
    );
    assert_eq!(world.warming.deadline(), Some(world.now + TIMEOUT));
    assert_eq!(
        world.set(endpoints("a", 80)).settle(),
        ["+endpoints eds a", "waiting for []"]
    );
    assert_eq!(world.warming.deadline(), None);
    assert_eq!(world.set(endpoints("a", 81)).settle(), ["+endpoints eds a"]);
}

#[test]
fn a_cluster_without_endpoints_is_waited_for_until_it_is_known_to_have_none_or_for_a_while() {
    let mut world = World::new();
    world
        .set(eds_cluster("a", None))
        .set(eds_cluster("b", None))
        .settle();
    assert_eq!(
        world.remove(Kind::Endpoints, "eds a").settle(),
        ["waiting for [cluster b]"]
    );
    assert!(
        world
            .after(TIMEOUT - Duration::from_millis(1))
            .settle()
            .is_empty()
    );
    assert_eq!(
        world.after(Duration::from_millis(1)).settle(),
        ["waiting for []"]
    );
    assert_eq!(
        world.warming.given_up(),
        ["its endpoints of cluster b"],
        "told once"
    );
    assert!(world.warming.given_up().is_empty());
}

#[test]
fn a_cluster_of_the_same_transport_stays_until_the_new_one_has_its_endpoints() {
    let mut world = World::running();
    let Change::Cluster(cluster) = eds_cluster("a", None) else {
        panic!("no cluster")
    };
    let elsewhere = Cluster {
        discovery: Discovery::Eds {
            service_name: "eds other".into(),
        },
        ..(*cluster).clone()
    };
    assert!(
        world
            .set(Change::Cluster(elsewhere.into()))
            .settle()
            .is_empty()
    );
    assert_eq!(
        world.set(endpoints("other", 80)).settle(),
        ["+cluster a", "+endpoints eds other", "-endpoints eds a"]
    );
}

#[test]
fn a_cluster_of_another_transport_is_in_use_at_once_and_waited_for() {
    let mut world = World::running();
    assert_eq!(
        world
            .set(eds_cluster("a", Some("file-root:system")))
            .settle(),
        ["+cluster a", "waiting for [cluster a]"],
        "the one before would go on in plaintext"
    );
    assert_eq!(
        world.set(secret("file-root:system")).settle(),
        ["+secret file-root:system", "waiting for []"]
    );
}

#[test]
fn secrets_of_others_are_waited_for_and_our_own_are_not() {
    let mut world = World::new();
    world
        .set(eds_cluster("own", Some("default")))
        .set(endpoints("own", 1));
    world
        .set(eds_cluster("other", Some("kubernetes://x")))
        .set(endpoints("other", 1));
    assert_eq!(
        world.settle(),
        [
            "+cluster other",
            "+cluster own",
            "+endpoints eds own",
            "+endpoints eds other",
            "waiting for [cluster other]"
        ]
    );
    assert_eq!(
        world.warming.wanted().secrets,
        BTreeSet::from(["kubernetes://x".to_owned()])
    );
    assert_eq!(
        world.set(secret("kubernetes://x")).settle(),
        ["+secret kubernetes://x", "waiting for []"]
    );
    assert_eq!(
        world.remove(Kind::Cluster, "other").settle(),
        [
            "-cluster other",
            "-endpoints eds other",
            "-secret kubernetes://x"
        ]
    );
}

#[test]
fn a_listener_is_in_use_at_once_and_its_routes_are_waited_for() {
    let mut world = World::running();
    assert_eq!(
        world.set(http_listener("l", "81")).settle(),
        ["+listener l", "-routes 80", "waiting for [routes 81]"]
    );
    assert_eq!(
        world.warming.wanted().routes,
        BTreeSet::from(["81".to_owned()])
    );
    assert_eq!(
        world.set(routes("81", "a")).settle(),
        ["+routes 81", "waiting for []"]
    );
    assert_eq!(
        world.remove(Kind::Listener, "l").settle(),
        ["-listener l", "-routes 81"]
    );
}

#[test]
fn a_route_is_in_use_before_its_cluster_is_warm_and_requests_wait() {
    let mut world = World::running();
    assert_eq!(
        world
            .set(eds_cluster("b", None))
            .set(routes("80", "b"))
            .settle(),
        ["+cluster b", "+routes 80", "waiting for [cluster b]"],
        "the table before may send the request elsewhere in plaintext"
    );
    assert_eq!(
        world.set(endpoints("b", 80)).settle(),
        ["+endpoints eds b", "waiting for []"]
    );
    assert_eq!(world.set(routes("80", "unknown")).settle(), ["+routes 80"]);
}

#[test]
fn a_removed_cluster_stays_while_routes_in_use_name_it() {
    let mut world = World::running();
    assert!(world.remove(Kind::Cluster, "a").settle().is_empty());
    world
        .set(eds_cluster("b", None))
        .set(endpoints("b", 80))
        .set(routes("80", "b"));
    let words = world.settle();
    assert!(
        words.contains(&"+routes 80".to_owned()) && words.contains(&"-cluster a".to_owned()),
        "{words:?}"
    );

    let mut world = World::running();
    assert!(world.remove(Kind::Cluster, "a").settle().is_empty());
    assert_eq!(world.warming.deadline(), Some(world.now + GRACE));
    assert_eq!(
        world.after(GRACE).settle(),
        ["-cluster a", "-endpoints eds a"]
    );

    let mut world = World::running();
    world.remove(Kind::Cluster, "a").set(eds_cluster("a", None));
    assert!(
        world.after(GRACE).settle().is_empty(),
        "what comes back is not removed"
    );
}

#[test]
fn a_cluster_that_never_became_usable_is_removed_at_once() {
    let mut world = World::new();
    world.set(eds_cluster("a", None)).settle();
    assert_eq!(
        world.remove(Kind::Cluster, "a").settle(),
        ["-cluster a", "waiting for []"]
    );
    assert_eq!(world.warming.waiting(), 0);
    assert!(world.warming.wanted().endpoints.is_empty());
}

#[test]
fn an_equal_resource_changes_nothing() {
    let mut world = World::running();
    assert!(
        world
            .set(eds_cluster("a", None))
            .set(routes("80", "a"))
            .set(http_listener("l", "80"))
            .settle()
            .is_empty()
    );
}

#[test]
fn an_existing_route_table_is_kept_when_the_server_says_it_is_gone() {
    let mut world = World::running();
    assert!(world.remove(Kind::Routes, "80").settle().is_empty());
    world.set(http_listener("m", "none"));
    assert_eq!(world.settle(), ["+listener m", "waiting for [routes none]"]);
    assert_eq!(
        world.remove(Kind::Routes, "none").settle(),
        ["waiting for []"]
    );
}

#[test]
fn a_refused_cluster_and_a_refused_secret_do_not_stay() {
    let mut world = World::running();
    let now = world.now;
    world.warming.refuse(Kind::Cluster, "a", now);
    assert_eq!(world.settle(), ["-cluster a", "-endpoints eds a"]);
    world
        .set(eds_cluster("b", Some("kubernetes://x")))
        .set(endpoints("b", 1))
        .set(secret("kubernetes://x"))
        .settle();
    world.warming.refuse(Kind::Secret, "kubernetes://x", now);
    assert_eq!(world.settle(), ["-secret kubernetes://x"]);
}

#[test]
fn a_refused_listener_closes_its_connections_and_stays_on_its_address() {
    let mut world = World::running();
    world.warming.refuse(Kind::Listener, "l", world.now);
    let update = world.warming.settle(world.now);
    let listener = &update.listeners.set[0];
    assert!(listener.chains.is_empty() && !listener.addresses.is_empty());
    let chain = listener.default_chain.as_ref().unwrap();
    assert!(matches!(
        chain.network_filters[0],
        proxy_config::filter::NetworkFilter::Refused(_)
    ));
}
