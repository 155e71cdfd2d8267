//! Statistics under Envoy's names: counters, gauges, histograms and texts, with Envoy's outputs.
//!
//! A [`Store`] holds scopes; a [`Scope`] is a name prefix that ends with a dot
//! (`cluster.outbound|80||a.`) and lives as long as a handle of it: when configuration goes, the
//! last [`Scope`] is dropped and its series are gone from the next scrape. Two scopes of one prefix
//! are the same scope, so a configuration update keeps its counts.
//!
//! Handles ([`Counter`], [`Gauge`], [`Histogram`]) stay usable after their scope is gone. A write
//! touches a cell of the writing worker only (see [`WorkerSlot`]); reads add the workers up. Many
//! counters that belong together (all of a cluster) are cheapest as one [`Counters`] block: eight
//! bytes per counter and worker, allocated at the first write.
//!
//! The number of series is bounded: beyond it handles still work but are not shown, and
//! `server.stats_overflow` counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

pub use cells::{Counter, Counters, Gauge, Gauges, TextReadout, WorkerSlot};
pub use histogram::{Histogram, HistogramSummary};
pub use matcher::{Matcher, StringMatch};
pub use output::{Format, Kinds, Query, percent_decode};
pub use tags::{BucketSettings, DEFAULT_BUCKETS, TagRules};

pub(crate) use output::{escape_label, write_histogram};
pub(crate) use tags::prometheus_name;

use cells::{Cells, Kind};
use histogram::Recorder;

mod cells;
mod histogram;
mod matcher;
mod output;
mod tags;

/// How a [`Store`] counts and prints. Made from the bootstrap's `stats_config`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Worker threads that claim a [`WorkerSlot`]; further threads share one slot with atomic
    /// additions.
    pub workers: usize,
    /// Largest number of series (block members count one each).
    pub max_series: usize,
    /// Which names are shown.
    pub matcher: Matcher,
    /// Tag extraction for Prometheus.
    pub tags: TagRules,
    /// Histogram buckets for Prometheus.
    pub buckets: BucketSettings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            max_series: 1_000_000,
            matcher: Matcher::all(),
            tags: TagRules::istio(),
            buckets: BucketSettings::default(),
        }
    }
}

/// All statistics of a process. Cloning shares.
#[derive(Debug, Clone)]
pub struct Store(Arc<Shared>);

/// A name prefix and the life of the series under it. Cloning shares.
#[derive(Debug, Clone)]
pub struct Scope(Arc<Node>);

#[derive(Debug)]
struct Shared {
    slots: usize,
    max_series: usize,
    live_series: Arc<AtomicUsize>,
    settings: RwLock<Settings>,
    nodes: Mutex<HashMap<Arc<str>, Weak<Node>>>,
    root: Arc<Node>,
    overflow: Counter,
}

#[derive(Debug)]
struct Settings {
    matcher: Matcher,
    tags: TagRules,
    buckets: BucketSettings,
}

#[derive(Debug)]
struct Node {
    prefix: Arc<str>,
    slots: usize,
    max_series: usize,
    live_series: Arc<AtomicUsize>,
    /// Absent in the root, which the overflow counter itself lives in.
    overflow: Option<Counter>,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    counted: usize,
    /// Blocks by the address and length of their static name list.
    counter_blocks: HashMap<(usize, usize), Arc<Cells>>,
    gauge_blocks: HashMap<(usize, usize), Arc<Cells>>,
    counters: HashMap<Arc<str>, Arc<Cells>>,
    gauges: HashMap<Arc<str>, Arc<Cells>>,
    histograms: HashMap<Arc<str>, Arc<Recorder>>,
    texts: HashMap<Arc<str>, TextReadout>,
}

impl Store {
    /// An empty store.
    pub fn new(options: Options) -> Self {
        let Options {
            workers,
            max_series,
            matcher,
            tags,
            buckets,
        } = options;
        let slots = workers.saturating_add(1);
        let live_series = Arc::new(AtomicUsize::new(0));
        let root = Arc::new(Node {
            prefix: Arc::from(""),
            slots,
            max_series,
            live_series: live_series.clone(),
            overflow: None,
            members: Mutex::default(),
        });
        let overflow = Scope(root.clone()).counter("server.stats_overflow");
        Self(Arc::new(Shared {
            slots,
            max_series,
            live_series,
            settings: RwLock::new(Settings {
                matcher,
                tags,
                buckets,
            }),
            nodes: Mutex::default(),
            root,
            overflow,
        }))
    }

