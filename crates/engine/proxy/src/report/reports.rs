//! The reporter of one worker: each finished record becomes access-log lines, metrics and, when it
//! is traced, a span.
//!
//! Lines and spans leave by bounded queues; what does not fit is dropped and counted, so a slow
//! disk or collector never slows a request.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use parking_lot::Mutex;
pub use proxy_config::bootstrap::Node;
use proxy_config::{
    access_log::{AccessLog, AccessLogSink},
    listener::TrafficDirection,
    tracing::{CustomTag, CustomTagValue, Tracing, TracingProvider},
};
use stdx::Rng;
use telemetry::{
    access_log::Format,
    istio_metrics::IstioMetrics,
    record::{Peer, Record},
    stats::Counter,
    trace::{self, CustomTagSource, Span, SpanContext, SpanKind, SpanSettings},
};

use tokio::sync::mpsc;

use crate::report::{Finished, Reporter, edges::Edges, log_files::LogFiles, opened::Opened};

/// A span on its way to a collector.
#[derive(Debug)]
pub struct ExportedSpan {
    pub provider: Arc<TracingProvider>,
    pub span: Span,
}

/// A tag whose value is an access-log format.
type FormatTag = (Arc<str>, Arc<Format>);
/// What the spans of one connection manager have in common.
type Prepared = (SpanSettings, Vec<FormatTag>);

/// What all workers' reporters share.
pub struct Shared {
    pub files: LogFiles,
    pub metrics: IstioMetrics,
    pub rng: Arc<dyn Rng>,
    pub spans: mpsc::Sender<ExportedSpan>,
    /// Counts spans that found no room in the queue.
    pub spans_dropped: Counter,
    pub node: Node,
    /// What `environment` tags may show.
    pub variables: HashMap<String, String>,
}

pub struct Reports {
    shared: Arc<Shared>,
    edges: Edges,
    /// Settings of the connection manager's tracing that was used last, which nearly always is the
    /// next one too.
    settings: Mutex<Option<(Arc<Tracing>, Arc<Prepared>)>>,
    local: Arc<Peer>,
}

impl Reports {
    /// For one worker; `local` is this proxy's workload.
    pub fn new(shared: Arc<Shared>, local: Arc<Peer>) -> Self {
        let edges = Edges::new(shared.metrics.clone(), local.clone());
        Self {
            shared,
            edges,
            settings: Mutex::default(),
            local,
        }
    }

    fn log(&self, log: &AccessLog, record: &Record) {
        if log
            .filter
            .as_ref()
            .is_some_and(|filter| !filter.admits(record, self.shared.rng.u64()))
        {
            return;
        }
        let AccessLogSink::File { path, format } = &log.sink;
        let mut line = String::with_capacity(512);
        format.write(record, &mut line);
        self.shared.files.write(path, line);
    }

    fn trace(&self, finished: &Finished<'_>, record: &Record) {
        let (Some(tracing), Some(trace)) = (
            finished.http.and_then(|http| http.tracing.as_ref()),
            finished.trace,
        ) else {
            return;
        };
        let (Some(provider), Some(context)) = (&trace.provider, &record.trace) else {
            return;
        };
        if !context.sampled || record.health_check {
            return;
        }
        let is_egress = finished.connection.listener.config.direction == TrafficDirection::Outbound;
        // Where the call upstream has a span of its own, this one is the server's half.
        let kind = if is_egress && trace.upstream.is_none() {
            SpanKind::Client
        } else {
            SpanKind::Server
        };
        let settings = self.span_settings(tracing, provider);
        if let Some(span) = Span::of(record, kind, trace.operation.as_deref(), &settings.0) {
            self.export(provider, with_formats(span, &settings.1, record));
        }
        if let Some(upstream) = trace.upstream.as_ref().filter(|_| record.attempts > 0) {
            self.upstream_span(provider, upstream, record, &settings);
        }
    }

