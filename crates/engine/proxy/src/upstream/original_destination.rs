//! Hosts of original-destination clusters: wherever the client wanted to go.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use foldhash::fast::RandomState;
use http::HeaderValue;
use parking_lot::Mutex;
use proxy_config::endpoint::EndpointAddress;

use crate::{
    connection::Connection,
    endpoint::{HostState, LiveEndpoint},
    upstream::cluster::LiveCluster,
};

/// Hosts that a cluster met, so that connections to them are shared. Bounded by [`AdHocHosts::sweep`] and [`MAX_HOSTS`].
#[derive(Default)]
pub struct AdHocHosts(Mutex<HashMap<SocketAddr, Arc<LiveEndpoint>, RandomState>>);

/// Beyond this many, hosts that nobody uses at the moment are forgotten at once.
const MAX_HOSTS: usize = 16 << 10;

/// The host for a connection. `named`: the value of the cluster's header, when it has one (`Some(None)`: the request lacks it).
/// `None` when the destination is not known: a connection that came to the proxy's own address has no other.
pub fn pick(
    cluster: &LiveCluster,
    connection: &Connection,
    named: Option<Option<&HeaderValue>>,
    port_override: Option<u16>,
) -> Option<Arc<LiveEndpoint>> {
    let from_header = named
        .flatten()
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let restored = connection
        .destination_restored
        .then_some(connection.facts.destination);
    let mut address: SocketAddr = from_header.or(restored)?;
    if let Some(port) = port_override {
        address.set_port(port);
    }
    Some(host(cluster, address))
}

/// The host with this address, made when it is new.
pub fn host(cluster: &LiveCluster, address: SocketAddr) -> Arc<LiveEndpoint> {
    let mut hosts = cluster.ad_hoc.0.lock();
    if let Some(host) = hosts.get(&address) {
        return host.clone();
    }
    if hosts.len() >= MAX_HOSTS {
        hosts.retain(|_, host| Arc::strong_count(host) > 1);
    }
    let state = Arc::new(HostState {
        id: cluster.ids.next(),
        ..HostState::default()
    });
    let host = Arc::new(cluster.ad_hoc_endpoint(EndpointAddress::Socket(address), state));
    hosts.insert(address, host.clone());
    host
}

impl AdHocHosts {
    /// Forgets hosts that no pool and no request holds.
    pub fn sweep(&self) {
        self.0.lock().retain(|_, host| Arc::strong_count(host) > 1);
    }
}
