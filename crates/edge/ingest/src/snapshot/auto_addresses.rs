//! Virtual addresses for ServiceEntries that give none (row TM-092): without one, all that carry TCP on a port would share its listener, and
//! the first would take the others' connections.
//!
//! An address stays with its host for as long as the entry has it: what its status says is kept, a new one follows from the host's name, so that
//! it is the same again in another run. The cluster's DNS gives it to pods whose traffic a sidecar takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use mesh_model::object::Text;
use mesh_model::service::Resolution;
use serde_json::Value;

use crate::key::Key;
use crate::service_entry::Entry;

/// 240.240.0.0/16, as Istio's.
const PREFIX: [u8; 2] = [240, 240];
/// `"false"`: no addresses for this entry.
pub const ENABLE_LABEL: &str = "networking.istio.io/enable-autoallocate-ip";

#[derive(Default)]
pub(super) struct AutoAddresses {
    by_entry: BTreeMap<Key, BTreeMap<Text, Ipv4Addr>>,
    taken: BTreeSet<u16>,
}

impl AutoAddresses {
    /// Takes a new version of an entry (`None`: it is gone); `object` is the entry as the API has it.
    pub fn set(&mut self, key: &Key, entry: Option<&Entry>, object: &Value) {
        let before = self.by_entry.remove(key).unwrap_or_default();
        for address in before.values() {
            self.taken.remove(&suffix(*address));
        }
        let Some(entry) = entry.filter(|entry| needs_addresses(entry)) else {
            return;
        };
        let mut own = BTreeMap::new();
        for host in entry.hosts.iter().filter(|host| !host.is_wildcard()) {
            let known = before.get(host.as_str()).copied();
            let kept = known.or_else(|| in_status(object, host.as_str()));
            if let Some(address) = self.take(host.as_str(), kept) {
                own.insert(host.shared(), address);
            }
        }
        if !own.is_empty() {
            self.by_entry.insert(key.clone(), own);
        }
    }

    /// The wanted address, else the first free one from where the host's name points to. `None` when all are taken.
    fn take(&mut self, host: &str, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let first = wanted.map_or_else(|| start(host), suffix);
        let all = (0..=u16::MAX).map(|step| first.wrapping_add(step));
        let mut usable = all.filter(|n| !matches!(*n, 0 | u16::MAX));
        let chosen = usable.find(|n| !self.taken.contains(n))?;
        self.taken.insert(chosen);
        let [high, low] = chosen.to_be_bytes();
        let [first, second] = PREFIX;
        Some(Ipv4Addr::new(first, second, high, low))
    }

    pub fn of(&self, key: &Key, host: &str) -> Option<IpAddr> {
        let address = self.by_entry.get(key)?.get(host)?;
        Some(IpAddr::V4(*address))
    }

    pub fn all(&self) -> impl Iterator<Item = (&Key, &BTreeMap<Text, Ipv4Addr>)> {
        self.by_entry.iter()
    }
}

/// HTTP is told apart by its host and TLS by its server name; anything else only by address.
pub(super) fn needs_addresses(entry: &Entry) -> bool {
    let by_address = |port: &crate::service_entry::EntryPort| {
        port.port.protocol.is_tcp() || port.port.protocol.is_auto()
    };
    entry.addresses.is_empty()
        && entry.resolution != Resolution::Passthrough
        && entry.meta.labels.value(ENABLE_LABEL) != Some("false")
        && entry.ports.iter().any(by_address)
}

fn in_status(object: &Value, host: &str) -> Option<Ipv4Addr> {
    let list = object.pointer("/status/addresses")?.as_array()?;
    let entry = list.iter().find(|entry| entry["host"] == host)?;
    let address: Ipv4Addr = entry["value"].as_str()?.parse().ok()?;
    address.octets().starts_with(&PREFIX).then_some(address)
}

fn suffix(address: Ipv4Addr) -> u16 {
    let [_, _, high, low] = address.octets();
    u16::from_be_bytes([high, low])
}

/// FNV-1a, folded: the same in every run.
fn start(host: &str) -> u16 {
    let hash = host.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = hash.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
}
