//! Scenarios of the shared interop folder: what a control plane was given there, as a snapshot and clients.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_model::Snapshot;
use serde_json::Value as Json;
use wire_envoy::{Descriptors, Unknown, pb};
use xds_encode::Client;

/// EnvoyFilter, the Gateway API and proxyless gRPC are not served; what they change would only hide other differences.
const NOT_SERVED: [&str; 3] = ["15-envoyfilter", "16-gateway-api", "18-grpc-xds"];

/// Folders of the scenarios that we serve, in order.
pub fn scenarios(root: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(root)
        .expect("interop")
        .map(|entry| entry.expect("entry").path());
    let mut found: Vec<PathBuf> = folders
        .filter(|path| {
            path.join("input.yaml").is_file() && !NOT_SERVED.iter().any(|name| path.ends_with(name))
        })
        .collect();
    found.sort();
    found
}

pub fn interop() -> Option<PathBuf> {
    let shared = std::env::var_os("TANBARK_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"));
    let place = shared.join("interop");
    if !place.is_dir() {
        println!("skipped: no shared data (set TANBARK_SHARED)");
        return None;
    }
    Some(place)
}

/// A scenario's own file, else the one that all share.
pub fn own_or_shared(root: &Path, scenario: &Path, name: &str) -> PathBuf {
    let own = scenario.join(name);
    if own.is_file() { own } else { root.join(name) }
}

pub fn documents(file: &Path) -> Vec<Arc<Json>> {
    let text = fs::read_to_string(file).expect("input");
    let documents = wire_kube::manifest::load(&file.display().to_string(), &text)
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    documents
        .into_iter()
        .map(|document| Arc::new(document.object))
        .collect()
}

pub fn snapshot(root: &Path, scenario: &Path) -> Arc<Snapshot> {
    let mesh = documents(&own_or_shared(root, scenario, "mesh.yaml"));
    let (mesh, _) = ingest::parse_mesh(mesh.first().expect("a mesh configuration"));
    let mut store = ingest::Store::new(mesh.expect("a good mesh configuration"));
    for file in [root.join("base.yaml"), scenario.join("input.yaml")] {
        for object in documents(&file) {
            store.apply(object);
        }
    }
    store.build()
}

pub fn client(descriptors: &Descriptors, file: &Path) -> Arc<Client> {
    let json: Json = serde_json::from_str(&fs::read_to_string(file).expect("node")).expect("JSON");
    let node: pb::core::Node = descriptors.from_json(json, Unknown::Deny).expect("a node");
    Arc::new(Client::from_node(&node).expect("a client"))
}
