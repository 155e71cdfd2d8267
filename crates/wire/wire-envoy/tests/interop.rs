//! Every answer captured from a real istiod: its bytes, written as JSON, are the JSON that Go wrote.

use prost::Message;
use serde_json::Value as Json;
use wire_envoy::{Descriptors, Names, Unknown, pb};

/// Go leaves out nothing that is set, and so do we; but what is set to its default inside a wrapper or a oneof is equal either way.
fn resources(json: &Json) -> Vec<Json> {
    json["resources"].as_array().cloned().unwrap_or_default()
}

#[test]
fn captured_answers_print_as_go_prints_them() {
    let descriptors = Descriptors::load().expect("built-in");
    let mut compared = 0;
    for scenario in captures::scenarios() {
        for (name, bytes, json) in scenario.answers_twice() {
            let place = format!("{} {name}", scenario.name());
            compared += same_json(&descriptors, &place, bytes, json);
        }
    }
    assert!(compared > 1000, "only {compared} resources");
}

/// How many resources an answer has.
fn same_json(descriptors: &Descriptors, place: &str, bytes: &[u8], json: &[u8]) -> usize {
    let answer = pb::discovery::DiscoveryResponse::decode(bytes).expect("an answer");
    let json: Json = serde_json::from_slice(json).expect("JSON");
    assert_eq!(json["typeUrl"], answer.type_url.as_str(), "{place}");
    let wanted = resources(&json);
    assert_eq!(wanted.len(), answer.resources.len(), "{place}");
    for (resource, wanted) in answer.resources.iter().zip(wanted) {
        let ours = descriptors
            .any_to_json(resource, Names::Camel)
            .unwrap_or_else(|e| panic!("{place}: {e}"));
        assert_eq!(ours, wanted, "{place}");
        let back = descriptors
            .any_from_json(wanted, Unknown::Deny)
            .unwrap_or_else(|e| panic!("{place}: {e}"));
        assert_eq!(
            descriptors.any_to_json(&back, Names::Camel).expect("again"),
            ours
        );
    }
    answer.resources.len()
}

#[test]
fn captured_bootstraps_are_read_from_their_text() {
    let descriptors = Descriptors::load().expect("built-in");
    for name in ["bootstrap-sidecar.json", "bootstrap-gateway.json"] {
        let bootstrap: pb::bootstrap::Bootstrap = descriptors
            .from_yaml(&captures::general(name))
            .expect("a bootstrap");
        assert!(bootstrap.node.is_some_and(|n| !n.id.is_empty()), "{name}");
    }
}
