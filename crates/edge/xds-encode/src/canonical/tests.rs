#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::HashMap;

use prost_reflect::{Kind, MessageDescriptor};
use wire_envoy::Descriptors;
use wire_envoy::pb::{
    self,
    rbac::{Policy, Rbac},
};

use super::*;

const KNOWN: [&str; 25] = [
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.cluster.v3.Cluster.TransportSocketMatch",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.endpoint.v3.LocalityLbEndpoints",
    "envoy.config.endpoint.v3.LbEndpoint",
    METADATA,
    STRUCT,
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    "envoy.config.listener.v3.Listener",
    CHAIN,
    ROUTES,
    "envoy.config.route.v3.VirtualHost",
    "envoy.config.route.v3.Route",
    "envoy.config.route.v3.RouteAction",
    "envoy.config.route.v3.WeightedCluster",
    "envoy.config.route.v3.WeightedCluster.ClusterWeight",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.network.rbac.v3.RBAC",
    RULES,
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.config.core.v3.SubstitutionFormatString",
    "udpa.type.v1.TypedStruct",
    "envoy.config.trace.v3.ZipkinConfig",
];

fn value_type(message: &MessageDescriptor, number: u64) -> (bool, Option<String>) {
    let field = message
        .get_field(u32::try_from(number).unwrap())
        .unwrap_or_else(|| panic!("{} has no field {number}", message.full_name()));
    let Kind::Message(inner) = field.kind() else {
        panic!("{} is no message", field.full_name())
    };
    if !field.is_map() {
        return (false, Some(inner.full_name().to_owned()));
    }
    match inner.map_entry_value_field().kind() {
        Kind::Message(value) => (true, Some(value.full_name().to_owned())),
        _ => (true, None),
    }
}

#[test]
fn the_table_says_what_the_descriptors_say() {
    let descriptors = Descriptors::load().unwrap();
    for name in KNOWN {
        let message = descriptors.message(name).unwrap();
        for (number, holds) in fields(name) {
            match (*holds, value_type(&message, *number)) {
                (Holds::Message(wanted), (false, Some(found)))
                | (Holds::MapTo(wanted), (true, Some(found))) => {
                    assert_eq!(wanted, found, "{name} field {number}")
                }
                (Holds::Map, (true, _)) => {}
                (holds, found) => panic!("{name} field {number}: {holds:?} but {found:?}"),
            }
        }
        // Every map of a known message is in the table.
        for field in message.fields().filter(|field| field.is_map()) {
            let listed = fields(name)
                .iter()
                .any(|(number, _)| *number == u64::from(field.number()));
            assert!(
                listed || field.name() == "named_endpoints",
                "{} is not in the table",
                field.full_name()
            );
        }
    }
}

fn rules(count: usize) -> Rbac {
    let policies: HashMap<String, Policy> = (0..count)
        .map(|i| {
            (
                format!("policy-{i}"),
                Policy {
                    permissions: vec![Default::default(); i % 3],
                    ..Default::default()
                },
            )
        })
        .collect();
    Rbac {
        policies,
        ..Default::default()
    }
}

#[test]
fn the_same_message_has_the_same_bytes() {
    let first = packed(&rules(50));
    for _ in 0..20 {
        assert_eq!(packed(&rules(50)), first);
    }
    assert_eq!(wire_envoy::unpack::<Rbac>(&first).unwrap(), rules(50));
}

#[test]
fn nested_structs_are_put_in_order() {
    let json = serde_json::json!({"z": {"b": 1, "a": [{"y": 1, "x": 2, "w": 3}], "c": "d"}, "k": true, "m": null});
    let message = || pb::cluster::Cluster {
        name: "one".into(),
        metadata: Some(crate::wire::metadata([
            ("istio", json.clone()),
            ("other", json.clone()),
            ("third", json.clone()),
        ])),
        ..Default::default()
    };
    let first = packed(&message());
    for _ in 0..20 {
        assert_eq!(packed(&message()), first);
    }
    assert_eq!(
        wire_envoy::unpack::<pb::cluster::Cluster>(&first).unwrap(),
        message()
    );
}
