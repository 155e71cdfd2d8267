//! `ClusterLoadAssignment` → `Endpoints`: literal addresses for EDS and static clusters, names for
//! DNS clusters.

use std::sync::Arc;

use proxy_config::{
    cluster::{DnsEndpoints, DnsHost},
    endpoint::{Endpoint, EndpointAddress, Endpoints, Health, Locality, LocalityEndpoints},
    metadata::Metadata,
};
use wire_envoy::pb::{self, endpoint::lb_endpoint::HostIdentifier};

use crate::{
    address::{self, Address},
    context::Cx,
    judgement::{enumerated, take},
    metadata,
    reject::{Refusal, Within, each},
    scalar,
};

/// Envoy's default.
const OVERPROVISIONING_PERCENT: u32 = 140;

pub(crate) fn endpoints(
    cx: &mut Cx,
    value: pb::endpoint::ClusterLoadAssignment,
) -> Result<Endpoints, Refusal> {
    take!(cx, value => pb::endpoint::ClusterLoadAssignment {
        read { cluster_name, endpoints, policy }
        reject "endpoints are written out where they are used" { named_endpoints }
    });
    if cluster_name.is_empty() {
        return Err(Refusal::missing("cluster_name"));
    }
    let policy = policy.unwrap_or_default();
    take!(cx, policy => pb::endpoint::cluster_load_assignment::Policy {
        read { drop_overloads, overprovisioning_factor, weighted_priority_health }
        ignore "stale endpoints stay until the control plane replaces them" { endpoint_stale_after }
    });
    let drops = each("policy.drop_overloads", drop_overloads, |drop| {
        let pb::endpoint::cluster_load_assignment::policy::DropOverload {
            category,
            drop_percentage,
        } = drop;
        let share =
            scalar::fraction(drop_percentage.unwrap_or_default()).within("drop_percentage")?;
        Ok((
            Arc::from(category),
            (share.ratio() * 1_000_000.0).round() as u32,
        ))
    })?;
    Ok(Endpoints {
        cluster: cluster_name.into(),
        localities: cx.each("endpoints", endpoints, locality_endpoints)?,
        overprovisioning_percent: scalar::count_or(
            overprovisioning_factor,
            OVERPROVISIONING_PERCENT,
        ),
        weighted_priority_health,
        drops,
    })
}

/// What a locality holds beside its endpoints.
struct LocalityHead {
    locality: Locality,
    priority: u32,
    weight: Option<u32>,
    members: Vec<pb::endpoint::LbEndpoint>,
}

fn locality_head(
    cx: &mut Cx,
    value: pb::endpoint::LocalityLbEndpoints,
) -> Result<LocalityHead, Refusal> {
    take!(cx, value => pb::endpoint::LocalityLbEndpoints {
        read { locality, lb_endpoints, load_balancing_weight, priority }
        ignore "no balancer reads a locality's metadata" { metadata }
        ignore "Envoy does not read it either" { proximity }
        reject "endpoint lists by reference (LEDS) are not supported" { lb_config }
    });
    if priority > 128 {
        return Err(Refusal::at("priority", "must be at most 128"));
    }
    Ok(LocalityHead {
        locality: self::locality(locality),
        priority,
        weight: scalar::count(load_balancing_weight),
        members: lb_endpoints,
    })
}

pub(crate) fn locality(value: Option<pb::core::Locality>) -> Locality {
    let pb::core::Locality {
        region,
        zone,
        sub_zone,
    } = value.unwrap_or_default();
    Locality {
        region: region.into(),
        zone: zone.into(),
        sub_zone: sub_zone.into(),
    }
}

fn locality_endpoints(
    cx: &mut Cx,
    value: pb::endpoint::LocalityLbEndpoints,
) -> Result<LocalityEndpoints, Refusal> {
    let LocalityHead {
        locality,
        priority,
        weight,
        members,
    } = locality_head(cx, value)?;
    let endpoints: Vec<Option<Endpoint>> = cx.each("lb_endpoints", members, |cx, member| {
        Ok(or_left_out(cx, member, endpoint))
    })?;
    let endpoints = endpoints.into_iter().flatten().collect();
    Ok(LocalityEndpoints {
        locality,
        priority,
        weight,
        endpoints,
    })
}

