//! `load_balancing_policy`: the first policy of the list that is known is used, as Envoy does.

use proxy_config::cluster::{Balancer, LocalityMode, RingHashFunction};
use wire_envoy::pb::{
    self,
    envoy::extensions::load_balancing_policies::{
        cluster_provided::v3::ClusterProvided,
        common::v3::{
            ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig, locality_lb_config,
        },
        least_request::v3::LeastRequest,
        maglev::v3::Maglev,
        random::v3::Random,
        ring_hash::v3::{RingHash, ring_hash::HashFunction},
        round_robin::v3::RoundRobin,
        wrr_locality::v3::WrrLocality,
    },
};

use super::{CHOICES, Chosen, MAGLEV_SIZE, RING_MAXIMUM, RING_MINIMUM};
use crate::{
    context::Cx,
    extension::{self, Extension},
    judgement::{enumerated, take},
    reject::{Refusal, Within},
    scalar,
};

pub(super) fn policy(
    cx: &mut Cx,
    list: pb::cluster::LoadBalancingPolicy,
) -> Result<Chosen, Refusal> {
    let mut names = Vec::new();
    for (index, policy) in list.policies.into_iter().enumerate() {
        let pb::cluster::load_balancing_policy::Policy {
            typed_extension_config,
        } = policy;
        let config =
            typed_extension_config.ok_or_else(|| Refusal::missing("typed_extension_config"))?;
        let (_, extension) = extension::typed(config).within_item("policies", index)?;
        if let Some(chosen) = known(cx, &extension).within_item("policies", index)? {
            return Ok(chosen);
        }
        names.push(extension.name);
    }
    Err(Refusal::at(
        "policies",
        format!("none is supported: {}", names.join(", ")),
    ))
}

fn known(cx: &mut Cx, extension: &Extension) -> Result<Option<Chosen>, Refusal> {
    Ok(Some(if extension.is::<RoundRobin>() {
        let message: RoundRobin = extension.message(cx)?;
        take!(cx, message => RoundRobin { read { slow_start_config, locality_lb_config } });
        chosen(
            cx,
            Balancer::RoundRobin {
                slow_start: slow_start(slow_start_config)?,
            },
            locality_lb_config,
        )?
    } else if extension.is::<LeastRequest>() {
        let message = extension.message(cx)?;
        least_request(cx, message)?
    } else if extension.is::<Random>() {
        let message: Random = extension.message(cx)?;
        take!(cx, message => Random { read { locality_lb_config } });
        chosen(cx, Balancer::Random, locality_lb_config)?
    } else if extension.is::<RingHash>() {
        let message = extension.message(cx)?;
        ring_hash(cx, message)?
    } else if extension.is::<Maglev>() {
        let message: Maglev = extension.message(cx)?;
        take!(cx, message => Maglev {
            read { table_size, consistent_hashing_lb_config, locality_weighted_lb_config }
        });
        let use_hostname = hashing(cx, consistent_hashing_lb_config)?;
        let balancer = super::maglev(table_size.map_or(MAGLEV_SIZE, |v| v.value), use_hostname)?;
        weighted(balancer, locality_weighted_lb_config)
    } else if extension.is::<ClusterProvided>() {
        let message: ClusterProvided = extension.message(cx)?;
        take!(cx, message => ClusterProvided {});
        Chosen {
            balancer: Balancer::ClusterProvided,
            locality: None,
            subsets: None,
        }
    } else if extension.is::<WrrLocality>() {
        let message: WrrLocality = extension.message(cx)?;
        take!(cx, message => WrrLocality { read { endpoint_picking_policy } });
        let inner =
            endpoint_picking_policy.ok_or_else(|| Refusal::missing("endpoint_picking_policy"))?;
        Chosen {
            locality: Some(LocalityMode::Weighted),
            ..policy(cx, inner).within("endpoint_picking_policy")?
        }
    } else {
        return Ok(None);
    }))
}

