//! Hosts of dynamic forward clusters: whatever the request's authority resolves to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use proxy_config::cluster::{DnsFamily, DnsRefresh};

use crate::{
    endpoint::LiveEndpoint,
    route::without_port,
    upstream::{
        cluster::LiveCluster,
        metrics::Count,
        names::{Known, Looked},
    },
};

/// The host for an authority; `None`: it does not resolve. Waits only for the first look-up of a
/// name.
pub async fn resolve(
    cluster: &Arc<LiveCluster>,
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
    let ip = match host.trim_matches(['[', ']']).parse() {
        Ok(literal) => literal,
        Err(_) => address(cluster, &host.to_ascii_lowercase(), refresh).await?,
    };
    Some(cluster.ad_hoc_host(SocketAddr::new(ip, port)))
}

async fn address(cluster: &Arc<LiveCluster>, name: &str, refresh: &DnsRefresh) -> Option<IpAddr> {
    let ask = || {
        let counted = cluster.clone();
        cluster.names.ask(name, refresh.rate, move |looked| {
            counted.metrics.count(Count::DnsQueryAttempt);
            match looked {
                Looked::Found => {}
                Looked::Failed => counted.metrics.count(Count::DnsQueryFailure),
                Looked::TooLong => counted.metrics.count(Count::DnsQueryTimeout),
            }
        })
    };
    let mut known = ask();
    if let Known::Pending(mut done) = known {
        // It says nothing but closes.
        while done.changed().await.is_ok() {}
        known = ask();
    }
    match known {
        Known::Addresses(addresses) => preferred(&addresses, refresh.family),
        Known::Overflow => {
            cluster.metrics.count(Count::DnsHostOverflow);
            None
        }
        Known::Nothing | Known::Pending(_) => None,
    }
}

fn preferred(found: &[IpAddr], family: DnsFamily) -> Option<IpAddr> {
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
