//! Spans on their way out: from the workers' queue, in batches, to the collectors that
//! configuration names.
//!
//! [`Exporter`] runs on the control runtime. It sorts spans by collector and hands over a batch
//! each second, or sooner when it is full; each collector has a task and a short queue of its own,
//! so a dead one holds up nothing: what finds no room is dropped and counted, and one line a minute
//! says why. Zipkin gets its version 2 JSON, OpenTelemetry OTLP by gRPC or HTTP. Connections are
//! made through the proxy's own clusters, so their TLS, source addresses and marks hold.

use std::{sync::Arc, time::Duration};

use proxy::{Live, report::reports::ExportedSpan};
use proxy_config::tracing::TracingProvider;
use stdx::Drain;
use telemetry::{stats::Counters, trace::Span};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

mod collector;
mod otlp;

#[cfg(test)]
mod tests;

use collector::Collector;

/// Spans of one batch.
const BATCH: usize = 512;
/// A batch that is not full waits at most so long.
const PAUSE: Duration = Duration::from_secs(1);
/// Batches that may wait for one collector.
const WAITING_BATCHES: usize = 4;
/// Collectors at a time; beyond that the one that was silent longest is given up.
const COLLECTORS: usize = 16;
/// For what is left when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

const COUNTERS: &[&str] = &[
    "spans_sent",
    "spans_dropped",
    "reports_sent",
    "reports_failed",
    "reports_skipped_no_cluster",
];

/// Positions in [`COUNTERS`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    SpansSent,
    SpansDropped,
    ReportsSent,
    ReportsFailed,
    NoCluster,
}

/// Takes spans until the drain starts, then sends what is left.
pub struct Exporter {
    live: Arc<Live>,
    spans: mpsc::Receiver<ExportedSpan>,
    routes: Vec<Route>,
    tasks: JoinSet<()>,
}

/// One collector, as seen from the queue.
struct Route {
    provider: Arc<TracingProvider>,
    waiting: Vec<Span>,
    batches: mpsc::Sender<Vec<Span>>,
    counters: Counters,
    silent_pauses: u32,
}

impl Exporter {
    pub fn new(live: Arc<Live>, spans: mpsc::Receiver<ExportedSpan>) -> Self {
        Self {
            live,
            spans,
            routes: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until the drain starts or nobody can send spans any more.
    pub async fn run(mut self, drain: Drain) {
        let mut drain = std::pin::pin!(drain);
        let mut pause = interval(PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut drain => break,
                span = self.spans.recv() => match span {
                    Some(exported) => self.take(exported),
                    None => break,
                },
                _ = pause.tick() => self.routes.iter_mut().for_each(Route::flush),
                Some(_) = self.tasks.join_next() => {}
            }
        }
        while let Ok(exported) = self.spans.try_recv() {
            self.take(exported);
        }
        self.routes.iter_mut().for_each(Route::flush);
        self.routes.clear();
        // Whoever has not answered by then loses the rest.
        let _ = timeout(FAREWELL, async {
            while self.tasks.join_next().await.is_some() {}
        })
        .await;
    }

    fn take(&mut self, exported: ExportedSpan) {
        let ExportedSpan { provider, span } = exported;
        let same =
            |route: &Route| Arc::ptr_eq(&route.provider, &provider) || route.provider == provider;
        let at = match self.routes.iter().position(same) {
            Some(at) => at,
            None => self.open(provider),
        };
        if let Some(route) = self.routes.get_mut(at) {
            route.silent_pauses = 0;
            route.waiting.push(span);
            if route.waiting.len() >= BATCH {
                route.flush();
            }
        }
    }

    fn open(&mut self, provider: Arc<TracingProvider>) -> usize {
        if self.routes.len() >= COLLECTORS
            && let Some(silent) = (0..self.routes.len())
                .max_by_key(|at| self.routes.get(*at).map(|route| route.silent_pauses))
        {
            self.routes.swap_remove(silent).flush();
        }
        let kind = match &*provider {
            TracingProvider::Zipkin { .. } => "tracing.zipkin",
            TracingProvider::OpenTelemetryGrpc { .. }
            | TracingProvider::OpenTelemetryHttp { .. } => "tracing.opentelemetry",
        };
        let scope = self.live.stats.scope(kind);
        let counters = scope.counters(COUNTERS);
        let (batches, receiver) = mpsc::channel(WAITING_BATCHES);
        let collector =
            Collector::new(self.live.clone(), provider.clone(), counters.clone(), scope);
        self.tasks.spawn(collector.run(receiver));
        self.routes.push(Route {
            provider,
            waiting: Vec::new(),
            batches,
            counters,
            silent_pauses: 0,
        });
        self.routes.len() - 1
    }
}

impl Route {
    fn flush(&mut self) {
        self.silent_pauses = self.silent_pauses.saturating_add(1);
        if self.waiting.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.waiting);
        if let Err(
            mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch),
        ) = self.batches.try_send(batch)
        {
            self.counters
                .add(Count::SpansDropped as usize, batch.len() as u64);
        }
    }
}
