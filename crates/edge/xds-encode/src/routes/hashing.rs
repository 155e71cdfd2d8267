//! What requests are hashed by, where a DestinationRule asks for it (row TM-041).

use mesh_model::destination_rule::{Algorithm, HashKey};
use wire_envoy::pb::route::route_action::{HashPolicy, hash_policy};

use super::RouteInputs;
use crate::{clusters, wire};

/// What requests to a host are hashed by, as its DestinationRule says.
pub(super) fn hash_policies(
    inputs: &RouteInputs,
    host: &str,
    subset: Option<&str>,
    port: u16,
) -> Vec<HashPolicy> {
    let Some(rule) = inputs.hash_rules.get(host) else {
        return Vec::new();
    };
    let own = subset.and_then(|name| rule.subsets.iter().find(|subset| &*subset.name == name));
    let policy = own.map_or_else(
        || rule.policy.for_port(port),
        |own| clusters::of_subset(&rule.policy, &own.policy, port),
    );
    match policy.load_balancer.map(|balancer| balancer.algorithm) {
        Some(Algorithm::ConsistentHash { key, .. }) => vec![HashPolicy {
            policy_specifier: Some(hashed_by(&key)),
            ..Default::default()
        }],
        _ => Vec::new(),
    }
}

fn hashed_by(key: &HashKey) -> hash_policy::PolicySpecifier {
    use hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
    };
    match key {
        HashKey::Header(name) => PolicySpecifier::Header(Header {
            header_name: name.to_string(),
            ..Default::default()
        }),
        HashKey::Cookie {
            name,
            path,
            ttl,
            attributes,
        } => PolicySpecifier::Cookie(Cookie {
            name: name.to_string(),
            ttl: ttl.map(wire::duration),
            path: path.as_deref().unwrap_or_default().to_owned(),
            attributes: attributes
                .iter()
                .map(|(name, value)| CookieAttribute {
                    name: name.to_string(),
                    value: value.to_string(),
                })
                .collect(),
        }),
        HashKey::SourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
        HashKey::QueryParameter(name) => PolicySpecifier::QueryParameter(QueryParameter {
            name: name.to_string(),
        }),
    }
}
