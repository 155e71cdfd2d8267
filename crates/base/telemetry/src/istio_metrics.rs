//! Istio's standard metrics, with the labels, order and fallbacks of its `istio_stats` filter.
//!
//! Three levels keep formatting off the path. An [`Edge`] is who talks to whom (source,
//! destination, service, security): made once per connection or upstream host by
//! [`IstioMetrics::edge`] and kept by the proxy. A [`Plan`] is what one filter's configuration
//! (Telemetry API) drops, removes or adds. A [`Shard`] belongs to one worker: it finds the series
//! for (plan, edge, protocol, code, status, flags) by a small integer key and adds to it. A scrape
//! adds the shards up.
//!
//! Series are bounded ([`Options::max_series`], overflow shown as
//! `tanbark_istio_series_overflow_total`), and those that no worker touched between two calls of
//! [`IstioMetrics::expire`] go, unless an open connection holds them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

pub use labels::{
    Edge, EdgeFacts, EdgeLabels, PeerLabels, Reporter, SecurityPolicy, ServiceFacts, service_labels,
};
pub use plan::{MetricConfig, Plan};

use crate::record::Record;
use crate::stats::BucketSettings;
use cells::{Cells, Held, Totals};
use labels::RequestLabels;

mod cells;
mod labels;
mod plan;

/// A standard metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    RequestMessages,
    Requests,
    ResponseMessages,
    TcpClosed,
    TcpOpened,
    TcpReceived,
    TcpSent,
    RequestBytes,
    RequestDuration,
    ResponseBytes,
}

impl Metric {
    /// All, in the order of the output.
    pub const ALL: [Self; 10] = [
        Self::RequestMessages,
        Self::Requests,
        Self::ResponseMessages,
        Self::TcpClosed,
        Self::TcpOpened,
        Self::TcpReceived,
        Self::TcpSent,
        Self::RequestBytes,
        Self::RequestDuration,
        Self::ResponseBytes,
    ];

    /// The full name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestMessages => "istio_request_messages_total",
            Self::Requests => "istio_requests_total",
            Self::ResponseMessages => "istio_response_messages_total",
            Self::TcpClosed => "istio_tcp_connections_closed_total",
            Self::TcpOpened => "istio_tcp_connections_opened_total",
            Self::TcpReceived => "istio_tcp_received_bytes_total",
            Self::TcpSent => "istio_tcp_sent_bytes_total",
            Self::RequestBytes => "istio_request_bytes",
            Self::RequestDuration => "istio_request_duration_milliseconds",
            Self::ResponseBytes => "istio_response_bytes",
        }
    }

    /// From the name in the filter's configuration, which has no `istio_`.
    pub fn from_config_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.name().strip_prefix("istio_") == Some(name))
    }

    fn is_histogram(self) -> bool {
        matches!(
            self,
            Self::RequestBytes | Self::RequestDuration | Self::ResponseBytes
        )
    }
}

/// Settings of the registry.
#[derive(Debug, Clone)]
pub struct Options {
    /// The version for `istio_build{component="proxy",tag=…}`; empty: `unknown`.
    pub version: String,
    /// Largest number of series, added over workers; a histogram counts one.
    pub max_series: usize,
    /// Buckets other than Envoy's defaults.
    pub buckets: BucketSettings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: String::new(),
            max_series: 200_000,
            buckets: BucketSettings::default(),
        }
    }
}

/// The registry of a process. Cloning shares.
#[derive(Debug, Clone)]
pub struct IstioMetrics(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    version: String,
    max_series: usize,
    buckets: BucketSettings,
    next_edge: AtomicU64,
    edges: Mutex<HashMap<EdgeLabels, Weak<Edge>, RandomState>>,
    shards: Mutex<Vec<Arc<Mutex<ShardState>>>>,
    series: AtomicUsize,
    overflow: AtomicU64,
}

