//! The hosts of a cluster, or of one subset of it, by priority, health and locality, prepared for
//! picking.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use proxy_config::{
    Cluster, Endpoints,
    cluster::{Balancer, LocalityMode},
    endpoint::{EndpointAddress, Health, Locality},
    metadata::Value,
};
use stdx::Rng;

use crate::{
    balance::{
        edf::Edf,
        group::Group,
        load::{Availability, Counts, Loads},
        maglev::Maglev,
        ring::Ring,
    },
    endpoint::LiveEndpoint,
};

type Host = Arc<LiveEndpoint>;

/// Envoy accepts none above it, and neither does the decoder; here it bounds a vector.
const HIGHEST_PRIORITY: u32 = 128;

/// What all levels are made by.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub cluster: &'a Cluster,
    pub endpoints: Option<&'a Endpoints>,
    pub now: Instant,
}

/// Priorities with their loads.
#[derive(Default)]
pub struct Levels {
    loads: Loads,
    levels: Vec<Level>,
}

/// One priority.
struct Level {
    panics: bool,
    healthy: Choice,
    degraded: Choice,
    /// Consistent hashing has one table for all localities.
    table: Option<Table>,
}

/// A flat set, or localities by weight.
enum Choice {
    Flat(Group),
    Localities {
        schedule: Mutex<Edf>,
        weights: Box<[f64]>,
        groups: Box<[Group]>,
    },
}

struct Table {
    hosts: Box<[Host]>,
    kind: Kind,
}

enum Kind {
    Ring(Ring),
    Maglev(Maglev),
}

/// The hosts of one locality in one priority.
#[derive(Default)]
struct Site {
    weight: u32,
    all: Vec<Host>,
}

/// A host and how it was found.
pub struct Picked<'h> {
    pub host: &'h Host,
    pub panics: bool,
}

impl Levels {
    pub fn new(rules: Rules<'_>, hosts: &[Host]) -> Self {
        let sites = sites(rules, hosts);
        let weighs = rules
            .endpoints
            .is_some_and(|endpoints| endpoints.weighted_priority_health);
        let counts: Vec<Counts> = sites.iter().map(|sites| count(sites, weighs)).collect();
        let overprovisioning = rules
            .endpoints
            .map_or(140, |endpoints| endpoints.overprovisioning_percent);
        let panic = rules
            .cluster
            .common_lb
            .healthy_panic_threshold_percent
            .round() as u64;
        let loads = Loads::new(&counts, overprovisioning.into(), panic);
        let levels = sites
            .iter()
            .zip(&loads.panics)
            .map(|(sites, panics)| Level::new(rules, sites, *panics, overprovisioning))
            .collect();
        Self { loads, levels }
    }

    /// `attempt` counts from 0: which try to find a host that was not used before this is.
    pub fn pick(
        &self,
        balancer: &Balancer,
        hash: u64,
        attempt: u32,
        rng: &dyn Rng,
    ) -> Option<Picked<'_>> {
        let (at, availability) = self.loads.choose(hash)?;
        let level = self.levels.get(at)?;
        let host = match (&level.table, availability) {
            (Some(table), _) => table.find(hash, attempt),
            (None, Availability::Healthy) => level.healthy.take(balancer, rng),
            (None, Availability::Degraded) => level.degraded.take(balancer, rng),
        };
        host.map(|host| Picked {
            host,
            panics: level.panics,
        })
    }
}

