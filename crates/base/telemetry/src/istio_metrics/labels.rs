//! Label values of Istio's metrics: which fact becomes which label, and what stands in for a
//! missing one.
//!
//! Rules and order follow the `istio_stats` filter of istio/proxy.

use std::sync::Arc;

use crate::record::{Peer, Record, ResponseFlags};

/// Who reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// An outbound listener of a sidecar, or a gateway.
    Source,
    /// An inbound listener of a sidecar.
    Destination,
    /// A waypoint.
    Waypoint,
}

/// Value of `connection_security_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecurityPolicy {
    MutualTls,
    None,
    Unknown,
}

/// One side's labels, finished texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerLabels {
    pub workload: Arc<str>,
    pub canonical_service: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub workload_namespace: Arc<str>,
    pub principal: Arc<str>,
    pub app: Arc<str>,
    pub version: Arc<str>,
    pub cluster: Arc<str>,
}

/// All labels of one edge, finished texts. Normally made by [`EdgeFacts::labels`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeLabels {
    pub reporter: Reporter,
    pub source: PeerLabels,
    pub destination: PeerLabels,
    pub destination_service: Arc<str>,
    pub destination_service_name: Arc<str>,
    pub destination_service_namespace: Arc<str>,
    pub security: SecurityPolicy,
}

/// What is known about an edge.
#[derive(Debug, Clone, Copy)]
pub struct EdgeFacts<'a> {
    pub reporter: Reporter,
    /// This proxy's workload.
    pub local: &'a Peer,
    /// The other side: the upstream for [`Reporter::Source`], else the downstream. `None`: nothing
    /// is known.
    pub peer: Option<&'a Peer>,
    /// The workload behind a waypoint.
    pub waypoint_destination: Option<&'a Peer>,
    /// The other side's principal by certificate; empty or `None`: no TLS.
    pub peer_principal: Option<&'a str>,
    pub local_principal: Option<&'a str>,
    pub service: ServiceFacts<'a>,
}

/// Where the destination's service name comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceFacts<'a> {
    /// The route's name; `block_all` and `allow_any` name Istio's catch-alls.
    pub route_name: Option<&'a str>,
    pub cluster_name: Option<&'a str>,
    /// `host` and `name` of the first of `services` in the cluster's `istio` metadata.
    pub cluster_service: Option<(&'a str, Option<&'a str>)>,
    /// The request's Host header, unless the fallback to it is disabled.
    pub host_header: Option<&'a str>,
}

/// Destination service and its short name, `None` where nothing tells.
pub fn service_labels<'a>(facts: &ServiceFacts<'a>) -> (Option<&'a str>, Option<&'a str>) {
    const CATCH_ALL: [&str; 5] = [
        "BlackHoleCluster",
        "PassthroughCluster",
        "InboundPassthroughCluster",
        "InboundPassthroughClusterIpv4",
        "InboundPassthroughClusterIpv6",
    ];
    let header = facts.host_header.filter(|host| !host.is_empty());
    match (facts.route_name, facts.cluster_name, facts.cluster_service) {
        (Some("block_all"), ..) => (header, Some("BlackHoleCluster")),
        (Some("allow_any"), ..) => (header, Some("PassthroughCluster")),
        (_, Some(cluster), _) if CATCH_ALL.contains(&cluster) => (header, Some(cluster)),
        (_, _, Some((host, name))) => (Some(host), name.or_else(|| host.split('.').next())),
        _ => (header, header),
    }
}

