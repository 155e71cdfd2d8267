//! What a publication keeps and what it makes anew.

use std::net::{Ipv4Addr, SocketAddr};

use proxy_config::{
    cluster::*,
    endpoint::{Endpoint, EndpointAddress, Health, Locality, LocalityEndpoints},
    metadata::Metadata,
};

use super::*;

fn eds(name: &str, connect_seconds: u64) -> Cluster {
    let thresholds = Thresholds {
        max_connections: 1,
        max_pending_requests: 1,
        max_requests: 1,
        max_retries: 1,
        retry_budget: None,
        max_connection_pools: None,
        track_remaining: false,
    };
    Cluster {
        name: ClusterName::parse(name).unwrap(),
        alt_stat_name: None,
        discovery: Discovery::Eds {
            service_name: "svc".into(),
        },
        connect_timeout: std::time::Duration::from_secs(connect_seconds),
        balancer: Balancer::RoundRobin { slow_start: None },
        subsets: None,
        common_lb: CommonLb {
            healthy_panic_threshold_percent: 0.0,
            locality: LocalityMode::None,
        },
        circuit_breakers: CircuitBreakers {
            default: thresholds,
            high: thresholds,
        },
        outlier_detection: None,
        http: UpstreamHttp {
            protocol: UpstreamProtocol::Http1,
            http2: Default::default(),
            idle_timeout: None,
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_stream_duration: None,
            auto_sni: false,
            auto_san_validation: false,
            preserve_header_case: false,
        },
        transport: Transport::Plaintext,
        transport_matches: Arc::from([]),
        bind: UpstreamBind::default(),
        tcp_keepalive: None,
        peer_metadata_exchange: false,
        metadata: Metadata::default(),
    }
}

fn endpoints(ports: &[u16], weight: u32) -> Endpoints {
    let endpoint = |port: &u16| Endpoint {
        address: EndpointAddress::Socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *port)),
        hostname: "".into(),
        health: Health::Healthy,
        weight,
        metadata: Metadata::default(),
    };
    Endpoints {
        cluster: "svc".into(),
        localities: Arc::from([LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: None,
            endpoints: ports.iter().map(endpoint).collect(),
        }]),
        overprovisioning_percent: 140,
        weighted_priority_health: false,
        drops: Arc::from([]),
    }
}

fn set<N, T>(items: Vec<T>) -> Changes<N, T> {
    Changes {
        set: items.into_iter().map(Arc::new).collect(),
        removed: vec![],
    }
}

#[test]
fn endpoints_may_come_before_their_cluster_and_outlive_it() {
    let live = Live::default();
    live.publish(Update {
        endpoints: set(vec![endpoints(&[1, 2], 1)]),
        ..Update::default()
    });
    assert_eq!(
        live.config().version,
        0,
        "endpoints alone make no new version"
    );
    for seconds in [1, 2] {
        live.publish(Update {
            clusters: set(vec![eds("c", seconds)]),
            ..Update::default()
        });
        assert_eq!(live.config().cluster("c").unwrap().hosts().all.len(), 2);
    }
}

#[test]
fn new_endpoints_are_never_seen_under_the_cluster_that_they_replace() {
    let live = Live::default();
    live.publish(Update {
        clusters: set(vec![eds("c", 1)]),
        endpoints: set(vec![endpoints(&[1], 1)]),
        ..Update::default()
    });
    let old = live.config().cluster("c").unwrap().clone();
    live.publish(Update {
        clusters: set(vec![eds("c", 2)]),
        endpoints: set(vec![endpoints(&[2, 3], 1)]),
        ..Update::default()
    });
    let new = live.config().cluster("c").unwrap().clone();
    assert_eq!((old.hosts().all.len(), new.hosts().all.len()), (1, 2));
}

