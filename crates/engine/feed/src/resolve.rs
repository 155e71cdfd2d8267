//! Names to addresses: for the control plane itself, and for clusters whose endpoints are names
//! (STRICT_DNS, LOGICAL_DNS).
//!
//! Runs on the feed's runtime, never on a worker. Each such cluster has one task that looks its
//! hosts up again at its refresh rate (or when the answer's time to live ends) and reports
//! endpoints; an answer that fails leaves the last good one in place.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use proxy_config::{
    Cluster, ClusterName, Endpoints,
    cluster::{Discovery, DnsEndpoints, DnsFamily, DnsHost, DnsRefresh},
    endpoint::{Endpoint, EndpointAddress, Health, LocalityEndpoints},
};
use stdx::{Clock as _, SystemClock};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

const OVERPROVISIONING_PERCENT: u32 = 140;
/// Between attempts while a name does not resolve.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Names are looked up again no sooner, whatever their time to live.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// Looks names up, a bounded number at a time.
pub struct Resolver {
    /// `None` when the system has no resolver configuration; literal addresses work still.
    system: Option<TokioResolver>,
    slots: Semaphore,
}

/// What a cluster's hosts resolve to.
#[derive(Debug, Clone)]
pub struct Answer {
    pub cluster: ClusterName,
    /// `None`: nothing resolved.
    pub endpoints: Option<Arc<Endpoints>>,
}

/// The tasks of the clusters that are resolved.
pub struct Resolutions {
    resolver: Arc<Resolver>,
    answers: mpsc::Sender<Answer>,
    running: HashMap<ClusterName, (Discovery, JoinSet<()>)>,
}

impl Resolver {
    /// With the system's configuration (`/etc/resolv.conf`, `/etc/hosts`).
    pub fn from_system(slots: usize) -> Self {
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        });
        let system = built
            .inspect_err(|error| tracing::warn!(%error, "names cannot be resolved"))
            .ok();
        Self {
            system,
            slots: Semaphore::new(slots),
        }
    }

    /// Every address of a name or literal, IPv4 first.
    pub async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.lookup(name).await.map(|(addresses, _)| addresses)
    }

    async fn lookup(&self, name: &str) -> io::Result<(Vec<IpAddr>, Option<Instant>)> {
        if let Ok(literal) = name.parse() {
            return Ok((vec![literal], None));
        }
        let Some(system) = &self.system else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the system has no resolver configuration",
            ));
        };
        let _slot = self.slots.acquire().await.map_err(io::Error::other)?;
        let answer = system
            .lookup_ip(name)
            .await
            .map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        let mut addresses: Vec<IpAddr> = answer.iter().collect();
        addresses.sort_by_key(|a| (a.is_ipv6(), *a));
        addresses.dedup();
        Ok((addresses, Some(answer.valid_until())))
    }
}

impl Resolutions {
    pub fn new(resolver: Arc<Resolver>, answers: mpsc::Sender<Answer>) -> Self {
        Self {
            resolver,
            answers,
            running: HashMap::new(),
        }
    }

    /// Starts, keeps and ends tasks so that exactly these clusters are resolved.
    pub fn follow(&mut self, clusters: &BTreeMap<ClusterName, Arc<Cluster>>) {
        self.running.retain(|name, (discovery, _)| {
            clusters
                .get(name)
                .is_some_and(|cluster| cluster.discovery == *discovery)
        });
        for cluster in clusters.values() {
            if !self.running.contains_key(&cluster.name) {
                let mut task = JoinSet::new();
                task.spawn(keep_resolved(
                    cluster.clone(),
                    self.resolver.clone(),
                    self.answers.clone(),
                ));
                self.running
                    .insert(cluster.name.clone(), (cluster.discovery.clone(), task));
            }
        }
    }
}

