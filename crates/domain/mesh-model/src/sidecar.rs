//! Sidecar: what a workload's proxy needs to know and listens on (row TM-097).

use std::sync::Arc;

use crate::destination_rule::ConnectionPool;
use crate::object::{Host, Meta, Selector, Text};
use crate::port::Port;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    pub meta: Meta,
    /// `None`: the namespace's default (or the mesh's, in the root namespace).
    pub workload_selector: Option<Selector>,
    /// Empty: inbound listeners from the services that select the workload.
    pub ingress: Arc<[Ingress]>,
    /// Empty: everything that is visible.
    pub egress: Arc<[Egress]>,
    pub outbound: Option<OutboundMode>,
    pub inbound_connection_pool: Option<ConnectionPool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    pub port: Port,
    pub bind: Option<Text>,
    pub capture: CaptureMode,
    /// `127.0.0.1:8080`, `unix:///path`, or `None`: the same port on the pod's address.
    pub default_endpoint: Option<Text>,
    pub connection_pool: Option<ConnectionPool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    pub port: Option<Port>,
    pub bind: Option<Text>,
    pub capture: CaptureMode,
    pub hosts: Arc<[EgressHost]>,
}

/// `namespace/host`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressHost {
    pub namespace: NamespacePattern,
    pub host: Host,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamespacePattern {
    Any,
    /// `.`
    Own,
    /// `~`
    None,
    Named(Text),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureMode {
    Default,
    Iptables,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutboundMode {
    AllowAny,
    RegistryOnly,
}
