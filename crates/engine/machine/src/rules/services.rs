//! The machine's table of Service addresses: destination translation to a random endpoint, as
//! kube-proxy's.
//!
//! A VIP without endpoints, and a port of a VIP that no Service has, is rejected (connection
//! refused). A pod that reaches itself through a Service gets its packets back from the bridge's
//! address, because a host drops packets from itself. TCP to the world outside of the mesh goes to
//! the listener of [`crate::egress`], where there is one; without it the world is unreachable.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::Firewall;
use crate::names::BRIDGE;
use crate::outside::NOT_OUTSIDE;

/// The addresses of Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";

/// Transport protocol of a Service's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Which endpoint a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Any, at random for each connection.
    None,
    /// The same one for each client address (`sessionAffinity: ClientIP`).
    Client,
}

/// One port of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The Service's address.
    pub address: Ipv4Addr,
    /// The Service's port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// `sessionAffinity`
    pub affinity: Affinity,
    /// Ready endpoints.
    pub endpoints: Vec<SocketAddrV4>,
}

/// The whole table's text; given to the kernel as one transaction. `way_out` is the port of the
/// listener for connections to the world.
pub fn rules(vips: &[Vip], way_out: Option<u16>, firewall: Firewall) -> String {
    match firewall {
        Firewall::Nft => nft(vips, way_out),
        Firewall::Iptables => iptables(vips, way_out),
    }
}

fn self_addresses(vips: &[Vip]) -> BTreeSet<Ipv4Addr> {
    vips.iter()
        .flat_map(|vip| vip.endpoints.iter().map(|endpoint| *endpoint.ip()))
        .collect()
}

fn nft(vips: &[Vip], way_out: Option<u16>) -> String {
    let mut text =
        String::from("table ip services {}\ndelete table ip services\ntable ip services {\n");
    let mut elements = Vec::new();
    for (index, vip) in vips
        .iter()
        .enumerate()
        .filter(|(_, vip)| !vip.endpoints.is_empty())
    {
        for (number, endpoint) in vip.endpoints.iter().enumerate() {
            let protocol = vip.protocol.name();
            let _ = writeln!(
                text,
                "\tchain s{index}e{number} {{ meta l4proto {protocol} dnat to {endpoint}; }}"
            );
        }
        let choice = match vip.affinity {
            Affinity::None => "numgen random",
            Affinity::Client => "jhash ip saddr",
        };
        let targets: Vec<String> = (0..vip.endpoints.len())
            .map(|number| format!("{number} : goto s{index}e{number}"))
            .collect();
        let _ = match targets.len() {
            1 => writeln!(text, "\tchain s{index} {{ goto s{index}e0; }}"),
            count => writeln!(
                text,
                "\tchain s{index} {{ {choice} mod {count} vmap {{ {} }}; }}",
                targets.join(", ")
            ),
        };
        elements.push(format!(
            "{} . {} . {} : goto s{index}",
            vip.address,
            vip.protocol.name(),
            vip.port
        ));
    }
    let elements = match elements.is_empty() {
        true => String::new(),
        false => format!("elements = {{ {} }};", elements.join(", ")),
    };
    let hairpins: Vec<String> = self_addresses(vips)
        .iter()
        .map(|address| format!("{address} . {address}"))
        .collect();
    let hairpins = match hairpins.is_empty() {
        true => String::new(),
        false => format!("elements = {{ {} }};", hairpins.join(", ")),
    };
    let not_outside = NOT_OUTSIDE.map(|range| range.to_string()).join(", ");
    let way_out = way_out.map_or_else(String::new, |port| {
        format!("iifname \"{BRIDGE}\" ip daddr != {{ {not_outside} }} meta l4proto tcp redirect to :{port};")
    });
    let _ = write!(
        text,
        "\tmap vips {{ type ipv4_addr . inet_proto . inet_service : verdict; {elements} }}\n\
         \tset hairpins {{ type ipv4_addr . ipv4_addr; {hairpins} }}\n\
         \tchain prerouting {{ type nat hook prerouting priority -100; ip daddr . meta l4proto . th dport vmap @vips; {way_out} }}\n\
         \tchain output {{ type nat hook output priority -100; ip daddr . meta l4proto . th dport vmap @vips; }}\n\
         \tchain postrouting {{ type nat hook postrouting priority 100; ct status dnat ip saddr . ip daddr @hairpins masquerade; }}\n\
         \tchain forward {{ type filter hook forward priority 0; ip daddr {SERVICE_RANGE} reject; }}\n\
         \tchain refuse {{ type filter hook output priority 0; ip daddr {SERVICE_RANGE} fib daddr type != local reject; }}\n\
         }}\n"
    );
    text
}

