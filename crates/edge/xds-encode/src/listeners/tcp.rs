//! Forwarding of connections as bytes: the TCP proxy and what comes before it.

use mesh_model::{
    destination_rule::{Algorithm, HashKey, TrafficPolicy},
    object::Text,
    virtual_service::{Destination, WeightedDestination},
};
use serde_json::json;
use wire_envoy::pb::{
    cluster::cluster::DnsLookupFamily,
    envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni_forward,
    kind,
    listener::Filter,
    tcp_proxy::{
        TcpProxy,
        tcp_proxy::{
            ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
        },
    },
};

use super::{ListenerInputs, http};
use crate::{clusters, names::OutboundName, telemetry::Side, wire};

/// Filters that forward to a cluster, with reports.
pub(super) fn to_cluster(inputs: &ListenerInputs, side: Side, cluster: &str) -> Vec<Filter> {
    let proxy = proxy(
        inputs,
        side,
        cluster.to_owned(),
        ClusterSpecifier::Cluster(cluster.to_owned()),
    );
    with_metrics(inputs, side, proxy)
}

/// The end of a connection that must not be: counted, not logged.
pub(super) fn to_black_hole(inputs: &ListenerInputs, side: Side) -> Vec<Filter> {
    let name = crate::names::BLACK_HOLE.to_owned();
    let proxy = TcpProxy {
        stat_prefix: name.clone(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(name)),
        ..Default::default()
    };
    with_metrics(inputs, side, proxy)
}

/// Filters that forward to a service, as its DestinationRule says.
pub(super) fn to_service(inputs: &ListenerInputs, host: &str, port: u16) -> Vec<Filter> {
    let name = OutboundName::new(host, None, port).to_string();
    let mut proxy = proxy(
        inputs,
        Side::Outbound,
        name.clone(),
        ClusterSpecifier::Cluster(name),
    );
    obey(inputs, &mut proxy, host, None, port);
    with_metrics(inputs, Side::Outbound, proxy)
}

/// Filters that forward to the service that a TLS hello names.
pub(super) fn to_named_by_sni(inputs: &ListenerInputs, host: &Text, port: u16) -> Vec<Filter> {
    let family = if inputs.client.has_ipv4() {
        DnsLookupFamily::V4Only
    } else {
        DnsLookupFamily::V6Only
    };
    let config = sni_forward::FilterConfig {
        dns_cache_config: Some(clusters::dns_cache(host, family)),
        port_specifier: Some(sni_forward::filter_config::PortSpecifier::PortValue(
            port.into(),
        )),
        ..Default::default()
    };
    let mut filters = vec![http::network_filter(
        "envoy.extensions.filters.network.sni_dynamic_forward_proxy",
        &config,
    )];
    filters.extend(to_service(inputs, host, port));
    filters
}

/// Filters of a TCP or TLS route: one destination, or several by weight.
pub(super) fn to_destinations(
    inputs: &ListenerInputs,
    side: Side,
    rule: &mesh_model::Meta,
    route: &[WeightedDestination],
    port: u16,
) -> Vec<Filter> {
    let cluster = |to: &Destination| {
        OutboundName::new(
            to.host.as_str(),
            to.subset.as_deref(),
            port_of(inputs, to, port),
        )
        .to_string()
    };
    let mut proxy = match route {
        [single] => {
            let name = cluster(&single.destination);
            proxy(inputs, side, name.clone(), ClusterSpecifier::Cluster(name))
        }
        several => {
            let clusters = several
                .iter()
                .map(|to| ClusterWeight {
                    name: cluster(&to.destination),
                    weight: to.weight,
                    ..Default::default()
                })
                .collect();
            proxy(
                inputs,
                side,
                format!("{}.{}", rule.name(), rule.namespace()),
                ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }),
            )
        }
    };
    if let Some(first) = route.first().map(|first| &first.destination) {
        obey(
            inputs,
            &mut proxy,
            first.host.as_str(),
            first.subset.as_deref(),
            port_of(inputs, first, port),
        );
    }
    with_metrics(inputs, side, proxy)
}

fn port_of(inputs: &ListenerInputs, to: &Destination, port: u16) -> u16 {
    to.port
        .or_else(|| inputs.routing.single_ports.get(to.host.as_str()).copied())
        .unwrap_or(port)
}

fn proxy(
    inputs: &ListenerInputs,
    side: Side,
    stat_prefix: String,
    cluster: ClusterSpecifier,
) -> TcpProxy {
    TcpProxy {
        stat_prefix,
        cluster_specifier: Some(cluster),
        access_log: inputs.reports(side).access_logs(),
        ..Default::default()
    }
}

fn with_metrics(inputs: &ListenerInputs, side: Side, proxy: TcpProxy) -> Vec<Filter> {
    let metrics = inputs
        .reports(side)
        .metrics()
        .map(|config| http::network_filter("istio.stats", &config));
    metrics
        .into_iter()
        .chain([http::network_filter(
            "envoy.filters.network.tcp_proxy",
            &proxy,
        )])
        .collect()
}

/// Idle time, hashing and tunnels are set by the DestinationRule but done here.
fn obey(
    inputs: &ListenerInputs,
    proxy: &mut TcpProxy,
    host: &str,
    subset: Option<&str>,
    port: u16,
) {
    let Some(rule) = inputs.routing.rules.get(host) else {
        return;
    };
    let own = subset.and_then(|name| rule.subsets.iter().find(|subset| &*subset.name == name));
    let policy: TrafficPolicy = own.map_or_else(
        || rule.policy.for_port(port),
        |own| clusters::of_subset(&rule.policy, &own.policy, port),
    );
    if let Some(pool) = &policy.connection_pool {
        proxy.idle_timeout = pool.tcp.idle_timeout.map(wire::duration);
        proxy.max_downstream_connection_duration =
            pool.tcp.max_connection_duration.map(wire::duration);
    }
    if let Some(Algorithm::ConsistentHash {
        key: HashKey::SourceIp,
        ..
    }) = policy.load_balancer.map(|balancer| balancer.algorithm)
    {
        let source = kind::hash_policy::PolicySpecifier::SourceIp(kind::hash_policy::SourceIp {});
        proxy.hash_policy = vec![kind::HashPolicy {
            policy_specifier: Some(source),
        }];
    }
    proxy.tunneling_config = policy.tunnel.map(|tunnel| TunnelingConfig {
        hostname: format!("{}:{}", tunnel.target_host, tunnel.target_port),
        use_post: tunnel.use_post,
        ..Default::default()
    });
}

/// Tells the other side who speaks, on TCP; not in stock Envoy.
pub(super) fn metadata_exchange(inputs: &ListenerInputs) -> Option<Filter> {
    let config = json!({"enable_discovery": true, "protocol": "istio-peer-exchange"});
    let typed = wire::typed_struct(
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        &config,
    );
    (!inputs.client.is_envoy_without_istio_filters)
        .then(|| http::network_filter_of("istio.metadata_exchange", typed))
}