/// A member that cannot be read gets no traffic; the others are used.
fn or_left_out<M, T>(
    cx: &mut Cx,
    member: M,
    decode: impl FnOnce(&mut Cx, M) -> Result<T, Refusal>,
) -> Option<T> {
    decode(cx, member)
        .map_err(|refusal| cx.leave_out(refusal))
        .ok()
}

fn endpoint(cx: &mut Cx, value: pb::endpoint::LbEndpoint) -> Result<Endpoint, Refusal> {
    let member = member_of(cx, value)?;
    let address = address::literal(cx, member.address).within("endpoint.address")?;
    if matches!(&address, EndpointAddress::Socket(socket) if socket.port() == 0) {
        return Err(Refusal::at("endpoint.address", "has no port"));
    }
    Ok(Endpoint {
        address,
        hostname: member.hostname,
        health: member.health,
        weight: member.weight,
        metadata: member.metadata,
    })
}

fn dns_host(cx: &mut Cx, value: pb::endpoint::LbEndpoint) -> Result<DnsHost, Refusal> {
    let member = member_of(cx, value)?;
    match address::address(cx, member.address).within("endpoint.address")? {
        Address::Host { host, port } => Ok(DnsHost {
            host: host.into(),
            port,
            weight: member.weight,
            metadata: member.metadata,
        }),
        Address::Pipe(_) => Err(Refusal::at(
            "endpoint.address.pipe",
            "a DNS cluster needs host names",
        )),
    }
}

/// The endpoints of a DNS cluster, whose hosts are names.
pub(crate) fn dns_endpoints(
    cx: &mut Cx,
    value: pb::endpoint::ClusterLoadAssignment,
) -> Result<Arc<[DnsEndpoints]>, Refusal> {
    let pb::endpoint::ClusterLoadAssignment {
        cluster_name: _,
        endpoints,
        named_endpoints,
        policy,
    } = value;
    if !named_endpoints.is_empty() || policy.is_some_and(|p| p != Default::default()) {
        return Err(Refusal::new(
            "named endpoints and policies are not supported in a DNS cluster",
        ));
    }
    cx.each("endpoints", endpoints, |cx, value| {
        let LocalityHead {
            locality,
            priority,
            weight,
            members,
        } = locality_head(cx, value)?;
        let hosts: Vec<Option<DnsHost>> = cx.each("lb_endpoints", members, |cx, member| {
            Ok(or_left_out(cx, member, dns_host))
        })?;
        let hosts = hosts.into_iter().flatten().collect();
        Ok(DnsEndpoints {
            locality,
            priority,
            locality_weight: weight,
            hosts,
        })
    })
}

struct Member {
    address: Option<pb::core::Address>,
    hostname: Arc<str>,
    health: Health,
    weight: u32,
    metadata: Metadata,
}

fn member_of(cx: &mut Cx, value: pb::endpoint::LbEndpoint) -> Result<Member, Refusal> {
    take!(cx, value => pb::endpoint::LbEndpoint {
        read { health_status, metadata, load_balancing_weight, host_identifier }
    });
    let endpoint = match host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => {
            return Err(Refusal::at(
                "endpoint_name",
                "named endpoints are not supported",
            ));
        }
        None => return Err(Refusal::missing("endpoint")),
    };
    take!(cx, endpoint => pb::endpoint::Endpoint {
        read { address, hostname }
        ignore "Istio checks health by outlier detection only" { health_check_config }
        ignore "one address is used; happy eyeballs across families is not done" { additional_addresses }
        ignore "names an endpoint in per-endpoint statistics, which are not kept" { observability_name }
    });
    let weight = scalar::count_or(load_balancing_weight, 1);
    if weight == 0 {
        return Err(Refusal::at("load_balancing_weight", "must be at least 1"));
    }
    use pb::core::HealthStatus;
    let health = match enumerated!(health_status => HealthStatus, "health_status")? {
        HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
        HealthStatus::Unhealthy => Health::Unhealthy,
        HealthStatus::Draining => Health::Draining,
        HealthStatus::Timeout => Health::Timeout,
        HealthStatus::Degraded => Health::Degraded,
    };
    Ok(Member {
        address,
        hostname: hostname.into(),
        health,
        weight,
        metadata: metadata::metadata(cx, metadata)?,
    })
}
