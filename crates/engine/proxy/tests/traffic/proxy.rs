//! A running proxy with one worker, whose records a test can read.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use proxy::{
    Live, Settings, Update, Worker, listen,
    publish::Changes,
    report::{Finished, Reporter},
};
use proxy_config::{Cluster, Listener};
use stdx::{DrainTrigger, drain};
use telemetry::record::Record;

/// What a test waits for comes within this time, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Records(Mutex<Vec<Record>>);

impl Reporter for Records {
    fn report(&self, finished: Finished<'_>) {
        self.0.lock().push(finished.record.clone());
    }
}

pub struct Proxy {
    pub live: Arc<Live>,
    pub worker: Arc<Worker>,
    records: Arc<Records>,
    pub drain: DrainTrigger,
    pub task: tokio::task::JoinHandle<()>,
}

pub fn set<Name, T>(items: Vec<T>) -> Changes<Name, T> {
    Changes {
        set: items.into_iter().map(Arc::new).collect(),
        removed: Vec::new(),
    }
}

pub fn update(listeners: Vec<Listener>, clusters: Vec<Cluster>) -> Update {
    Update {
        listeners: set(listeners),
        clusters: set(clusters),
        ..Update::default()
    }
}

impl Proxy {
    /// Starts with this configuration; returns when its listeners are bound.
    pub async fn start(listeners: Vec<Listener>, clusters: Vec<Cluster>) -> Self {
        Self::with(Live::default(), update(listeners, clusters)).await
    }

    pub async fn with(live: Live, update: Update) -> Self {
        let records = Arc::new(Records::default());
        Self::reporting(Arc::new(live), update, records.clone(), records).await
    }

    /// With a reporter of its own; `records` then stay empty.
    pub async fn reporting(
        live: Arc<Live>,
        update: Update,
        reporter: Arc<dyn Reporter>,
        records: Arc<Records>,
    ) -> Self {
        let wanted = update
            .listeners
            .set
            .iter()
            .filter(|listener| listener.bind_to_port)
            .count();
        let problems = live.publish(update);
        assert!(problems.is_empty(), "{problems:?}");
        let settings = Settings {
            drain_time: Duration::from_millis(500),
            ..Settings::default()
        };
        let worker = Worker::new(live.clone(), reporter, settings);
        let (trigger, signal) = drain::channel();
        let task = tokio::spawn(listen::run(worker.clone(), signal));
        let proxy = Self {
            live,
            worker,
            records,
            drain: trigger,
            task,
        };
        until(|| proxy.worker.bound().len() == wanted).await;
        proxy
    }

    /// Where a listener listens.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let bound = self.worker.bound();
        bound
            .iter()
            .find(|(name, _)| name.as_str() == listener)
            .map(|(_, address)| *address)
            .expect("the listener is bound")
    }

    /// The record number `at`, once it is there.
    pub async fn record(&self, at: usize) -> Record {
        until(|| self.records.0.lock().len() > at).await;
        self.records.0.lock()[at].clone()
    }

    pub fn counter(&self, name: &str) -> u64 {
        let query = telemetry::stats::Query::default();
        let text = self.live.stats.render(&query);
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
            .unwrap_or_default()
    }
}

/// Waits for a condition.
pub async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting)
        .await
        .expect("the condition holds in time");
}
