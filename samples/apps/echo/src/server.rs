//! What a server is told at its start, and what all of its requests share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counters::Counters;
use crate::shape::Failures;

/// What a server is told at its start.
#[derive(Clone)]
pub struct Settings {
    pub hostname: Arc<str>,
    /// Empty where it has none.
    pub version: Arc<str>,
    /// Longest wait of httpbin's endpoints.
    pub max_duration: Duration,
    /// Largest request body and generated httpbin body.
    pub max_body_bytes: usize,
    /// Headers and arguments as strings in place of lists.
    pub single_values: bool,
    pub cors: bool,
    /// A line on standard output for each request, in the common log format.
    pub access_log: bool,
}

/// Shared by all requests.
pub struct Echo {
    pub settings: Settings,
    pub counters: Arc<Counters>,
    pub failures: Failures,
    /// Cancelled when the server is to end.
    pub stop: CancellationToken,
    /// WebSockets, which outlive the request they began with.
    pub upgraded: TaskTracker,
}
