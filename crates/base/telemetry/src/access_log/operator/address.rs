//! Parts of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::record::Address;

/// The host part of an address.
pub(super) fn host(address: &Address) -> Option<String> {
    match address {
        Address::Socket(socket) => Some(socket.ip().to_string()),
        Address::Pipe(path) => Some(path.to_string()),
        Address::Internal(_) => None,
    }
}

pub(super) fn host_or_network(address: &Address, prefix: Option<u8>) -> Option<String> {
    let (Address::Socket(socket), Some(prefix)) = (address, prefix) else {
        return host(address);
    };
    let network = |bits: u32, all: u128| -> Option<u128> {
        let kept = u32::from(prefix);
        if kept > bits {
            return None;
        }
        Some(all & !(u128::MAX.checked_shr(128 - (bits - kept)).unwrap_or(0)))
    };
    let text = match socket.ip() {
        IpAddr::V4(ip) => {
            let bits = network(32, u128::from(ip.to_bits()))?;
            IpAddr::from(Ipv4Addr::from_bits(u32::try_from(bits).ok()?)).to_string()
        }
        IpAddr::V6(ip) => Ipv6Addr::from_bits(network(128, ip.to_bits())?).to_string(),
    };
    Some(format!("{text}/{prefix}"))
}

pub(super) fn port(address: &Address) -> Option<u64> {
    match address {
        Address::Socket(socket) => Some(u64::from(socket.port())),
        Address::Pipe(_) | Address::Internal(_) => None,
    }
}
