//! Filter chains: what they match, their TLS, their filters and the one that ends them.
//!
//! A chain whose criteria can be read is always taken, because the connections that it matches must
//! not fall to another chain; what of it cannot be read refuses them.

use std::{sync::Arc, time::Duration};

use proxy_config::{
    FilterChain,
    filter::NetworkFilter,
    listener::{ChainMatch, SourceType, Terminal, TransportProtocol},
    tls::DownstreamTls,
};
use wire_envoy::pb::{
    self, core::transport_socket::ConfigType, listener::filter_chain_match::ConnectionSourceType,
    transport_sockets::raw_buffer::v3::RawBuffer,
};

use crate::{
    address,
    context::Cx,
    extension::Extension,
    filter::{self, network::Network},
    judgement::{enumerated, take},
    metadata,
    reject::{Refusal, Within, each},
    scalar, tls,
};

/// What it costs when a chain cannot be read.
const CLOSES: &str = "connections that it matches are closed";

pub(super) fn chain(cx: &mut Cx, value: pb::listener::FilterChain) -> Result<FilterChain, Refusal> {
    take!(cx, value => pb::listener::FilterChain {
        read { filter_chain_match, filters, metadata, transport_socket, transport_socket_connect_timeout, name }
        reject "add the proxy_protocol listener filter instead" { use_proxy_proto }
    });
    let matches =
        matches(cx, filter_chain_match.unwrap_or_default()).within("filter_chain_match")?;
    let inside = inside(
        cx,
        transport_socket,
        filters,
        transport_socket_connect_timeout,
    );
    let Inside {
        tls,
        filters,
        terminal,
        connect_timeout,
    } = inside.unwrap_or_else(|refusal| Inside {
        tls: None,
        filters: vec![NetworkFilter::Refused(cx.refuse(&name, refusal, CLOSES))],
        terminal: Terminal::Close,
        connect_timeout: None,
    });
    Ok(FilterChain {
        name: name.into(),
        matches,
        tls,
        transport_socket_connect_timeout: connect_timeout,
        network_filters: filters.into(),
        terminal,
        metadata: metadata::metadata(cx, metadata).within("metadata")?,
    })
}

/// What a chain does with a connection.
struct Inside {
    tls: Option<Arc<DownstreamTls>>,
    filters: Vec<NetworkFilter>,
    terminal: Terminal,
    connect_timeout: Option<Duration>,
}

fn inside(
    cx: &mut Cx,
    transport_socket: Option<pb::core::TransportSocket>,
    filters: Vec<pb::listener::Filter>,
    connect_timeout: Option<pb::Duration>,
) -> Result<Inside, Refusal> {
    let tls = socket(cx, transport_socket).within("transport_socket")?;
    let decoded: Vec<Network> = cx.each("filters", filters, filter::network::network)?;
    let mut filters = Vec::new();
    let mut terminal = None;
    for (index, found) in decoded.into_iter().enumerate() {
        match found {
            _ if terminal.is_some() => {
                return Err(Refusal::new("stands after the filter that ends the chain"))
                    .within_item("filters", index);
            }
            Network::Before(filter) => filters.push(filter),
            Network::Http(http) => terminal = Some(Terminal::Http(http)),
            Network::Tcp(tcp) => terminal = Some(Terminal::Tcp(tcp)),
        }
    }
    // A filter that could not be read may have been the one that ends the chain.
    let refuses = |filter: &NetworkFilter| matches!(filter, NetworkFilter::Refused(_));
    if terminal.is_none() && !filters.is_empty() && !filters.iter().any(refuses) {
        return Err(Refusal::at("filters", "no filter ends the chain"));
    }
    Ok(Inside {
        tls,
        filters,
        terminal: terminal.unwrap_or(Terminal::Close),
        connect_timeout: scalar::limit("transport_socket_connect_timeout", connect_timeout, None)?,
    })
}

fn socket(
    cx: &mut Cx,
    value: Option<pb::core::TransportSocket>,
) -> Result<Option<Arc<DownstreamTls>>, Refusal> {
    let Some(pb::core::TransportSocket {
        name: _,
        config_type,
    }) = value
    else {
        return Ok(None);
    };
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    let extension = Extension::open(&any).within("typed_config")?;
    if extension.is::<RawBuffer>() {
        let message: RawBuffer = extension.message(cx).within("typed_config")?;
        take!(cx, message => RawBuffer {});
        return Ok(None);
    }
    if extension.is::<pb::tls::DownstreamTlsContext>() {
        let context = extension.message(cx).within("typed_config")?;
        return tls::downstream(cx, context)
            .within("typed_config")
            .map(|t| Some(Arc::new(t)));
    }
    Err(extension
        .unknown("as a transport socket")
        .under("typed_config"))
}

fn matches(cx: &mut Cx, value: pb::listener::FilterChainMatch) -> Result<ChainMatch, Refusal> {
    take!(cx, value => pb::listener::FilterChainMatch {
        read {
            destination_port, prefix_ranges, direct_source_prefix_ranges, source_type, source_prefix_ranges, source_ports,
            server_names, transport_protocol, application_protocols,
        }
        reject "Envoy does not match it either" { address_suffix, suffix_len }
    });
    Ok(ChainMatch {
        destination_port: scalar::count(destination_port)
            .map(|p| scalar::port("destination_port", p))
            .transpose()?,
        destination_prefixes: each("prefix_ranges", prefix_ranges, address::cidr)?,
        server_names: each("server_names", server_names, server_name)?,
        transport_protocol: match transport_protocol.as_str() {
            "" => TransportProtocol::Any,
            "raw_buffer" => TransportProtocol::RawBuffer,
            "tls" => TransportProtocol::Tls,
            other => {
                return Err(Refusal::at(
                    "transport_protocol",
                    format!("{other} is not supported"),
                ));
            }
        },
        application_protocols: scalar::texts(application_protocols),
        direct_source_prefixes: each(
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
            address::cidr,
        )?,
        source_type: match enumerated!(source_type => ConnectionSourceType, "source_type")? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source_prefixes: each("source_prefix_ranges", source_prefix_ranges, address::cidr)?,
        source_ports: each("source_ports", source_ports, |p| scalar::port("port", p))?,
    })
}

/// An exact name, or a wildcard for the leftmost labels; `*` alone is written by leaving the list
/// empty.
fn server_name(name: String) -> Result<Arc<str>, Refusal> {
    let body = name.strip_prefix("*.").unwrap_or(&name);
    if body.is_empty() || body.contains('*') {
        return Err(Refusal::new(format!(
            "{name:?}: a wildcard stands only for whole leading labels"
        )));
    }
    Ok(name.to_ascii_lowercase().into())
}
