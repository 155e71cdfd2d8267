//! Istio's metrics of one worker: from a finished record to the series of its edge.
//!
//! An edge (who talks to whom, under which service name) is looked up by the facts that make its
//! labels and remembered, so no label is formatted per request. Follows the `istio_stats` filter: a
//! sidecar's outbound side and gateways report as `source`, inbound as `destination`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use proxy_config::{
    filter::{
        HttpFilterKind, NetworkFilter,
        istio_stats::{IstioStats, Reporter as ReporterSetting},
    },
    listener::TrafficDirection,
    metadata::Value,
};
use telemetry::{
    istio_metrics::{
        Edge, EdgeFacts, IstioMetrics, MetricConfig, Plan, Reporter, ServiceFacts, Shard,
    },
    record::{Kind, Peer, Record},
};

use crate::report::{Finished, opened::Opened};

/// Edges and plans that a worker remembers; beyond that it starts anew.
const CACHED_EDGES: usize = 4096;
const CACHED_PLANS: usize = 256;
/// How often bytes of open TCP connections are counted where the configuration says nothing.
const TCP_INTERVAL: Duration = Duration::from_secs(5);

pub struct Edges {
    metrics: IstioMetrics,
    shard: Shard,
    local: Arc<Peer>,
    edges: Mutex<HashMap<EdgeKey, Arc<Edge>, RandomState>>,
    /// By the address of the configuration, which the entry keeps alive.
    plans: Mutex<HashMap<usize, Compiled, RandomState>>,
}

/// A filter's configuration and what it compiles to.
type Compiled = (Arc<IstioStats>, Arc<Plan>);

#[derive(PartialEq, Eq, Hash)]
struct EdgeKey {
    reporter: Reporter,
    peer: Option<Arc<Peer>>,
    peer_principal: Option<Arc<str>>,
    local_principal: Option<Arc<str>>,
    route: Option<Arc<str>>,
    cluster: Option<Arc<str>>,
    /// Only where no cluster metadata names the service.
    host: Option<Box<str>>,
}

impl Edges {
    pub fn new(metrics: IstioMetrics, local: Arc<Peer>) -> Self {
        let shard = metrics.shard();
        Self {
            metrics,
            shard,
            local,
            edges: Mutex::default(),
            plans: Mutex::default(),
        }
    }

    /// Counts a finished request or connection, if its chain has the statistics filter.
    pub fn count(&self, finished: &Finished<'_>) {
        if finished.is_counted {
            return;
        }
        let Some(config) = stats_filter(finished) else {
            return;
        };
        let edge = self.edge(&config, finished);
        let plan = self.plan(&config);
        let record = finished.record;
        match record.kind {
            Kind::Http => {
                self.shard.request(&plan, &edge, record);
                if record.is_grpc {
                    self.shard.messages(
                        &plan,
                        &edge,
                        record,
                        record.request_messages,
                        record.response_messages,
                    );
                }
            }
            Kind::Tcp => {
                let series = self.shard.tcp(&plan, &edge, record);
                series.opened();
                series.bytes(record.bytes.sent, record.bytes.received);
                series.closed();
            }
        }
    }

    /// Counts a TCP connection as opened, if its chain has the statistics filter.
    pub fn opened(&self, finished: &Finished<'_>) -> Option<Opened> {
        let config = stats_filter(finished)?;
        let series = self.shard.tcp(
            &self.plan(&config),
            &self.edge(&config, finished),
            finished.record,
        );
        Some(Opened::new(
            series,
            config
                .tcp_reporting_interval
                .filter(|interval| !interval.is_zero())
                .unwrap_or(TCP_INTERVAL),
        ))
    }

    fn plan(&self, config: &Arc<IstioStats>) -> Arc<Plan> {
        let mut plans = self.plans.lock();
        let address = Arc::as_ptr(config) as usize;
        if let Some((_, plan)) = plans.get(&address) {
            return plan.clone();
        }
        if plans.len() >= CACHED_PLANS {
            plans.clear();
        }
        let entries: Vec<MetricConfig> = config.overrides.iter().map(metric_config).collect();
        let (plan, problems) = Plan::parse(&entries);
        for problem in problems {
            tracing::warn!(%problem, "a metric override has no effect");
        }
        let plan = Arc::new(plan);
        plans.insert(address, (config.clone(), plan.clone()));
        plan
    }