/// By priority, then by locality in the order received.
fn sites(rules: Rules<'_>, hosts: &[Host]) -> Vec<Vec<Site>> {
    let localities = rules
        .endpoints
        .iter()
        .flat_map(|endpoints| endpoints.localities.iter());
    let highest = localities
        .clone()
        .map(|l| l.priority)
        .chain(hosts.iter().map(|h| h.priority))
        .max();
    let mut levels: Vec<Vec<Site>> = Vec::new();
    levels.resize_with(
        highest.map_or(0, |highest| highest.min(HIGHEST_PRIORITY) as usize + 1),
        Vec::new,
    );
    let mut places: BTreeMap<(u32, &str, &str, &str), usize> = BTreeMap::new();
    for locality in localities {
        let Some(sites) = levels.get_mut(locality.priority as usize) else {
            continue;
        };
        let Locality {
            region,
            zone,
            sub_zone,
        } = &locality.locality;
        places
            .entry((locality.priority, region, zone, sub_zone))
            .or_insert_with(|| {
                sites.push(Site {
                    weight: locality.weight.unwrap_or(0),
                    all: Vec::new(),
                });
                sites.len() - 1
            });
    }
    for host in hosts {
        let Some(sites) = levels.get_mut(host.priority as usize) else {
            continue;
        };
        let Locality {
            region,
            zone,
            sub_zone,
        } = &host.locality;
        let at = *places
            .entry((host.priority, region, zone, sub_zone))
            .or_insert_with(|| {
                sites.push(Site::default());
                sites.len() - 1
            });
        if let Some(site) = sites.get_mut(at) {
            site.all.push(host.clone());
        }
    }
    levels
}

fn is(host: &LiveEndpoint, health: Health) -> bool {
    host.config.health == health && !host.state.outlier.is_ejected()
}

fn count(sites: &[Site], weighs: bool) -> Counts {
    let mut counts = Counts::default();
    for host in sites.iter().flat_map(|site| &site.all) {
        let weight = if weighs {
            u64::from(host.config.weight)
        } else {
            1
        };
        counts.hosts += 1;
        counts.weight += weight;
        if is(host, Health::Healthy) {
            counts.healthy += 1;
            counts.healthy_weight += weight;
        } else if is(host, Health::Degraded) {
            counts.degraded += 1;
            counts.degraded_weight += weight;
        }
    }
    counts
}

impl Level {
    fn new(rules: Rules<'_>, sites: &[Site], panics: bool, overprovisioning: u32) -> Self {
        let common = &rules.cluster.common_lb;
        let fails = panics
            && matches!(
                common.locality,
                LocalityMode::ZoneAware {
                    fail_traffic_on_panic: true,
                    ..
                }
            );
        let flat = |wanted: &dyn Fn(&Host) -> bool| {
            let hosts = sites
                .iter()
                .flat_map(|site| &site.all)
                .filter(|host| wanted(host))
                .cloned()
                .collect();
            Choice::Flat(Group::new(hosts, &rules.cluster.balancer, rules.now))
        };
        if fails {
            return Self {
                panics,
                healthy: flat(&|_| false),
                degraded: flat(&|_| false),
                table: None,
            };
        }
        if let Some(table) = Table::new(rules, sites, panics) {
            return Self {
                panics,
                healthy: flat(&|_| false),
                degraded: flat(&|_| false),
                table: Some(table),
            };
        }
        if panics {
            return Self {
                panics,
                healthy: flat(&|_| true),
                degraded: flat(&|_| false),
                table: None,
            };
        }
        let choice = |health: Health| {
            Choice::by_locality(rules, sites, health, overprovisioning)
                .unwrap_or_else(|| flat(&|host| is(host, health)))
        };
        Self {
            panics,
            healthy: choice(Health::Healthy),
            degraded: choice(Health::Degraded),
            table: None,
        }
    }
}

impl Choice {
    /// `None`: localities do not count, or none with a weight has such a host.
    fn by_locality(
        rules: Rules<'_>,
        sites: &[Site],
        health: Health,
        overprovisioning: u32,
    ) -> Option<Self> {
        if rules.cluster.common_lb.locality != LocalityMode::Weighted {
            return None;
        }
        let hosts = |site: &Site| -> Vec<Host> {
            site.all
                .iter()
                .filter(|host| is(host, health))
                .cloned()
                .collect()
        };
        let weights: Box<[f64]> = sites
            .iter()
            .map(|site| {
                let share = hosts(site).len() as f64 / site.all.len().max(1) as f64;
                f64::from(site.weight) * (share * f64::from(overprovisioning) / 100.0).min(1.0)
            })
            .collect();
        let edf = Edf::new(weights.iter().copied());
        let groups = || {
            sites
                .iter()
                .map(|site| Group::new(hosts(site), &rules.cluster.balancer, rules.now))
                .collect()
        };
        (!edf.is_empty()).then(|| Self::Localities {
            schedule: Mutex::new(edf),
            weights: weights.clone(),
            groups: groups(),
        })
    }

