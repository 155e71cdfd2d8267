//! A proxy that is started with an Envoy bootstrap file (`-c FILE`) instead of an injector's
//! environment.
//!
//! Static clusters, listeners and secrets are taken into use, and ADS is opened to the cluster that
//! `ads_config` names: a Unix socket, or plaintext HTTP/2 to a host (that is how an agent on the
//! same machine offers it). Anything else is refused by name.

use proxy_config::{
    bootstrap::Bootstrap,
    cluster::{Cluster, Discovery as ClusterDiscovery, Transport},
    endpoint::EndpointAddress,
};
use wire_envoy::{Descriptors, pb};
use xds_protocol::Flavour;

use crate::{
    FeedError,
    settings::{Address, Discovery, Limits, Server, Settings},
    warm::Change,
};

/// Resources that do not come from a control plane.
#[derive(Debug, Default)]
pub struct Static {
    pub changes: Vec<Change>,
}

/// What a bootstrap file says.
#[derive(Debug)]
pub struct Read {
    pub settings: Settings,
    pub fixed: Static,
    pub bootstrap: Bootstrap,
    /// As it was written.
    pub wire: Wire,
}

/// A bootstrap as it is written.
pub type Wire = pb::bootstrap::Bootstrap;

/// Reads a bootstrap in YAML or JSON. Unknown fields are errors with line and column.
/// `environment`: what log formats may print.
pub fn read(text: &str, environment: xds_decode::Environment) -> Result<Read, FeedError> {
    let wrong = |why: String| FeedError::Bootstrap(why);
    let wire: pb::bootstrap::Bootstrap = Descriptors::load()
        .and_then(|d| d.from_yaml(text))
        .map_err(|e| wrong(e.to_string()))?;
    let node = wire.node.clone().unwrap_or_default();
    let bootstrap = xds_decode::Decoder::new(environment.clone())
        .bootstrap(wire.clone())
        .map_err(|e| wrong(e.to_string()))?;
    let discovery = match &bootstrap.ads_cluster {
        None => None,
        Some(name) => {
            let cluster = bootstrap
                .static_clusters
                .iter()
                .find(|c| c.name.as_str() == &**name);
            let cluster = cluster.ok_or_else(|| {
                wrong(format!(
                    "ads_config names {name}, which is no static cluster"
                ))
            })?;
            let flavour = if bootstrap.ads_delta {
                Flavour::Delta
            } else {
                Flavour::StateOfTheWorld
            };
            Some(Discovery {
                server: server(cluster)?,
                flavour,
            })
        }
    };
    let clusters = bootstrap
        .static_clusters
        .iter()
        .cloned()
        .map(Change::Cluster);
    let listeners = bootstrap
        .static_listeners
        .iter()
        .cloned()
        .map(Change::Listener);
    Ok(Read {
        settings: Settings {
            node,
            discovery,
            certificates: None,
            environment,
            limits: Limits::default(),
        },
        fixed: Static {
            changes: clusters.chain(listeners).collect(),
        },
        bootstrap,
        wire,
    })
}

/// The node in the form that the data path reads.
pub fn node(node: &pb::core::Node) -> Result<proxy_config::bootstrap::Node, FeedError> {
    let wire = pb::bootstrap::Bootstrap {
        node: Some(node.clone()),
        ..Default::default()
    };
    let read = xds_decode::Decoder::default()
        .bootstrap(wire)
        .map_err(|e| FeedError::Bootstrap(e.to_string()))?;
    Ok(read.node)
}

fn server(cluster: &Cluster) -> Result<Server, FeedError> {
    let wrong = |why: &str| {
        FeedError::Bootstrap(format!("cluster {}, which serves ADS, {why}", cluster.name))
    };
    if !matches!(cluster.transport, Transport::Plaintext) {
        return Err(wrong(
            "has a transport socket; only plaintext to an agent on this machine is supported",
        ));
    }
    let address = match &cluster.discovery {
        ClusterDiscovery::Static(endpoints) => {
            let first = endpoints
                .localities
                .iter()
                .flat_map(|l| l.endpoints.iter())
                .next();
            match first.map(|endpoint| &endpoint.address) {
                Some(EndpointAddress::Pipe(path)) => Address::Socket(path.to_string().into()),
                Some(EndpointAddress::Socket(address)) => Address::Host {
                    name: address.ip().to_string(),
                    port: address.port(),
                },
                None => return Err(wrong("has no endpoint")),
            }
        }
        ClusterDiscovery::StrictDns { endpoints, .. }
        | ClusterDiscovery::LogicalDns { endpoints, .. } => {
            let first = endpoints
                .iter()
                .flat_map(|l| l.hosts.iter())
                .next()
                .ok_or_else(|| wrong("has no endpoint"))?;
            Address::Host {
                name: first.host.to_string(),
                port: first.port,
            }
        }
        _ => return Err(wrong("must be STATIC, STRICT_DNS or LOGICAL_DNS")),
    };
    Ok(Server {
        address,
        tls: None,
        token_file: None,
        mark: cluster.bind.mark,
    })
}