    fn edge(&self, config: &IstioStats, finished: &Finished<'_>) -> Arc<Edge> {
        let record = finished.record;
        let reporter = reporter(config, finished);
        let (peer, peer_principal, local_principal) = match reporter {
            Reporter::Source => (
                &record.upstream_peer,
                upstream_principal(record, true),
                upstream_principal(record, false),
            ),
            Reporter::Destination | Reporter::Waypoint => (
                &record.downstream_peer,
                downstream_principal(record, true),
                downstream_principal(record, false),
            ),
        };
        let service = cluster_service(finished);
        let host = if service.is_some() || config.disable_host_header_fallback {
            None
        } else {
            record.request_header(":authority")
        };
        let key = EdgeKey {
            reporter,
            peer: peer.clone(),
            peer_principal,
            local_principal,
            route: record
                .route_name
                .clone()
                .filter(|name| matches!(&**name, "allow_any" | "block_all")),
            cluster: record.upstream_cluster.clone(),
            host: host.map(|host| host.into()),
        };
        let mut edges = self.edges.lock();
        if let Some(edge) = edges.get(&key) {
            return edge.clone();
        }
        let facts = EdgeFacts {
            reporter,
            local: &self.local,
            peer: key.peer.as_deref(),
            waypoint_destination: None,
            peer_principal: key.peer_principal.as_deref(),
            local_principal: key.local_principal.as_deref(),
            service: ServiceFacts {
                route_name: key.route.as_deref(),
                cluster_name: key.cluster.as_deref(),
                cluster_service: service,
                host_header: key.host.as_deref(),
            },
        };
        let edge = self.metrics.edge(facts.labels());
        if edges.len() >= CACHED_EDGES {
            edges.clear();
        }
        edges.insert(key, edge.clone());
        edge
    }
}

fn stats_filter(finished: &Finished<'_>) -> Option<Arc<IstioStats>> {
    match finished.http {
        Some(http) => http.filters.iter().find_map(|filter| match &filter.kind {
            HttpFilterKind::IstioStats(config) => Some(config.clone()),
            _ => None,
        }),
        None => finished
            .connection
            .chain
            .config
            .network_filters
            .iter()
            .find_map(|filter| match filter {
                NetworkFilter::IstioStats(config) => Some(config.clone()),
                _ => None,
            }),
    }
}

fn reporter(config: &IstioStats, finished: &Finished<'_>) -> Reporter {
    match (
        config.reporter,
        finished.connection.listener.config.direction,
    ) {
        (ReporterSetting::ServerGateway, _) => Reporter::Waypoint,
        (ReporterSetting::Unspecified, TrafficDirection::Inbound) => Reporter::Destination,
        (
            ReporterSetting::Unspecified,
            TrafficDirection::Outbound | TrafficDirection::Unspecified,
        ) => Reporter::Source,
    }
}

fn metric_config(change: &proxy_config::filter::istio_stats::MetricOverride) -> MetricConfig {
    MetricConfig {
        name: change.metric.as_deref().unwrap_or_default().to_owned(),
        drop: change.drop,
        tags_to_remove: change
            .tags_to_remove
            .iter()
            .map(|tag| tag.to_string())
            .collect(),
        dimensions: change
            .dimensions
            .iter()
            .map(|(tag, expression)| (tag.to_string(), expression.to_string()))
            .collect(),
    }
}

/// Host and short name of the service that the cluster stands for.
fn cluster_service<'a>(finished: &Finished<'a>) -> Option<(&'a str, Option<&'a str>)> {
    let service = finished
        .cluster?
        .config
        .metadata
        .lookup("istio", &["services"])?
        .as_list()
        .first()?;
    let text = |name: &str| service.field(name).and_then(Value::as_str);
    Some((text("host")?, text("name")))
}

fn upstream_principal(record: &Record, peer: bool) -> Option<Arc<str>> {
    let tls = record.upstream_tls.as_ref()?;
    if peer {
        tls.peer_uri_sans.first().cloned()
    } else {
        tls.local_uri_sans.first().cloned()
    }
}

fn downstream_principal(record: &Record, peer: bool) -> Option<Arc<str>> {
    let tls = record.downstream_tls.as_ref()?;
    if peer {
        tls.peer_uri_sans.first().cloned()
    } else {
        tls.local_uri_sans.first().cloned()
    }
}
