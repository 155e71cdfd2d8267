//! Scenarios of the captures: what a real istiod was given, as a snapshot and clients.

use std::sync::Arc;

use captures::Scenario;
use mesh_model::Snapshot;
use serde_json::Value as Json;
use wire_envoy::{Descriptors, Unknown, pb};
use xds_encode::Client;

/// EnvoyFilter, the Gateway API and proxyless gRPC are not served; what they change would only hide other differences.
const NOT_SERVED: [&str; 3] = ["15-envoyfilter", "16-gateway-api", "18-grpc-xds"];

/// The scenarios that we serve, in order.
pub fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    captures::scenarios()
        .iter()
        .filter(|scenario| !NOT_SERVED.contains(&scenario.name()))
}

fn documents(name: &str, text: &str) -> Vec<Arc<Json>> {
    let documents = wire_kube::manifest::load(name, text).unwrap_or_else(|e| panic!("{name}: {e}"));
    documents
        .into_iter()
        .map(|document| Arc::new(document.object))
        .collect()
}

pub fn snapshot(scenario: &Scenario) -> Arc<Snapshot> {
    let mesh = documents("mesh.yaml", &scenario.own_or_general("mesh.yaml"));
    let (mesh, _) = ingest::parse_mesh(mesh.first().expect("a mesh configuration"));
    let mut store = ingest::Store::new(mesh.expect("a good mesh configuration"));
    let objects = [
        ("base.yaml", captures::general("base.yaml")),
        ("input.yaml", scenario.input()),
    ];
    for (name, text) in objects {
        for object in documents(name, &text) {
            store.apply(object);
        }
    }
    store.build()
}

/// Who asked: `sidecar` or `gateway`.
pub fn client(descriptors: &Descriptors, scenario: &Scenario, who: &str) -> Arc<Client> {
    let text = scenario.own_or_general(&format!("node-{who}.json"));
    let json: Json = serde_json::from_str(&text).expect("JSON");
    let node: pb::core::Node = descriptors.from_json(json, Unknown::Deny).expect("a node");
    Arc::new(Client::from_node(&node).expect("a client"))
}
