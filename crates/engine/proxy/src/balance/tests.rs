//! Picking over whole views of hosts; the arithmetic below is tested beside itself.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use proxy_config::{
    ClusterName,
    cluster::*,
    endpoint::{Endpoint, Health, Locality, LocalityEndpoints},
    metadata::Value,
};
use stdx::SeededRng;

use super::*;
use crate::tls::LiveTransport;

fn cluster(balancer: Balancer) -> Cluster {
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
        name: ClusterName::parse("c").unwrap(),
        alt_stat_name: None,
        discovery: Discovery::Eds {
            service_name: "c".into(),
        },
        connect_timeout: Duration::from_secs(1),
        balancer,
        subsets: None,
        common_lb: CommonLb {
            healthy_panic_threshold_percent: 50.0,
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

const ROUND_ROBIN: Balancer = Balancer::RoundRobin { slow_start: None };
const LEAST_REQUEST: Balancer = Balancer::LeastRequest {
    choice_count: 2,
    active_request_bias: 1.0,
    slow_start: None,
};
const RING: Balancer = Balancer::RingHash {
    minimum_size: 1024,
    maximum_size: 8 << 20,
    hash: RingHashFunction::XxHash,
    use_hostname: false,
};

/// One host as a test writes it down.
#[derive(Clone)]
struct Sketch {
    port: u16,
    weight: u32,
    priority: u32,
    zone: &'static str,
    health: Health,
    labels: Vec<(&'static str, &'static str)>,
    added: Option<Instant>,
}

fn host(port: u16) -> Sketch {
    Sketch {
        port,
        weight: 1,
        priority: 0,
        zone: "",
        health: Health::Healthy,
        labels: Vec::new(),
        added: None,
    }
}

fn labels(pairs: &[(&str, &str)]) -> Metadata {
    let fields: BTreeMap<Arc<str>, Value> = pairs
        .iter()
        .map(|(key, value)| (Arc::from(*key), Value::String((*value).into())))
        .collect();
    Metadata(Arc::new(BTreeMap::from([(
        Arc::from("envoy.lb"),
        Value::Struct(Arc::new(fields)),
    )])))
}

fn live(sketch: &Sketch) -> Arc<LiveEndpoint> {
    Arc::new(LiveEndpoint {
        config: Endpoint {
            address: EndpointAddress::Socket(([127, 0, 0, 1], sketch.port).into()),
            hostname: "".into(),
            health: sketch.health,
            weight: sketch.weight,
            metadata: labels(&sketch.labels),
        },
        locality: Locality {
            zone: sketch.zone.into(),
            ..Locality::default()
        },
        priority: sketch.priority,
        transport: Arc::new(LiveTransport::Plaintext),
        state: Arc::new(HostState {
            id: sketch.port.into(),
            added: sketch.added,
            ..HostState::default()
        }),
    })
}

/// `zones`: weights of localities, all in priority 0.
fn hosts_at(
    cluster: &Cluster,
    zones: &[(&'static str, u32)],
    sketches: &[Sketch],
    now: Instant,
) -> Hosts {
    let locality = |(zone, weight): &(&'static str, u32)| LocalityEndpoints {
        locality: Locality {
            zone: (*zone).into(),
            ..Locality::default()
        },
        priority: 0,
        weight: Some(*weight),
        endpoints: Arc::from([]),
    };
    let endpoints = Endpoints {
        cluster: "c".into(),
        localities: zones.iter().map(locality).collect(),
        overprovisioning_percent: 140,
        weighted_priority_health: false,
        drops: Arc::from([]),
    };
    Hosts::build(
        cluster,
        Some(&endpoints),
        sketches.iter().map(live).collect(),
        now,
    )
}

fn hosts(cluster: &Cluster, sketches: &[Sketch]) -> Hosts {
    hosts_at(cluster, &[], sketches, Instant::now())
}

fn port(pick: Pick) -> Option<u16> {
    match pick {
        Pick::Host(host) => match host.address() {
            EndpointAddress::Socket(address) => Some(address.port()),
            EndpointAddress::Pipe(_) => None,
        },
        Pick::NoHealthyHost => None,
    }
}

fn ports(
    cluster: &Cluster,
    hosts: &Hosts,
    facts: &PickFacts<'_>,
    count: usize,
) -> BTreeMap<Option<u16>, usize> {
    let rng = SeededRng::new(11);
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        *counts
            .entry(port(pick(cluster, hosts, facts, &rng)))
            .or_default() += 1;
    }
    counts
}

fn exactly(pairs: &[(u16, usize)]) -> BTreeMap<Option<u16>, usize> {
    pairs
        .iter()
        .map(|(port, count)| (Some(*port), *count))
        .collect()
}

#[test]
fn round_robin_gives_each_its_turn_and_weights_their_share() {
    let cluster = cluster(ROUND_ROBIN);
    let equal = hosts(&cluster, &[host(1), host(2), host(3)]);
    assert_eq!(
        ports(&cluster, &equal, &PickFacts::default(), 300),
        exactly(&[(1, 100), (2, 100), (3, 100)])
    );
    let weighted = hosts(
        &cluster,
        &[
            host(1),
            Sketch {
                weight: 3,
                ..host(2)
            },
        ],
    );
    assert_eq!(
        ports(&cluster, &weighted, &PickFacts::default(), 400),
        exactly(&[(1, 100), (2, 300)])
    );
}

#[test]
fn where_turns_begin_is_random() {
    let cluster = cluster(ROUND_ROBIN);
    let first = |seed| {
        port(pick(
            &cluster,
            &hosts(&cluster, &[host(1), host(2), host(3)]),
            &PickFacts::default(),
            &SeededRng::new(seed),
        ))
    };
    let firsts: std::collections::BTreeSet<_> = (0..50).map(first).collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn least_request_prefers_the_idle_and_avoids_the_busy() {
    let cluster = cluster(LEAST_REQUEST);
    let view = hosts(&cluster, &[host(1), host(2)]);
    view.all[0]
        .state
        .active_requests
        .store(10, Ordering::Relaxed);
    let counts = ports(&cluster, &view, &PickFacts::default(), 4_000);
    // The busy one only when it is drawn twice.
    assert!((800..1_200).contains(&counts[&Some(1)]), "{counts:?}");
    // With weights: by weight / (active + 1).
    let view = hosts(
        &cluster,
        &[
            Sketch {
                weight: 4,
                ..host(1)
            },
            host(2),
        ],
    );
    view.all[0]
        .state
        .active_requests
        .store(1, Ordering::Relaxed);
    let counts = ports(&cluster, &view, &PickFacts::default(), 3_000);
    assert!((1_990..2_010).contains(&counts[&Some(1)]), "{counts:?}");
}

#[test]
fn random_reaches_everybody() {
    let cluster = cluster(Balancer::Random);
    let counts = ports(
        &cluster,
        &hosts(&cluster, &[host(1), host(2)]),
        &PickFacts::default(),
        2_000,
    );
    assert!((900..1_100).contains(&counts[&Some(1)]), "{counts:?}");
}

#[test]
fn lower_priorities_get_what_spills_over() {
    let cluster = cluster(ROUND_ROBIN);
    let sick = |port| Sketch {
        health: Health::Unhealthy,
        ..host(port)
    };
    let backup = |port| Sketch {
        priority: 1,
        ..host(port)
    };
    let whole = hosts(&cluster, &[host(1), host(2), backup(3)]);
    assert!(!ports(&cluster, &whole, &PickFacts::default(), 1_000).contains_key(&Some(3)));
    // Half healthy × 1.4 = 70 %.
    let half = hosts(&cluster, &[host(1), sick(2), backup(3)]);
    let counts = ports(&cluster, &half, &PickFacts::default(), 10_000);
    assert!(
        (6_800..7_200).contains(&counts[&Some(1)]) && !counts.contains_key(&Some(2)),
        "{counts:?}"
    );
    let gone = hosts(&cluster, &[sick(1), sick(2), backup(3)]);
    assert_eq!(
        ports(&cluster, &gone, &PickFacts::default(), 100),
        exactly(&[(3, 100)])
    );
}

#[test]
fn when_all_are_ill_panic_uses_all_and_without_it_nobody() {
    let mut cluster = cluster(ROUND_ROBIN);
    let sick = |port| Sketch {
        health: Health::Unhealthy,
        ..host(port)
    };
    let all = [sick(1), sick(2)];
    assert_eq!(
        ports(&cluster, &hosts(&cluster, &all), &PickFacts::default(), 10),
        exactly(&[(1, 5), (2, 5)])
    );
    let (_, seen) = choose(
        &cluster.balancer,
        &hosts(&cluster, &all),
        &PickFacts::default(),
        &SeededRng::new(1),
    );
    assert!(seen.panics);
    cluster.common_lb.healthy_panic_threshold_percent = 0.0;
    assert_eq!(
        ports(&cluster, &hosts(&cluster, &all), &PickFacts::default(), 10),
        BTreeMap::from([(None, 10)])
    );
    assert_eq!(
        ports(&cluster, &hosts(&cluster, &[]), &PickFacts::default(), 10),
        BTreeMap::from([(None, 10)])
    );
}

#[test]
fn degraded_hosts_are_used_only_when_healthy_ones_do_not_suffice() {
    let cluster = cluster(ROUND_ROBIN);
    let weak = |port| Sketch {
        health: Health::Degraded,
        ..host(port)
    };
    let enough = hosts(&cluster, &[host(1), host(2), host(3), weak(4)]);
    assert!(!ports(&cluster, &enough, &PickFacts::default(), 1_000).contains_key(&Some(4)));
    let alone = hosts(&cluster, &[weak(4)]);
    assert_eq!(
        ports(&cluster, &alone, &PickFacts::default(), 10),
        exactly(&[(4, 10)])
    );
}

#[test]
fn localities_share_by_weight_and_health() {
    let mut cluster = cluster(ROUND_ROBIN);
    cluster.common_lb.locality = LocalityMode::Weighted;
    let at = |zone, port| Sketch { zone, ..host(port) };
    let zones = [("a", 80), ("b", 20), ("c", 0)];
    let now = Instant::now();
    let view = hosts_at(
        &cluster,
        &zones,
        &[at("a", 1), at("a", 2), at("b", 3), at("c", 4)],
        now,
    );
    assert_eq!(
        ports(&cluster, &view, &PickFacts::default(), 1_000),
        exactly(&[(1, 400), (2, 400), (3, 200)])
    );
    // Half of zone a is ill: it keeps 80 × 0.5 × 1.4 = 56 of 56 + 20.
    let ill = Sketch {
        health: Health::Unhealthy,
        ..at("a", 2)
    };
    let view = hosts_at(
        &cluster,
        &zones,
        &[at("a", 1), ill, at("b", 3), at("b", 5)],
        now,
    );
    let counts = ports(&cluster, &view, &PickFacts::default(), 7_600);
    assert!((5_590..5_610).contains(&counts[&Some(1)]), "{counts:?}");
}

#[test]
fn a_key_stays_with_its_host_and_few_move_when_one_goes() {
    for balancer in [
        RING,
        Balancer::Maglev {
            table_size: 65_537,
            use_hostname: false,
        },
    ] {
        let cluster = cluster(balancer);
        let five: Vec<Sketch> = (1..=5).map(host).collect();
        let (before, after) = (hosts(&cluster, &five), hosts(&cluster, &five[..4]));
        let rng = SeededRng::new(3);
        let place = |view: &Hosts, hash: u64| {
            port(pick(
                &cluster,
                view,
                &PickFacts {
                    hash: Some(hash),
                    ..PickFacts::default()
                },
                &rng,
            ))
        };
        let keys: Vec<u64> = (0..2_000)
            .map(|key| xxhash_rust::xxh64::xxh64(&[(key % 256) as u8, (key / 256) as u8], 0))
            .collect();
        let moved = keys
            .iter()
            .filter(|key| place(&before, **key) != place(&after, **key))
            .count();
        // A fifth, give or take; the others' places grow in number when a host goes, which moves
        // some more on a ring of this size.
        assert!(
            (300..=600).contains(&moved),
            "{moved} of 2000 moved under {:?}",
            cluster.balancer
        );
        assert!(
            keys.iter()
                .all(|key| place(&before, *key) == place(&before, *key))
        );
    }
}

#[test]
fn a_hash_key_in_metadata_names_the_host_on_the_ring() {
    let cluster = cluster(RING);
    let named = |port, name| Sketch {
        labels: vec![("hash_key", name)],
        ..host(port)
    };
    let one = hosts(&cluster, &[named(1, "a"), named(2, "b")]);
    let other = hosts(&cluster, &[named(3, "a"), named(4, "b")]);
    let rng = SeededRng::new(3);
    for key in (0..64).map(|key: u64| key << 58) {
        let facts = PickFacts {
            hash: Some(key),
            ..PickFacts::default()
        };
        assert_eq!(
            port(pick(&cluster, &one, &facts, &rng)).map(|port| port + 2),
            port(pick(&cluster, &other, &facts, &rng))
        );
    }
}

#[test]
fn hosts_that_were_tried_are_avoided_while_others_are_found() {
    for balancer in [
        ROUND_ROBIN,
        LEAST_REQUEST,
        Balancer::Random,
        RING,
        Balancer::Maglev {
            table_size: 251,
            use_hostname: false,
        },
    ] {
        let cluster = cluster(balancer);
        let view = hosts(&cluster, &[host(1), host(2)]);
        let facts = PickFacts {
            hash: Some(77),
            tried: &[1],
            selection_attempts: 64,
            ..PickFacts::default()
        };
        assert_eq!(
            ports(&cluster, &view, &facts, 50),
            exactly(&[(2, 50)]),
            "{:?}",
            cluster.balancer
        );
        // With nothing else left the last one found is taken.
        let facts = PickFacts {
            tried: &[1, 2],
            selection_attempts: 5,
            ..PickFacts::default()
        };
        assert!(!ports(&cluster, &view, &facts, 10).contains_key(&None));
    }
}

#[test]
fn a_new_host_warms_up() {
    let slow = SlowStart {
        window: Duration::from_secs(100),
        aggression: 1.0,
        min_weight_percent: 10.0,
    };
    let cluster = cluster(Balancer::RoundRobin {
        slow_start: Some(slow),
    });
    let added = Instant::now();
    let after = |seconds: u64| {
        let sketches = [
            host(1),
            Sketch {
                added: Some(added),
                ..host(2)
            },
        ];
        let view = hosts_at(
            &cluster,
            &[],
            &sketches,
            added + Duration::from_secs(seconds),
        );
        let counts = ports(&cluster, &view, &PickFacts::default(), 1_100);
        (counts[&Some(2)], view.is_warming())
    };
    assert_eq!(after(0), (100, true), "ten percent of the other's weight");
    assert!((365..=368).contains(&after(50).0), "half: a third of all");
    assert_eq!(after(100), (550, false));
}

#[test]
fn routes_select_subsets_and_fall_back_as_configured() {
    let mut cluster = cluster(ROUND_ROBIN);
    let version = |port, version| Sketch {
        labels: vec![("version", version)],
        ..host(port)
    };
    let all = [version(1, "v1"), version(2, "v2"), host(3)];
    let default_subset = Value::Struct(Arc::new(BTreeMap::from([(
        Arc::from("version"),
        Value::String("v2".into()),
    )])));
    let mut with = |fallback, wanted: Option<&Metadata>| {
        let selectors = Arc::from([Arc::from([Arc::from("version")])]);
        cluster.subsets = Some(SubsetConfig {
            fallback,
            default_subset: default_subset.clone(),
            selectors,
        });
        let view = hosts(&cluster, &all);
        let counts = ports(
            &cluster,
            &view,
            &PickFacts {
                metadata_match: wanted,
                ..PickFacts::default()
            },
            6,
        );
        counts.into_keys().collect::<Vec<_>>()
    };
    let (v1, v9) = (labels(&[("version", "v1")]), labels(&[("version", "v9")]));
    let other_keys = labels(&[("version", "v1"), ("stage", "x")]);
    use SubsetFallback::*;
    assert_eq!(with(NoFallback, Some(&v1)), [Some(1)]);
    assert_eq!(with(NoFallback, Some(&v9)), [None]);
    assert_eq!(with(NoFallback, None), [None]);
    assert_eq!(with(NoFallback, Some(&other_keys)), [None]);
    assert_eq!(with(AnyEndpoint, Some(&v9)), [Some(1), Some(2), Some(3)]);
    assert_eq!(with(DefaultSubset, Some(&v9)), [Some(2)]);
}
