use crate::testing::{decode, refused};

#[test]
fn a_static_resource_that_is_wrong_is_named_by_its_place() {
    let found = decode(
        "{node: {id: a}, static_resources: {clusters: [{name: ok}, {name: bad, connect_timeout: -1s}]}}",
        super::bootstrap,
    );
    assert_eq!(
        refused(found).0,
        "static_resources.clusters[1].connect_timeout"
    );
}

#[test]
fn a_node_needs_an_id_and_ads_a_grpc_service() {
    assert_eq!(refused(decode("{}", super::bootstrap)).0, "node");
    assert_eq!(refused(decode("{node: {}}", super::bootstrap)).0, "node.id");
    let rest = "{node: {id: a}, dynamic_resources: {ads_config: {api_type: REST}}}";
    assert_eq!(
        refused(decode(rest, super::bootstrap)).0,
        "dynamic_resources.ads_config.api_type"
    );
}
