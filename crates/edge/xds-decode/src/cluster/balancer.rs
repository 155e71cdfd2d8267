//! Load balancing: the old `lb_policy` with its `lb_config`, and the newer list of typed policies.

use proxy_config::cluster::{
    Balancer, CommonLb, LocalityMode, RingHashFunction, SlowStart, SubsetConfig, SubsetFallback,
};
use wire_envoy::pb::{
    self,
    cluster::cluster::{
        LbConfig, LbPolicy, common_lb_config, lb_subset_config::LbSubsetFallbackPolicy,
    },
};

use crate::{
    context::Cx,
    judgement::{enumerated, take},
    metadata,
    reject::{Refusal, Within},
    scalar,
};

mod typed;

/// Envoy's defaults.
pub(super) const CHOICES: u32 = 2;
pub(super) const RING_MINIMUM: u64 = 1024;
pub(super) const RING_MAXIMUM: u64 = 8 << 20;
pub(super) const MAGLEV_SIZE: u64 = 65_537;
const PANIC_PERCENT: f64 = 50.0;
const SLOW_START_MIN_WEIGHT_PERCENT: f64 = 10.0;
/// Upper bound of a Maglev table and a ring, by Envoy's own validation.
const MAGLEV_LIMIT: u64 = 5_000_011;

pub(super) struct Chosen {
    pub(super) balancer: Balancer,
    /// Given by a typed policy, which then replaces `common_lb_config`'s.
    pub(super) locality: Option<LocalityMode>,
    pub(super) subsets: Option<SubsetConfig>,
}

pub(super) struct Common {
    pub(super) lb: CommonLb,
    pub(super) use_hostname: bool,
}

pub(super) fn balancer(
    cx: &mut Cx,
    policy: i32,
    config: Option<LbConfig>,
    typed: Option<pb::cluster::LoadBalancingPolicy>,
    use_hostname: bool,
) -> Result<Chosen, Refusal> {
    if let Some(list) = typed {
        return typed::policy(cx, list).within("load_balancing_policy");
    }
    let balancer = match enumerated!(policy => LbPolicy, "lb_policy")? {
        LbPolicy::RoundRobin => Balancer::RoundRobin {
            slow_start: match config {
                Some(LbConfig::RoundRobinLbConfig(pb::cluster::cluster::RoundRobinLbConfig {
                    slow_start_config,
                })) => slow_start(slow_start_config).within("round_robin_lb_config")?,
                _ => None,
            },
        },
        LbPolicy::LeastRequest => match config {
            Some(LbConfig::LeastRequestLbConfig(config)) => {
                least_request(config).within("least_request_lb_config")?
            }
            _ => Balancer::LeastRequest {
                choice_count: CHOICES,
                active_request_bias: 1.0,
                slow_start: None,
            },
        },
        LbPolicy::Random => Balancer::Random,
        LbPolicy::RingHash => match config {
            Some(LbConfig::RingHashLbConfig(config)) => {
                ring_hash(config, use_hostname).within("ring_hash_lb_config")?
            }
            _ => ring(
                RING_MINIMUM,
                RING_MAXIMUM,
                RingHashFunction::XxHash,
                use_hostname,
            )?,
        },
        LbPolicy::Maglev => {
            let size = match config {
                Some(LbConfig::MaglevLbConfig(pb::cluster::cluster::MaglevLbConfig {
                    table_size,
                })) => table_size.map(|v| v.value),
                _ => None,
            };
            maglev(size.unwrap_or(MAGLEV_SIZE), use_hostname).within("maglev_lb_config")?
        }
        LbPolicy::ClusterProvided => Balancer::ClusterProvided,
        LbPolicy::LoadBalancingPolicyConfig => {
            return Err(Refusal::missing("load_balancing_policy"));
        }
    };
    Ok(Chosen {
        balancer,
        locality: None,
        subsets: None,
    })
}

