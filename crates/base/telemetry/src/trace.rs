//! Tracing: context in headers, the sampling decision, request ids, spans and their encodings.
//!
//! Pure: randomness comes as [`stdx::Rng`], times come in the record. The proxy extracts the
//! context, lets [`Sampling::decide`] mark the request id, injects its own [`SpanContext`]
//! upstream, and at the end makes a [`Span`] that it exports as Zipkin JSON ([`zipkin_json`]) or
//! translates to OTLP.

use std::fmt;
use std::sync::Arc;

use stdx::Rng;

pub use propagation::{Incoming, Style, extract, inject};
pub use request_id::{
    Reason, RequestIdPolicy, Sampling, SamplingInput, new_request_id, reason_of, request_id_number,
    with_reason,
};
pub use span::{CustomTag, CustomTagSource, Span, SpanKind, SpanSettings, istio_tags, zipkin_json};

pub(crate) use request_id::uuid_of;

mod propagation;
mod request_id;
mod span;

/// The identity of a span, as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanContext {
    /// Never zero.
    pub trace_id: u128,
    /// Never zero.
    pub span_id: u64,
    /// The span that this one belongs to.
    pub parent_id: Option<u64>,
    pub sampled: bool,
    /// W3C's `tracestate`, passed on unchanged.
    pub trace_state: Option<Arc<str>>,
}

impl SpanContext {
    /// A new root; `wide`: 128-bit trace id, else 64.
    pub fn root(rng: &impl Rng, wide: bool, sampled: bool) -> Self {
        let trace_id = if wide {
            rng.u128()
        } else {
            u128::from(rng.u64())
        };
        // Zero means "no id" in every format; one chance in 2^64 must not make an invalid trace.
        Self {
            trace_id: trace_id.max(1),
            span_id: rng.u64().max(1),
            parent_id: None,
            sampled,
            trace_state: None,
        }
    }

    /// A child of this span.
    pub fn child(&self, rng: &impl Rng) -> Self {
        Self {
            span_id: rng.u64().max(1),
            parent_id: Some(self.span_id),
            ..self.clone()
        }
    }

    /// The trace id, 32 digits, or 16 when it fits into 64 bits (as Zipkin's).
    pub fn trace_id_hex(&self) -> impl fmt::Display + use<> {
        Hex {
            value: self.trace_id,
            digits: if self.trace_id >> 64 == 0 { 16 } else { 32 },
        }
    }

    /// The span id, 16 digits.
    pub fn span_id_hex(&self) -> impl fmt::Display + use<> {
        Hex {
            value: u128::from(self.span_id),
            digits: 16,
        }
    }
}

struct Hex {
    value: u128,
    digits: usize,
}

impl fmt::Display for Hex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:0width$x}", self.value, width = self.digits)
    }
}

#[cfg(test)]
mod tests;
