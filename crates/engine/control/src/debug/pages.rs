//! What pages are made of.

use std::sync::Arc;

use mesh_model::Snapshot;
use serde_json::Value;
use tokio::sync::watch;

use crate::{generate::Generator, metrics::Metrics, proxies::Proxies};

#[derive(Clone)]
pub struct Pages {
    pub proxies: Arc<Proxies>,
    pub metrics: Metrics,
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Objects of Istio's kinds as they were written.
    pub objects: watch::Receiver<Arc<[Arc<Value>]>>,
    pub generator: Arc<Generator>,
}
