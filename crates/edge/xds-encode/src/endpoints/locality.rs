//! Locality load balancing (row TM-043): weights by `distribute`, or priorities by distance, `failover` or `failoverPriority`.
//!
//! Distances: same sub-zone 0, zone 1, region 2, elsewhere 3; with a failover rule for the client's region other regions than its target
//! are 4. Priorities that are sent have no gaps.

use std::collections::BTreeSet;

use mesh_model::{
    destination_rule::{Distribute, LocalityLb},
    object::Text,
    workload::{Endpoint, Locality},
};
use wire_envoy::pb::endpoint::{LbEndpoint, LocalityLbEndpoints};

use super::{Balancing, group};
use crate::wire;

type Hosts<'a> = Vec<(&'a Endpoint, LbEndpoint)>;

/// `region/zone/sub-zone` without empty ends.
pub(super) fn text(locality: &Locality) -> String {
    let parts = [&locality.region, &locality.zone, &locality.sub_zone]
        .map(|part| part.as_deref().unwrap_or_default());
    parts.join("/").trim_end_matches('/').to_owned()
}

/// Groups (each of one locality) with their weights and priorities.
pub(super) fn balanced(balancing: &Balancing, groups: Vec<Hosts<'_>>) -> Vec<LocalityLbEndpoints> {
    let Some(setting) = &balancing.setting else {
        return plain(groups);
    };
    if !setting.distribute.is_empty() {
        return distributed(balancing, &setting.distribute, groups);
    }
    if !balancing.fails_over {
        return plain(groups);
    }
    if setting.failover_priority.is_empty() {
        return by_distance(balancing, setting, plain(groups));
    }
    let by_labels = by_labels(balancing, &setting.failover_priority, groups);
    match setting.failover.is_empty() {
        true => by_labels,
        false => by_distance(balancing, setting, by_labels),
    }
}

fn locality_of(hosts: &Hosts<'_>) -> Locality {
    hosts
        .first()
        .map(|(endpoint, _)| endpoint.locality.clone())
        .unwrap_or_default()
}

fn sent(hosts: Hosts<'_>, priority: u32) -> LocalityLbEndpoints {
    let locality = locality_of(&hosts);
    group(
        &locality,
        hosts.into_iter().map(|(_, host)| host).collect(),
        priority,
    )
}

fn plain(groups: Vec<Hosts<'_>>) -> Vec<LocalityLbEndpoints> {
    groups.into_iter().map(|hosts| sent(hosts, 0)).collect()
}

/// A locality matches `*`, `region/*`, `region/zone/*` and exact texts.
fn matches(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    let mut wanted = pattern.split('/');
    for part in parts {
        match wanted.next() {
            Some("*") | None => return true,
            Some(want) if want == part.as_deref().unwrap_or_default() => {}
            Some(_) => return false,
        }
    }
    true
}

/// Shares of the first rule for the client's locality; what it does not name gets nothing. Without such a rule: no change.
fn distributed(
    balancing: &Balancing,
    rules: &[Distribute],
    groups: Vec<Hosts<'_>>,
) -> Vec<LocalityLbEndpoints> {
    let mut sent = plain(groups);
    let Some(rule) = rules
        .iter()
        .find(|rule| matches(&rule.from, &balancing.from))
    else {
        return sent;
    };
    let localities: Vec<Locality> = sent.iter().map(model_locality).collect();
    let natural: Vec<u32> = sent.iter().map(weight).collect();
    let mut shares = vec![0_u32; sent.len()];
    for (pattern, share) in rule.to.iter() {
        let named = |at: usize| {
            localities
                .get(at)
                .is_some_and(|locality| matches(pattern, locality))
                && shares.get(at) == Some(&0)
        };
        let chosen: Vec<usize> = (0..natural.len()).filter(|at| named(*at)).collect();
        let total: u64 = chosen
            .iter()
            .filter_map(|at| natural.get(*at))
            .map(|weight| u64::from(*weight))
            .sum();
        for at in chosen {
            let own = natural.get(at).copied().map(u64::from).unwrap_or_default();
            let part = (own * u64::from(*share)).div_ceil(total.max(1));
            if let Some(slot) = shares.get_mut(at) {
                *slot = u32::try_from(part).unwrap_or(u32::MAX);
            }
        }
    }
    for (group, share) in sent.iter_mut().zip(&shares) {
        group.load_balancing_weight = Some(wire::number(*share));
        if *share == 0 {
            group.lb_endpoints.clear();
            group.load_balancing_weight = None;
        }
    }
    sent
}