    /// The scope of `prefix`; a dot is added when it does not end with one. Empty prefix: the root,
    /// which never ends.
    pub fn scope(&self, prefix: &str) -> Scope {
        if prefix.is_empty() {
            return Scope(self.0.root.clone());
        }
        let prefix: Arc<str> = if prefix.ends_with('.') {
            Arc::from(prefix)
        } else {
            Arc::from(format!("{prefix}."))
        };
        let mut nodes = self.0.nodes.lock();
        if let Some(node) = nodes.get(&prefix).and_then(Weak::upgrade) {
            return Scope(node);
        }
        // Entries of ended scopes are swept when the table is about to grow, so the cost is
        // constant per scope.
        if nodes.len() == nodes.capacity() {
            nodes.retain(|_, node| node.strong_count() > 0);
        }
        let node = Arc::new(Node {
            prefix: prefix.clone(),
            slots: self.0.slots,
            max_series: self.0.max_series,
            live_series: self.0.live_series.clone(),
            overflow: Some(self.0.overflow.clone()),
            members: Mutex::default(),
        });
        nodes.insert(prefix, Arc::downgrade(&node));
        Scope(node)
    }

    /// Hides a scope's series although handles of it exist. A later [`Store::scope`] starts anew.
    pub fn remove_scope(&self, prefix: &str) {
        let dotted = if prefix.ends_with('.') {
            prefix.to_string()
        } else {
            format!("{prefix}.")
        };
        self.0.nodes.lock().remove(dotted.as_str());
    }

    /// The counter with this full name, in the root scope.
    pub fn counter(&self, name: &str) -> Counter {
        Scope(self.0.root.clone()).counter(name)
    }

    /// The gauge with this full name, in the root scope.
    pub fn gauge(&self, name: &str) -> Gauge {
        Scope(self.0.root.clone()).gauge(name)
    }

    /// The histogram with this full name, in the root scope.
    pub fn histogram(&self, name: &str) -> Histogram {
        Scope(self.0.root.clone()).histogram(name)
    }

    /// The text with this full name, in the root scope.
    pub fn text_readout(&self, name: &str) -> TextReadout {
        Scope(self.0.root.clone()).text_readout(name)
    }

    /// Replaces what is shown and how (the bootstrap may be known later than the store).
    pub fn configure(&self, matcher: Matcher, tags: TagRules, buckets: BucketSettings) {
        *self.0.settings.write() = Settings {
            matcher,
            tags,
            buckets,
        };
    }

    /// Sets all counters to zero (`POST /reset_counters`). Gauges and histograms stay, as in Envoy.
    pub fn reset_counters(&self) {
        for node in self.nodes() {
            let members = node.members.lock();
            members
                .counters
                .values()
                .chain(members.counter_blocks.values())
                .for_each(|cells| cells.reset());
        }
    }

    /// Ends the interval of all histograms: the first number of each quantile pair in the text
    /// output is about the time between the last two calls. Envoy does this every 5 s
    /// (`stats_flush_interval`).
    pub fn flush(&self) {
        for node in self.nodes() {
            let recorders: Vec<_> = node.members.lock().histograms.values().cloned().collect();
            recorders.iter().for_each(|recorder| recorder.flush());
        }
    }

    /// Number of series that are held.
    pub fn series(&self) -> usize {
        self.0.live_series.load(Ordering::Relaxed)
    }

    /// The body of an answer to `/stats` or `/stats/prometheus`.
    pub fn render(&self, query: &Query) -> String {
        output::render(self, query)
    }

    /// The body of `/stats/prometheus` with nothing left out. Istio's own metrics are in
    /// [`crate::istio_metrics`].
    pub fn prometheus(&self) -> String {
        self.render(&Query {
            format: Format::Prometheus,
            ..Query::default()
        })
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        let nodes = self.0.nodes.lock();
        std::iter::once(self.0.root.clone())
            .chain(nodes.values().filter_map(Weak::upgrade))
            .collect()
    }
}

impl Scope {
    /// The prefix, with its final dot; empty for the root.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// The counter `prefix + name`.
    pub fn counter(&self, name: &str) -> Counter {
        let node = &self.0;
        let mut members = node.members.lock();
        if let Some((cells, index)) = find(&members.counter_blocks, &members.counters, name) {
            return Counter::new(cells, index);
        }
        let cells = Arc::new(Cells::one(Kind::Counter, name, node.slots));
        if node.admit(&mut members, 1) {
            members.counters.insert(Arc::from(name), cells.clone());
        }
        Counter::new(cells, 0)
    }

