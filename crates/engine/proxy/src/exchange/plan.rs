//! What stays the same over all attempts of one request, and what they have used up.

use std::sync::Arc;

use proxy_config::route::{Forward, RetryPolicy};

use crate::upstream::cluster::LiveCluster;

/// What stays the same over all attempts.
pub struct Plan {
    pub cluster: Arc<LiveCluster>,
    pub rules: Arc<Forward>,
    pub retry: Option<Arc<RetryPolicy>>,
    pub hash: Option<u64>,
    /// Hosts that were tried.
    pub tried: Vec<u64>,
    pub retries: u32,
}