async fn keep_resolved(
    cluster: Arc<Cluster>,
    resolver: Arc<Resolver>,
    answers: mpsc::Sender<Answer>,
) {
    let (hosts, refresh, first_only) = match &cluster.discovery {
        Discovery::StrictDns { endpoints, refresh } => (endpoints, refresh, false),
        Discovery::LogicalDns { endpoints, refresh } => (endpoints, refresh, true),
        _ => return,
    };
    let mut last = None;
    loop {
        let (endpoints, next) = resolve(&cluster, hosts, refresh, first_only, &resolver).await;
        // The first answer is always told, so that the cluster need not wait for ever.
        let changed = last.is_none() || (endpoints.is_some() && last != Some(endpoints.clone()));
        if changed {
            last = Some(endpoints.clone());
            let endpoints = endpoints.map(Arc::new);
            if answers
                .send(Answer {
                    cluster: cluster.name.clone(),
                    endpoints,
                })
                .await
                .is_err()
            {
                return;
            }
        }
        tokio::time::sleep(next).await;
    }
}

/// One round over all hosts: the endpoints, if any host resolved, and when to look again.
async fn resolve(
    cluster: &Cluster,
    hosts: &[DnsEndpoints],
    refresh: &DnsRefresh,
    first_only: bool,
    resolver: &Resolver,
) -> (Option<Endpoints>, Duration) {
    let mut localities = Vec::with_capacity(hosts.len());
    let (mut resolved, mut next) = (false, refresh.rate);
    for group in hosts {
        let mut endpoints = Vec::new();
        for host in group.hosts.iter() {
            match resolver.lookup(&host.host).await {
                Ok((addresses, valid_until)) => {
                    let mut chosen = of_family(addresses, refresh.family);
                    chosen.truncate(if first_only { 1 } else { usize::MAX });
                    resolved |= !chosen.is_empty();
                    endpoints.extend(chosen.into_iter().map(|address| endpoint(host, address)));
                    if let Some(until) = valid_until.filter(|_| refresh.respect_ttl) {
                        next = next.min(until.saturating_duration_since(SystemClock.now()));
                    }
                }
                Err(error) => {
                    tracing::debug!(cluster = %cluster.name, host = %host.host, %error, "a host does not resolve");
                    next = next.min(RETRY_AFTER_FAILURE);
                }
            }
        }
        localities.push(LocalityEndpoints {
            locality: group.locality.clone(),
            priority: group.priority,
            weight: group.locality_weight,
            endpoints: endpoints.into(),
        });
    }
    let endpoints = Endpoints {
        cluster: cluster.name.shared(),
        localities: localities.into(),
        overprovisioning_percent: OVERPROVISIONING_PERCENT,
        weighted_priority_health: false,
        drops: Arc::from([]),
    };
    (resolved.then_some(endpoints), next.max(SHORTEST_REFRESH))
}

fn endpoint(host: &DnsHost, address: IpAddr) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Socket((address, host.port).into()),
        hostname: host.host.clone(),
        health: Health::Healthy,
        weight: host.weight.max(1),
        metadata: host.metadata.clone(),
    }
}

/// `AUTO` prefers IPv6 and `V4_PREFERRED` IPv4, each with the other family only when its own has no
/// address.
fn of_family(addresses: Vec<IpAddr>, family: DnsFamily) -> Vec<IpAddr> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::All => [v4, v6].concat(),
        DnsFamily::V4Preferred => {
            if v4.is_empty() {
                v6
            } else {
                v4
            }
        }
        DnsFamily::Auto => {
            if v6.is_empty() {
                v4
            } else {
                v6
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_chosen_as_told() {
        let all: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let chosen = |family| of_family(all.clone(), family);
        assert_eq!(chosen(DnsFamily::V4Only), all[..1]);
        assert_eq!(chosen(DnsFamily::V6Only), all[1..]);
        assert_eq!(chosen(DnsFamily::Auto), all[1..]);
        assert_eq!(chosen(DnsFamily::V4Preferred), all[..1]);
        assert_eq!(chosen(DnsFamily::All), all);
        assert_eq!(of_family(all[..1].to_vec(), DnsFamily::Auto), all[..1]);
        assert!(of_family(all[..1].to_vec(), DnsFamily::V6Only).is_empty());
    }

    #[tokio::test]
    async fn literals_need_no_resolver() {
        let resolver = Resolver {
            system: None,
            slots: Semaphore::new(1),
        };
        assert_eq!(
            resolver.addresses("127.0.0.1").await.unwrap(),
            ["127.0.0.1".parse::<IpAddr>().unwrap()]
        );
        assert!(resolver.addresses("a.example").await.is_err());
    }
}
