//! Which proxies are connected, and how far each has come: what `/debug/syncz` and `tanbark status` show.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use parking_lot::RwLock;
use xds_protocol::TypeStatus;

/// A connected proxy.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    /// Node id.
    pub node: String,
    /// `<pod>.<namespace>`, as istioctl shows it.
    pub name: String,
    pub version: String,
    pub cluster: String,
    pub connected_at: SystemTime,
    /// By type URL.
    pub types: BTreeMap<String, TypeStatus>,
}

/// All connected proxies by connection number.
#[derive(Default)]
pub struct Proxies {
    next: AtomicU64,
    connected: RwLock<BTreeMap<u64, ProxyStatus>>,
}

impl Proxies {
    /// Adds a proxy; the guard removes it when its stream ends.
    pub fn join(&self, status: ProxyStatus) -> Membership<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.connected.write().insert(number, status);
        Membership {
            proxies: self,
            number,
        }
    }

    pub fn list(&self) -> Vec<ProxyStatus> {
        self.connected.read().values().cloned().collect()
    }
}

/// A proxy's place in the list for as long as its stream lives.
pub struct Membership<'a> {
    proxies: &'a Proxies,
    number: u64,
}

impl Membership<'_> {
    pub fn update(&self, types: BTreeMap<String, TypeStatus>) {
        if let Some(status) = self.proxies.connected.write().get_mut(&self.number) {
            status.types = types;
        }
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.proxies.connected.write().remove(&self.number);
    }
}