    /// The span of the call to the upstream, with the tags of the configuration as the proxy's own.
    fn upstream_span(
        &self,
        provider: &Arc<TracingProvider>,
        context: &SpanContext,
        record: &Record,
        prepared: &Prepared,
    ) {
        let cluster = record
            .upstream_cluster_observed
            .as_deref()
            .or(record.upstream_cluster.as_deref())
            .unwrap_or_default();
        let name = format!("router {cluster} egress");
        if let Some(span) = Span::of_call(record, context, name, &prepared.0) {
            self.export(provider, with_formats(span, &prepared.1, record));
        }
    }

    fn export(&self, provider: &Arc<TracingProvider>, span: Span) {
        if self
            .shared
            .spans
            .try_send(ExportedSpan {
                provider: provider.clone(),
                span,
            })
            .is_err()
        {
            self.shared.spans_dropped.inc();
        }
    }

    fn span_settings(&self, tracing: &Arc<Tracing>, provider: &TracingProvider) -> Arc<Prepared> {
        let mut kept = self.settings.lock();
        if let Some((of, settings)) = kept.as_ref()
            && Arc::ptr_eq(of, tracing)
        {
            return settings.clone();
        }
        let node = &self.shared.node;
        let service_name = match provider {
            TracingProvider::Zipkin { .. } => node.cluster.clone(),
            TracingProvider::OpenTelemetryGrpc { service_name, .. }
            | TracingProvider::OpenTelemetryHttp { service_name, .. } => service_name.clone(),
        };
        let formats = tracing
            .custom_tags
            .iter()
            .filter_map(|tag| match &tag.value {
                CustomTagValue::Format(format) => Some((tag.name.clone(), format.clone())),
                _ => None,
            });
        let spans = SpanSettings {
            node_id: node.id.clone(),
            service_name,
            zone: node.locality.zone.clone(),
            fixed_tags: Vec::new(),
            custom_tags: tracing
                .custom_tags
                .iter()
                .filter_map(|tag| custom_tag(tag, &self.shared.variables))
                .collect(),
            max_path_length: usize::try_from(tracing.max_path_tag_length).unwrap_or(256),
        };
        let settings = Arc::new((spans, formats.collect()));
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
        let record = finished.record;
        for log in finished.access_logs {
            self.log(log, record);
        }
        self.edges.count(&finished);
        self.trace(&finished, record);
    }

    fn opened(&self, finished: Finished<'_>) -> Option<Opened> {
        self.edges.opened(&finished)
    }
}

fn with_formats(mut span: Span, formats: &[FormatTag], record: &Record) -> Span {
    for (name, format) in formats {
        let mut value = String::new();
        format.write(record, &mut value);
        span.tags.push((Cow::Owned(name.to_string()), value));
    }
    span
}

fn custom_tag(tag: &CustomTag, variables: &HashMap<String, String>) -> Option<trace::CustomTag> {
    let optional = |text: &Arc<str>| (!text.is_empty()).then(|| text.to_string());
    let source = match &tag.value {
        CustomTagValue::Literal(text) => CustomTagSource::Literal(text.to_string()),
        CustomTagValue::Environment { name, default } => {
            let set = variables
                .get(&**name)
                .filter(|value| !value.is_empty())
                .cloned();
            CustomTagSource::Literal(set.or_else(|| optional(default))?)
        }
        CustomTagValue::RequestHeader { name, default } => CustomTagSource::RequestHeader {
            name: name.to_string(),
            default: optional(default),
        },
        CustomTagValue::RequestMetadata {
            filter,
            path,
            default,
        } => CustomTagSource::Metadata {
            filter: filter.to_string(),
            path: path.iter().map(|part| part.to_string()).collect(),
            default: optional(default),
        },
        // Written by the format itself.
        CustomTagValue::Format(_) => return None,
    };
    Some(trace::CustomTag {
        tag: tag.name.to_string(),
        source,
    })
}
