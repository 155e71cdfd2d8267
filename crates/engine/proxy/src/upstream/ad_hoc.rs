//! Hosts that are in no list: original destinations, and addresses that a name of a request
//! resolved to.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::{endpoint::LiveEndpoint, upstream::shrink};

/// Hosts that a cluster met, so that connections to them are shared. Those that nobody uses go with
/// the next [`AdHocHosts::sweep`].
#[derive(Default)]
pub struct AdHocHosts(Mutex<HashMap<SocketAddr, Arc<LiveEndpoint>, RandomState>>);

/// So many are kept. A host beyond them is not shared: it serves the one request or connection that
/// asked for it.
const MAX_HOSTS: usize = 16 << 10;

impl AdHocHosts {
    /// The host with this address, made when it is new.
    pub fn host(
        &self,
        address: SocketAddr,
        make: impl FnOnce() -> LiveEndpoint,
    ) -> Arc<LiveEndpoint> {
        let mut hosts = self.0.lock();
        if let Some(host) = hosts.get(&address) {
            return host.clone();
        }
        let host = Arc::new(make());
        if hosts.len() < MAX_HOSTS {
            hosts.insert(address, host.clone());
        }
        host
    }

    /// Forgets hosts that no pool and no request holds. Called about once a second, more often than
    /// Envoy's `cleanup_interval` (5 s).
    pub fn sweep(&self) {
        let mut hosts = self.0.lock();
        hosts.retain(|_, host| Arc::strong_count(host) > 1);
        shrink(&mut hosts);
    }

    /// Hosts now.
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }
}
