//! Meshes in which fields are tried: those of the captures, and one for each file of `support`.

use std::{fs, path::Path, sync::Arc};

use ingest::{Key, Store};
use mesh_model::Snapshot;
use serde_json::Value as Json;
use wire_envoy::{Descriptors, Unknown, pb};
use xds_encode::Client;

/// A mesh, who asks in it, and the objects that its own file gives.
pub struct World {
    pub name: String,
    pub mesh: Json,
    pub store: Store,
    pub clients: Vec<Arc<Client>>,
    pub objects: Vec<(Key, Arc<Json>)>,
}

/// The kinds of these are not served: what they show would be nothing.
const NOT_SERVED: [&str; 3] = ["15-envoyfilter", "16-gateway-api", "18-grpc-xds"];

pub fn worlds(descriptors: &Descriptors) -> Vec<World> {
    let served = captures::scenarios()
        .iter()
        .filter(|scenario| !NOT_SERVED.contains(&scenario.name()));
    let captured = served.map(|scenario| {
        let clients =
            ["sidecar", "gateway"].map(|who| scenario.own_or_general(&format!("node-{who}.json")));
        let mesh = scenario.own_or_general("mesh.yaml");
        let name = format!("dev/captures/istiod/{}/input.yaml", scenario.name());
        world(descriptors, name, &mesh, &scenario.input(), &clients)
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("support");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("support")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .filter(|path| !path.to_string_lossy().ends_with(".mesh.yaml"))
        .collect();
    files.sort();
    let own = files.into_iter().map(|file| {
        let stem = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let clients =
            ["sidecar", "gateway"].map(|who| captures::general(&format!("node-{who}.json")));
        let mesh = fs::read_to_string(folder.join(format!("{stem}.mesh.yaml")));
        let mesh = mesh.unwrap_or_else(|_| captures::general("mesh.yaml"));
        let input = fs::read_to_string(&file).expect("objects");
        let name = format!("tests/meaning/support/{stem}.yaml");
        world(descriptors, name, &mesh, &input, &clients)
    });
    // What was written for this goes first: it shows most with the fewest tries.
    own.chain(captured).collect()
}

fn world(
    descriptors: &Descriptors,
    name: String,
    mesh: &str,
    input: &str,
    nodes: &[String],
) -> World {
    let mesh = documents("mesh.yaml", mesh).remove(0);
    let mut store = store(&mesh);
    for object in documents("base.yaml", &captures::general("base.yaml")) {
        store.apply(object);
    }
    let mut objects = Vec::new();
    for object in documents(&name, input) {
        let applied = store.apply(object.clone());
        for problem in &applied.problems {
            if problem.severity == ingest::Severity::Error {
                println!("{name}: {:?}: {problem}", applied.key);
            }
        }
        objects.extend(applied.key.map(|key| (key, object)));
    }
    // The base has most of Kubernetes' objects.
    for object in documents("base.yaml", &captures::general("base.yaml")) {
        objects.extend(Key::of(&object).ok().map(|key| (key, object)));
    }
    let clients = nodes.iter().map(|node| {
        let json: Json = serde_json::from_str(node).expect("JSON");
        let node: pb::core::Node = descriptors.from_json(json, Unknown::Deny).expect("a node");
        Arc::new(Client::from_node(&node).expect("a client"))
    });
    World {
        name,
        clients: clients.collect(),
        mesh: (*mesh).clone(),
        store,
        objects,
    }
}

/// A store with nothing in it under this mesh configuration.
pub fn store(mesh: &Json) -> Store {
    let (mesh, _) = ingest::parse_mesh(mesh);
    Store::new(mesh.expect("a good mesh configuration"))
}

impl World {
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.store.build()
    }
}

fn documents(name: &str, text: &str) -> Vec<Arc<Json>> {
    let documents =
        wire_kube::manifest::load(name, text).unwrap_or_else(|error| panic!("{name}: {error}"));
    documents
        .into_iter()
        .map(|document| Arc::new(document.object))
        .collect()
}
