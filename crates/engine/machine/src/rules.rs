//! The texts of packet-filter rules, as pure functions: what `nft -f` or `iptables-restore` is
//! given.
//!
//! [`capture`] is one pod's redirection to its sidecar, the rules that `istio-iptables -p 15001 -z
//! 15006 -u 1337 -m REDIRECT` writes (reference CP-050, CP-051). [`services`] is the whole
//! machine's table of Service addresses, written anew as one transaction whenever endpoints change,
//! as kube-proxy does.
//!
//! IPv4 only: pods have no IPv6 address.

pub mod capture;
pub mod services;

/// The program that takes the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    /// `nft -f -`
    Nft,
    /// `iptables-restore`
    Iptables,
}
