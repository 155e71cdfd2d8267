//! Traffic policies of DestinationRules as parts of a cluster (rows TM-040 … TM-055).
//!
//! Istio lifts Envoy's circuit breaker defaults to the largest number, and its panic threshold to none.

use mesh_model::{
    MeshConfig,
    destination_rule::{
        Algorithm, ConnectionPool, HashTable, OutlierDetection, RetryBudget, TrafficPolicy, Warmup,
    },
};
use wire_envoy::pb::{
    cluster::{
        CircuitBreakers, Cluster, OutlierDetection as Outliers, UpstreamConnectionOptions,
        circuit_breakers::{Thresholds, thresholds},
        cluster::{
            CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig,
            RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
            common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
        },
    },
    core,
};

use crate::wire;

/// A subset's policy over that of its rule, at one port: port levels are looked up in both, and a port level of the subset wins whole.
pub(crate) fn of_subset(whole: &TrafficPolicy, subset: &TrafficPolicy, port: u16) -> TrafficPolicy {
    if subset.port_level.iter().any(|(number, _)| *number == port) {
        let at_port = subset.for_port(port);
        let rest = whole.for_port(port);
        return TrafficPolicy {
            tunnel: at_port.tunnel.or(rest.tunnel),
            proxy_protocol: at_port.proxy_protocol.or(rest.proxy_protocol),
            retry_budget: at_port.retry_budget.or(rest.retry_budget),
            ..at_port
        };
    }
    subset.for_port(port).over(&whole.for_port(port))
}

/// Blocks that no rule sets, from MeshConfig's `defaultTrafficPolicy`.
pub(crate) fn with_mesh_defaults(policy: TrafficPolicy, mesh: &MeshConfig) -> TrafficPolicy {
    let base = &mesh.default_traffic_policy;
    TrafficPolicy {
        connection_pool: policy
            .connection_pool
            .or_else(|| base.connection_pool.clone()),
        outlier_detection: policy
            .outlier_detection
            .or_else(|| base.outlier_detection.clone()),
        ..policy
    }
}

pub(super) fn circuit_breakers(
    pool: &ConnectionPool,
    budget: Option<RetryBudget>,
) -> CircuitBreakers {
    let limit = |set: Option<u32>| Some(wire::number(set.unwrap_or(u32::MAX)));
    let budget = budget.map(|budget| thresholds::RetryBudget {
        budget_percent: Some(wire::percent(budget.percent)),
        min_retry_concurrency: Some(wire::number(budget.min_retry_concurrency)),
        ..Default::default()
    });
    let thresholds = Thresholds {
        max_connections: limit(pool.tcp.max_connections),
        max_pending_requests: limit(pool.http.http1_max_pending_requests),
        max_requests: limit(pool.http.http2_max_requests),
        max_retries: limit(pool.http.max_retries),
        retry_budget: budget,
        ..Default::default()
    };
    CircuitBreakers {
        thresholds: vec![thresholds],
        ..Default::default()
    }
}

pub(super) fn keepalive(
    pool: &ConnectionPool,
    mesh: &MeshConfig,
) -> Option<UpstreamConnectionOptions> {
    let keepalive = pool.tcp.keepalive.or(mesh.tcp_keepalive)?;
    let seconds = |duration: std::time::Duration| {
        wire::number(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX))
    };
    let tcp = core::TcpKeepalive {
        keepalive_probes: keepalive.probes.map(wire::number),
        keepalive_time: keepalive.time.map(seconds),
        keepalive_interval: keepalive.interval.map(seconds),
    };
    Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(tcp),
        ..Default::default()
    })
}

