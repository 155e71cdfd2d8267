//! One host of a cluster at run time: its configuration, how connections to it are made, and what
//! is known about its address.
//!
//! Balancing, pools and outlier detection stand on it; clusters hold it in views that `balance`
//! prepares.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use proxy_config::endpoint::{Endpoint, EndpointAddress, Health, Locality};
use telemetry::record::Address;

use crate::{tls::LiveTransport, upstream::ejection};

/// One endpoint. Made anew when its configuration changes; its `state` stays with its address.
pub struct LiveEndpoint {
    pub config: Endpoint,
    pub locality: Locality,
    pub priority: u32,
    /// How connections to it are made; fixed by its metadata.
    pub transport: Arc<LiveTransport>,
    pub state: Arc<HostState>,
}

/// What is known about one address of one cluster at run time, across all workers.
#[derive(Debug, Default)]
pub struct HostState {
    /// Key of this host in the workers' connection pools; never used twice.
    pub id: u64,
    pub active_requests: AtomicU32,
    pub active_connections: AtomicU32,
    pub outlier: ejection::HostState,
    /// When the host was first seen, for slow start. `None`: it came with the first version of the
    /// cluster's endpoints.
    pub added: Option<std::time::Instant>,
}

impl std::fmt::Debug for LiveEndpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "LiveEndpoint({:?})", self.config.address)
    }
}

impl LiveEndpoint {
    pub fn address(&self) -> &EndpointAddress {
        &self.config.address
    }

    /// Its address, as records have it.
    pub fn record_address(&self) -> Option<Address> {
        Some(match &self.config.address {
            EndpointAddress::Socket(address) => Address::Socket(*address),
            EndpointAddress::Pipe(path) => Address::Pipe(path.clone()),
        })
    }

    /// Whether traffic may go there: healthy or degraded by discovery and not ejected.
    pub fn is_available(&self) -> bool {
        matches!(self.config.health, Health::Healthy | Health::Degraded)
            && !self.state.outlier.is_ejected()
    }

    /// Requests and streams under way, all workers.
    pub fn active_requests(&self) -> u32 {
        self.state.active_requests.load(Ordering::Relaxed)
    }
}