/// One worker's part. Cheap to use from its own thread; safe from any.
#[derive(Debug)]
pub struct Shard {
    registry: Arc<Registry>,
    state: Arc<Mutex<ShardState>>,
}

#[derive(Debug, Default)]
struct ShardState {
    /// Fast way from a request's facts to its cells; may be dropped at any time.
    by_key: HashMap<Key, Arc<Series>, RandomState>,
    /// The same for plans with expressions, whose values are part of the key.
    by_values: HashMap<(Key, Box<[String]>), Arc<Series>, RandomState>,
    cells: HashMap<(Metric, Arc<str>), Arc<Cells>, RandomState>,
}

/// What tells one label set from another besides expression values. Identities are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    plan: u64,
    edge: u64,
    request: RequestLabels,
}

/// The cells of one label set, by use. `None`: dropped by the plan, or no room.
#[derive(Debug, Default)]
struct Series {
    cells: Vec<(Metric, Arc<Cells>)>,
    touched: std::sync::atomic::AtomicBool,
}

impl IstioMetrics {
    /// An empty registry.
    pub fn new(options: Options) -> Self {
        let Options {
            version,
            max_series,
            buckets,
        } = options;
        Self(Arc::new(Registry {
            version,
            max_series,
            buckets,
            next_edge: AtomicU64::new(1),
            edges: Mutex::default(),
            shards: Mutex::default(),
            series: AtomicUsize::new(0),
            overflow: AtomicU64::new(0),
        }))
    }

    /// The one edge with these labels. Takes a lock and hashes all texts: once per connection or
    /// upstream host.
    pub fn edge(&self, labels: EdgeLabels) -> Arc<Edge> {
        let mut edges = self.0.edges.lock();
        if let Some(edge) = edges.get(&labels).and_then(Weak::upgrade) {
            return edge;
        }
        if edges.len() == edges.capacity() {
            edges.retain(|_, edge| edge.strong_count() > 0);
        }
        let edge = Arc::new(Edge::new(
            self.0.next_edge.fetch_add(1, Ordering::Relaxed),
            &labels,
        ));
        edges.insert(labels, Arc::downgrade(&edge));
        edge
    }

    /// A part for one more worker; it stays in the sums when the worker ends.
    pub fn shard(&self) -> Shard {
        let state = Arc::new(Mutex::new(ShardState::default()));
        self.0.shards.lock().push(state.clone());
        Shard {
            registry: self.0.clone(),
            state,
        }
    }

    /// Removes series that no worker touched since the last call.
    pub fn expire(&self) {
        let shards = self.0.shards.lock().clone();
        // All at once: a series may only go when it is silent everywhere, or its sum would fall.
        let mut states: Vec<_> = shards.iter().map(|shard| shard.lock()).collect();
        let mut active: HashSet<(Metric, Arc<str>), RandomState> = HashSet::default();
        for state in &states {
            let touched = state.cells.iter().filter(|(_, cells)| cells.take_touched());
            active.extend(touched.map(|(key, _)| key.clone()));
        }
        for state in &mut states {
            let before = state.cells.len();
            state.cells.retain(|key, _| active.contains(key));
            self.0
                .series
                .fetch_sub(before - state.cells.len(), Ordering::Relaxed);
            let keep = |series: &mut Arc<Series>| series.touched.swap(false, Ordering::Relaxed);
            state.by_key.retain(|_, series| keep(series));
            state.by_values.retain(|_, series| keep(series));
        }
    }

    /// Number of series held, added over workers.
    pub fn series(&self) -> usize {
        self.0.series.load(Ordering::Relaxed)
    }

    /// Appends all metrics in Prometheus' text format.
    pub fn prometheus(&self, out: &mut String) {
        self.prometheus_of(out, |_| true);
    }

