//! Hosts of dynamic forward clusters: whatever the request's authority resolves to.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use proxy_config::cluster::{DnsFamily, DnsRefresh};

use crate::{
    endpoint::LiveEndpoint,
    route::without_port,
    upstream::{cluster::LiveCluster, original_destination},
};

/// Names that were resolved and until when that holds.
#[derive(Default)]
pub struct Names(Mutex<HashMap<Box<str>, (SocketAddr, Instant), RandomState>>);

/// More names than this are resolved again each time: names come from requests, so their number must be bounded.
const MAX_NAMES: usize = 4096;

/// The host for an authority; `None`: it does not resolve.
pub async fn resolve(
    cluster: &LiveCluster,
    authority: &str,
    scheme: &str,
    refresh: &DnsRefresh,
) -> Option<Arc<LiveEndpoint>> {
    let host = without_port(authority);
    let port = authority
        .get(host.len()..)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|port| port.parse().ok());
    let port: u16 = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
    let now = cluster.clock.now();
    let key = format!("{}:{port}", host.to_ascii_lowercase());
    let known = cluster.names.0.lock().get(&*key).copied();
    let address = match known {
        Some((address, until)) if until > now => address,
        _ => {
            let address = look_up(host.trim_matches(['[', ']']), port, refresh.family).await?;
            let mut names = cluster.names.0.lock();
            if names.len() >= MAX_NAMES {
                names.retain(|_, (_, until)| *until > now);
            }
            if names.len() < MAX_NAMES {
                names.insert(key.into(), (address, now + refresh.rate));
            }
            address
        }
    };
    Some(original_destination::host(cluster, address))
}

async fn look_up(host: &str, port: u16, family: DnsFamily) -> Option<SocketAddr> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.ok()?.collect();
    let four = || found.iter().find(|address| address.is_ipv4()).copied();
    let six = || found.iter().find(|address| address.is_ipv6()).copied();
    match family {
        DnsFamily::V4Only => four(),
        DnsFamily::V6Only => six(),
        DnsFamily::V4Preferred => four().or_else(six),
        DnsFamily::Auto => six().or_else(four),
        DnsFamily::All => found.first().copied(),
    }
}
