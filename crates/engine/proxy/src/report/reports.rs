//! The reporter of one worker: each finished record becomes access-log lines, metrics and, when it is traced, a span.
//!
//! Lines and spans leave by bounded queues; what does not fit is dropped and counted, so a slow disk or collector never slows a request.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use proxy_config::{
    access_log::{AccessLog, AccessLogSink},
    bootstrap::Node,
    metadata::{Metadata, Value},
    tracing::{CustomTag, CustomTagValue, Tracing, TracingProvider},
};
use stdx::Rng;
use telemetry::{
    istio_metrics::IstioMetrics,
    record::{Peer, Record},
    trace::{self, CustomTagSource, Span, SpanKind, SpanSettings},
};

use tokio::sync::mpsc;

use super::{Finished, Reporter, edges::Edges, log_files::LogFiles};

/// A span on its way to a collector.
#[derive(Debug)]
pub struct ExportedSpan {
    pub provider: Arc<TracingProvider>,
    pub span: Span,
}

/// What all workers' reporters share.
pub struct Shared {
    pub files: LogFiles,
    pub metrics: IstioMetrics,
    pub rng: Arc<dyn Rng>,
    pub spans: mpsc::Sender<ExportedSpan>,
    pub spans_dropped: AtomicU64,
    /// The bootstrap's tracer, used where a connection manager names none.
    pub default_tracer: Option<Arc<TracingProvider>>,
    pub node: Node,
}

pub struct Reports {
    shared: Arc<Shared>,
    edges: Edges,
    /// Settings of the connection manager's tracing that was used last, which nearly always is the next one too.
    settings: Mutex<Option<(Arc<Tracing>, Arc<SpanSettings>)>>,
    local: Arc<Peer>,
}

impl Reports {
    /// For one worker; `local` is this proxy's workload.
    pub fn new(shared: Arc<Shared>, local: Arc<Peer>) -> Self {
        let edges = Edges::new(shared.metrics.clone(), local.clone());
        Self { shared, edges, settings: Mutex::default(), local }
    }

    fn log(&self, log: &AccessLog, record: &Record) {
        if log.filter.as_ref().is_some_and(|filter| !filter.admits(record, self.shared.rng.u64())) {
            return;
        }
        match &log.sink {
            AccessLogSink::File { path, format } => {
                let mut line = String::with_capacity(512);
                format.write(record, &mut line);
                self.shared.files.write(path, line);
            }
            // The decoder refuses these by name until there is an exporter; nothing to do twice.
            AccessLogSink::OpenTelemetry { .. } => {}
        }
    }

    fn trace(&self, finished: &Finished<'_>, record: &Record) {
        let Some(tracing) = finished.http.and_then(|http| http.tracing.as_ref()) else { return };
        let Some(provider) = tracing.provider.as_ref().or(self.shared.default_tracer.as_ref()) else { return };
        if !record.trace.as_ref().is_some_and(|context| context.sampled) {
            return;
        }
        let kind = match finished.connection.listener.config.direction {
            proxy_config::listener::TrafficDirection::Outbound => SpanKind::Client,
            _ => SpanKind::Server,
        };
        let operation = finished.route.and_then(|matched| matched.route.decorator.as_deref());
        let settings = self.span_settings(tracing);
        if let Some(span) = Span::of(record, kind, operation, &settings) {
            let exported = ExportedSpan { provider: provider.clone(), span };
            if self.shared.spans.try_send(exported).is_err() {
                self.shared.spans_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn span_settings(&self, tracing: &Arc<Tracing>) -> Arc<SpanSettings> {
        let mut kept = self.settings.lock();
        if let Some((of, settings)) = kept.as_ref()
            && Arc::ptr_eq(of, tracing)
        {
            return settings.clone();
        }
        let node = &self.shared.node;
        let settings = Arc::new(SpanSettings {
            node_id: node.id.clone(),
            service_name: node.cluster.clone(),
            zone: node.cluster.clone(),
            fixed_tags: Vec::new(),
            custom_tags: tracing.custom_tags.iter().filter_map(custom_tag).collect(),
            max_path_length: usize::try_from(tracing.max_path_tag_length).unwrap_or(256),
        });
        *kept = Some((tracing.clone(), settings.clone()));
        settings
    }

    /// This proxy's workload, as labels show it.
    pub fn local(&self) -> &Peer {
        &self.local
    }
}

impl Reporter for Reports {
    fn report(&self, finished: Finished<'_>) {
        let record = with_metadata(finished.record, finished.metadata);
        for log in finished.access_logs {
            self.log(log, &record);
        }
        self.edges.count(&finished);
        self.trace(&finished, &record);
    }
}

/// The record with what filters told, when they told something.
fn with_metadata<'a>(record: &'a Record, metadata: &Metadata) -> Cow<'a, Record> {
    if metadata.is_empty() {
        return Cow::Borrowed(record);
    }
    let map = metadata.0.iter().map(|(filter, value)| (filter.to_string(), json(value))).collect();
    Cow::Owned(Record { dynamic_metadata: Some(Box::new(map)), ..record.clone() })
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
        Value::Number(n) => (*n).into(),
        Value::String(s) => (**s).into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Struct(fields) => serde_json::Value::Object(fields.iter().map(|(key, value)| (key.to_string(), json(value))).collect()),
    }
}

fn custom_tag(tag: &CustomTag) -> Option<trace::CustomTag> {
    let optional = |text: &Arc<str>| (!text.is_empty()).then(|| text.to_string());
    let source = match &tag.value {
        CustomTagValue::Literal(text) => CustomTagSource::Literal(text.to_string()),
        // The decoder resolved what the environment has.
        CustomTagValue::Environment { default, .. } => CustomTagSource::Literal(optional(default)?),
        CustomTagValue::RequestHeader { name, default } => CustomTagSource::RequestHeader { name: name.to_string(), default: optional(default) },
        CustomTagValue::RequestMetadata { filter, path, default } => CustomTagSource::Metadata {
            filter: filter.to_string(),
            path: path.iter().map(|part| part.to_string()).collect(),
            default: optional(default),
        },
        CustomTagValue::Format(_) => return None,
    };
    Some(trace::CustomTag { tag: tag.name.to_string(), source })
}