    /// Appends the metrics whose name is wanted. Names are asked for as Envoy's statistics have
    /// them, `istiocustom.istio_requests_total`.
    pub fn prometheus_of(&self, out: &mut String, wanted: impl Fn(&str) -> bool) {
        let wanted = |name: &str| wanted(&format!("istiocustom.{name}"));
        let mut sums: BTreeMap<Metric, BTreeMap<Arc<str>, Totals>> = BTreeMap::new();
        for shard in self.0.shards.lock().clone() {
            let cells: Vec<_> = shard
                .lock()
                .cells
                .iter()
                .map(|(key, cells)| (key.clone(), cells.clone()))
                .collect();
            for ((metric, labels), cells) in cells {
                cells.add_to(sums.entry(metric).or_default().entry(labels).or_default());
            }
        }
        sums.retain(|metric, _| wanted(metric.name()));
        for (metric, series) in sums.iter().filter(|(metric, _)| !metric.is_histogram()) {
            let _ = writeln!(out, "# TYPE {} counter", metric.name());
            for (labels, totals) in series {
                let _ = writeln!(out, "{}{{{labels}}} {}", metric.name(), totals.sum);
            }
            out.push('\n');
        }
        let version = if self.0.version.is_empty() {
            "unknown"
        } else {
            &self.0.version
        };
        let version = crate::stats::escape_label(version);
        if wanted("istio_build") {
            let _ = writeln!(
                out,
                "# TYPE istio_build gauge\nistio_build{{component=\"proxy\",tag=\"{version}\"}} 1\n"
            );
        }
        for (metric, series) in sums.iter().filter(|(metric, _)| metric.is_histogram()) {
            let _ = writeln!(out, "# TYPE {} histogram", metric.name());
            let bounds = self.0.buckets.bounds(metric.name());
            for (labels, totals) in series {
                let totals_of = (totals.sum as f64, totals.count());
                let counts = |bound: f64| totals.count_up_to(bounds, bound);
                crate::stats::write_histogram(
                    out,
                    metric.name(),
                    labels,
                    bounds,
                    counts,
                    totals_of,
                );
            }
            out.push('\n');
        }
        let overflow = self.0.overflow.load(Ordering::Relaxed);
        let name = "tanbark_istio_series_overflow_total";
        if overflow > 0 && wanted(name) {
            let _ = writeln!(out, "# TYPE {name} counter\n{name}{{}} {overflow}\n");
        }
    }
}