fn least_request(cx: &mut Cx, value: LeastRequest) -> Result<Chosen, Refusal> {
    take!(cx, value => LeastRequest {
        read { choice_count, active_request_bias, slow_start_config, locality_lb_config }
        reject "hosts are sampled" { enable_full_scan, selection_method }
    });
    let choice_count = scalar::count_or(choice_count, CHOICES).max(2);
    let balancer = Balancer::LeastRequest {
        choice_count,
        active_request_bias: super::bias(active_request_bias)?,
        slow_start: slow_start(slow_start_config)?,
    };
    chosen(cx, balancer, locality_lb_config)
}

fn ring_hash(cx: &mut Cx, value: RingHash) -> Result<Chosen, Refusal> {
    take!(cx, value => RingHash {
        read {
            hash_function, minimum_ring_size, maximum_ring_size, use_hostname_for_hashing, consistent_hashing_lb_config,
            locality_weighted_lb_config,
        }
        reject "bounded loads are not supported" { hash_balance_factor }
    });
    let hash = match enumerated!(hash_function => HashFunction, "hash_function")? {
        HashFunction::DefaultHash | HashFunction::XxHash => RingHashFunction::XxHash,
        HashFunction::MurmurHash2 => RingHashFunction::Murmur2,
    };
    let use_hostname = use_hostname_for_hashing || hashing(cx, consistent_hashing_lb_config)?;
    let minimum = minimum_ring_size.map_or(RING_MINIMUM, |v| v.value);
    let maximum = maximum_ring_size.map_or(RING_MAXIMUM, |v| v.value);
    Ok(weighted(
        super::ring(minimum, maximum, hash, use_hostname)?,
        locality_weighted_lb_config,
    ))
}

fn hashing(cx: &mut Cx, value: Option<ConsistentHashingLbConfig>) -> Result<bool, Refusal> {
    let Some(value) = value else { return Ok(false) };
    take!(cx, value => ConsistentHashingLbConfig {
        read { use_hostname_for_hashing }
        reject "bounded loads are not supported" { hash_balance_factor }
        reject "hash policies are read from routes" { hash_policy }
    });
    Ok(use_hostname_for_hashing)
}

fn weighted(
    balancer: Balancer,
    by_locality: Option<locality_lb_config::LocalityWeightedLbConfig>,
) -> Chosen {
    let locality = if by_locality.is_some() {
        LocalityMode::Weighted
    } else {
        LocalityMode::None
    };
    Chosen {
        balancer,
        locality: Some(locality),
        subsets: None,
    }
}

fn slow_start(
    value: Option<SlowStartConfig>,
) -> Result<Option<proxy_config::cluster::SlowStart>, Refusal> {
    let Some(SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    }) = value
    else {
        return Ok(None);
    };
    super::slow_start_of(slow_start_window, aggression, min_weight_percent)
        .within("slow_start_config")
}

fn chosen(
    cx: &mut Cx,
    balancer: Balancer,
    locality: Option<LocalityLbConfig>,
) -> Result<Chosen, Refusal> {
    use locality_lb_config::LocalityConfigSpecifier as Locality;
    let locality = match locality.and_then(|l| l.locality_config_specifier) {
        None => LocalityMode::None,
        Some(Locality::LocalityWeightedLbConfig(
            locality_lb_config::LocalityWeightedLbConfig {},
        )) => LocalityMode::Weighted,
        Some(Locality::ZoneAwareLbConfig(zone)) => {
            take!(cx, zone => locality_lb_config::ZoneAwareLbConfig {
                read { fail_traffic_on_panic }
                ignore "the bootstrap names no local cluster, without which no zone is preferred" {
                    routing_enabled, min_cluster_size,
                }
                ignore "localities are compared by their healthy hosts" { locality_basis }
                reject "is not supported" { force_locality_direct_routing, force_local_zone }
            });
            LocalityMode::ZoneAware {
                fail_traffic_on_panic,
            }
        }
    };
    Ok(Chosen {
        balancer,
        locality: Some(locality),
        subsets: None,
    })
}
