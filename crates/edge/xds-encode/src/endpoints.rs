//! Endpoints (EDS): the addresses of one cluster, grouped by locality and priority.
//!
//! Each endpoint carries whom it belongs to (`istio.workload`) and whether it takes mutual TLS (`envoy.transport_socket_match`).
//! Rows SEC-031, TM-043, TM-048, CP-014.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    MeshConfig, Selector,
    destination_rule::{ClientTlsMode, LocalityLb, TrafficPolicy},
    object::Text,
    peer_authentication::MtlsMode,
    workload::{Endpoint, EndpointAddress, Locality, Readiness},
};
use serde_json::json;
use wire_envoy::pb::{
    core,
    endpoint::{
        ClusterLoadAssignment, Endpoint as Host, LbEndpoint, LocalityLbEndpoints,
        lb_endpoint::HostIdentifier,
    },
};

use crate::{Client, View, names::OutboundName, wire};

mod locality;

/// Everything that the endpoints of a cluster depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointInputs {
    cluster: Text,
    endpoints: Arc<[Endpoint]>,
    subset: Selector,
    /// The rule's TLS settings decide for all endpoints alike.
    ignores_mesh_tls: bool,
    /// Only mutual TLS can be forwarded by its server name.
    only_mesh_tls: bool,
    unready: Unready,
    reports_health: bool,
    balancing: Balancing,
}

/// What becomes of endpoints that are not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unready {
    /// Sent as unhealthy.
    Sent,
    /// Left out, because outlier detection judges by itself.
    LeftOut,
    /// Offered as healthy (`publishNotReadyAddresses`).
    Offered,
}

/// From where, and by what rule, localities are preferred.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Balancing {
    from: Locality,
    labels: mesh_model::Labels,
    network: Text,
    cluster: Text,
    setting: Option<LocalityLb>,
    /// Outlier detection is on; without it Envoy would never leave the first priority.
    fails_over: bool,
}

impl View {
    /// `None`: not the name of a cluster with endpoints. A service that is not known (any more) has none.
    pub fn endpoint_inputs(&self, cluster: &str) -> Option<EndpointInputs> {
        let (name, by_sni) = OutboundName::parse(cluster)?;
        let service = self.service(&name.host);
        let rule = service.and_then(|service| self.rule_of(service));
        let whole = rule.map(|rule| rule.policy.clone()).unwrap_or_default();
        let subset = rule.and_then(|rule| {
            rule.subsets
                .iter()
                .find(|subset| subset.name == name.subset)
        });
        let policy = match subset {
            Some(subset) => crate::clusters::of_subset(&whole, &subset.policy, name.port),
            None => whole.for_port(name.port),
        };
        let policy = crate::clusters::with_mesh_defaults(policy, &self.snapshot.mesh);
        let is_missing_subset = subset.is_none() && !name.subset.is_empty();
        let known = service
            .filter(|_| !is_missing_subset)
            .and_then(|service| self.snapshot.endpoints_of(service))
            .and_then(|all| all.ports.get(&name.port));
        let endpoints = known
            .map(|list| self.judged(list))
            .unwrap_or_else(|| Arc::new([]));
        let endpoints = match service {
            Some(service) if service.node_local => self.on_own_node(&endpoints),
            _ => endpoints,
        };
        let fails_over = policy.outlier_detection.is_some();
        Some(EndpointInputs {
            cluster: cluster.into(),
            endpoints,
            subset: subset
                .map(|subset| subset.labels.clone())
                .unwrap_or_default(),
            ignores_mesh_tls: policy
                .tls
                .as_ref()
                .is_some_and(|tls| tls.mode != ClientTlsMode::IstioMutual),
            only_mesh_tls: by_sni,
            unready: match service.is_some_and(|service| service.publish_not_ready) {
                true => Unready::Offered,
                false if fails_over => Unready::LeftOut,
                false => Unready::Sent,
            },
            reports_health: service.is_some_and(|service| &*service.meta.object.kind == "Service"),
            balancing: balancing(&self.client, &policy, &self.snapshot.mesh),
        })
    }

    /// `internalTrafficPolicy: Local`: only what runs on the client's node.
    fn on_own_node(&self, list: &Arc<[Endpoint]>) -> Arc<[Endpoint]> {
        list.iter()
            .filter(|endpoint| endpoint.node == self.client.node_name)
            .cloned()
            .collect()
    }

    /// Endpoints whose workload refuses mutual TLS at this port are marked so.
    fn judged(&self, list: &Arc<[Endpoint]>) -> Arc<[Endpoint]> {
        let refuses = |endpoint: &Endpoint| {
            endpoint.mesh_tls
                && self
                    .snapshot
                    .mtls_mode(&endpoint.namespace, &endpoint.labels, endpoint.port)
                    == MtlsMode::Disable
        };
        if self.snapshot.peer_authentications.is_empty() || !list.iter().any(refuses) {
            return list.clone();
        }
        list.iter()
            .map(|endpoint| Endpoint {
                mesh_tls: endpoint.mesh_tls && !refuses(endpoint),
                ..endpoint.clone()
            })
            .collect()
    }
}

