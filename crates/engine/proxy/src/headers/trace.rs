//! The trace decision and the context that goes upstream.
//!
//! Decided once for a request, from its id and what its caller decided; written into the request id (so that later hops decide alike) and, when
//! there is a collector to speak of, as the propagation headers of its kind. The span itself is made by the report.

use http::HeaderName;
use proxy_config::{listener::TrafficDirection, tracing::TracingProvider};
use telemetry::trace::{RequestIdPolicy, Sampling, SamplingInput, SpanContext, Style, extract, inject};

use super::{names::X_REQUEST_ID, text};
use crate::exchange::Exchange;

const X_CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");

/// Decides, and prepares the headers that go upstream.
pub fn begin(x: &mut Exchange) {
    let Some(tracing) = x.http.config.tracing.clone() else { return };
    let rng = x.worker.live.rng.clone();
    let rules = x.http.config.request_id;
    let policy = RequestIdPolicy { pack_trace_reason: rules.pack_trace_reason, use_for_sampling: rules.use_for_sampling };
    let sampling = Sampling { client: tracing.client_sampling, random: tracing.random_sampling, overall: tracing.overall_sampling };
    let headers = &mut x.head.headers;
    let input = SamplingInput {
        request_id: headers.get(X_REQUEST_ID).map(http::HeaderValue::as_bytes).unwrap_or_default(),
        client_trace_id: headers.contains_key(X_CLIENT_TRACE_ID),
        // Taken out before, as no caller is trusted with it.
        force_trace: false,
    };
    let (reason, new_id) = sampling.decide(policy, input, &rng);
    if let Some(id) = new_id.map(|id| text(&id)) {
        headers.insert(X_REQUEST_ID, id.clone());
        x.record.request_id = Some(id);
    }
    x.record.traced = reason.is_traced();
    let Some(provider) = tracing.provider.as_ref().or(x.worker.settings.default_tracer.as_ref()) else { return };
    let (style, wide, shared) = match &**provider {
        TracingProvider::Zipkin { trace_id_128bit, shared_span_context, w3c_too, .. } => {
            (if *w3c_too { Style::B3WithW3c } else { Style::B3 }, *trace_id_128bit, *shared_span_context)
        }
        TracingProvider::OpenTelemetryGrpc { .. } | TracingProvider::OpenTelemetryHttp { .. } => (Style::W3c, true, false),
    };
    let incoming = extract(style, headers);
    let sampled = incoming.sampled.unwrap_or(reason.is_traced());
    let joins = shared && x.connection.listener.config.direction == TrafficDirection::Inbound;
    let context = match incoming.parent {
        // Zipkin's shared spans: the server's half has the client's id.
        Some(parent) if joins => SpanContext { sampled, ..parent },
        Some(parent) => SpanContext { sampled, ..parent.child(&rng) },
        None => SpanContext::root(&rng, wide, sampled),
    };
    inject(style, &context, headers);
    x.record.trace = Some(context);
}