/// Statistical ejection is always off; a count that is set is always enforced, and 0 turns its kind off.
pub(super) fn outliers(detection: &OutlierDetection) -> Outliers {
    let enforced =
        |count: Option<u32>| count.map(|count| wire::number(if count > 0 { 100 } else { 0 }));
    let splits = detection.split_external_local_origin;
    Outliers {
        consecutive_5xx: detection.consecutive_5xx.map(wire::number),
        enforcing_consecutive_5xx: enforced(detection.consecutive_5xx),
        consecutive_gateway_failure: detection.consecutive_gateway.map(wire::number),
        enforcing_consecutive_gateway_failure: enforced(detection.consecutive_gateway),
        split_external_local_origin_errors: splits,
        consecutive_local_origin_failure: detection
            .consecutive_local_origin
            .filter(|_| splits)
            .map(wire::number),
        enforcing_consecutive_local_origin_failure: enforced(
            detection.consecutive_local_origin.filter(|_| splits),
        ),
        enforcing_local_origin_success_rate: splits.then(|| wire::number(0)),
        interval: detection.interval.map(wire::duration),
        base_ejection_time: detection.base_ejection_time.map(wire::duration),
        max_ejection_percent: detection.max_ejection_percent.map(wire::number),
        enforcing_success_rate: Some(wire::number(0)),
        ..Default::default()
    }
}

pub(super) fn common_balancing(policy: &TrafficPolicy) -> CommonLbConfig {
    let panic_below = policy
        .outlier_detection
        .as_ref()
        .map(|detection| detection.min_health_percent)
        .unwrap_or_default();
    CommonLbConfig {
        healthy_panic_threshold: Some(wire::percent(panic_below.into())),
        ..Default::default()
    }
}

/// Chooses the balancer, and weights by locality where a rule sets them.
pub(super) fn balance(policy: &TrafficPolicy, cluster: &mut Cluster) {
    let balancer = policy.load_balancer.as_ref();
    let warmup = balancer.and_then(|balancer| balancer.warmup);
    let (chosen, config) = match balancer.map(|balancer| &balancer.algorithm) {
        None | Some(Algorithm::Default | Algorithm::LeastRequest) => {
            let config = |warmup| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start(warmup)),
                    ..Default::default()
                })
            };
            (LbPolicy::LeastRequest, warmup.map(config))
        }
        Some(Algorithm::RoundRobin) => {
            let config = |warmup| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
                    slow_start_config: Some(slow_start(warmup)),
                })
            };
            (LbPolicy::RoundRobin, warmup.map(config))
        }
        Some(Algorithm::Random) => (LbPolicy::Random, None),
        Some(Algorithm::Passthrough) => (LbPolicy::ClusterProvided, None),
        Some(Algorithm::ConsistentHash {
            table: HashTable::RingHash { minimum_size },
            ..
        }) => (
            LbPolicy::RingHash,
            Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: Some(wire::long(*minimum_size)),
                ..Default::default()
            })),
        ),
        Some(Algorithm::ConsistentHash {
            table: HashTable::Maglev { table_size },
            ..
        }) => (
            LbPolicy::Maglev,
            Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
                table_size: Some(wire::long(*table_size)),
            })),
        ),
    };
    cluster.lb_policy = chosen.into();
    cluster.lb_config = config;
    let weighs_localities = balancer
        .and_then(|balancer| balancer.locality.as_ref())
        .is_some_and(|locality| locality.enabled != Some(false));
    if weighs_localities {
        let weighted =
            LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
        cluster
            .common_lb_config
            .get_or_insert_default()
            .locality_config_specifier = Some(weighted);
    }
}

/// Envoy's own values (aggression 1, minimum 10 %) are left out.
fn slow_start(warmup: Warmup) -> SlowStartConfig {
    const ENVOY_AGGRESSION: f64 = 1.0;
    const ENVOY_MINIMUM_PERCENT: f64 = 10.0;
    let aggression = (warmup.aggression != ENVOY_AGGRESSION).then(|| core::RuntimeDouble {
        default_value: warmup.aggression,
        runtime_key: "upstream.slow_start.aggression".to_owned(),
    });
    SlowStartConfig {
        slow_start_window: Some(wire::duration(warmup.duration)),
        aggression,
        min_weight_percent: (warmup.minimum_percent != ENVOY_MINIMUM_PERCENT)
            .then(|| wire::percent(warmup.minimum_percent)),
    }
}
