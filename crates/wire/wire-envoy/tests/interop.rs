//! Every answer captured from a real istiod: its bytes, written as JSON, are the JSON that Go wrote.

use std::path::{Path, PathBuf};

use prost::Message;
use serde_json::Value as Json;
use wire_envoy::{Descriptors, Names, Unknown, pb};

fn shared() -> Option<PathBuf> {
    let place = std::env::var_os("TANBARK_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"));
    let found = place.join("interop").is_dir().then_some(place);
    if found.is_none() {
        println!("skipped: no shared data (set TANBARK_SHARED)");
    }
    found
}

/// Go leaves out nothing that is set, and so do we; but what is set to its default inside a wrapper or a oneof is equal either way.
fn resources(json: &Json) -> Vec<Json> {
    json["resources"].as_array().cloned().unwrap_or_default()
}

#[test]
fn captured_answers_print_as_go_prints_them() {
    let Some(shared) = shared() else { return };
    let descriptors = Descriptors::load().expect("built-in");
    let mut compared = 0;
    for scenario in std::fs::read_dir(shared.join("interop")).expect("interop") {
        let scenario = scenario.expect("entry").path();
        if !scenario.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&scenario).expect("scenario") {
            let file = file.expect("entry").path();
            if file.extension().is_none_or(|e| e != "pb") {
                continue;
            }
            let bytes = std::fs::read(&file).expect("capture");
            let answer =
                pb::discovery::DiscoveryResponse::decode(bytes.as_slice()).expect("an answer");
            let text = std::fs::read_to_string(file.with_extension("json")).expect("its JSON");
            let text: Json = serde_json::from_str(&text).expect("JSON");
            assert_eq!(text["typeUrl"], answer.type_url.as_str(), "{file:?}");
            let wanted = resources(&text);
            assert_eq!(wanted.len(), answer.resources.len(), "{file:?}");
            for (resource, wanted) in answer.resources.iter().zip(wanted) {
                let ours = descriptors
                    .any_to_json(resource, Names::Camel)
                    .unwrap_or_else(|e| panic!("{file:?}: {e}"));
                assert_eq!(ours, wanted, "{file:?}");
                let back = descriptors
                    .any_from_json(wanted, Unknown::Deny)
                    .unwrap_or_else(|e| panic!("{file:?}: {e}"));
                assert_eq!(
                    descriptors.any_to_json(&back, Names::Camel).expect("again"),
                    ours
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "only {compared} resources");
}

#[test]
fn captured_bootstraps_are_read_from_their_text() {
    let Some(shared) = shared() else { return };
    let descriptors = Descriptors::load().expect("built-in");
    for name in ["bootstrap-sidecar.json", "bootstrap-gateway.json"] {
        let text = std::fs::read_to_string(shared.join("interop").join(name)).expect("bootstrap");
        let bootstrap: pb::bootstrap::Bootstrap =
            descriptors.from_yaml(&text).expect("a bootstrap");
        assert!(bootstrap.node.is_some_and(|n| !n.id.is_empty()), "{name}");
    }
}
