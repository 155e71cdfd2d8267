use std::sync::Arc;

use proptest::prelude::*;
use proxy_config::{
    Cluster, ClusterName, Endpoints,
    cluster::*,
    endpoint::{Endpoint, EndpointAddress, Health, Locality, LocalityEndpoints},
    metadata::Metadata,
};
use stdx::{Clock, SeededRng, VirtualClock};
use telemetry::stats::{Options, Store};

use super::*;
use crate::{
    balance::{Pick, PickFacts},
    peers::Own,
    publish::{Changes, Live, Update},
};

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> OutlierDetection {
    let all = |count| {
        Some(Consecutive {
            count,
            enforcing: Percent::HUNDRED,
        })
    };
    OutlierDetection {
        interval: 10 * SECOND,
        base_ejection_time: 30 * SECOND,
        max_ejection_time: 300 * SECOND,
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: Percent::HUNDRED,
        always_eject_one_host: false,
        consecutive_5xx: all(3),
        consecutive_gateway_failure: None,
        consecutive_local_origin_failure: all(2),
        split_external_local_origin_errors: false,
        success_rate: None,
        failure_percentage: None,
        error_statuses: None,
    }
}

/// A live cluster of some hosts, under a clock that stands still.
struct Bench {
    clock: VirtualClock,
    live: Live,
    cluster: Arc<LiveCluster>,
}

impl Bench {
    fn new(hosts: u16, rules: OutlierDetection) -> Self {
        let clock = VirtualClock::default();
        let rng = Arc::new(SeededRng::new(5));
        let live = Live::new(
            Arc::new(clock.clone()),
            rng,
            Store::new(Options::default()),
            Own::default(),
        );
        let clusters = Changes {
            set: vec![Arc::new(cluster(hosts, rules))],
            removed: Vec::new(),
        };
        assert!(
            live.publish(Update {
                clusters,
                ..Update::default()
            })
            .is_empty()
        );
        let cluster = live.config().cluster("c").unwrap().clone();
        let bench = Self {
            clock,
            live,
            cluster,
        };
        bench.tick();
        bench
    }

    fn see(&self, host: usize, outcome: Outcome) -> bool {
        let now = self.clock.now();
        let endpoint = self.cluster.hosts().all[host].clone();
        let ejected = observe(&self.cluster, &endpoint, outcome, now);
        if ejected {
            self.cluster.refresh(now);
        }
        ejected
    }

    fn fail(&self, host: usize, times: usize) -> bool {
        (0..times).any(|_| self.see(host, Outcome::Status(500)))
    }

    fn tick(&self) {
        if tick(&self.cluster, self.clock.now()) {
            self.cluster.refresh(self.clock.now());
        }
    }

    /// Lets time pass second by second.
    fn pass(&self, seconds: u32) {
        for _ in 0..seconds {
            self.clock.advance(SECOND);
            self.tick();
        }
    }

    fn is_ejected(&self, host: usize) -> bool {
        self.cluster.hosts().all[host].state.outlier.is_ejected()
    }

    /// Seconds until the host is back.
    fn seconds_away(&self, host: usize) -> u32 {
        (1..2_000)
            .find(|_| {
                self.pass(1);
                !self.is_ejected(host)
            })
            .unwrap()
    }

