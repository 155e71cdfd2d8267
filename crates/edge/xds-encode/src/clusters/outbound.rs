//! Clusters of services: `outbound|<port>|<subset>|<host>`.

use mesh_model::{
    destination_rule::{Algorithm, Subset, TrafficPolicy},
    object::Text,
    port::{Port, Protocol},
    service::{Location, Resolution},
};
use serde_json::json;
use wire_envoy::pb::{
    self,
    cluster::{
        Cluster,
        cluster::{
            ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily,
            EdsClusterConfig, LbPolicy,
        },
    },
    core,
};

use super::{
    ClusterInputs, ClusterService, metadata_exchange, named, policy, protocol, upstream_tls,
};
use crate::{ClientKind, endpoints, names::OutboundName, wire};

/// How addresses of one cluster are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Discovery {
    Eds,
    StrictDns,
    LogicalDns,
    OriginalDestination,
    /// The host of each request.
    Dynamic,
}

/// One cluster to be made.
pub(super) struct Target<'a> {
    pub inputs: &'a ClusterInputs,
    pub of: &'a ClusterService,
    pub port: &'a Port,
    pub subset: Option<&'a Subset>,
    /// What holds for this port and subset.
    pub policy: TrafficPolicy,
    pub name: OutboundName,
}

impl Target<'_> {
    pub fn is_external(&self) -> bool {
        self.of.service.location == Location::MeshExternal
    }
    fn discovery(&self) -> Discovery {
        let passes_through = self
            .policy
            .load_balancer
            .as_ref()
            .is_some_and(|balancer| balancer.algorithm == Algorithm::Passthrough);
        match self.of.service.resolution {
            Resolution::DynamicDns => Discovery::Dynamic,
            _ if passes_through => Discovery::OriginalDestination,
            Resolution::ClientSide => Discovery::Eds,
            Resolution::Dns => Discovery::StrictDns,
            Resolution::DnsRoundRobin => Discovery::LogicalDns,
            Resolution::Passthrough if self.inputs.client.kind == ClientKind::Gateway => {
                Discovery::Eds
            }
            Resolution::Passthrough => Discovery::OriginalDestination,
        }
    }
    pub fn has_fixed_destination(&self) -> bool {
        self.discovery() == Discovery::OriginalDestination
    }
}

/// Clusters of all ports and subsets of a service.
pub(super) fn clusters(inputs: &ClusterInputs, of: &ClusterService) -> Vec<Cluster> {
    targets(inputs, of).iter().map(cluster).collect()
}

/// The same services again, forwarded as the TLS that they arrive in.
pub(super) fn clusters_by_sni(inputs: &ClusterInputs, of: &ClusterService) -> Vec<Cluster> {
    targets(inputs, of)
        .iter()
        .filter(|target| !target.is_external())
        .map(|target| named_cluster(target, target.name.sni(), false))
        .collect()
}

fn targets<'a>(inputs: &'a ClusterInputs, of: &'a ClusterService) -> Vec<Target<'a>> {
    let mut found = Vec::new();
    for port in of
        .service
        .ports
        .iter()
        .map(|port| &port.port)
        .filter(|port| port.protocol != Protocol::Udp)
    {
        let whole = of
            .rule
            .as_ref()
            .map(|rule| rule.policy.clone())
            .unwrap_or_default();
        let subsets = of
            .rule
            .as_ref()
            .map(|rule| rule.subsets.as_ref())
            .unwrap_or_default();
        for subset in std::iter::once(None).chain(subsets.iter().map(Some)) {
            let policy = match subset {
                None => whole.for_port(port.number),
                Some(subset) => policy::of_subset(&whole, &subset.policy, port.number),
            };
            let policy = policy::with_mesh_defaults(policy, &inputs.mesh);
            let name = OutboundName::new(
                of.service.host.as_str(),
                subset.map(|subset| &*subset.name),
                port.number,
            );
            found.push(Target {
                inputs,
                of,
                port,
                subset,
                policy,
                name,
            });
        }
    }
    found
}

fn cluster(target: &Target<'_>) -> Cluster {
    named_cluster(target, target.name.to_string(), true)
}

fn named_cluster(target: &Target<'_>, name: String, with_tls: bool) -> Cluster {
    let mut cluster = discovered(target, name);
    let policy = &target.policy;
    if let Some(timeout) = policy
        .connection_pool
        .as_ref()
        .and_then(|pool| pool.tcp.connect_timeout)
    {
        cluster.connect_timeout = Some(wire::duration(timeout));
    }
    let pool = policy.connection_pool.clone().unwrap_or_default();
    cluster.circuit_breakers = Some(policy::circuit_breakers(&pool, policy.retry_budget));
    cluster.upstream_connection_options = policy::keepalive(&pool, &target.inputs.mesh);
    cluster.outlier_detection = policy.outlier_detection.as_ref().map(policy::outliers);
    let (metadata, uses_own_alpn) = (metadata(target), upstream_tls::is_outside_tls(target));
    cluster.metadata = Some(wire::metadata([(
        "istio",
        with_alpn_note(metadata, with_tls && uses_own_alpn),
    )]));
    cluster.filters = metadata_exchange(&target.inputs.client);
    cluster.typed_extension_protocol_options = protocol::outbound(target);
    if with_tls {
        upstream_tls::apply(target, &mut cluster);
    }
    cluster
}

