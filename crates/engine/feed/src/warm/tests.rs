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
        words
    }

    /// One listener, one route table, one cluster, in use.
    fn running() -> Self {
        let mut world = Self::new();
        world
            .set(eds_cluster("a", None))
            .set(endpoints("a", 80))
            .set(http_listener("l", "80"))
            .settle();
        world.set(routes("80", "a"));
        assert_eq!(world.settle(), ["+routes 80", "+listener l"]);
        assert_eq!(world.warming.waiting(), 0);
        world
    }
}

#[test]
fn a_cluster_waits_for_its_endpoints() {
    let mut world = World::new();
    assert!(world.set(eds_cluster("a", None)).settle().is_empty());
    assert_eq!(
        world.warming.wanted().endpoints,
        BTreeSet::from(["eds a".to_owned()])
    );
    assert_eq!(world.warming.deadline(), Some(world.now + TIMEOUT));
    assert_eq!(
        world.set(endpoints("a", 80)).settle(),
        ["+cluster a", "+endpoints eds a"]
    );
    assert_eq!(world.warming.deadline(), None);
    assert_eq!(world.set(endpoints("a", 81)).settle(), ["+endpoints eds a"]);
}

#[test]
fn a_cluster_without_endpoints_is_used_when_told_so_or_after_a_while() {
    let mut world = World::new();
    world
        .set(eds_cluster("a", None))
        .set(eds_cluster("b", None));
    assert_eq!(
        world.remove(Kind::Endpoints, "eds a").settle(),
        ["+cluster a"]
    );
    assert!(
        world
            .after(TIMEOUT - Duration::from_millis(1))
            .settle()
            .is_empty()
    );
    assert_eq!(
        world.after(Duration::from_millis(1)).settle(),
        ["+cluster b"]
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
        ["+cluster own", "+endpoints eds own", "+endpoints eds other"]
    );
    assert_eq!(
        world.warming.wanted().secrets,
        BTreeSet::from(["kubernetes://x".to_owned()])
    );
    assert_eq!(
        world.set(secret("kubernetes://x")).settle(),
        ["+cluster other", "+secret kubernetes://x"]
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
fn a_listener_waits_for_its_routes_and_the_version_before_stays() {
    let mut world = World::running();
    assert!(world.set(http_listener("l", "81")).settle().is_empty());
    assert_eq!(
        world.warming.wanted().routes,
        BTreeSet::from(["80".to_owned(), "81".to_owned()])
    );
    assert_eq!(
        world.set(routes("81", "a")).settle(),
        ["+routes 81", "+listener l", "-routes 80"]
    );
    assert_eq!(
        world.remove(Kind::Listener, "l").settle(),
        ["-listener l", "-routes 81"]
    );
}

#[test]
fn a_route_waits_for_the_cluster_that_is_warming() {
    let mut world = World::running();
    assert!(
        world
            .set(eds_cluster("b", None))
            .set(routes("80", "b"))
            .settle()
            .is_empty()
    );
    assert_eq!(
        world.set(endpoints("b", 80)).settle(),
        ["+cluster b", "+endpoints eds b", "+routes 80"]
    );
    assert_eq!(
        world.set(routes("80", "unknown")).settle(),
        ["+routes 80"],
        "an unknown cluster is not waited for"
    );
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
fn a_cluster_that_never_became_usable_is_just_forgotten() {
    let mut world = World::new();
    world.set(eds_cluster("a", None)).settle();
    assert!(world.remove(Kind::Cluster, "a").settle().is_empty());
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
    assert!(world.settle().is_empty());
    assert_eq!(world.remove(Kind::Routes, "none").settle(), ["+listener m"]);
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
