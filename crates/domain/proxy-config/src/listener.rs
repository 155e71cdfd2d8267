//! Listeners and filter chains (`envoy.config.listener.v3`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{
    HttpConnectionManager, ListenerName, Refused,
    access_log::AccessLog,
    filter::{NetworkFilter, TcpTerminal},
    metadata::Metadata,
    tls::DownstreamTls,
};

#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub name: ListenerName,
    /// First is the primary address; the others are `additional_addresses` (dual stack).
    pub addresses: Arc<[ListenAddress]>,
    /// `false`: no socket; connections arrive only by original destination from a listener with
    /// `use_original_dst`.
    pub bind_to_port: bool,
    pub use_original_dst: bool,
    pub transparent: bool,
    pub listener_filters: Arc<[ListenerFilter]>,
    /// `None`: wait for ever (Envoy's 0s).
    pub listener_filters_timeout: Option<Duration>,
    pub continue_on_listener_filters_timeout: bool,
    pub chains: Arc<[Arc<FilterChain>]>,
    pub default_chain: Option<Arc<FilterChain>>,
    pub direction: TrafficDirection,
    /// Written when no filter chain handles the connection (flag `NR`).
    pub access_logs: Arc<[AccessLog]>,
    /// Soft limit of buffered bytes a connection, default 1 MiB.
    pub per_connection_buffer_limit_bytes: u32,
    pub tcp_backlog: Option<u32>,
    /// Envoy's statistics prefix `listener.<stat_prefix or address>.`.
    pub stat_prefix: Option<Arc<str>>,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Socket(SocketAddr),
    /// Unix domain socket path.
    Pipe(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrafficDirection {
    Unspecified,
    Inbound,
    Outbound,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ListenerFilter {
    pub kind: ListenerFilterKind,
    /// The filter is skipped for connections that match.
    pub disabled: Option<ListenerFilterPredicate>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ListenerFilterKind {
    OriginalDst,
    TlsInspector,
    HttpInspector,
    ProxyProtocol { allow_without: bool },
}

/// `ListenerFilterChainMatchPredicate`.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerFilterPredicate {
    Any,
    Not(Box<ListenerFilterPredicate>),
    And(Arc<[ListenerFilterPredicate]>),
    Or(Arc<[ListenerFilterPredicate]>),
    /// Half-open.
    DestinationPort {
        start: u32,
        end: u32,
    },
}

impl ListenerFilterPredicate {
    pub fn is_match(&self, destination_port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Not(inner) => !inner.is_match(destination_port),
            Self::And(all) => all.iter().all(|p| p.is_match(destination_port)),
            Self::Or(any) => any.iter().any(|p| p.is_match(destination_port)),
            Self::DestinationPort { start, end } => {
                (*start..*end).contains(&destination_port.into())
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    pub name: Arc<str>,
    pub matches: ChainMatch,
    /// `None`: plaintext (raw buffer).
    pub tls: Option<Arc<DownstreamTls>>,
    /// Time for the TLS handshake; `None`: no limit.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// In order, before the terminal filter.
    pub network_filters: Arc<[NetworkFilter]>,
    pub terminal: Terminal,
    pub metadata: Metadata,
}

impl Listener {
    /// This listener with one chain that closes every connection.
    pub fn refusing(&self, refused: Arc<Refused>) -> Self {
        let chain = FilterChain {
            name: refused.name.clone(),
            matches: ChainMatch::default(),
            tls: None,
            transport_socket_connect_timeout: None,
            network_filters: Arc::from([NetworkFilter::Refused(refused)]),
            terminal: Terminal::Close,
            metadata: Metadata::default(),
        };
        Self {
            chains: Arc::from([]),
            default_chain: Some(Arc::new(chain)),
            listener_filters: Arc::from([]),
            ..self.clone()
        }
    }
}

/// The last filter of a chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Terminal {
    Http(Arc<HttpConnectionManager>),
    Tcp(Arc<TcpTerminal>),
    /// A chain without filters: the connection is closed.
    Close,
}

/// `FilterChainMatch`: all given criteria must hold; the most specific chain wins, in the fixed
/// order of Envoy's documentation: destination port, destination prefix, server name, transport
/// protocol, application protocols, direct source prefix, source type, source prefix, source port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainMatch {
    pub destination_port: Option<u16>,
    pub destination_prefixes: Arc<[IpNet]>,
    /// Exact names or `*.suffix`, lower case.
    pub server_names: Arc<[Arc<str>]>,
    pub transport_protocol: TransportProtocol,
    pub application_protocols: Arc<[Arc<str>]>,
    pub direct_source_prefixes: Arc<[IpNet]>,
    pub source_type: SourceType,
    pub source_prefixes: Arc<[IpNet]>,
    pub source_ports: Arc<[u16]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum TransportProtocol {
    #[default]
    Any,
    RawBuffer,
    Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}
