//! Addresses and address ranges.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proxy_config::endpoint::EndpointAddress;
use wire_envoy::pb::{
    self,
    core::{address::Address as Kind, socket_address::PortSpecifier},
};

use crate::{
    context::Cx,
    judgement::take,
    reject::{Refusal, Within},
    scalar,
};

/// Host and port as written; the host may be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Host { host: String, port: u16 },
    Pipe(String),
}

pub(crate) fn address(cx: &mut Cx, value: Option<pb::core::Address>) -> Result<Address, Refusal> {
    match value.and_then(|a| a.address) {
        None => Err(Refusal::new("is required")),
        Some(Kind::SocketAddress(socket)) => socket_address(cx, socket).within("socket_address"),
        Some(Kind::Pipe(pipe)) => {
            take!(cx, pipe => pb::core::Pipe {
                read { path }
                ignore "the socket's mode is left to the process's umask" { mode }
            });
            if path.is_empty() {
                Err(Refusal::missing("pipe.path"))
            } else {
                Ok(Address::Pipe(path))
            }
        }
        Some(Kind::EnvoyInternalAddress(_)) => Err(Refusal::at(
            "envoy_internal_address",
            "internal listeners are not supported",
        )),
    }
}

fn socket_address(cx: &mut Cx, value: pb::core::SocketAddress) -> Result<Address, Refusal> {
    take!(cx, value => pb::core::SocketAddress {
        read { protocol, address, port_specifier }
        ignore "dual-stack binding is decided by the listener" { ipv4_compat }
        reject "custom resolvers are not built in" { resolver_name }
        reject "network namespaces of listeners are not supported" { network_namespace_filepath }
    });
    if protocol != pb::core::socket_address::Protocol::Tcp as i32 {
        return Err(Refusal::at("protocol", "only TCP is supported"));
    }
    let port = match port_specifier {
        None => 0,
        Some(PortSpecifier::PortValue(port)) => scalar::port("port_value", port)?,
        Some(PortSpecifier::NamedPort(_)) => {
            return Err(Refusal::at("named_port", "named ports are not supported"));
        }
    };
    if address.is_empty() {
        return Err(Refusal::missing("address"));
    }
    Ok(Address::Host {
        host: address,
        port,
    })
}

/// A literal address; a name is refused.
pub(crate) fn literal(
    cx: &mut Cx,
    value: Option<pb::core::Address>,
) -> Result<EndpointAddress, Refusal> {
    match address(cx, value)? {
        Address::Pipe(path) => Ok(EndpointAddress::Pipe(path.into())),
        Address::Host { host, port } => {
            ip(&host).map(|ip| EndpointAddress::Socket(SocketAddr::new(ip, port)))
        }
    }
}

pub(crate) fn socket(cx: &mut Cx, value: pb::core::SocketAddress) -> Result<SocketAddr, Refusal> {
    match socket_address(cx, value)? {
        Address::Host { host, port } => ip(&host).map(|ip| SocketAddr::new(ip, port)),
        Address::Pipe(_) => Err(Refusal::new("is no socket address")),
    }
}

fn ip(text: &str) -> Result<IpAddr, Refusal> {
    text.parse()
        .map_err(|_| Refusal::new(format!("{text:?} is no IP address")))
}

/// Host bits below the prefix are cleared, as Envoy does.
pub(crate) fn cidr(value: pb::core::CidrRange) -> Result<IpNet, Refusal> {
    let pb::core::CidrRange {
        address_prefix,
        prefix_len,
    } = value;
    range(&address_prefix, scalar::count_or(prefix_len, 0))
}

fn range(address: &str, prefix: u32) -> Result<IpNet, Refusal> {
    let ip = ip(address).within("address_prefix")?;
    u8::try_from(prefix)
        .ok()
        .and_then(|prefix| IpNet::new(ip, prefix).ok())
        .map(|net| net.trunc())
        .ok_or_else(|| Refusal::at("prefix_len", format!("{prefix} is too long for {address}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lose_their_host_bits_and_wrong_ones_are_refused() {
        assert_eq!(
            range("10.1.2.3", 8),
            Ok("10.0.0.0/8".parse().expect("a range"))
        );
        assert!(range("10.1.2.3", 33).is_err());
        assert!(range("localhost", 8).is_err());
    }
}
