//! What a proxy tells about itself: statistics, Istio metrics, access logs and traces.
//!
//! Pure and runtime-free. The data plane fills one [`record::Record`] per request or connection and
//! hands it to the reporters here; it owns files, sockets and timers. Hot operations touch a
//! worker's own memory only and format nothing; text is made when a scrape, a log line or a span
//! export asks for it.
//!
//! - [`stats`]: Envoy's counters, gauges and histograms with its text, JSON and Prometheus outputs.
//! - [`istio_metrics`]: Istio's standard metrics with all labels.
//! - [`record`]: the finished request or connection.
//! - [`access_log`]: Envoy's log format language and log filters.
//! - [`cel`]: the part of CEL that Istio's filters and tags use.
//! - [`trace`]: trace context, sampling, request ids and spans.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod access_log;
pub mod cel;
mod environment;
pub mod istio_metrics;
mod needs;
pub mod record;
pub mod stats;
mod time_format;
pub mod trace;

mod error;

pub use error::Error;
pub use needs::Needs;
