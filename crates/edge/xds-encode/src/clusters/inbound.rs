//! Clusters of a sidecar's own ports: `inbound|<port>||`, and the one for ports that no service declares.
//!
//! Connections to the application come from 127.0.0.6, which tells them from the application's own traffic to itself.

use mesh_model::destination_rule::{ConnectionPool, TrafficPolicy};
use serde_json::json;
use std::time::Duration;
use wire_envoy::pb::{
    self,
    cluster::{
        Cluster,
        cluster::{CommonLbConfig, DiscoveryType, LbPolicy},
    },
    core, endpoint,
};

use super::{ClusterInputs, named, outbound, passthrough, policy, protocol};
use crate::{
    inbound::{InboundPort, Target},
    names, wire,
};

/// Practically never: addresses of an original-destination cluster that lies beside the proxy do not grow.
const NEVER: Duration = Duration::from_secs(9_223_372_035);

pub(super) fn clusters(inputs: &ClusterInputs) -> Vec<Cluster> {
    let mut found: Vec<Cluster> = inputs
        .inbound
        .iter()
        .map(|port| cluster(inputs, port))
        .collect();
    let rest = Cluster {
        upstream_bind_config: Some(from_the_proxy(inputs)),
        filters: Vec::new(),
        ..passthrough(inputs, names::INBOUND_PASSTHROUGH)
    };
    found.push(rest);
    found
}

fn from_the_proxy(inputs: &ClusterInputs) -> core::BindConfig {
    outbound::bound_to(if inputs.client.has_ipv4() {
        "127.0.0.6"
    } else {
        "::6"
    })
}

fn cluster(inputs: &ClusterInputs, port: &InboundPort) -> Cluster {
    let name = names::inbound(port.number);
    let rule_policy = port
        .rule
        .as_ref()
        .map(|(number, rule)| rule.policy.for_port(*number))
        .unwrap_or_default();
    let pool = pool(inputs, port, &rule_policy);
    let fixed = |address: core::Address| {
        let host = endpoint::Endpoint {
            address: Some(address),
            ..Default::default()
        };
        let host = endpoint::LbEndpoint {
            host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
            ..Default::default()
        };
        let group = endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![host],
            ..Default::default()
        };
        let assignment = pb::endpoint::ClusterLoadAssignment {
            cluster_name: name.clone(),
            endpoints: vec![group],
            ..Default::default()
        };
        Cluster {
            load_assignment: Some(assignment),
            ..named(name.clone(), DiscoveryType::Static, &inputs.mesh)
        }
    };
    let mut cluster = match &port.target {
        Target::Original => Cluster {
            lb_policy: LbPolicy::ClusterProvided.into(),
            cleanup_interval: Some(wire::duration(NEVER)),
            ..named(name, DiscoveryType::OriginalDst, &inputs.mesh)
        },
        Target::Loopback(address) => fixed(wire::socket_address(
            &address.ip().to_string(),
            address.port(),
        )),
        Target::Pod(port) => fixed(wire::socket_address(
            &inputs.client.address().to_string(),
            *port,
        )),
        Target::Unix(path) => fixed(wire::pipe(path)),
    };
    if !matches!(port.target, Target::Loopback(_)) {
        cluster.upstream_bind_config = Some(from_the_proxy(inputs));
    }
    if let Some(timeout) = pool.tcp.connect_timeout {
        cluster.connect_timeout = Some(wire::duration(timeout));
    }
    cluster.circuit_breakers = Some(policy::circuit_breakers(&pool, None));
    cluster.upstream_connection_options = policy::keepalive(&pool, &inputs.mesh);
    cluster.typed_extension_protocol_options = protocol::inbound(port, &pool);
    cluster.common_lb_config = Some(CommonLbConfig::default());
    cluster.metadata = metadata(port);
    cluster
}

/// Limits towards the application: the Sidecar's for the port or for all, else those of the service's DestinationRule, else the mesh's.
fn pool(inputs: &ClusterInputs, port: &InboundPort, rule: &TrafficPolicy) -> ConnectionPool {
    let sidecar = inputs
        .sidecar
        .as_ref()
        .and_then(|sidecar| sidecar.inbound_connection_pool.as_ref());
    let default = inputs.mesh.default_traffic_policy.connection_pool.as_ref();
    port.connection_pool
        .as_ref()
        .or(sidecar)
        .or(rule.connection_pool.as_ref())
        .or(default)
        .cloned()
        .unwrap_or_default()
}

fn metadata(port: &InboundPort) -> Option<core::Metadata> {
    let mut fields = serde_json::Map::new();
    if let Some((_, rule)) = &port.rule {
        fields.insert("config".to_owned(), wire::config_path(&rule.meta).into());
    }
    if !port.services.is_empty() {
        let services: Vec<_> = port
            .services
            .iter()
            .map(|service| outbound::service_note(service))
            .collect();
        fields.insert("services".to_owned(), json!(services));
    }
    (!fields.is_empty()).then(|| wire::metadata([("istio", fields.into())]))
}
