//! Hosts of original-destination clusters: wherever the client wanted to go.

use std::{net::SocketAddr, sync::Arc};

use http::HeaderValue;

use crate::{downstream::Downstream, endpoint::LiveEndpoint, upstream::cluster::LiveCluster};

/// The host for a connection. `named`: the value of the cluster's header, when it has one
/// (`Some(None)`: the request lacks it).
/// `None` when the destination is not known: a connection that came to the proxy's own address has no other.
pub fn pick(
    cluster: &LiveCluster,
    connection: &Downstream,
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
    Some(cluster.ad_hoc_host(address))
}