impl Shard {
    /// Counts a finished HTTP or gRPC request: requests, duration and sizes.
    pub fn request(&self, plan: &Plan, edge: &Edge, record: &Record) {
        let labels = RequestLabels::http(record);
        const METRICS: [Metric; 4] = [
            Metric::Requests,
            Metric::RequestDuration,
            Metric::RequestBytes,
            Metric::ResponseBytes,
        ];
        let series = self.series(plan, edge, labels, &METRICS, record);
        for (metric, cells) in &series.cells {
            match metric {
                Metric::RequestDuration => {
                    if let Some(total) = record.timings.total {
                        cells.record(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
                    }
                }
                Metric::RequestBytes => cells.record(record.bytes.downstream_wire_received),
                Metric::ResponseBytes => cells.record(record.bytes.downstream_wire_sent),
                _ => cells.add(1),
            }
        }
    }

    /// Counts gRPC messages since the last call for this stream. Istio labels them with the edge
    /// only.
    pub fn messages(&self, plan: &Plan, edge: &Edge, record: &Record, request: u64, response: u64) {
        const METRICS: [Metric; 2] = [Metric::RequestMessages, Metric::ResponseMessages];
        let series = self.series(plan, edge, RequestLabels::messages(), &METRICS, record);
        for (metric, cells) in &series.cells {
            cells.add(if *metric == Metric::RequestMessages {
                request
            } else {
                response
            });
        }
    }

    /// The series of one TCP connection; keep it while the connection is open. Counts nothing by
    /// itself.
    pub fn tcp(&self, plan: &Plan, edge: &Edge, record: &Record) -> TcpSeries {
        const METRICS: [Metric; 4] = [
            Metric::TcpOpened,
            Metric::TcpSent,
            Metric::TcpReceived,
            Metric::TcpClosed,
        ];
        let series = self.series(plan, edge, RequestLabels::tcp(record), &METRICS, record);
        let held = |wanted| {
            let found = series.cells.iter().find(|(metric, _)| *metric == wanted);
            found.map(|(_, cells)| Held::new(cells.clone()))
        };
        TcpSeries {
            opened: held(Metric::TcpOpened),
            sent: held(Metric::TcpSent),
            received: held(Metric::TcpReceived),
            closed: held(Metric::TcpClosed),
        }
    }

    fn series(
        &self,
        plan: &Plan,
        edge: &Edge,
        request: RequestLabels,
        metrics: &[Metric],
        record: &Record,
    ) -> Arc<Series> {
        let key = Key {
            plan: plan.id(),
            edge: edge.id(),
            request,
        };
        let values = plan.values(record);
        let mut state = self.state.lock();
        let found = match values.is_empty() {
            true => state.by_key.get(&key).cloned(),
            false => state.by_values.get(&(key, values.clone())).cloned(),
        };
        if let Some(series) = found {
            series.touched.store(true, Ordering::Relaxed);
            return series;
        }
        let mut cells = Vec::with_capacity(metrics.len());
        for metric in metrics
            .iter()
            .copied()
            .filter(|metric| !plan.drops(*metric))
        {
            let text = plan.label_text(metric, edge, request, &values);
            cells.extend(
                self.cells(&mut state, metric, text)
                    .map(|cells| (metric, cells)),
            );
        }
        let series = Arc::new(Series {
            cells,
            touched: true.into(),
        });
        // With labels removed, many keys share few series; the way to them is only a cache, so it
        // may start over.
        if state.by_key.len() + state.by_values.len() >= self.registry.max_series {
            state.by_key.clear();
            state.by_values.clear();
        }
        // An overflowing label set is not remembered: it gets its series as soon as there is room.
        if series.cells.len()
            == metrics
                .iter()
                .filter(|metric| !plan.drops(**metric))
                .count()
        {
            match values.is_empty() {
                true => drop(state.by_key.insert(key, series.clone())),
                false => drop(state.by_values.insert((key, values), series.clone())),
            }
        }
        series
    }

    fn cells(&self, state: &mut ShardState, metric: Metric, text: String) -> Option<Arc<Cells>> {
        let key = (metric, Arc::from(text));
        if let Some(cells) = state.cells.get(&key) {
            return Some(cells.clone());
        }
        if self.registry.series.fetch_add(1, Ordering::Relaxed) >= self.registry.max_series {
            self.registry.series.fetch_sub(1, Ordering::Relaxed);
            self.registry.overflow.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let bounds = if metric.is_histogram() {
            self.registry.buckets.bounds(metric.name())
        } else {
            &[]
        };
        let cells = Arc::new(Cells::new(bounds));
        state.cells.insert(key, cells.clone());
        Some(cells)
    }
}

/// The four counters of one TCP connection's label set, held against expiry.
#[derive(Debug)]
pub struct TcpSeries {
    opened: Option<Held>,
    sent: Option<Held>,
    received: Option<Held>,
    closed: Option<Held>,
}

impl TcpSeries {
    /// Counts the connection as opened. Istio does so once the peer's metadata is known, or at
    /// close.
    pub fn opened(&self) {
        add(&self.opened, 1);
    }

    /// Counts bytes since the last call: `sent` to and `received` from the downstream.
    pub fn bytes(&self, sent: u64, received: u64) {
        add(&self.sent, sent);
        add(&self.received, received);
    }

    /// Counts the connection as closed.
    pub fn closed(&self) {
        add(&self.closed, 1);
    }
}

fn add(cells: &Option<Held>, amount: u64) {
    if let Some(cells) = cells {
        cells.add(amount);
    }
}

#[cfg(test)]
mod tests;
