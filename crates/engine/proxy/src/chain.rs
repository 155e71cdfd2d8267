//! Which filter chain of a listener takes a connection.
//!
//! Pure. Envoy walks its criteria in a fixed order (destination port, destination prefix, server name, transport protocol, application
//! protocol, direct source prefix, source type, source prefix, source port); at each it keeps only the chains that are most specific and
//! never comes back to others. So the result does not depend on the order of the chains.
//! Follows `envoy.config.listener.v3.FilterChainMatch`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use proxy_config::{
    FilterChain,
    listener::{ChainMatch, SourceType, TransportProtocol},
};
use smallvec::SmallVec;

#[cfg(test)]
mod tests;

/// What is known about a connection before its chain is chosen.
#[derive(Debug, Clone)]
pub struct ConnectionFacts {
    /// Where the client wanted to go, after original destination.
    pub destination: SocketAddr,
    /// The client's address, after PROXY protocol.
    pub source: SocketAddr,
    /// The socket's peer.
    pub direct_source: SocketAddr,
    /// From the ClientHello, lower case.
    pub server_name: Option<Arc<str>>,
    /// A ClientHello was seen.
    pub is_tls: bool,
    /// ALPN of the ClientHello, or what the HTTP inspector found (`http/1.0`, `http/1.1`, `h2c`).
    pub application_protocols: Vec<Arc<str>>,
}

/// The chain for a connection; `None`: the listener's default chain, if it has one.
pub fn match_chain<'a>(chains: &'a [Arc<FilterChain>], facts: &ConnectionFacts) -> Option<usize> {
    let mut left: SmallVec<[(usize, &'a ChainMatch); 16]> = chains
        .iter()
        .map(|chain| &chain.matches)
        .enumerate()
        .collect();
    let criteria: [fn(&ChainMatch, &ConnectionFacts) -> Option<usize>; 9] = [
        |m, f| port(m.destination_port, f.destination.port()),
        |m, f| prefix(&m.destination_prefixes, f.destination.ip()),
        |m, f| server_name(&m.server_names, f.server_name.as_deref()),
        |m, f| transport_protocol(m.transport_protocol, f.is_tls),
        |m, f| application_protocol(&m.application_protocols, &f.application_protocols),
        |m, f| prefix(&m.direct_source_prefixes, f.direct_source.ip()),
        |m, f| source_type(m.source_type, f),
        |m, f| prefix(&m.source_prefixes, f.source.ip()),
        |m, f| {
            if m.source_ports.is_empty() {
                Some(0)
            } else {
                m.source_ports.contains(&f.source.port()).then_some(1)
            }
        },
    ];
    for specificity in criteria {
        let best = left
            .iter()
            .filter_map(|(_, m)| specificity(m, facts))
            .max()?;
        left.retain(|(_, m)| specificity(m, facts) == Some(best));
    }
    left.first().map(|(at, _)| *at)
}

// Each criterion gives `None` when it does not match, 0 when it does not care, and more the more specific the match is.

fn port(wanted: Option<u16>, port: u16) -> Option<usize> {
    match wanted {
        None => Some(0),
        Some(wanted) => (wanted == port).then_some(1),
    }
}

fn prefix(prefixes: &[IpNet], ip: IpAddr) -> Option<usize> {
    if prefixes.is_empty() {
        return Some(0);
    }
    let ip = ip.to_canonical();
    prefixes
        .iter()
        .filter(|net| net.contains(&ip))
        .map(|net| 1 + usize::from(net.prefix_len()))
        .max()
}

fn server_name(names: &[Arc<str>], sni: Option<&str>) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    let sni = sni?;
    let specificity = |name: &str| match name.strip_prefix('*') {
        None => (name == sni).then_some(usize::MAX),
        // `*.example.com` does not match `.example.com` itself.
        Some(suffix) => {
            (sni.len() > suffix.len() && sni.ends_with(suffix)).then_some(1 + suffix.len())
        }
    };
    names.iter().filter_map(|name| specificity(name)).max()
}

fn transport_protocol(wanted: TransportProtocol, is_tls: bool) -> Option<usize> {
    match wanted {
        TransportProtocol::Any => Some(0),
        TransportProtocol::RawBuffer => (!is_tls).then_some(1),
        TransportProtocol::Tls => is_tls.then_some(1),
    }
}

/// The client's first protocol that some chain names wins, so earlier protocols are more specific.
fn application_protocol(wanted: &[Arc<str>], offered: &[Arc<str>]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    offered
        .iter()
        .position(|protocol| wanted.contains(protocol))
        .map(|at| usize::MAX - at)
}

fn source_type(wanted: SourceType, facts: &ConnectionFacts) -> Option<usize> {
    let local = facts.source.ip().to_canonical().is_loopback()
        || facts.source.ip() == facts.destination.ip();
    match wanted {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    }
}