    fn take(&self, balancer: &Balancer, rng: &dyn Rng) -> Option<&Host> {
        match self {
            Self::Flat(group) => group.take(balancer, rng),
            Self::Localities {
                schedule,
                weights,
                groups,
            } => {
                let locality = schedule
                    .lock()
                    .next(|at| weights.get(at).copied().unwrap_or(0.0))?;
                groups.get(locality)?.take(balancer, rng)
            }
        }
    }
}

impl Table {
    /// `None`: no consistent hashing.
    fn new(rules: Rules<'_>, sites: &[Site], panics: bool) -> Option<Self> {
        let Cluster {
            balancer,
            common_lb,
            ..
        } = rules.cluster;
        let use_hostname = match balancer {
            Balancer::RingHash { use_hostname, .. } | Balancer::Maglev { use_hostname, .. } => {
                *use_hostname
            }
            Balancer::RoundRobin { .. }
            | Balancer::LeastRequest { .. }
            | Balancer::Random
            | Balancer::ClusterProvided => return None,
        };
        let wanted = |site: &Site| -> Vec<Host> {
            site.all
                .iter()
                .filter(|host| panics || is(host, Health::Healthy))
                .cloned()
                .collect()
        };
        let by_locality = common_lb.locality == LocalityMode::Weighted && rules.endpoints.is_some();
        let sets: Vec<(f64, Vec<Host>)> = if by_locality {
            let total: f64 = sites.iter().map(|site| f64::from(site.weight)).sum();
            sites
                .iter()
                .filter(|site| site.weight > 0)
                .map(|site| (f64::from(site.weight) / total, wanted(site)))
                .collect()
        } else {
            vec![(1.0, sites.iter().flat_map(wanted).collect())]
        };
        let mut weighted: Vec<(Host, f64)> = Vec::new();
        for (share, hosts) in sets {
            let total: f64 = hosts.iter().map(|host| f64::from(host.config.weight)).sum();
            weighted.extend(hosts.into_iter().map(|host| {
                let weight = share * f64::from(host.config.weight) / total;
                (host, weight)
            }));
        }
        let keys: Vec<String> = weighted
            .iter()
            .map(|(host, _)| hash_key(host, use_hostname))
            .collect();
        let pairs: Vec<(&str, f64)> = keys
            .iter()
            .map(String::as_str)
            .zip(weighted.iter().map(|(_, weight)| *weight))
            .collect();
        let kind = match balancer {
            Balancer::Maglev { table_size, .. } => Kind::Maglev(Maglev::new(&pairs, *table_size)),
            Balancer::RingHash {
                minimum_size,
                maximum_size,
                hash,
                ..
            } => Kind::Ring(Ring::new(&pairs, *minimum_size, *maximum_size, *hash)),
            Balancer::RoundRobin { .. }
            | Balancer::LeastRequest { .. }
            | Balancer::Random
            | Balancer::ClusterProvided => return None,
        };
        Some(Self {
            hosts: weighted.into_iter().map(|(host, _)| host).collect(),
            kind,
        })
    }

    fn find(&self, hash: u64, attempt: u32) -> Option<&Host> {
        let at = match &self.kind {
            Kind::Ring(ring) => ring.find(hash, attempt),
            Kind::Maglev(maglev) => maglev.find(hash, attempt),
        };
        self.hosts.get(at?)
    }
}

/// What a host is hashed by: `hash_key` of its `envoy.lb` metadata, else its name or address.
fn hash_key(host: &LiveEndpoint, use_hostname: bool) -> String {
    if let Some(key) = host
        .config
        .metadata
        .lookup("envoy.lb", &["hash_key"])
        .and_then(Value::as_str)
    {
        return key.to_owned();
    }
    match host.address() {
        _ if use_hostname && !host.config.hostname.is_empty() => host.config.hostname.to_string(),
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Pipe(path) => path.to_string(),
    }
}
