//! Upgrades of HTTP connections and streams, of a connection manager and of a route
//! (`UpgradeConfig` of either message).

use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// `websocket`, `CONNECT`, …, lower case but for CONNECT.
    pub kind: Arc<str>,
    pub enabled: bool,
}