#[test]
fn a_host_keeps_its_state_while_its_address_stays() {
    let live = Live::default();
    let first = Update {
        clusters: set(vec![eds("c", 1)]),
        endpoints: set(vec![endpoints(&[1, 2], 1)]),
        ..Update::default()
    };
    live.publish(first);
    let cluster = live.config().cluster("c").unwrap().clone();
    let before: Vec<u64> = cluster
        .hosts()
        .all
        .iter()
        .map(|host| host.state.id)
        .collect();
    live.publish(Update {
        endpoints: set(vec![endpoints(&[2, 3], 5)]),
        ..Update::default()
    });
    let after: Vec<(u64, u32)> = cluster
        .hosts()
        .all
        .iter()
        .map(|host| (host.state.id, host.config.weight))
        .collect();
    assert_eq!(after[0], (before[1], 5));
    assert!(!before.contains(&after[1].0));
}

#[test]
fn equal_configuration_keeps_the_live_object_and_its_version_of_the_world_swaps_whole() {
    let live = Live::default();
    live.publish(Update {
        clusters: set(vec![eds("a", 1), eds("b", 1)]),
        ..Update::default()
    });
    let old = live.config();
    live.publish(Update {
        clusters: Changes {
            set: vec![Arc::new(eds("a", 1)), Arc::new(eds("c", 1))],
            removed: vec![ClusterName::parse("b").unwrap()],
        },
        ..Update::default()
    });
    let new = live.config();
    assert!(Arc::ptr_eq(
        old.cluster("a").unwrap(),
        new.cluster("a").unwrap()
    ));
    assert!(
        old.cluster("c").is_none() && old.cluster("b").is_some(),
        "a version does not change"
    );
    assert!(new.cluster("c").is_some() && new.cluster("b").is_none());
    assert_eq!(new.version, old.version + 1);
}

#[test]
fn a_context_without_its_secret_is_reported_and_refuses() {
    use proxy_config::tls::*;
    let live = Live::default();
    let tls = UpstreamTls {
        common: CommonTls {
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Arc::from([]),
            alpn: Arc::from([]),
            certificates: Arc::from([CertificateSource::Secret(
                SecretName::parse("kubernetes://missing").unwrap(),
            )]),
            validation: None,
        },
        sni: None,
        auto_sni: false,
        auto_san_validation: false,
        max_session_keys: None,
    };
    let mut cluster = eds("c", 1);
    cluster.transport = Transport::Tls(Arc::new(tls));
    let problems = live.publish(Update {
        clusters: set(vec![cluster]),
        endpoints: set(vec![endpoints(&[1], 1)]),
        ..Update::default()
    });
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["cluster c: secret kubernetes://missing is not there"]
    );
    let hosts = live.config().cluster("c").unwrap().hosts();
    assert!(hosts.all[0].transport.tls().unwrap().current().is_none());
}

#[test]
fn the_mark_of_a_cluster_wins_over_the_proxys_own() {
    let live = Live::default().with_mark(Some(7));
    let mut marked = eds("marked", 1);
    marked.bind.mark = Some(9);
    live.publish(Update {
        clusters: set(vec![eds("plain", 1), marked]),
        ..Update::default()
    });
    let mark = |name: &str| live.config().cluster(name).unwrap().mark;
    assert_eq!((mark("plain"), mark("marked")), (Some(7), Some(9)));
}

#[test]
fn a_share_of_requests_is_dropped() {
    let live = Live::default();
    let drops = |shares: &[u32]| {
        let mut endpoints = endpoints(&[1], 1);
        endpoints.drops = shares
            .iter()
            .map(|share| (Arc::from("any"), *share))
            .collect();
        live.publish(Update {
            clusters: set(vec![eds("c", 1)]),
            endpoints: set(vec![endpoints]),
            ..Update::default()
        });
        let cluster = live.config().cluster("c").unwrap().clone();
        let dropped = (0..100).filter(|n| cluster.is_dropped(n * 10_000).is_some());
        dropped.count()
    };
    assert_eq!(drops(&[]), 0);
    assert_eq!(drops(&[250_000]), 25);
    assert_eq!(
        drops(&[500_000, 500_000]),
        75,
        "each of what the other lets through"
    );
    assert_eq!(drops(&[1_000_000, 1]), 100);
    assert_eq!(drops(&[]), 0);
}
