//! Hosts of dynamic forward clusters: whatever the request's authority resolves to.

use std::{net::SocketAddr, sync::Arc};

use proxy_config::cluster::{DnsFamily, DnsRefresh};

use crate::{endpoint::LiveEndpoint, route::without_port, upstream::cluster::LiveCluster};

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
    let known = cluster.names.get(&key);
    let address = match known {
        Some((address, until)) if until > now => address,
        _ => {
            let address = look_up(host.trim_matches(['[', ']']), port, refresh.family).await?;
            cluster
                .names
                .insert(key.into(), address, (now, now + refresh.rate));
            address
        }
    };
    Some(cluster.ad_hoc_host(address))
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
