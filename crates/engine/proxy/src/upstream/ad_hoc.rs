//! Hosts that are in no list: original destinations, and addresses that a name of a request resolved to.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::endpoint::LiveEndpoint;

/// Hosts that a cluster met, so that connections to them are shared. Bounded by [`AdHocHosts::sweep`] and [`MAX_HOSTS`].
#[derive(Default)]
pub struct AdHocHosts(Mutex<HashMap<SocketAddr, Arc<LiveEndpoint>, RandomState>>);

/// Beyond this many, hosts that nobody uses at the moment are forgotten at once.
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
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, host| Arc::strong_count(host) > 1);
        }
        let host = Arc::new(make());
        hosts.insert(address, host.clone());
        host
    }

    /// Forgets hosts that no pool and no request holds.
    pub fn sweep(&self) {
        self.0.lock().retain(|_, host| Arc::strong_count(host) > 1);
    }
}