/// The cluster's type with what belongs to it, and its balancer.
fn discovered(target: &Target<'_>, name: String) -> Cluster {
    let mesh = &target.inputs.mesh;
    let mut cluster = match target.discovery() {
        Discovery::Eds => {
            let eds = EdsClusterConfig {
                eds_config: Some(wire::ads()),
                service_name: name.clone(),
            };
            Cluster {
                eds_cluster_config: Some(eds),
                ..named(name, DiscoveryType::Eds, mesh)
            }
        }
        Discovery::StrictDns => with_names(target, named(name, DiscoveryType::StrictDns, mesh)),
        Discovery::LogicalDns => with_names(target, named(name, DiscoveryType::LogicalDns, mesh)),
        Discovery::OriginalDestination => Cluster {
            lb_policy: LbPolicy::ClusterProvided.into(),
            ..named(name, DiscoveryType::OriginalDst, mesh)
        },
        Discovery::Dynamic => return dynamic(target, name),
    };
    cluster.common_lb_config = Some(policy::common_balancing(&target.policy));
    if !target.has_fixed_destination() {
        policy::balance(&target.policy, &mut cluster);
    }
    cluster
}

/// A cluster whose proxy resolves names.
#[allow(
    deprecated,
    reason = "DNS settings in the form that every proxy of the field reads"
)]
fn with_names(target: &Target<'_>, cluster: Cluster) -> Cluster {
    let mesh = &target.inputs.mesh;
    let resolver =
        pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig {
            udp_max_queries: Some(wire::number(100)),
            ..Default::default()
        };
    let found = target
        .of
        .fixed
        .iter()
        .find(|(port, _)| *port == target.port.number)
        .map(|(_, list)| list.as_ref())
        .unwrap_or_default();
    let wanted = target.subset.map(|subset| &subset.labels);
    let chosen: Vec<_> = found
        .iter()
        .filter(|endpoint| wanted.is_none_or(|labels| labels.selects(&endpoint.labels)))
        .collect();
    let groups = endpoints::resolved_by_proxy(
        &target.inputs.client,
        &target.policy,
        &target.inputs.mesh,
        &chosen,
    );
    Cluster {
        load_assignment: Some(pb::endpoint::ClusterLoadAssignment {
            cluster_name: cluster.name.clone(),
            endpoints: groups,
            ..Default::default()
        }),
        dns_refresh_rate: Some(wire::duration(mesh.dns_refresh_rate)),
        dns_jitter: Some(wire::duration(std::time::Duration::from_millis(100))),
        respect_dns_ttl: true,
        dns_lookup_family: lookup_family(target.inputs).into(),
        typed_dns_resolver_config: Some(wire::typed_extension(
            "envoy.network.dns_resolver.cares",
            &resolver,
        )),
        ..cluster
    }
}

fn lookup_family(inputs: &ClusterInputs) -> DnsLookupFamily {
    let addresses = &inputs.client.addresses;
    match (
        addresses.iter().any(|a| a.is_ipv4()),
        addresses.iter().any(|a| a.is_ipv6()),
    ) {
        (true, true) => DnsLookupFamily::All,
        (false, true) => DnsLookupFamily::V6Only,
        _ => DnsLookupFamily::V4Only,
    }
}

/// Resolves the host that each request or connection names.
fn dynamic(target: &Target<'_>, name: String) -> Cluster {
    use pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
        ClusterConfig, cluster_config::ClusterImplementationSpecifier,
    };
    let cache = dns_cache(&target.name.host, lookup_family(target.inputs));
    let config = ClusterConfig {
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(
            cache,
        )),
        ..Default::default()
    };
    let kind = CustomClusterType {
        name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
        typed_config: Some(crate::packed(&config)),
    };
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(kind)),
        lb_policy: LbPolicy::ClusterProvided.into(),
        ..named(name, DiscoveryType::Static, &target.inputs.mesh)
    }
}

/// The cache that a dynamic cluster and the listener filter before it share.
pub(crate) fn dns_cache(
    host: &Text,
    family: DnsLookupFamily,
) -> pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig {
    pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig {
        name: format!("{host}_dfp_dns_cache"),
        dns_lookup_family: family.into(),
        ..Default::default()
    }
}

fn metadata(target: &Target<'_>) -> serde_json::Value {
    let service = &target.of.service;
    let mut fields = serde_json::Map::new();
    if let Some(rule) = &target.of.rule {
        fields.insert("config".to_owned(), wire::config_path(&rule.meta).into());
    }
    match target.subset {
        Some(subset) => drop(fields.insert("subset".to_owned(), subset.name.to_string().into())),
        None if target.is_external() => drop(fields.insert("external".to_owned(), true.into())),
        None => {}
    }
    if service.resolution != Resolution::DynamicDns {
        fields.insert("services".to_owned(), json!([service_note(service)]));
    }
    fields.into()
}

/// How Istio's metadata names a service.
pub(super) fn service_note(service: &mesh_model::Service) -> serde_json::Value {
    json!({"host": service.host.as_str(), "name": &*service.name, "namespace": service.namespace()})
}

/// Tells Istio's ALPN filter to keep its hands off.
fn with_alpn_note(mut metadata: serde_json::Value, keeps_alpn: bool) -> serde_json::Value {
    if let (true, Some(fields)) = (keeps_alpn, metadata.as_object_mut()) {
        fields.insert("alpn_override".to_owned(), "false".into());
    }
    metadata
}

/// An address that clusters bind to.
pub(super) fn bound_to(address: &str) -> core::BindConfig {
    let port = Some(core::socket_address::PortSpecifier::PortValue(0));
    core::BindConfig {
        source_address: Some(core::SocketAddress {
            address: address.to_owned(),
            port_specifier: port,
            ..Default::default()
        }),
        ..Default::default()
    }
}
