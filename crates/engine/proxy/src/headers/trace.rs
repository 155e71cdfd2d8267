//! A request's place in a trace: what it brought, whether it is sampled, and what the upstream is told.
//!
//! [`begin`] runs once the route is known: the decision is packed into `x-request-id`, the caller's context is read, ours is written into the
//! request's headers. Which headers those are is the collector's affair: B3 for Zipkin, W3C for OpenTelemetry. Without a collector the
//! headers pass untouched, as in Envoy. The operation's name travels in `x-envoy-decorator-operation` between the two sidecars of a hop.
//! Follows Envoy's tracing architecture overview and `envoy.config.trace.v3`.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, response::Parts};
use proxy_config::{
    listener::TrafficDirection,
    tracing::{Tracing, TracingProvider},
};
use stdx::Rng;
use telemetry::trace::{
    Reason, RequestIdPolicy, Sampling, SamplingInput, SpanContext, Style, extract, inject,
};

use crate::{
    headers::names::{X_ENVOY_DECORATOR_OPERATION, X_ENVOY_FORCE_TRACE, X_REQUEST_ID},
    request::Request,
};

const X_CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");

/// Decides, reads, writes. Once for each request, whatever becomes of it.
pub fn begin(request: &mut Request, default: Option<&Arc<TracingProvider>>, rng: &Arc<dyn Rng>) {
    let Some(tracing) = request.http.tracing.clone() else {
        return;
    };
    let reason = decide(request, &tracing, rng);
    request.record.traced = reason.is_traced() && !request.record.health_check;
    let is_egress = request.downstream.direction == TrafficDirection::Outbound;
    pass_operation(request, is_egress);
    let Some(provider) = tracing.provider.clone().or_else(|| default.cloned()) else {
        return;
    };
    let style = style(&provider);
    let incoming = extract(style, &request.head.headers);
    let mut own = match &incoming.parent {
        None => SpanContext::root(rng, has_wide_ids(&provider), false),
        Some(parent) if !is_egress && shares_spans(&provider) => parent.clone(),
        Some(parent) => parent.child(rng),
    };
    own.sampled = incoming.sampled.unwrap_or(request.record.traced);
    let upstream = tracing.spawn_upstream_span.then(|| own.child(rng));
    inject(
        style,
        upstream.as_ref().unwrap_or(&own),
        &mut request.head.headers,
    );
    request.record.trace = Some(own);
    request.trace.upstream = upstream;
    request.trace.provider = Some(provider);
}

/// The other side's sidecar may know better what the operation is called.
pub fn on_response(request: &mut Request, head: &Parts) {
    if request.downstream.direction == TrafficDirection::Outbound
        && let Some(told) = head
            .headers
            .get(X_ENVOY_DECORATOR_OPERATION)
            .and_then(|value| value.to_str().ok())
        && request.http.tracing.is_some()
    {
        request.trace.operation = Some(told.into());
    }
}

fn decide(request: &mut Request, tracing: &Tracing, rng: &Arc<dyn Rng>) -> Reason {
    let ids = request.http.request_id;
    let policy = RequestIdPolicy {
        pack_trace_reason: ids.pack_trace_reason,
        use_for_sampling: ids.use_for_sampling,
    };
    let sampling = Sampling {
        client: tracing.client_sampling,
        random: tracing.random_sampling,
        overall: tracing.overall_sampling,
    };
    let headers = &request.head.headers;
    let input = SamplingInput {
        request_id: headers
            .get(X_REQUEST_ID)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default(),
        client_trace_id: headers.contains_key(X_CLIENT_TRACE_ID),
        force_trace: headers.contains_key(X_ENVOY_FORCE_TRACE),
    };
    let (reason, marked) = sampling.decide(policy, input, rng);
    if let Some(id) = marked.and_then(|id| HeaderValue::try_from(id).ok()) {
        request.head.headers.insert(X_REQUEST_ID, id.clone());
        request.record.request_id = Some(id);
    }
    reason
}

/// The route's name for the operation goes with the request; what came with it is used here and goes no further.
fn pass_operation(request: &mut Request, is_egress: bool) {
    let route = request.route.as_ref().map(|matched| &matched.route);
    let decorator = route
        .and_then(|route| route.decorator.clone())
        .filter(|operation| !operation.is_empty());
    let propagates = route.is_some_and(|route| route.decorator_propagate);
    request.trace.operation = decorator.clone();
    if is_egress {
        if let Some(value) = decorator
            .filter(|_| propagates)
            .and_then(|operation| HeaderValue::from_str(&operation).ok())
        {
            request
                .head
                .headers
                .insert(X_ENVOY_DECORATOR_OPERATION, value);
        }
    } else if let Some(told) = request.head.headers.remove(X_ENVOY_DECORATOR_OPERATION)
        && let Some(told) = told.to_str().ok().filter(|told| !told.is_empty())
    {
        request.trace.operation = Some(told.into());
        request.trace.was_told = true;
    }
}

fn style(provider: &TracingProvider) -> Style {
    match provider {
        TracingProvider::Zipkin { w3c_too: true, .. } => Style::B3WithW3c,
        TracingProvider::Zipkin { .. } => Style::B3,
        TracingProvider::OpenTelemetryGrpc { .. } | TracingProvider::OpenTelemetryHttp { .. } => {
            Style::W3c
        }
    }
}

fn has_wide_ids(provider: &TracingProvider) -> bool {
    match provider {
        TracingProvider::Zipkin {
            trace_id_128bit, ..
        } => *trace_id_128bit,
        TracingProvider::OpenTelemetryGrpc { .. } | TracingProvider::OpenTelemetryHttp { .. } => {
            true
        }
    }
}

/// Zipkin's server spans may have the id of the client's.
fn shares_spans(provider: &TracingProvider) -> bool {
    matches!(
        provider,
        TracingProvider::Zipkin {
            shared_span_context: true,
            ..
        }
    )
}
