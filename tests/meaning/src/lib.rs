//! What configuration means: YAML → `ingest` → view → `xds-encode` → `xds-decode` → the proxy's own decisions, without a socket.
//!
//! A [`World`] is a mesh out of YAML; each of its pods can be asked what its proxy would do with a connection and a request
//! ([`World::ask`]). Questions are one line, answers are one line:
//!
//! ```text
//! client > 10.96.0.1:80 GET /a host=web end-user=jason      outbound, through the listener of that address
//! web < 8080 GET /a from=default/client                     inbound over mutual TLS, by that service account
//! web < 8080 GET /a                                         inbound in plaintext
//! gate > 0.0.0.0:8080 GET / host=shop.example               a gateway's port; `sni=` for TLS
//! ```
//!
//! The decisions are the ones that serve traffic (`match_chain`, `match_route`, `rbac::decide`); nothing is decided here.

use std::sync::Arc;

use mesh_model::Snapshot;
use serde_json::{Value as Json, json};
use wire_envoy::{Descriptors, Unknown, pb};
use xds_encode::Client;

mod answer;
mod question;

use answer::Proxy;
use question::Question;

/// A mesh as its control plane sees it.
pub struct World {
    snapshot: Arc<Snapshot>,
    pods: Vec<Arc<Client>>,
}

impl World {
    /// Reads objects. Panics where a case itself is wrong: its YAML, or an object with an error.
    pub fn new(yaml: &str) -> Self {
        let mut store = ingest::Store::new(ingest::default_mesh());
        let mut pods = Vec::new();
        let descriptors = Descriptors::load().expect("built-in");
        for document in wire_kube::manifest::load("case.yaml", yaml).expect("YAML") {
            if document.object["kind"] == "Pod" {
                pods.push(client_of(&descriptors, &document.object));
            }
            store.apply(Arc::new(document.object));
        }
        let errors: Vec<String> = store
            .problems()
            .filter(|(_, problem)| problem.severity == ingest::Severity::Error)
            .map(|(key, problem)| format!("{key:?}: {problem}"))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        Self {
            snapshot: store.build(),
            pods,
        }
    }

    /// What the proxy of a pod would do.
    pub fn ask(&self, question: &str) -> String {
        let question = Question::parse(question);
        let pod = self
            .pods
            .iter()
            .find(|pod| *pod.name == *question.pod)
            .unwrap_or_else(|| panic!("no pod {}", question.pod));
        Proxy::new(&self.snapshot, pod).answer(&question)
    }
}

/// A pod's proxy, as its node would describe itself: a gateway where the pod has the label `istio`, else a sidecar.
fn client_of(descriptors: &Descriptors, pod: &Json) -> Arc<Client> {
    let text = |pointer: &str| {
        pod.pointer(pointer)
            .and_then(Json::as_str)
            .unwrap_or_default()
    };
    let (name, namespace, address) = (
        text("/metadata/name"),
        text("/metadata/namespace"),
        text("/status/podIP"),
    );
    let labels = &pod["metadata"]["labels"];
    let kind = if labels["istio"].is_string() {
        "router"
    } else {
        "sidecar"
    };
    let node = json!({
        "id": format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        "cluster": format!("{name}.{namespace}"),
        "metadata": {
            "NAME": name, "NAMESPACE": namespace, "LABELS": labels, "SERVICE_ACCOUNT": text("/spec/serviceAccountName"),
            "ISTIO_VERSION": "1.31.0", "UNPRIVILEGED_POD": "true",
        },
    });
    let node: pb::core::Node = descriptors.from_json(node, Unknown::Deny).expect("a node");
    Arc::new(Client::from_node(&node).expect("a client"))
}
