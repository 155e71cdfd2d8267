//! Which resources a resource names.

use proxy_config::{
    Cluster, ClusterName, Listener, RouteTable, RouteTableName, SecretName,
    cluster::Transport,
    http_connection_manager::RouteSource,
    listener::{FilterChain, Terminal},
    route::{RouteAction, Target},
    tls::{CertificateSource, CommonTls, Roots},
};

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Cluster,
    Endpoints,
    Listener,
    Routes,
    Secret,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Listener => "listener",
            Self::Routes => "route table",
            Self::Secret => "secret",
        })
    }
}

fn chains(listener: &Listener) -> impl Iterator<Item = &FilterChain> {
    listener
        .chains
        .iter()
        .chain(&listener.default_chain)
        .map(|chain| &**chain)
}

pub(super) fn listener_routes(listener: &Listener) -> impl Iterator<Item = &RouteTableName> {
    chains(listener).filter_map(|chain| match &chain.terminal {
        Terminal::Http(manager) => match &manager.routes {
            RouteSource::Named(name) => Some(name),
            RouteSource::Inline(_) => None,
        },
        Terminal::Tcp(_) | Terminal::Close => None,
    })
}

pub(super) fn listener_secrets(listener: &Listener) -> impl Iterator<Item = &SecretName> {
    chains(listener)
        .filter_map(|chain| chain.tls.as_ref())
        .flat_map(|tls| tls_secrets(&tls.common))
}

pub(super) fn listener_clusters(listener: &Listener) -> impl Iterator<Item = &ClusterName> {
    chains(listener).flat_map(|chain| {
        let (tcp, table) = match &chain.terminal {
            Terminal::Tcp(tcp) => (Some(tcp.proxy.clusters.iter().map(|c| &c.name)), None),
            Terminal::Http(manager) => match &manager.routes {
                RouteSource::Inline(table) => (None, Some(route_clusters(table))),
                RouteSource::Named(_) => (None, None),
            },
            Terminal::Close => (None, None),
        };
        tcp.into_iter().flatten().chain(table.into_iter().flatten())
    })
}

pub(super) fn route_clusters(table: &RouteTable) -> impl Iterator<Item = &ClusterName> {
    let routes = table
        .virtual_hosts
        .iter()
        .flat_map(|host| host.routes.iter());
    let mirrors = routes.clone().filter_map(|route| match &route.action {
        RouteAction::Forward(forward) => Some(&forward.mirrors),
        RouteAction::Redirect(_)
        | RouteAction::DirectResponse { .. }
        | RouteAction::Refused(_)
        | RouteAction::NonForwarding => None,
    });
    let mirrors = mirrors
        .chain(table.virtual_hosts.iter().map(|host| &host.mirrors))
        .chain(std::iter::once(&table.mirrors));
    let mirrors = mirrors.flat_map(|policies| policies.iter());
    let mirrors = mirrors.flat_map(|mirror| target_clusters(&mirror.target));
    let forwarded = routes.filter_map(|route| match &route.action {
        RouteAction::Forward(forward) => Some(target_clusters(&forward.target)),
        RouteAction::Redirect(_)
        | RouteAction::DirectResponse { .. }
        | RouteAction::Refused(_)
        | RouteAction::NonForwarding => None,
    });
    forwarded.flatten().chain(mirrors)
}

fn target_clusters(target: &Target) -> impl Iterator<Item = &ClusterName> {
    let (one, weighted) = match target {
        Target::Cluster(name) => (Some(name), None),
        Target::Weighted { clusters, .. } => (None, Some(clusters.iter().map(|c| &c.name))),
        Target::ClusterHeader(_) => (None, None),
    };
    one.into_iter().chain(weighted.into_iter().flatten())
}

pub(super) fn cluster_secrets(cluster: &Cluster) -> impl Iterator<Item = &SecretName> {
    let transports = std::iter::once(&cluster.transport)
        .chain(cluster.transport_matches.iter().map(|m| &m.transport));
    transports.flat_map(transport_secrets)
}

fn transport_secrets(transport: &Transport) -> Vec<&SecretName> {
    match transport {
        Transport::Plaintext | Transport::Refused(_) => Vec::new(),
        Transport::Tls(tls) => tls_secrets(&tls.common).collect(),
        Transport::ProxyProtocol { inner, .. } => transport_secrets(inner),
    }
}

fn tls_secrets(tls: &CommonTls) -> impl Iterator<Item = &SecretName> {
    let own = tls.certificates.iter().filter_map(|source| match source {
        CertificateSource::Secret(name) => Some(name),
        CertificateSource::Inline(_) => None,
    });
    let roots = tls
        .validation
        .as_ref()
        .and_then(|validation| match &validation.roots {
            Roots::Secret(name) => Some(name),
            Roots::InlinePem(_) | Roots::System | Roots::None => None,
        });
    own.chain(roots)
}
