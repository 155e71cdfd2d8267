//! Clusters (CDS): where traffic can go.
//!
//! One per visible service, port and subset; for sidecars also one per inbound port and the clusters for traffic that belongs to no service.
//! What a DestinationRule says is in `policy` (load balancer, pool, outliers), `protocol` (HTTP version) and `upstream_tls`.

use std::sync::Arc;

use mesh_model::{
    DestinationRule, MeshConfig, Service, Sidecar,
    gateway::ServerTls,
    object::{Labels, Text},
    peer_authentication::MtlsMode,
    service::{Location, Resolution},
    snapshot::ServiceEndpoints,
    workload::Endpoint,
};
use wire_envoy::pb::{self, cluster::Cluster, core};

use crate::{Client, ClientKind, View, inbound::InboundPort, names, wire};

mod inbound;
mod outbound;
mod policy;
pub(crate) use outbound::dns_cache;
pub(crate) use policy::{of_subset, with_mesh_defaults};
mod protocol;
mod upstream_tls;

/// SOL_SOCKET and SO_MARK of Linux.
const SOCKET_LEVEL: i64 = 1;
const SOCKET_MARK: i64 = 36;

/// Everything that the clusters of a client depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterInputs {
    client: Arc<Client>,
    mesh: Arc<MeshConfig>,
    services: Arc<[ClusterService]>,
    inbound: Arc<[InboundPort]>,
    sidecar: Option<Arc<Sidecar>>,
    /// A gateway that forwards mutual TLS by its server name.
    forwards_by_sni: bool,
}

/// A service and what its clusters need to know beside it.
#[derive(Debug, Clone, PartialEq)]
struct ClusterService {
    service: Arc<Service>,
    rule: Option<Arc<DestinationRule>>,
    /// SPIFFE ids of its endpoints, sorted; with those of trust domain aliases.
    accounts: Arc<[Text]>,
    /// Its namespace takes mutual TLS.
    takes_mtls: bool,
    /// Ports at which it has endpoints and all of them speak mutual TLS.
    all_mesh_tls: Arc<[u16]>,
    /// By port; only where the proxy resolves names itself.
    fixed: Arc<[(u16, Arc<[Endpoint]>)]>,
}

impl View {
    pub fn cluster_inputs(&self) -> ClusterInputs {
        let services = self
            .services
            .iter()
            .filter(|service| service.alias_of.is_none())
            .map(|service| self.cluster_service(service))
            .collect();
        let is_gateway = self.client.kind == ClientKind::Gateway;
        let forwards_by_sni = is_gateway
            && self
                .snapshot
                .gateways_of(&self.client.labels)
                .iter()
                .any(|gateway| {
                    gateway
                        .servers
                        .iter()
                        .any(|server| server.tls == ServerTls::AutoPassthrough)
                });
        ClusterInputs {
            client: self.impersonal_client(),
            mesh: self.snapshot.mesh.clone(),
            services,
            inbound: if is_gateway {
                Arc::new([])
            } else {
                self.inbound_ports()
            },
            sidecar: self.sidecar.clone(),
            forwards_by_sni,
        }
    }

    fn cluster_service(&self, service: &Arc<Service>) -> ClusterService {
        let endpoints = self.snapshot.endpoints_of(service);
        let is_resolved_by_proxy = matches!(
            service.resolution,
            Resolution::Dns | Resolution::DnsRoundRobin
        );
        let fixed = endpoints
            .filter(|_| is_resolved_by_proxy)
            .map(|all| all.ports.iter().map(|(port, list)| (*port, list.clone())));
        let namespace_mode = self
            .snapshot
            .mtls_mode(service.namespace(), &Labels::default(), 0);
        ClusterService {
            service: service.clone(),
            rule: self.rule_of(service).cloned(),
            accounts: accounts(service, endpoints, &self.snapshot.mesh),
            takes_mtls: service.location == Location::MeshInternal
                && namespace_mode != MtlsMode::Disable,
            all_mesh_tls: endpoints
                .map(|all| all.mesh_tls_ports.clone())
                .unwrap_or_default(),
            fixed: fixed.map(Iterator::collect).unwrap_or_default(),
        }
    }
}

/// Who may answer for a service: its endpoints' ids, in every trust domain that the mesh calls its own, and the names that it lists.
fn accounts(
    service: &Service,
    endpoints: Option<&Arc<ServiceEndpoints>>,
    mesh: &MeshConfig,
) -> Arc<[Text]> {
    let ids = endpoints
        .map(|all| all.accounts.clone())
        .unwrap_or_default();
    if mesh.trust_domain_aliases.is_empty() && service.subject_alt_names.is_empty() {
        return ids;
    }
    let mut accounts: Vec<Text> = ids
        .iter()
        .flat_map(|id| with_aliases(id, mesh))
        .chain(service.subject_alt_names.iter().cloned())
        .collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts.into()
}

/// An id, and the same id in every other trust domain that this mesh calls its own.
fn with_aliases(id: &str, mesh: &MeshConfig) -> Vec<Text> {
    let domains: Vec<&str> = std::iter::once(&mesh.trust_domain)
        .chain(mesh.trust_domain_aliases.iter())
        .map(|domain| domain.as_str())
        .collect();
    let split = id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'));
    match split {
        Some((domain, path)) if domains.contains(&domain) => domains
            .iter()
            .map(|domain| format!("spiffe://{domain}/{path}").into())
            .collect(),
        _ => vec![id.into()],
    }
}

