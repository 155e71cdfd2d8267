//! A pod's redirection rules.
//!
//! The proxy's own connections are told apart by their owner (uid 1337, where users are told apart)
//! and by their mark (1337, always). What comes from 127.0.0.6 is the proxy handing a request to
//! its application. A connection of the proxy to its own pod's address is inbound traffic of the
//! pod to itself; the application's own loopback traffic stays untouched.

use std::fmt::Write;

use inject::capture::{Capture, Selection};

use super::Firewall;

const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;
const HBONE_PORT: u16 = 15008;
/// Ports of the proxy itself that inbound capture leaves alone.
const PROXY_PORTS: [u16; 3] = [15090, 15021, 15020];

/// How the proxy's own connections are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// By owner and by mark.
    OwnerAndMark,
    /// By mark; all processes have one user.
    Mark,
}

/// The rules for one pod's network namespace, as the firewall's program reads them.
pub fn rules(capture: &Capture, firewall: Firewall, exemption: Exemption) -> String {
    let rules = Rules { capture };
    match firewall {
        Firewall::Nft => rules.nft(exemption),
        Firewall::Iptables => rules.iptables(exemption),
    }
}

struct Rules<'a> {
    capture: &'a Capture,
}

impl Rules<'_> {
    fn excluded_inbound(&self) -> impl Iterator<Item = u16> {
        std::iter::once(HBONE_PORT)
            .chain(PROXY_PORTS)
            .chain(self.capture.not_inbound.iter().copied())
    }

    fn nft(&self, exemption: Exemption) -> String {
        let mut pre = String::new();
        let mut out = String::new();
        for name in &self.capture.not_interfaces {
            line(&mut pre, format_args!("iifname \"{name}\" return"));
            line(&mut out, format_args!("oifname \"{name}\" return"));
        }
        line(
            &mut pre,
            format_args!("meta l4proto tcp jump istio_inbound"),
        );
        line(&mut out, format_args!("jump istio_output"));
        let inbound = self.nft_inbound();
        let output = self.nft_output(exemption);
        format!(
            "table ip istio {{\n\
             \tchain istio_redirect {{\n\t\tmeta l4proto tcp redirect to :{OUTBOUND_PORT}\n\t}}\n\
             \tchain istio_in_redirect {{\n\t\tmeta l4proto tcp redirect to :{INBOUND_PORT}\n\t}}\n\
             \tchain istio_inbound {{\n{inbound}\t}}\n\
             \tchain istio_output {{\n{output}\t}}\n\
             \tchain prerouting {{\n\t\ttype nat hook prerouting priority -100;\n{pre}\t}}\n\
             \tchain output {{\n\t\ttype nat hook output priority -100;\n{out}\t}}\n}}\n"
        )
    }

    fn nft_inbound(&self) -> String {
        let mut chain = String::new();
        let mut add = |rule: std::fmt::Arguments<'_>| line(&mut chain, rule);
        match &self.capture.inbound {
            Selection::All => {
                for port in self.excluded_inbound() {
                    add(format_args!("tcp dport {port} return"));
                }
                add(format_args!("meta l4proto tcp jump istio_in_redirect"));
            }
            Selection::Only(ports) => {
                for port in ports {
                    add(format_args!("tcp dport {port} jump istio_in_redirect"));
                }
            }
        }
        chain
    }

    fn nft_output(&self, exemption: Exemption) -> String {
        let mut chain = String::new();
        let mut add = |rule: std::fmt::Arguments<'_>| line(&mut chain, rule);
        for port in &self.capture.not_outbound_ports {
            add(format_args!("tcp dport {port} return"));
        }
        add(format_args!("ip saddr 127.0.0.6 oifname \"lo\" return"));
        let proxy: &[&str] = match exemption {
            Exemption::OwnerAndMark => &["meta skuid 1337", "meta skgid 1337", "meta mark 1337"],
            Exemption::Mark => &["meta mark 1337"],
        };
        for by in proxy {
            add(format_args!(
                "{by} ip daddr != 127.0.0.1 oifname \"lo\" tcp dport != {{ 53, {HBONE_PORT} }} jump istio_in_redirect"
            ));
        }
        let others: Vec<String> = proxy
            .iter()
            .map(|by| by.replace(" 1337", " != 1337"))
            .collect();
        add(format_args!("oifname \"lo\" {} return", others.join(" ")));
        for by in proxy {
            add(format_args!("{by} return"));
        }
        add(format_args!("ip daddr 127.0.0.1 return"));
        for range in &self.capture.not_outbound_ranges {
            add(format_args!("ip daddr {range} return"));
        }
        for port in &self.capture.outbound_ports {
            add(format_args!("tcp dport {port} jump istio_redirect"));
        }
        match &self.capture.outbound_ranges {
            Selection::All => add(format_args!("jump istio_redirect")),
            Selection::Only(ranges) => {
                for range in ranges {
                    add(format_args!("ip daddr {range} jump istio_redirect"));
                }
            }
        }
        chain
    }

    fn iptables(&self, exemption: Exemption) -> String {
        let mut text = String::from(
            "*nat\n:ISTIO_INBOUND - [0:0]\n:ISTIO_REDIRECT - [0:0]\n:ISTIO_IN_REDIRECT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n",
        );
        let mut add = |rule: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "-A {rule}");
        };
        for name in &self.capture.not_interfaces {
            add(format_args!("PREROUTING -i {name} -j RETURN"));
            add(format_args!("OUTPUT -o {name} -j RETURN"));
        }
        add(format_args!("PREROUTING -p tcp -j ISTIO_INBOUND"));
        add(format_args!("OUTPUT -j ISTIO_OUTPUT"));
        add(format_args!(
            "ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}"
        ));
        add(format_args!(
            "ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {INBOUND_PORT}"
        ));
        self.iptables_inbound(&mut add);
        self.iptables_output(exemption, &mut add);
        text.push_str("COMMIT\n");
        text
    }

    fn iptables_inbound(&self, add: &mut dyn FnMut(std::fmt::Arguments<'_>)) {
        match &self.capture.inbound {
            Selection::All => {
                for port in self.excluded_inbound() {
                    add(format_args!(
                        "ISTIO_INBOUND -p tcp --dport {port} -j RETURN"
                    ));
                }
                add(format_args!("ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT"));
            }
            Selection::Only(ports) => {
                for port in ports {
                    add(format_args!(
                        "ISTIO_INBOUND -p tcp --dport {port} -j ISTIO_IN_REDIRECT"
                    ));
                }
            }
        }
    }

    fn iptables_output(&self, exemption: Exemption, add: &mut dyn FnMut(std::fmt::Arguments<'_>)) {
        for port in &self.capture.not_outbound_ports {
            add(format_args!("ISTIO_OUTPUT -p tcp --dport {port} -j RETURN"));
        }
        add(format_args!("ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN"));
        let (proxy, others): (&[&str], &str) = match exemption {
            Exemption::OwnerAndMark => (
                &[
                    "-m owner --uid-owner 1337",
                    "-m owner --gid-owner 1337",
                    "-m mark --mark 1337",
                ],
                "-m owner ! --uid-owner 1337 -m owner ! --gid-owner 1337 -m mark ! --mark 1337",
            ),
            Exemption::Mark => (&["-m mark --mark 1337"], "-m mark ! --mark 1337"),
        };
        for by in proxy {
            add(format_args!(
                "ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m multiport ! --dports 53,{HBONE_PORT} {by} -j ISTIO_IN_REDIRECT"
            ));
        }
        add(format_args!("ISTIO_OUTPUT -o lo {others} -j RETURN"));
        for by in proxy {
            add(format_args!("ISTIO_OUTPUT {by} -j RETURN"));
        }
        add(format_args!("ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN"));
        for range in &self.capture.not_outbound_ranges {
            add(format_args!("ISTIO_OUTPUT -d {range} -j RETURN"));
        }
        for port in &self.capture.outbound_ports {
            add(format_args!(
                "ISTIO_OUTPUT -p tcp --dport {port} -j ISTIO_REDIRECT"
            ));
        }
        match &self.capture.outbound_ranges {
            Selection::All => add(format_args!("ISTIO_OUTPUT -j ISTIO_REDIRECT")),
            Selection::Only(ranges) => {
                for range in ranges {
                    add(format_args!("ISTIO_OUTPUT -d {range} -j ISTIO_REDIRECT"));
                }
            }
        }
    }
}

fn line(chain: &mut String, rule: std::fmt::Arguments<'_>) {
    let _ = writeln!(chain, "\t\t{rule}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| (format!("traffic.sidecar.istio.io/{name}"), (*value).into()))
            .collect()
    }

    #[test]
    fn default_rules_are_istios() {
        let expected = "*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_REDIRECT - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m multiport ! --dports 53,15008 -m mark --mark 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m mark ! --mark 1337 -j RETURN
-A ISTIO_OUTPUT -m mark --mark 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
";
        assert_eq!(
            rules(&Capture::default(), Firewall::Iptables, Exemption::Mark),
            expected
        );
    }

    #[test]
    fn annotations_narrow_the_capture_in_istios_order() {
        let capture = Capture::parse(&annotations(&[
            ("includeInboundPorts", "80, 81"),
            ("excludeOutboundPorts", "3306"),
            ("includeOutboundPorts", "9000"),
            ("includeOutboundIPRanges", "10.0.0.0/8"),
            ("excludeOutboundIPRanges", "10.1.0.0/16"),
        ]))
        .expect("annotations parse");
        let text = rules(&capture, Firewall::Nft, Exemption::OwnerAndMark);
        assert!(text.contains(
            "tcp dport 80 jump istio_in_redirect\n\t\ttcp dport 81 jump istio_in_redirect"
        ));
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("no `{part}` in\n{text}"))
        };
        assert!(at("tcp dport 3306 return") < at("ip saddr 127.0.0.6"));
        assert!(at("meta skuid 1337 return") < at("ip daddr 10.1.0.0/16 return"));
        assert!(at("ip daddr 10.1.0.0/16 return") < at("tcp dport 9000 jump istio_redirect"));
        assert!(
            at("tcp dport 9000 jump istio_redirect")
                < at("ip daddr 10.0.0.0/8 jump istio_redirect")
        );
        assert!(!text.contains("\t\tjump istio_redirect"));
    }
}
