//! A pod's redirection rules and the annotations that change them.
//!
//! The proxy's own connections are told apart by their owner (uid 1337, where users are told apart) and by their mark
//! (1337, always). What comes from 127.0.0.6 is the proxy handing a request to its application. A connection of the proxy
//! to its own pod's address is inbound traffic of the pod to itself; the application's own loopback traffic stays untouched.

use std::collections::BTreeMap;
use std::fmt::Write;

use ipnet::Ipv4Net;

use super::Firewall;

/// The proxy's user, group and mark.
pub const PROXY_ID: u32 = 1337;
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;
const HBONE_PORT: u16 = 15008;
/// Ports of the proxy itself that inbound capture leaves alone.
const PROXY_PORTS: [u16; 3] = [15090, 15021, 15020];

/// Everything or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<T> {
    /// `*`
    All,
    /// These; possibly none.
    Only(Vec<T>),
}

/// What of a pod's traffic goes through its sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// `includeInboundPorts`
    pub inbound: Selection<u16>,
    /// `excludeInboundPorts`, without the proxy's own.
    pub not_inbound: Vec<u16>,
    /// `includeOutboundPorts`: captured whatever the ranges say.
    pub outbound_ports: Vec<u16>,
    /// `excludeOutboundPorts`
    pub not_outbound_ports: Vec<u16>,
    /// `includeOutboundIPRanges`
    pub outbound_ranges: Selection<Ipv4Net>,
    /// `excludeOutboundIPRanges`
    pub not_outbound_ranges: Vec<Ipv4Net>,
    /// `excludeInterfaces`
    pub not_interfaces: Vec<String>,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            inbound: Selection::All,
            not_inbound: Vec::new(),
            outbound_ports: Vec::new(),
            not_outbound_ports: Vec::new(),
            outbound_ranges: Selection::All,
            not_outbound_ranges: Vec::new(),
            not_interfaces: Vec::new(),
        }
    }
}

/// How the proxy's own connections are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// By owner and by mark.
    OwnerAndMark,
    /// By mark; all processes have one user.
    Mark,
}

impl Capture {
    /// Reads the `traffic.sidecar.istio.io/…` annotations.
    ///
    /// # Errors
    /// The annotation and the part of it that does not parse.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| {
            let key = format!("traffic.sidecar.istio.io/{name}");
            annotations.get(&key).map(|value| (key, value.as_str()))
        };
        let mut capture = Self::default();
        if let Some((key, value)) = text("includeInboundPorts") {
            capture.inbound = selection(&key, value)?;
        }
        if let Some((key, value)) = text("excludeInboundPorts") {
            capture.not_inbound = list(&key, value)?;
        }
        if let Some((key, value)) = text("includeOutboundPorts") {
            capture.outbound_ports = list(&key, value)?;
        }
        if let Some((key, value)) = text("excludeOutboundPorts") {
            capture.not_outbound_ports = list(&key, value)?;
        }
        if let Some((key, value)) = text("includeOutboundIPRanges") {
            capture.outbound_ranges = selection(&key, value)?;
        }
        if let Some((key, value)) = text("excludeOutboundIPRanges") {
            capture.not_outbound_ranges = list(&key, value)?;
        }
        if let Some((key, value)) = text("excludeInterfaces") {
            capture.not_interfaces = interfaces(&key, value)?;
        }
        Ok(capture)
    }

    /// The rules for one pod's network namespace.
    pub fn rules(&self, firewall: Firewall, exemption: Exemption) -> String {
        match firewall {
            Firewall::Nft => self.nft(exemption),
            Firewall::Iptables => self.iptables(exemption),
        }
    }

    fn excluded_inbound(&self) -> impl Iterator<Item = u16> {
        std::iter::once(HBONE_PORT)
            .chain(PROXY_PORTS)
            .chain(self.not_inbound.iter().copied())
    }

    fn nft(&self, exemption: Exemption) -> String {
        let mut pre = String::new();
        let mut out = String::new();
        for name in &self.not_interfaces {
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
        match &self.inbound {
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
        for port in &self.not_outbound_ports {
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
        for range in &self.not_outbound_ranges {
            add(format_args!("ip daddr {range} return"));
        }
        for port in &self.outbound_ports {
            add(format_args!("tcp dport {port} jump istio_redirect"));
        }
        match &self.outbound_ranges {
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
        for name in &self.not_interfaces {
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
        match &self.inbound {
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
        for port in &self.not_outbound_ports {
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
        for range in &self.not_outbound_ranges {
            add(format_args!("ISTIO_OUTPUT -d {range} -j RETURN"));
        }
        for port in &self.outbound_ports {
            add(format_args!(
                "ISTIO_OUTPUT -p tcp --dport {port} -j ISTIO_REDIRECT"
            ));
        }
        match &self.outbound_ranges {
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

fn selection<T: std::str::FromStr>(key: &str, value: &str) -> Result<Selection<T>, String> {
    if value.trim() == "*" {
        Ok(Selection::All)
    } else {
        list(key, value).map(Selection::Only)
    }
}

fn list<T: std::str::FromStr>(key: &str, value: &str) -> Result<Vec<T>, String> {
    let parts = value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            part.parse()
                .map_err(|_| format!("annotation {key}: `{part}` is not understood"))
        })
        .collect()
}

fn interfaces(key: &str, value: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list(key, value)?;
    let fine = |name: &&String| {
        name.len() < 16
            && name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "._-+".contains(character))
    };
    match names.iter().find(|name| !fine(name)) {
        Some(name) => Err(format!(
            "annotation {key}: `{name}` is not the name of an interface"
        )),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
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
            Capture::default().rules(Firewall::Iptables, Exemption::Mark),
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
        let text = capture.rules(Firewall::Nft, Exemption::OwnerAndMark);
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

    #[test]
    fn an_annotation_that_does_not_parse_is_named() {
        let error =
            Capture::parse(&annotations(&[("excludeInboundPorts", "80,x")])).expect_err("refused");
        assert_eq!(
            error,
            "annotation traffic.sidecar.istio.io/excludeInboundPorts: `x` is not understood"
        );
        Capture::parse(&annotations(&[("excludeInterfaces", "eth0\" accept")]))
            .expect_err("no way out of the quotes");
    }
}