impl ClusterInputs {
    /// By host: what the clusters of one service depend on, which is the same for all clients that differ in nothing that matters to it.
    pub fn by_service(&self) -> impl Iterator<Item = (Text, ClusterInputs)> + '_ {
        let plain = Arc::new(self.client.forwarding_traits());
        // Where the proxy resolves names, its place decides about priorities.
        let placed = Arc::new(Client {
            locality: self.client.locality.clone(),
            labels: self.client.labels.clone(),
            network: self.client.network.clone(),
            cluster_id: self.client.cluster_id.clone(),
            ..(*plain).clone()
        });
        self.services.iter().map(move |of| {
            let client = if of.fixed.is_empty() { &plain } else { &placed };
            let inputs = ClusterInputs {
                client: client.clone(),
                mesh: self.mesh.clone(),
                services: Arc::new([of.clone()]),
                inbound: Arc::default(),
                sidecar: None,
                forwards_by_sni: self.forwards_by_sni,
            };
            (of.service.host.shared(), inputs)
        })
    }

    /// What clusters without a service depend on.
    pub fn without_services(&self) -> ClusterInputs {
        ClusterInputs {
            services: Arc::default(),
            ..self.clone()
        }
    }
}

/// Clusters in a stable order: outbound by host, port and subset; then those without a service.
pub fn clusters(inputs: &ClusterInputs) -> Vec<Cluster> {
    let mut found = service_clusters(inputs);
    found.extend(own_clusters(inputs));
    found
}

/// Clusters of services.
pub fn service_clusters(inputs: &ClusterInputs) -> Vec<Cluster> {
    let mut found: Vec<Cluster> = inputs
        .services
        .iter()
        .flat_map(|service| outbound::clusters(inputs, service))
        .collect();
    if inputs.forwards_by_sni {
        found.extend(
            inputs
                .services
                .iter()
                .flat_map(|service| outbound::clusters_by_sni(inputs, service)),
        );
    }
    marked(found, inputs)
}

/// Clusters without a service.
pub fn own_clusters(inputs: &ClusterInputs) -> Vec<Cluster> {
    let mut found = vec![black_hole(inputs)];
    if inputs.client.kind == ClientKind::Sidecar {
        found.push(passthrough(inputs, names::PASSTHROUGH));
        found.extend(inbound::clusters(inputs));
    }
    marked(found, inputs)
}

fn marked(mut clusters: Vec<Cluster>, inputs: &ClusterInputs) -> Vec<Cluster> {
    if let Some(mark) = inputs.client.mark {
        clusters
            .iter_mut()
            .for_each(|cluster| set_mark(cluster, mark));
    }
    clusters
}

/// A cluster with the name, statistics name, type and timeout that all have.
fn named(name: String, kind: pb::cluster::cluster::DiscoveryType, mesh: &MeshConfig) -> Cluster {
    Cluster {
        alt_stat_name: names::stat_name(&name),
        name,
        cluster_discovery_type: Some(pb::cluster::cluster::ClusterDiscoveryType::Type(
            kind.into(),
        )),
        connect_timeout: Some(wire::duration(mesh.connect_timeout)),
        ..Default::default()
    }
}

fn black_hole(inputs: &ClusterInputs) -> Cluster {
    named(
        names::BLACK_HOLE.to_owned(),
        pb::cluster::cluster::DiscoveryType::Static,
        &inputs.mesh,
    )
}

/// Traffic to the connection's own destination.
fn passthrough(inputs: &ClusterInputs, name: &str) -> Cluster {
    Cluster {
        alt_stat_name: names::stat_name(names::PASSTHROUGH),
        lb_policy: pb::cluster::cluster::LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(policy::circuit_breakers(&Default::default(), None)),
        typed_extension_protocol_options: protocol::passthrough(),
        filters: metadata_exchange(&inputs.client),
        upstream_connection_options: policy::keepalive(&Default::default(), &inputs.mesh),
        ..named(
            name.to_owned(),
            pb::cluster::cluster::DiscoveryType::OriginalDst,
            &inputs.mesh,
        )
    }
}

/// The filter that tells the other side who speaks, on TCP; not in stock Envoy.
fn metadata_exchange(client: &Client) -> Vec<pb::cluster::Filter> {
    if client.is_envoy_without_istio_filters {
        return Vec::new();
    }
    let config = serde_json::json!({"enable_discovery": true, "protocol": "istio-peer-exchange"});
    let typed = wire::typed_struct(
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        &config,
    );
    vec![pb::cluster::Filter {
        name: "istio.metadata_exchange".to_owned(),
        typed_config: Some(typed),
        ..Default::default()
    }]
}

fn set_mark(cluster: &mut Cluster, mark: u32) {
    let option = core::SocketOption {
        description: "mark of the proxy's own connections".to_owned(),
        level: SOCKET_LEVEL,
        name: SOCKET_MARK,
        value: Some(core::socket_option::Value::IntValue(mark.into())),
        ..Default::default()
    };
    cluster
        .upstream_bind_config
        .get_or_insert_default()
        .socket_options
        .push(option);
}