/// Without a setting that has an effect, where the client is does not matter.
fn balancing(client: &Client, policy: &TrafficPolicy, mesh: &MeshConfig) -> Balancing {
    let own = policy
        .load_balancer
        .as_ref()
        .and_then(|balancer| balancer.locality.as_ref());
    let setting = own.unwrap_or(&mesh.locality_lb);
    let fails_over = policy.outlier_detection.is_some();
    let has_effect =
        setting.enabled != Some(false) && (fails_over || !setting.distribute.is_empty());
    if !has_effect {
        return Balancing::default();
    }
    Balancing {
        from: client.locality.clone(),
        labels: match setting.failover_priority.is_empty() {
            true => mesh_model::Labels::default(),
            false => client.labels.clone(),
        },
        network: client.network.clone(),
        cluster: client.cluster_id.clone(),
        setting: Some(setting.clone()),
        fails_over,
    }
}

/// The endpoints of a cluster.
pub fn endpoints(inputs: &EndpointInputs) -> ClusterLoadAssignment {
    let offered = |endpoint: &&Endpoint| {
        let is_ready = endpoint.ready != Readiness::NotReady || inputs.unready != Unready::LeftOut;
        is_ready
            && inputs.subset.selects(&endpoint.labels)
            && (endpoint.mesh_tls || !inputs.only_mesh_tls)
    };
    let chosen: Vec<&Endpoint> = inputs.endpoints.iter().filter(offered).collect();
    let hosts = chosen
        .iter()
        .map(|endpoint| (*endpoint, host(inputs, endpoint)))
        .collect();
    ClusterLoadAssignment {
        cluster_name: inputs.cluster.to_string(),
        endpoints: grouped(&inputs.balancing, hosts),
        ..Default::default()
    }
}

/// Endpoints of a cluster whose proxy resolves names itself: part of the cluster, without health.
pub(crate) fn resolved_by_proxy(
    client: &Client,
    policy: &TrafficPolicy,
    mesh: &MeshConfig,
    chosen: &[&Endpoint],
) -> Vec<LocalityLbEndpoints> {
    let ignores_mesh_tls = policy
        .tls
        .as_ref()
        .is_some_and(|tls| tls.mode != ClientTlsMode::IstioMutual);
    let hosts = chosen
        .iter()
        .map(|endpoint| {
            (
                *endpoint,
                lb_endpoint(
                    endpoint,
                    endpoint.mesh_tls && !ignores_mesh_tls,
                    core::HealthStatus::Unknown,
                ),
            )
        })
        .collect();
    grouped(&balancing(client, policy, mesh), hosts)
}

fn host(inputs: &EndpointInputs, endpoint: &Endpoint) -> LbEndpoint {
    let knows_health = inputs.reports_health || !endpoint.node.is_empty();
    let health = match endpoint.ready {
        Readiness::NotReady if inputs.unready != Unready::Offered => core::HealthStatus::Unhealthy,
        Readiness::Draining => core::HealthStatus::Draining,
        _ if knows_health => core::HealthStatus::Healthy,
        _ => core::HealthStatus::Unknown,
    };
    lb_endpoint(
        endpoint,
        endpoint.mesh_tls && !inputs.ignores_mesh_tls,
        health,
    )
}

fn lb_endpoint(
    endpoint: &Endpoint,
    takes_mesh_tls: bool,
    health: core::HealthStatus,
) -> LbEndpoint {
    let address = match &endpoint.address {
        EndpointAddress::Ip(ip) => wire::socket_address(&ip.to_string(), endpoint.port),
        EndpointAddress::Name(name) => wire::socket_address(name, endpoint.port),
        EndpointAddress::Unix(path) => wire::pipe(path.strip_prefix("unix://").unwrap_or(path)),
    };
    let host = Host {
        address: Some(address),
        ..Default::default()
    };
    let mut metadata = wire::metadata([("istio", json!({"workload": workload(endpoint)}))]);
    if takes_mesh_tls {
        metadata.filter_metadata.insert(
            "envoy.transport_socket_match".to_owned(),
            wire::structure(&json!({"tlsMode": "istio"})),
        );
    }
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(host)),
        health_status: health.into(),
        metadata: Some(metadata),
        load_balancing_weight: Some(wire::number(endpoint.weight.max(1))),
    }
}

/// `workload;namespace;canonical service;canonical revision;cluster`; the revision `latest` is not said.
fn workload(endpoint: &Endpoint) -> String {
    let revision = Some(&*endpoint.canonical_revision)
        .filter(|revision| *revision != "latest")
        .unwrap_or_default();
    format!(
        "{};{};{};{revision};{}",
        endpoint.workload_name, endpoint.namespace, endpoint.canonical_name, endpoint.cluster
    )
}

/// Groups by locality in its order, then sets priorities or weights.
fn grouped(balancing: &Balancing, hosts: Vec<(&Endpoint, LbEndpoint)>) -> Vec<LocalityLbEndpoints> {
    let mut by_locality: BTreeMap<String, Vec<(&Endpoint, LbEndpoint)>> = BTreeMap::new();
    for (endpoint, host) in hosts {
        by_locality
            .entry(locality::text(&endpoint.locality))
            .or_default()
            .push((endpoint, host));
    }
    locality::balanced(balancing, by_locality.into_values().collect())
}

/// One group as it is sent; its weight is that of its hosts together.
fn group(locality: &Locality, hosts: Vec<LbEndpoint>, priority: u32) -> LocalityLbEndpoints {
    let weight = hosts
        .iter()
        .filter_map(|host| host.load_balancing_weight.as_ref())
        .map(|weight| weight.value)
        .sum();
    let part = |text: &Option<Text>| text.as_deref().unwrap_or_default().to_owned();
    LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: part(&locality.region),
            zone: part(&locality.zone),
            sub_zone: part(&locality.sub_zone),
        }),
        lb_endpoints: hosts,
        load_balancing_weight: Some(wire::number(weight)),
        priority,
        ..Default::default()
    }
}