impl EdgeFacts<'_> {
    /// The labels, with Istio's fallbacks.
    pub fn labels(&self) -> EdgeLabels {
        let present = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
        let peer_namespace = self
            .peer_principal
            .and_then(namespace_of)
            .or_else(|| self.peer.map(|peer| &*peer.namespace))
            .filter(|namespace| !namespace.is_empty());
        let peer = |principal| peer_labels(self.peer, peer_namespace, principal);
        let local = local_labels(self.local, self.local_principal);
        let (service, service_name) = service_labels(&self.service);
        let mutual = present(self.peer_principal) && present(self.local_principal);
        let server_security = if mutual {
            SecurityPolicy::MutualTls
        } else {
            SecurityPolicy::None
        };
        match self.reporter {
            Reporter::Source => EdgeLabels {
                reporter: self.reporter,
                source: local,
                destination: peer(self.peer_principal),
                destination_service: or_unknown(service),
                destination_service_name: or_unknown(service_name),
                destination_service_namespace: or_unknown(peer_namespace),
                security: SecurityPolicy::Unknown,
            },
            Reporter::Destination | Reporter::Waypoint => {
                let destination = match self.reporter {
                    Reporter::Waypoint => waypoint_destination(self.waypoint_destination),
                    _ => local.clone(),
                };
                let fallback = destination.canonical_service.clone();
                EdgeLabels {
                    reporter: self.reporter,
                    source: peer(self.peer_principal),
                    destination: PeerLabels {
                        cluster: local.cluster,
                        ..destination
                    },
                    destination_service: service.map_or_else(|| fallback.clone(), Arc::from),
                    destination_service_name: service_name.map_or(fallback, Arc::from),
                    destination_service_namespace: local.workload_namespace,
                    security: server_security,
                }
            }
        }
    }
}

/// The namespace in `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn namespace_of(principal: &str) -> Option<&str> {
    principal.split_once("/ns/")?.1.split('/').next()
}

fn or_unknown(text: Option<&str>) -> Arc<str> {
    or_text(text, "unknown")
}

fn or_text(text: Option<&str>, default: &str) -> Arc<str> {
    Arc::from(text.filter(|text| !text.is_empty()).unwrap_or(default))
}

fn peer_labels(
    peer: Option<&Peer>,
    namespace: Option<&str>,
    principal: Option<&str>,
) -> PeerLabels {
    let known = |field: fn(&Peer) -> &Arc<str>| peer.map(|peer| &**field(peer));
    PeerLabels {
        workload: or_unknown(known(|peer| &peer.workload)),
        canonical_service: or_unknown(known(|peer| &peer.canonical_service)),
        canonical_revision: or_text(known(|peer| &peer.canonical_revision), "latest"),
        workload_namespace: or_unknown(namespace),
        principal: or_unknown(principal),
        app: or_unknown(known(|peer| &peer.app)),
        version: or_unknown(known(|peer| &peer.version)),
        cluster: or_unknown(known(|peer| &peer.cluster)),
    }
}

/// Our own side: as the node says, empty texts stay empty.
fn local_labels(local: &Peer, principal: Option<&str>) -> PeerLabels {
    PeerLabels {
        workload: local.workload.clone(),
        canonical_service: local.canonical_service.clone(),
        canonical_revision: local.canonical_revision.clone(),
        workload_namespace: local.namespace.clone(),
        principal: or_unknown(principal),
        app: local.app.clone(),
        version: local.version.clone(),
        cluster: local.cluster.clone(),
    }
}

/// The workload behind a waypoint: what its metadata says, even when empty, except namespace and
/// app.
fn waypoint_destination(peer: Option<&Peer>) -> PeerLabels {
    let unknown = || Arc::from("unknown");
    let told =
        |field: fn(&Peer) -> &Arc<str>| peer.map_or_else(unknown, |peer| field(peer).clone());
    PeerLabels {
        workload: told(|peer| &peer.workload),
        canonical_service: told(|peer| &peer.canonical_service),
        canonical_revision: told(|peer| &peer.canonical_revision),
        workload_namespace: or_unknown(peer.map(|peer| &*peer.namespace)),
        principal: told(|peer| &peer.identity),
        app: or_unknown(peer.map(|peer| &*peer.app)),
        version: told(|peer| &peer.version),
        cluster: unknown(),
    }
}

