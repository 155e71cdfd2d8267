//! A span as OTLP has it (`opentelemetry.proto.trace.v1`).

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Wire, Status, span, status},
};
use telemetry::trace::{Span, SpanKind};

/// One request to a collector for these spans of one service.
pub fn request(spans: &[Span], service_name: &str) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![attribute("service.name", service_name)],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "tanbark-proxy".to_owned(),
        ..InstrumentationScope::default()
    };
    let scoped = ScopeSpans {
        scope: Some(scope),
        spans: spans.iter().map(wire).collect(),
        schema_url: String::new(),
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scoped],
            schema_url: String::new(),
        }],
    }
}

fn wire(own: &Span) -> Wire {
    let context = &own.context;
    let start = own
        .start
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let kind = match own.kind {
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Server => span::SpanKind::Server,
    };
    let status = own.error.then(|| Status {
        code: status::StatusCode::Error.into(),
        message: String::new(),
    });
    Wire {
        trace_id: context.trace_id.to_be_bytes().to_vec(),
        span_id: context.span_id.to_be_bytes().to_vec(),
        trace_state: context
            .trace_state
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        parent_span_id: context
            .parent_id
            .map(|id| id.to_be_bytes().to_vec())
            .unwrap_or_default(),
        // The lowest bit says: sampled.
        flags: 1,
        name: own.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(start),
        end_time_unix_nano: nanoseconds(start + own.duration),
        attributes: own
            .tags
            .iter()
            .map(|(name, value)| attribute(name, value))
            .collect(),
        status,
        ..Wire::default()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue {
        value: Some(any_value::Value::StringValue(value.to_owned())),
    };
    KeyValue {
        key: name.to_owned(),
        value: Some(value),
        ..KeyValue::default()
    }
}