    /// The gauge `prefix + name`.
    pub fn gauge(&self, name: &str) -> Gauge {
        let node = &self.0;
        let mut members = node.members.lock();
        if let Some((cells, index)) = find(&members.gauge_blocks, &members.gauges, name) {
            return Gauge::new(cells, index);
        }
        let cells = Arc::new(Cells::one(Kind::Gauge, name, node.slots));
        if node.admit(&mut members, 1) {
            members.gauges.insert(Arc::from(name), cells.clone());
        }
        Gauge::new(cells, 0)
    }

    /// The histogram `prefix + name`. Values are integers of one unit (`…_time` in milliseconds, as
    /// Envoy's).
    pub fn histogram(&self, name: &str) -> Histogram {
        let node = &self.0;
        let mut members = node.members.lock();
        if let Some(recorder) = members.histograms.get(name) {
            return Histogram::new(recorder.clone());
        }
        let recorder = Arc::new(Recorder::new(node.slots));
        if node.admit(&mut members, 1) {
            members.histograms.insert(Arc::from(name), recorder.clone());
        }
        Histogram::new(recorder)
    }

    /// The text `prefix + name`; not shown by Prometheus.
    pub fn text_readout(&self, name: &str) -> TextReadout {
        let node = &self.0;
        let mut members = node.members.lock();
        if let Some(text) = members.texts.get(name) {
            return text.clone();
        }
        let text = TextReadout::default();
        if node.admit(&mut members, 1) {
            members.texts.insert(Arc::from(name), text.clone());
        }
        text
    }

    /// All counters of a static list of names as one block; `block.inc(i)` is the i-th name. Asking
    /// again with the same list gives the same block.
    pub fn counters(&self, names: &'static [&'static str]) -> Counters {
        let node = &self.0;
        let mut members = node.members.lock();
        if let Some(cells) = members.counter_blocks.get(&block_key(names)) {
            return Counters::new(cells.clone());
        }
        let cells = Arc::new(Cells::block(Kind::Counter, names, node.slots));
        if node.admit(&mut members, names.len()) {
            members
                .counter_blocks
                .insert(block_key(names), cells.clone());
        }
        Counters::new(cells)
    }

    /// All gauges of a static list of names as one block.
    pub fn gauges(&self, names: &'static [&'static str]) -> Gauges {
        let node = &self.0;
        let mut members = node.members.lock();
        if let Some(cells) = members.gauge_blocks.get(&block_key(names)) {
            return Gauges::new(cells.clone());
        }
        let cells = Arc::new(Cells::block(Kind::Gauge, names, node.slots));
        if node.admit(&mut members, names.len()) {
            members.gauge_blocks.insert(block_key(names), cells.clone());
        }
        Gauges::new(cells)
    }
}

impl Node {
    /// Reserves room for `count` series, or counts the overflow.
    fn admit(&self, members: &mut Members, count: usize) -> bool {
        let before = self.live_series.fetch_add(count, Ordering::Relaxed);
        // The root's own series are a fixed few and hold the overflow counter itself.
        if before.saturating_add(count) <= self.max_series || self.overflow.is_none() && before == 0
        {
            members.counted += count;
            return true;
        }
        self.live_series.fetch_sub(count, Ordering::Relaxed);
        match &self.overflow {
            Some(overflow) => overflow.add(count as u64),
            None => {
                if let Some(cells) = members.counters.get("server.stats_overflow") {
                    Counter::new(cells.clone(), 0).add(count as u64);
                }
            }
        }
        false
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.live_series
            .fetch_sub(self.members.get_mut().counted, Ordering::Relaxed);
    }
}

fn block_key(names: &'static [&'static str]) -> (usize, usize) {
    (names.as_ptr() as usize, names.len())
}

/// A single series by name: one of its own, or a member of a block.
fn find(
    blocks: &HashMap<(usize, usize), Arc<Cells>>,
    singles: &HashMap<Arc<str>, Arc<Cells>>,
    name: &str,
) -> Option<(Arc<Cells>, usize)> {
    if let Some(cells) = singles.get(name) {
        return Some((cells.clone(), 0));
    }
    blocks
        .values()
        .find_map(|cells| Some((cells.clone(), cells.position(name)?)))
}

#[cfg(test)]
mod tests;