/// Who talks to whom, with an identity of its own. Get it from [`super::IstioMetrics::edge`] and
/// keep it.
#[derive(Debug)]
pub struct Edge {
    id: u64,
    labels: Vec<(&'static str, Arc<str>)>,
    security: SecurityPolicy,
}

impl Edge {
    pub(super) fn new(id: u64, labels: &EdgeLabels) -> Self {
        let EdgeLabels {
            reporter,
            source,
            destination,
            security,
            ..
        } = labels.clone();
        let reporter = match reporter {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
            Reporter::Waypoint => "waypoint",
        };
        let labels = vec![
            ("reporter", Arc::from(reporter)),
            ("source_workload", source.workload),
            ("source_canonical_service", source.canonical_service),
            ("source_canonical_revision", source.canonical_revision),
            ("source_workload_namespace", source.workload_namespace),
            ("source_principal", source.principal),
            ("source_app", source.app),
            ("source_version", source.version),
            ("source_cluster", source.cluster),
            ("destination_workload", destination.workload),
            (
                "destination_workload_namespace",
                destination.workload_namespace,
            ),
            ("destination_principal", destination.principal),
            ("destination_app", destination.app),
            ("destination_version", destination.version),
            ("destination_service", labels.destination_service.clone()),
            (
                "destination_canonical_service",
                destination.canonical_service,
            ),
            (
                "destination_canonical_revision",
                destination.canonical_revision,
            ),
            (
                "destination_service_name",
                labels.destination_service_name.clone(),
            ),
            (
                "destination_service_namespace",
                labels.destination_service_namespace.clone(),
            ),
            ("destination_cluster", destination.cluster),
        ];
        Self {
            id,
            labels,
            security,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Label names and values in Istio's order, without those of the request.
    pub fn labels(&self) -> &[(&'static str, Arc<str>)] {
        &self.labels
    }
}

/// Names of every standard label.
pub(super) const STANDARD: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// The labels that a request or connection adds to its edge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RequestLabels {
    Http {
        code: u16,
        flags: ResponseFlags,
    },
    Grpc {
        code: u16,
        status: Option<u32>,
        flags: ResponseFlags,
    },
    Tcp {
        flags: ResponseFlags,
    },
    /// gRPC messages are counted while the request runs: nothing is known yet.
    Messages,
}

impl RequestLabels {
    pub(super) fn http(record: &Record) -> Self {
        let (code, flags) = (record.status.unwrap_or(0), record.flags);
        match record.is_grpc {
            true => Self::Grpc {
                code,
                status: record.grpc_status,
                flags,
            },
            false => Self::Http { code, flags },
        }
    }

    pub(super) fn tcp(record: &Record) -> Self {
        Self::Tcp {
            flags: record.flags,
        }
    }

    pub(super) fn messages() -> Self {
        Self::Messages
    }

    /// Names and values in Istio's order.
    pub(super) fn labels(self, edge: &Edge) -> Vec<(&'static str, String)> {
        let security = match edge.security {
            SecurityPolicy::MutualTls => "mutual_tls",
            SecurityPolicy::None => "none",
            SecurityPolicy::Unknown => "unknown",
        };
        let (protocol, response, flags) = match self {
            Self::Messages => return Vec::new(),
            Self::Http { code, flags } => ("http", Some((code, None)), flags),
            Self::Grpc {
                code,
                status,
                flags,
            } => ("grpc", Some((code, status)), flags),
            Self::Tcp { flags } => ("tcp", None, flags),
        };
        let mut labels = vec![("request_protocol", protocol.to_string())];
        if let Some((code, status)) = response {
            labels.push(("response_code", code.to_string()));
            labels.push((
                "grpc_response_status",
                status.map_or_else(String::new, |status| status.to_string()),
            ));
        }
        labels.push(("response_flags", flags.to_string()));
        labels.push(("connection_security_policy", security.to_string()));
        labels
    }
}