    fn picks(&self) -> Vec<usize> {
        let all = self.cluster.hosts().all.clone();
        let pick = || self.cluster.pick(&PickFacts::default(), &*self.live.rng);
        let mut seen: Vec<usize> = (0..20)
            .filter_map(|_| match pick() {
                Pick::Host(host) => all.iter().position(|other| other.state.id == host.state.id),
                Pick::NoHealthyHost => None,
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }
}

fn cluster(hosts: u16, rules: OutlierDetection) -> Cluster {
    let endpoint = |port| Endpoint {
        address: EndpointAddress::Socket(([127, 0, 0, 1], port).into()),
        hostname: "".into(),
        health: Health::Healthy,
        weight: 1,
        metadata: Metadata::default(),
    };
    let endpoints = (1..=hosts).map(endpoint).collect();
    let endpoints = Endpoints {
        cluster: "c".into(),
        localities: Arc::from([LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: None,
            endpoints,
        }]),
        overprovisioning_percent: 140,
        weighted_priority_health: false,
        drops: Arc::from([]),
    };
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
        discovery: Discovery::Static(Arc::new(endpoints)),
        connect_timeout: SECOND,
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
        outlier_detection: Some(Arc::new(rules)),
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

#[test]
fn a_run_of_failures_ejects_for_thirty_seconds_then_sixty_and_gets_no_traffic() {
    let bench = Bench::new(2, rules());
    assert!(
        !bench.fail(0, 2) && !bench.see(0, Outcome::Status(404)) && !bench.fail(0, 2),
        "a success ends a run"
    );
    assert!(bench.fail(0, 1));
    assert_eq!(bench.picks(), [1]);
    assert_eq!(bench.seconds_away(0), 30);
    assert_eq!(bench.picks(), [0, 1]);
    assert!(bench.fail(0, 3));
    assert_eq!(bench.seconds_away(0), 60);
    let metrics = &bench.cluster.metrics;
    assert_eq!(metrics.value(Count::OutlierEjectionsTotal), 2);
    assert_eq!(metrics.value(Count::OutlierEjectionsConsecutive5xx), 2);
    assert_eq!(metrics.value(Count::OutlierEjectionsDetected5xx), 2);
    assert_eq!(metrics.level(Level::OutlierEjectionsActive), 0);
}

#[test]
fn ejections_end_at_the_end_of_an_interval() {
    let bench = Bench::new(2, rules());
    bench.pass(4);
    bench.fail(0, 3);
    // Thirty seconds are over at 34, the next interval ends at 40.
    assert_eq!(bench.seconds_away(0), 36);
}

#[test]
fn short_intervals_as_in_istios_examples() {
    let bench = Bench::new(
        2,
        OutlierDetection {
            interval: SECOND,
            base_ejection_time: 3 * SECOND,
            ..rules()
        },
    );
    bench.fail(0, 3);
    assert_eq!(bench.seconds_away(0), 3);
    bench.fail(0, 3);
    assert_eq!(bench.seconds_away(0), 6);
}

#[test]
fn time_grows_to_its_maximum_and_shrinks_with_healthy_intervals() {
    let bench = Bench::new(
        2,
        OutlierDetection {
            max_ejection_time: 90 * SECOND,
            ..rules()
        },
    );
    let times: Vec<u32> = (0..5)
        .map(|_| {
            bench.fail(0, 3);
            bench.seconds_away(0)
        })
        .collect();
    assert_eq!(times, [30, 60, 90, 90, 90]);
    // The multiplier stands at 4 (one more than needed for the maximum); three healthy intervals
    // leave 1.
    bench.pass(30);
    bench.fail(0, 3);
    assert_eq!(bench.seconds_away(0), 60);
    bench.pass(1_000);
    bench.fail(0, 3);
    assert_eq!(bench.seconds_away(0), 30);
}

#[test]
fn no_more_hosts_go_than_the_percentage_allows() {
    let percent = |percent, always, hosts| {
        let max_ejection_percent = Percent::new(percent).unwrap();
        let bench = Bench::new(
            hosts,
            OutlierDetection {
                max_ejection_percent,
                always_eject_one_host: always,
                ..rules()
            },
        );
        let ejected = (0..hosts.into())
            .filter(|host| bench.fail(*host, 3))
            .count();
        (
            ejected,
            bench.cluster.metrics.value(Count::OutlierEjectionsOverflow),
        )
    };
    assert_eq!(percent(10, false, 5), (0, 5));
    assert_eq!(percent(10, true, 5), (1, 4));
    assert_eq!(percent(10, false, 10), (1, 9));
    assert_eq!(percent(50, false, 5), (2, 3));
    assert_eq!(percent(100, false, 3), (3, 0));
}

#[test]
fn when_all_are_ejected_nobody_is_left_to_pick() {
    let bench = Bench::new(2, rules());
    bench.fail(0, 3);
    bench.fail(1, 3);
    assert!(bench.picks().is_empty());
    assert_eq!(
        bench.cluster.metrics.level(Level::OutlierEjectionsActive),
        2
    );
}

#[test]
fn gateway_failures_run_apart_from_other_errors() {
    let gateway = Some(Consecutive {
        count: 2,
        enforcing: Percent::HUNDRED,
    });
    let bench = Bench::new(
        1,
        OutlierDetection {
            consecutive_gateway_failure: gateway,
            consecutive_5xx: None,
            ..rules()
        },
    );
    assert!(
        !bench.see(0, Outcome::Status(503))
            && !bench.see(0, Outcome::Status(500))
            && !bench.see(0, Outcome::Status(504))
    );
    assert!(
        bench.see(0, Outcome::LocalOriginFailure),
        "counts as 503 unless split"
    );
    assert_eq!(
        bench.cluster.metrics.value(Count::OutlierEnforcedGateway),
        1
    );
}

#[test]
fn split_mode_counts_local_trouble_alone() {
    let bench = Bench::new(
        1,
        OutlierDetection {
            split_external_local_origin_errors: true,
            ..rules()
        },
    );
    assert!(
        !bench.see(0, Outcome::Timeout) && !bench.see(0, Outcome::Status(500)),
        "an answer means that the connection was fine"
    );
    assert!(
        !bench.see(0, Outcome::LocalOriginFailure) && bench.see(0, Outcome::LocalOriginFailure)
    );
    assert_eq!(
        bench
            .cluster
            .metrics
            .value(Count::OutlierEnforcedLocalOrigin),
        1
    );
    let joined = Bench::new(1, rules());
    assert!(
        !joined.see(0, Outcome::Timeout)
            && !joined.see(0, Outcome::Status(500))
            && joined.see(0, Outcome::LocalOriginFailure)
    );
}

#[test]
fn a_list_of_errors_replaces_5xx() {
    let bench = Bench::new(
        1,
        OutlierDetection {
            error_statuses: Some(Arc::from([400..430, 503..504])),
            ..rules()
        },
    );
    assert!(!bench.fail(0, 10));
    assert!(
        !bench.see(0, Outcome::Status(404))
            && !bench.see(0, Outcome::Status(503))
            && bench.see(0, Outcome::Status(429))
    );
}

#[test]
fn a_grpc_status_in_the_head_counts_as_what_it_means() {
    let head = |status: &'static str| {
        HeaderMap::from_iter([(
            "grpc-status".parse().unwrap(),
            http::HeaderValue::from_static(status),
        )])
    };
    assert_eq!(status_of(true, StatusCode::OK, &head("14")), 503);
    assert_eq!(status_of(true, StatusCode::OK, &head("0")), 200);
    assert_eq!(status_of(true, StatusCode::OK, &head("99")), 500);
    assert_eq!(
        status_of(false, StatusCode::OK, &head("14")),
        200,
        "no gRPC"
    );
    assert_eq!(
        status_of(true, StatusCode::BAD_GATEWAY, &HeaderMap::new()),
        502
    );
}

#[test]
fn what_is_not_enforced_is_only_counted() {
    let never = Some(Consecutive {
        count: 3,
        enforcing: Percent::ZERO,
    });
    let bench = Bench::new(
        1,
        OutlierDetection {
            consecutive_5xx: never,
            ..rules()
        },
    );
    assert!(!bench.fail(0, 9));
    assert_eq!(
        bench
            .cluster
            .metrics
            .value(Count::OutlierEjectionsDetected5xx),
        3
    );
    assert_eq!(bench.cluster.metrics.value(Count::OutlierEjectionsTotal), 0);
}

#[test]
fn who_fails_much_more_than_the_others_goes_at_the_end_of_the_interval() {
    let rate = SuccessRate {
        minimum_hosts: 5,
        request_volume: 10,
        stdev_factor: 1900,
        enforcing: Percent::HUNDRED,
    };
    let bench = Bench::new(
        5,
        OutlierDetection {
            consecutive_5xx: None,
            success_rate: Some(rate),
            ..rules()
        },
    );
    for host in 0..5 {
        for request in 0..10 {
            bench.see(
                host,
                Outcome::Status(if host == 2 && request % 2 == 0 {
                    500
                } else {
                    200
                }),
            );
        }
    }
    bench.pass(10);
    assert_eq!(
        (0..5)
            .filter(|host| bench.is_ejected(*host))
            .collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(
        bench
            .cluster
            .metrics
            .value(Count::OutlierEnforcedSuccessRate),
        1
    );
    let rate = FailurePercentage {
        threshold: Percent::new(50).unwrap(),
        minimum_hosts: 1,
        request_volume: 4,
        enforcing: Percent::HUNDRED,
    };
    let bench = Bench::new(
        2,
        OutlierDetection {
            consecutive_5xx: None,
            failure_percentage: Some(rate),
            ..rules()
        },
    );
    for status in [500, 200, 500, 200] {
        bench.see(0, Outcome::Status(status));
    }
    bench.pass(10);
    assert!(bench.is_ejected(0) && !bench.is_ejected(1));
}

proptest! {
    /// However results come, the share of ejected hosts stays within bounds and the gauge tells the
    /// truth.
    #[test]
    fn the_share_of_ejected_hosts_is_bounded(percent in 0u32..101, steps in prop::collection::vec((0usize..7, any::<bool>(), 0u32..12), 0..200)) {
        let max_ejection_percent = Percent::new(percent).unwrap();
        let bench = Bench::new(7, OutlierDetection { max_ejection_percent, ..rules() });
        for (host, fails, seconds) in steps {
            bench.see(host, Outcome::Status(if fails { 503 } else { 200 }));
            if seconds == 0 {
                bench.pass(11);
            }
            let ejected = (0..7).filter(|host| bench.is_ejected(*host)).count();
            prop_assert!(ejected as f64 * 100.0 / 7.0 <= f64::from(percent));
            prop_assert_eq!(bench.cluster.metrics.level(Level::OutlierEjectionsActive), ejected as u64);
        }
    }
}