fn least_request(value: pb::cluster::cluster::LeastRequestLbConfig) -> Result<Balancer, Refusal> {
    let pb::cluster::cluster::LeastRequestLbConfig {
        choice_count,
        active_request_bias,
        slow_start_config,
    } = value;
    let choice_count = scalar::count_or(choice_count, CHOICES);
    if choice_count < 2 {
        return Err(Refusal::at("choice_count", "must be at least 2"));
    }
    Ok(Balancer::LeastRequest {
        choice_count,
        active_request_bias: bias(active_request_bias)?,
        slow_start: slow_start(slow_start_config)?,
    })
}

fn bias(value: Option<pb::core::RuntimeDouble>) -> Result<f64, Refusal> {
    let bias = value.map_or(1.0, |v| v.default_value);
    if bias >= 0.0 && bias.is_finite() {
        Ok(bias)
    } else {
        Err(Refusal::at("active_request_bias", "must not be negative"))
    }
}

fn slow_start(
    value: Option<pb::cluster::cluster::SlowStartConfig>,
) -> Result<Option<SlowStart>, Refusal> {
    let Some(pb::cluster::cluster::SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    }) = value
    else {
        return Ok(None);
    };
    slow_start_of(slow_start_window, aggression, min_weight_percent).within("slow_start_config")
}

/// The aggression's runtime key decides nothing (there is no runtime layer); Istio sends an odd
/// one.
fn slow_start_of(
    window: Option<pb::Duration>,
    aggression: Option<pb::core::RuntimeDouble>,
    min_weight: Option<pb::kind::Percent>,
) -> Result<Option<SlowStart>, Refusal> {
    let Some(window) = scalar::limit("slow_start_window", window, None)? else {
        return Ok(None);
    };
    let aggression = aggression.map_or(1.0, |v| v.default_value);
    if !(aggression > 0.0 && aggression.is_finite()) {
        return Err(Refusal::at("aggression", "must be above 0"));
    }
    let min_weight_percent = match min_weight {
        Some(percent) => scalar::percentage("min_weight_percent", percent)?,
        None => SLOW_START_MIN_WEIGHT_PERCENT,
    };
    Ok(Some(SlowStart {
        window,
        aggression,
        min_weight_percent,
    }))
}

fn ring_hash(
    value: pb::cluster::cluster::RingHashLbConfig,
    use_hostname: bool,
) -> Result<Balancer, Refusal> {
    use pb::cluster::cluster::ring_hash_lb_config::HashFunction;
    let pb::cluster::cluster::RingHashLbConfig {
        minimum_ring_size,
        hash_function,
        maximum_ring_size,
    } = value;
    let hash = match enumerated!(hash_function => HashFunction, "hash_function")? {
        HashFunction::XxHash => RingHashFunction::XxHash,
        HashFunction::MurmurHash2 => RingHashFunction::Murmur2,
    };
    let size =
        |v: Option<pb::google::protobuf::UInt64Value>, default| v.map_or(default, |v| v.value);
    ring(
        size(minimum_ring_size, RING_MINIMUM),
        size(maximum_ring_size, RING_MAXIMUM),
        hash,
        use_hostname,
    )
}

fn ring(
    minimum_size: u64,
    maximum_size: u64,
    hash: RingHashFunction,
    use_hostname: bool,
) -> Result<Balancer, Refusal> {
    if minimum_size > maximum_size || maximum_size > RING_MAXIMUM {
        return Err(Refusal::at(
            "minimum_ring_size",
            format!("sizes must be ordered and at most {RING_MAXIMUM}"),
        ));
    }
    Ok(Balancer::RingHash {
        minimum_size,
        maximum_size,
        hash,
        use_hostname,
    })
}

fn maglev(table_size: u64, use_hostname: bool) -> Result<Balancer, Refusal> {
    let prime = table_size >= 2
        && (2..)
            .take_while(|d| d * d <= table_size)
            .all(|d| !table_size.is_multiple_of(d));
    if table_size > MAGLEV_LIMIT || !prime {
        return Err(Refusal::at(
            "table_size",
            format!("{table_size} is no prime up to {MAGLEV_LIMIT}"),
        ));
    }
    Ok(Balancer::Maglev {
        table_size,
        use_hostname,
    })
}

