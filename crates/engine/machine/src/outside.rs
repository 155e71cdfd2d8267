//! Where pods may go by the way out of the mesh: what is outside, and what is not.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Where pods cannot go by this way: what is the mesh's own, what no other machine can be, the
/// machine's loopback, and what tells a machine's credentials to whoever asks (link-local addresses
/// and the other metadata services of clouds): a sample application is not to become the person who
/// tries it.
pub const NOT_OUTSIDE: [Ipv4Net; 9] = [
    range([0, 0, 0, 0], 8),
    range([10, 96, 0, 0], 16),
    range([10, 244, 0, 0], 16),
    range([100, 100, 100, 200], 32),
    range([127, 0, 0, 0], 8),
    range([168, 63, 129, 16], 32),
    range([169, 254, 0, 0], 16),
    range([192, 0, 0, 192], 32),
    range([224, 0, 0, 0], 3),
];

const fn range([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

/// Whether pods may open connections to this address of the machine's network.
pub fn is_outside(address: Ipv4Addr) -> bool {
    !NOT_OUTSIDE.iter().any(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_the_loopback_and_metadata_services_are_not_outside() {
        for address in [
            "0.0.0.0",
            "10.96.0.10",
            "10.244.0.1",
            "100.100.100.200",
            "127.0.0.53",
            "168.63.129.16",
            "169.254.169.254",
            "192.0.0.192",
            "224.0.0.1",
            "240.240.0.1",
            "255.255.255.255",
        ] {
            assert!(
                !is_outside(address.parse().expect("an address")),
                "{address}"
            );
        }
        for address in ["1.1.1.1", "10.0.0.1", "192.0.2.1", "192.168.1.1"] {
            assert!(
                is_outside(address.parse().expect("an address")),
                "{address}"
            );
        }
    }
}