fn weight(group: &LocalityLbEndpoints) -> u32 {
    group
        .load_balancing_weight
        .as_ref()
        .map(|weight| weight.value)
        .unwrap_or_default()
}

fn model_locality(group: &LocalityLbEndpoints) -> Locality {
    let part = |text: &str| (!text.is_empty()).then(|| Text::from(text));
    let locality = group.locality.clone().unwrap_or_default();
    Locality {
        region: part(&locality.region),
        zone: part(&locality.zone),
        sub_zone: part(&locality.sub_zone),
    }
}

/// Distances within the priorities that groups have already.
fn by_distance(
    balancing: &Balancing,
    setting: &LocalityLb,
    mut sent: Vec<LocalityLbEndpoints>,
) -> Vec<LocalityLbEndpoints> {
    const DISTANCES: u32 = 5;
    let own_failover = setting
        .failover
        .iter()
        .find(|(from, _)| Some(from) == balancing.from.region.as_ref())
        .map(|(_, to)| to);
    for group in &mut sent {
        let there = model_locality(group);
        let distance = match distance(&balancing.from, &there) {
            3 if own_failover.is_some_and(|to| Some(to) != there.region.as_ref()) => 4,
            distance => distance,
        };
        group.priority = group.priority * DISTANCES + distance;
    }
    without_gaps(sent)
}

fn distance(from: &Locality, to: &Locality) -> u32 {
    match (
        from.region == to.region,
        from.zone == to.zone,
        from.sub_zone == to.sub_zone,
    ) {
        (true, true, true) => 0,
        (true, true, false) => 1,
        (true, false, _) => 2,
        (false, _, _) => 3,
    }
}

/// Each host's priority is how many of the wanted labels it lacks, counted from the first that differs.
fn by_labels(
    balancing: &Balancing,
    wanted: &[Text],
    groups: Vec<Hosts<'_>>,
) -> Vec<LocalityLbEndpoints> {
    let mut found = Vec::new();
    for hosts in groups {
        let priorities: BTreeSet<u32> = hosts
            .iter()
            .map(|(endpoint, _)| lacking(balancing, wanted, endpoint))
            .collect();
        for priority in priorities {
            let chosen: Hosts<'_> = hosts
                .iter()
                .filter(|(endpoint, _)| lacking(balancing, wanted, endpoint) == priority)
                .map(|(endpoint, host)| (*endpoint, host.clone()))
                .collect();
            found.push(sent(chosen, priority));
        }
    }
    without_gaps(found)
}

fn lacking(balancing: &Balancing, wanted: &[Text], endpoint: &Endpoint) -> u32 {
    let same = |key: &Text| match key.split_once('=') {
        Some((key, value)) => label(endpoint, key) == Some(value),
        None => client_label(balancing, key) == label(endpoint, key),
    };
    let matched = wanted.iter().take_while(|key| same(key)).count();
    u32::try_from(wanted.len() - matched).unwrap_or(u32::MAX)
}

fn label<'a>(endpoint: &'a Endpoint, key: &str) -> Option<&'a str> {
    match key {
        "topology.istio.io/network" => Some(&endpoint.network),
        "topology.istio.io/cluster" => Some(&endpoint.cluster),
        "topology.kubernetes.io/region" => endpoint.locality.region.as_deref(),
        "topology.kubernetes.io/zone" => endpoint.locality.zone.as_deref(),
        "topology.istio.io/subzone" => endpoint.locality.sub_zone.as_deref(),
        "kubernetes.io/hostname" => Some(&endpoint.node),
        _ => endpoint.labels.value(key),
    }
}

fn client_label<'a>(balancing: &'a Balancing, key: &str) -> Option<&'a str> {
    match key {
        "topology.istio.io/network" => Some(&balancing.network),
        "topology.istio.io/cluster" => Some(&balancing.cluster),
        "topology.kubernetes.io/region" => balancing.from.region.as_deref(),
        "topology.kubernetes.io/zone" => balancing.from.zone.as_deref(),
        "topology.istio.io/subzone" => balancing.from.sub_zone.as_deref(),
        _ => balancing.labels.value(key),
    }
}

fn without_gaps(mut groups: Vec<LocalityLbEndpoints>) -> Vec<LocalityLbEndpoints> {
    let used: BTreeSet<u32> = groups.iter().map(|group| group.priority).collect();
    for group in &mut groups {
        group.priority = u32::try_from(
            used.iter()
                .take_while(|priority| **priority < group.priority)
                .count(),
        )
        .unwrap_or_default();
    }
    groups
}
