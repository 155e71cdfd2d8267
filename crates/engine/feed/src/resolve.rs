//! Names to addresses: for the control plane itself, and for clusters whose endpoints are names
//! (STRICT_DNS, LOGICAL_DNS).
//!
//! Runs on the feed's runtime, never on a worker. Each such cluster has one task that looks its
//! hosts up again at its refresh rate (or when the answer's time to live ends) and reports
//! endpoints; an answer that fails leaves the last good one in place.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
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
/// When some names of a cluster have answered and none more has for this long, those are used.
const PATIENCE: Duration = Duration::from_millis(500);

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
    let Some(mut hosts) = Hosts::of(cluster) else {
        return;
    };
    loop {
        let lookup = |name: Arc<str>| {
            let resolver = resolver.clone();
            async move { resolver.lookup(&name).await }
        };
        let Ok(next) = hosts.round(lookup, &answers).await else {
            return;
        };
        tokio::time::sleep(next).await;
    }
}

/// Addresses of one name, and until when they hold.
type Found = io::Result<(Vec<IpAddr>, Option<Instant>)>;

/// The names of one cluster and what each last resolved to.
struct Hosts {
    cluster: Arc<Cluster>,
    groups: Arc<[DnsEndpoints]>,
    refresh: DnsRefresh,
    first_only: bool,
    /// By name: a name that fails keeps its last addresses.
    known: BTreeMap<Arc<str>, Vec<IpAddr>>,
    /// What was last told; `None`: nothing yet.
    told: Option<Option<Arc<Endpoints>>>,
}

impl Hosts {
    /// `None`: the cluster has no names.
    fn of(cluster: Arc<Cluster>) -> Option<Self> {
        let (groups, refresh, first_only) = match &cluster.discovery {
            Discovery::StrictDns { endpoints, refresh } => (endpoints.clone(), *refresh, false),
            Discovery::LogicalDns { endpoints, refresh } => (endpoints.clone(), *refresh, true),
            _ => return None,
        };
        Some(Self {
            cluster,
            groups,
            refresh,
            first_only,
            known: BTreeMap::new(),
            told: None,
        })
    }

