//! Everything that the feed is told when it is made. Read from the environment by
//! [`crate::environment`], from a file by [`crate::bootstrap`]; the feed itself reads neither.

use std::{path::PathBuf, time::Duration};

use identity::{ServiceAccountName, TrustDomain};
use wire_envoy::pb::core::Node;
use xds_protocol::Flavour;

/// See the module.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How this proxy presents itself.
    pub node: Node,
    /// Where configuration comes from; `None`: only what is static.
    pub discovery: Option<Discovery>,
    /// How the workload gets its certificate; `None`: secrets come by SDS like any other, or there
    /// are none.
    pub certificates: Option<Certificates>,
    /// What access-log formats may print of the process (`%HOSTNAME%`, `%ENVIRONMENT(X)%`).
    pub environment: xds_decode::Environment,
    pub limits: Limits,
}

/// The ADS server.
#[derive(Debug, Clone)]
pub struct Discovery {
    pub server: Server,
    pub flavour: Flavour,
}

/// A gRPC server of the control plane.
#[derive(Debug, Clone)]
pub struct Server {
    pub address: Address,
    /// `None`: plaintext, only where the operator chose it (port 15010, a local socket).
    pub tls: Option<ServerAuthentication>,
    /// File with the bearer token; read at each connection, because it is renewed. `None`: none is
    /// sent.
    pub token_file: Option<PathBuf>,
    /// SO_MARK of our own connections, by which the capture rules let them pass.
    pub mark: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Resolved at each connection.
    Host {
        name: String,
        port: u16,
    },
    Socket(PathBuf),
}

/// How the control plane proves itself.
#[derive(Debug, Clone)]
pub struct ServerAuthentication {
    /// PEM file of roots; read at each connection.
    pub root_file: PathBuf,
    /// DNS name that its certificate must have.
    pub name: String,
}

#[derive(Debug, Clone)]
pub struct Certificates {
    pub server: Server,
    pub trust_domain: TrustDomain,
    pub account: ServiceAccountName,
    /// Lifetime to ask for.
    pub ttl: Duration,
    /// Share of the lifetime after which to renew; Istio's 0.5.
    pub renew_after: f64,
    /// The share varies by this much either way; Istio's 0.01.
    pub jitter: f64,
    /// Sent as `ClusterID` so that the control plane asks the right API server about the token.
    pub cluster_id: String,
}

/// Bounds and waiting times.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A discovery response larger than this ends the stream.
    pub message_bytes: usize,
    pub connect_timeout: Duration,
    /// First and longest delay between attempts.
    pub retry_first: Duration,
    pub retry_limit: Duration,
    /// A resource that waits for others is used without them after this (Envoy's
    /// `initial_fetch_timeout`).
    pub warm_timeout: Duration,
    /// A removed cluster that routes still name is kept this long.
    pub retire_grace: Duration,
    /// Lookups under way at a time.
    pub lookups: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 << 20,
            connect_timeout: Duration::from_secs(10),
            retry_first: Duration::from_millis(100),
            retry_limit: Duration::from_secs(10),
            warm_timeout: Duration::from_secs(15),
            retire_grace: Duration::from_secs(5),
            lookups: 32,
        }
    }
}

impl Address {
    /// `host:port`, `[v6]:port` or `unix:/path`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some(Self::Socket(path.trim_start_matches("//").into()))
                .filter(|_| !path.is_empty());
        }
        let (host, port) = text.rsplit_once(':')?;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let port: u16 = port.parse().ok()?;
        (!name.is_empty()).then(|| Self::Host {
            name: name.to_owned(),
            port,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host { name, port } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