pub(super) fn subsets(
    cx: &mut Cx,
    value: pb::cluster::cluster::LbSubsetConfig,
) -> Result<Option<SubsetConfig>, Refusal> {
    take!(cx, value => pb::cluster::cluster::LbSubsetConfig {
        read { fallback_policy, default_subset, subset_selectors }
        ignore "weights of localities hold inside a subset as they are" { locality_weight_aware, scale_locality_weight }
        ignore "panic mode looks at the subset" { panic_mode_any }
        reject "lists in endpoint metadata are not supported" { list_as_any }
        reject "fallback by metadata is not supported" { metadata_fallback_policy }
    });
    if subset_selectors.is_empty() {
        return Ok(None);
    }
    let fallback = match enumerated!(fallback_policy => LbSubsetFallbackPolicy, "fallback_policy")?
    {
        LbSubsetFallbackPolicy::NoFallback => SubsetFallback::NoFallback,
        LbSubsetFallbackPolicy::AnyEndpoint => SubsetFallback::AnyEndpoint,
        LbSubsetFallbackPolicy::DefaultSubset => SubsetFallback::DefaultSubset,
    };
    let selectors = crate::reject::each("subset_selectors", subset_selectors, |selector| {
        take!(cx, selector => pb::cluster::cluster::lb_subset_config::LbSubsetSelector {
            read { keys }
            ignore "a subset of one host is a subset" { single_host_per_subset }
            reject "fallback by selector is not supported" { fallback_policy, fallback_keys_subset }
        });
        Ok(scalar::texts(keys))
    })?;
    Ok(Some(SubsetConfig {
        fallback,
        default_subset: metadata::structure(default_subset.unwrap_or_default()),
        selectors,
    }))
}

pub(super) fn common(
    cx: &mut Cx,
    value: Option<pb::cluster::cluster::CommonLbConfig>,
) -> Result<Common, Refusal> {
    common_of(cx, value.unwrap_or_default()).within("common_lb_config")
}

fn common_of(cx: &mut Cx, value: pb::cluster::cluster::CommonLbConfig) -> Result<Common, Refusal> {
    use common_lb_config::LocalityConfigSpecifier as Locality;
    take!(cx, value => pb::cluster::cluster::CommonLbConfig {
        read {
            healthy_panic_threshold, consistent_hashing_lb_config, locality_config_specifier,
        }
        ignore "there are no active health checks" { ignore_new_hosts_until_first_hc }
        ignore "no supported filter chooses the host" { override_host_status }
        ignore "every update is applied at once" { update_merge_window }
        reject "connections stay when hosts change" { close_connections_on_host_set_change }
    });
    let locality = match locality_config_specifier {
        None => LocalityMode::None,
        Some(Locality::LocalityWeightedLbConfig(common_lb_config::LocalityWeightedLbConfig {})) => {
            LocalityMode::Weighted
        }
        Some(Locality::ZoneAwareLbConfig(zone)) => {
            take!(cx, zone => common_lb_config::ZoneAwareLbConfig {
                read { fail_traffic_on_panic }
                ignore "the bootstrap names no local cluster, without which no zone is preferred" {
                    routing_enabled, min_cluster_size,
                }
            });
            LocalityMode::ZoneAware {
                fail_traffic_on_panic,
            }
        }
    };
    let use_hostname = match consistent_hashing_lb_config {
        None => false,
        Some(hashing) => {
            take!(cx, hashing => common_lb_config::ConsistentHashingLbConfig {
                read { use_hostname_for_hashing }
                reject "bounded loads are not supported" { hash_balance_factor }
            });
            use_hostname_for_hashing
        }
    };
    Ok(Common {
        lb: CommonLb {
            healthy_panic_threshold_percent: match healthy_panic_threshold {
                Some(percent) => scalar::percentage("healthy_panic_threshold", percent)?,
                None => PANIC_PERCENT,
            },
            locality,
        },
        use_hostname,
    })
}