fn iptables(vips: &[Vip], way_out: Option<u16>) -> String {
    let mut chains = String::new();
    let mut rules = String::new();
    for (index, vip) in vips
        .iter()
        .enumerate()
        .filter(|(_, vip)| !vip.endpoints.is_empty())
    {
        let protocol = vip.protocol.name();
        let _ = writeln!(chains, ":S{index} - [0:0]");
        let _ = writeln!(
            rules,
            "-A SERVICES -d {} -p {protocol} --dport {} -j S{index}",
            vip.address, vip.port
        );
        let count = vip.endpoints.len();
        if vip.affinity == Affinity::Client {
            for number in 0..count {
                let _ = writeln!(
                    rules,
                    "-A S{index} -m recent --name s{index}e{number} --rcheck --seconds 10800 -j S{index}E{number}"
                );
            }
        }
        for (number, endpoint) in vip.endpoints.iter().enumerate() {
            let _ = writeln!(chains, ":S{index}E{number} - [0:0]");
            let left = count - number;
            let chance = match left {
                1 => String::new(),
                _ => format!(
                    "-m statistic --mode random --probability {:.10} ",
                    1.0 / left as f64
                ),
            };
            let _ = writeln!(rules, "-A S{index} {chance}-j S{index}E{number}");
            let remember = match vip.affinity {
                Affinity::None => String::new(),
                Affinity::Client => format!("-m recent --name s{index}e{number} --set "),
            };
            let _ = writeln!(
                rules,
                "-A S{index}E{number} -p {protocol} {remember}-j DNAT --to-destination {endpoint}"
            );
        }
    }
    for address in self_addresses(vips) {
        let _ = writeln!(
            rules,
            "-A POSTROUTING -s {address} -d {address} -m conntrack --ctstate DNAT -j MASQUERADE"
        );
    }
    if let Some(port) = way_out {
        chains.push_str(":OUTSIDE - [0:0]\n");
        let _ = writeln!(rules, "-A PREROUTING -i {BRIDGE} -p tcp -j OUTSIDE");
        for range in NOT_OUTSIDE {
            let _ = writeln!(rules, "-A OUTSIDE -d {range} -j RETURN");
        }
        let _ = writeln!(rules, "-A OUTSIDE -p tcp -j REDIRECT --to-ports {port}");
    }
    format!(
        "*nat\n:SERVICES - [0:0]\n{chains}-A PREROUTING -j SERVICES\n-A OUTPUT -j SERVICES\n{rules}COMMIT\n\
         *filter\n-A FORWARD -d {SERVICE_RANGE} -j REJECT\n\
         -A OUTPUT -d {SERVICE_RANGE} -m addrtype ! --dst-type LOCAL -j REJECT\nCOMMIT\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(endpoints: &[&str]) -> Vip {
        Vip {
            address: Ipv4Addr::new(10, 96, 0, 7),
            port: 9080,
            protocol: Protocol::Tcp,
            affinity: Affinity::None,
            endpoints: endpoints
                .iter()
                .map(|text| text.parse().expect("an endpoint"))
                .collect(),
        }
    }

    #[test]
    fn each_endpoint_has_an_equal_chance() {
        let text = rules(
            &[vip(&["10.244.0.2:80", "10.244.0.3:80", "10.244.0.4:80"])],
            None,
            Firewall::Iptables,
        );
        assert!(
            text.contains("-A S0 -m statistic --mode random --probability 0.3333333333 -j S0E0")
        );
        assert!(
            text.contains("-A S0 -m statistic --mode random --probability 0.5000000000 -j S0E1")
        );
        assert!(text.contains("-A S0 -j S0E2"));
        let text = rules(
            &[vip(&["10.244.0.2:80", "10.244.0.3:80"])],
            None,
            Firewall::Nft,
        );
        assert!(text.contains("numgen random mod 2 vmap { 0 : goto s0e0, 1 : goto s0e1 }"));
        assert!(text.contains("10.96.0.7 . tcp . 9080 : goto s0"));
        assert!(text.contains("10.244.0.2 . 10.244.0.2, 10.244.0.3 . 10.244.0.3"));
    }

    #[test]
    fn a_service_without_endpoints_is_left_to_the_reject_rule() {
        let text = rules(&[vip(&[])], None, Firewall::Nft);
        assert!(!text.contains("10.96.0.7"));
        assert!(text.contains("ip daddr 10.96.0.0/16 reject"));
    }

    #[test]
    fn only_the_world_is_brought_to_the_way_out() {
        let text = rules(&[], Some(4_000), Firewall::Nft);
        assert!(
            text.contains("169.254.0.0/16") && text.contains("redirect to :4000"),
            "{text}"
        );
        assert!(!rules(&[], None, Firewall::Nft).contains("redirect"));
        let text = rules(&[], Some(4_000), Firewall::Iptables);
        let at = |part: &str| text.find(part).expect(part);
        assert!(at("-A OUTSIDE -d 10.96.0.0/16 -j RETURN") < at("--to-ports 4000"));
        assert!(!rules(&[], None, Firewall::Iptables).contains("REDIRECT"));
    }
}
