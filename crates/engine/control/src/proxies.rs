//! Which proxies are connected, and how far each has come: what `/debug/syncz` and `tanbark status`
//! show.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use parking_lot::RwLock;
use serde_json::Value;
use xds_encode::Client;
use xds_protocol::TypeStatus;

/// A connected proxy.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    /// `<pod>.<namespace>`, as istioctl shows it.
    pub name: String,
    /// As its node describes it.
    pub client: Arc<Client>,
    /// The node's metadata.
    pub metadata: Value,
    pub address: Option<SocketAddr>,
    pub connected_at: SystemTime,
    /// By type URL.
    pub types: BTreeMap<String, TypeStatus>,
    /// Names that it asked for, by type URL; none for a type of which it wants everything.
    pub watches: BTreeMap<String, Vec<String>>,
}

/// All connected proxies by connection number.
#[derive(Default)]
pub struct Proxies {
    /// The first is 1, as istiod's.
    next: AtomicU64,
    connected: RwLock<BTreeMap<u64, ProxyStatus>>,
}

impl Proxies {
    /// Adds a proxy; the guard removes it when its stream ends.
    pub fn join(&self, status: ProxyStatus) -> Membership<'_> {
        let number = 1 + self.next.fetch_add(1, Ordering::Relaxed);
        self.connected.write().insert(number, status);
        Membership {
            proxies: self,
            number,
        }
    }

    /// Everyone, by the number of the connection.
    pub fn list(&self) -> Vec<(u64, ProxyStatus)> {
        let connected = self.connected.read();
        let entries = connected.iter();
        entries
            .map(|(number, status)| (*number, status.clone()))
            .collect()
    }

    /// The proxy with this `<pod>.<namespace>` or node id; the latest connection of several.
    pub fn find(&self, name: &str) -> Option<ProxyStatus> {
        let connected = self.connected.read();
        let mut latest_first = connected.values().rev();
        latest_first
            .find(|status| status.name == name || &*status.client.id == name)
            .cloned()
    }
}

/// A proxy's place in the list for as long as its stream lives.
pub struct Membership<'a> {
    proxies: &'a Proxies,
    number: u64,
}

impl Membership<'_> {
    /// The proxy asks for these names of a type.
    pub fn watch(&self, type_url: &str, names: Vec<String>) {
        if let Some(status) = self.proxies.connected.write().get_mut(&self.number) {
            status.watches.insert(type_url.to_owned(), names);
        }
    }

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