    /// Looks all names up at once (the resolver bounds how many are under way) and tells what
    /// changed: when all have answered, and before that when some are slow, so that a dead name
    /// does not hold up the others. Returns when to look again.
    ///
    /// # Errors
    /// Nobody listens any more.
    async fn round<L: Future<Output = Found>>(
        &mut self,
        lookup: impl Fn(Arc<str>) -> L,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Duration, mpsc::error::SendError<Answer>> {
        let hosts = self.groups.iter().flat_map(|group| group.hosts.iter());
        let names: BTreeSet<Arc<str>> = hosts.map(|host| host.host.clone()).collect();
        let mut lookups: FuturesUnordered<_> = names
            .into_iter()
            .map(|name| {
                let found = lookup(name.clone());
                async move { (name, found.await) }
            })
            .collect();
        let mut next = self.refresh.rate;
        loop {
            let patience = tokio::time::sleep(PATIENCE);
            tokio::select! {
                answered = lookups.next() => match answered {
                    Some((name, found)) => next = next.min(self.take(name, found)),
                    None => break,
                },
                () = patience => if self.endpoints().is_some() {
                    self.tell(answers).await?;
                },
            }
        }
        // The first answer is always told, so that the cluster need not wait for ever.
        self.tell(answers).await?;
        Ok(next.max(SHORTEST_REFRESH))
    }

    /// Notes one answer; returns when to look again for its sake.
    fn take(&mut self, name: Arc<str>, found: Found) -> Duration {
        match found {
            Ok((addresses, valid_until)) => {
                self.known.insert(name, addresses);
                let until = valid_until.filter(|_| self.refresh.respect_ttl);
                until.map_or(self.refresh.rate, |until| {
                    until.saturating_duration_since(SystemClock.now())
                })
            }
            Err(error) => {
                let cluster = &self.cluster.name;
                tracing::debug!(%cluster, host = %name, %error, "a host does not resolve");
                RETRY_AFTER_FAILURE
            }
        }
    }

    async fn tell(
        &mut self,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), mpsc::error::SendError<Answer>> {
        let endpoints = self.endpoints().map(Arc::new);
        if self.told.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        self.told = Some(endpoints.clone());
        let cluster = self.cluster.name.clone();
        answers.send(Answer { cluster, endpoints }).await
    }

    /// `None`: no name has an address.
    fn endpoints(&self) -> Option<Endpoints> {
        let localities: Arc<[LocalityEndpoints]> = self
            .groups
            .iter()
            .map(|group| LocalityEndpoints {
                locality: group.locality.clone(),
                priority: group.priority,
                weight: group.locality_weight,
                endpoints: group
                    .hosts
                    .iter()
                    .flat_map(|host| self.of_host(host))
                    .collect(),
            })
            .collect();
        localities
            .iter()
            .any(|locality| !locality.endpoints.is_empty())
            .then(|| Endpoints {
                cluster: self.cluster.name.shared(),
                localities,
                overprovisioning_percent: OVERPROVISIONING_PERCENT,
                weighted_priority_health: false,
                drops: Arc::from([]),
            })
    }

    fn of_host(&self, host: &DnsHost) -> Vec<Endpoint> {
        let known = self.known.get(&host.host).cloned().unwrap_or_default();
        let mut chosen = of_family(known, self.refresh.family);
        chosen.truncate(if self.first_only { 1 } else { usize::MAX });
        let endpoints = chosen.into_iter().map(|address| endpoint(host, address));
        endpoints.collect()
    }
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

    fn two_names() -> Hosts {
        let host = |name: &str| DnsHost {
            host: name.into(),
            port: 80,
            weight: 1,
            metadata: Default::default(),
        };
        let group = DnsEndpoints {
            locality: Default::default(),
            priority: 0,
            locality_weight: None,
            hosts: [host("a"), host("b")].into(),
        };
        let message = wire_envoy::pb::cluster::Cluster {
            name: "two".into(),
            ..Default::default()
        };
        let decoded = crate::decode::decode(
            &mut xds_decode::Decoder::default(),
            &wire_envoy::any(&message),
        );
        let Some(crate::warm::Change::Cluster(cluster)) = decoded.change else {
            panic!("no cluster")
        };
        let refresh = DnsRefresh {
            rate: Duration::from_secs(60),
            respect_ttl: true,
            family: DnsFamily::All,
        };
        let discovery = Discovery::StrictDns {
            endpoints: [group].into(),
            refresh,
        };
        let cluster = Cluster {
            discovery,
            ..(*cluster).clone()
        };
        Hosts::of(cluster.into()).expect("names")
    }

    /// The addresses that were told, if any.
    fn told(answers: &mut mpsc::Receiver<Answer>) -> Option<Vec<String>> {
        let endpoints = answers.try_recv().ok()?.endpoints?;
        let all = endpoints.localities.iter().flat_map(|l| l.endpoints.iter());
        Some(all.map(|e| format!("{:?}", e.address)).collect())
    }

    fn address(last: u8) -> Found {
        Ok((vec![IpAddr::from([10, 0, 0, last])], None))
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_last_addresses() {
        let (mut hosts, (sender, mut answers)) = (two_names(), mpsc::channel(4));
        let both = |name: Arc<str>| async move { address(if &*name == "a" { 1 } else { 2 }) };
        assert_eq!(
            hosts.round(both, &sender).await.expect("heard"),
            Duration::from_secs(60)
        );
        assert_eq!(told(&mut answers).expect("told").len(), 2);
        let one_fails = |name: Arc<str>| async move {
            match &*name {
                "a" => Err(io::Error::other("no answer")),
                _ => address(3),
            }
        };
        assert_eq!(
            hosts.round(one_fails, &sender).await.expect("heard"),
            RETRY_AFTER_FAILURE
        );
        let now = told(&mut answers).expect("told");
        assert!(
            now[0].contains("10.0.0.1") && now[1].contains("10.0.0.3"),
            "{now:?}"
        );
    }

    #[tokio::test]
    async fn a_dead_name_does_not_hold_up_the_others() {
        let (mut hosts, (sender, mut answers)) = (two_names(), mpsc::channel(4));
        let one_hangs = |name: Arc<str>| async move {
            match &*name {
                "a" => std::future::pending().await,
                _ => address(2),
            }
        };
        let round = hosts.round(one_hangs, &sender);
        assert!(tokio::time::timeout(2 * PATIENCE, round).await.is_err());
        assert_eq!(told(&mut answers).expect("told").len(), 1);
    }
}
