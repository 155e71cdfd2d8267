//! What the controllers would make of objects, with nothing running: the pods, endpoints and
//! addresses of a machine that is not there.
//!
//! The same store, admission, injection and controllers as in the runtime, in memory. Pods count as
//! running and ready as soon as they are made, with addresses in the order of their making; names
//! that would be random are numbered. So the same objects give the same result each time.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::action::{Action, carry_out};
use super::decide;
use crate::control::control_service;
use crate::names::{CONTROL_IMAGE, NODE_NAME, SYSTEM_NAMESPACE};
use crate::object;
use crate::source;
use crate::store::kinds::{ALL, NAMESPACES, NODES, PODS, SERVICES, by_object};
use crate::store::{Refusal, Store};
use inject::{Injection, inject};

/// Rounds of controllers before the rest is given up; each Deployment needs about four.
const MAX_ROUNDS: usize = 500;
/// Pods are numbered from 10.244.0.2 on, as the runtime does it.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([10, 244, 0, 2]);

/// What would be there.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// Every object, the made ones too.
    pub objects: Vec<Arc<Value>>,
    /// What was refused, by the index of the object that was given, and why.
    pub refused: Vec<(usize, String)>,
}

/// Plays the machine with these objects to its end.
pub fn rehearse(given: &[Value], injection: Injection) -> Rehearsal {
    let store = Store::default();
    store.set_mutator(std::sync::Arc::new(
        move |kind, object, namespace| match kind.kind {
            "Pod" => inject(object, namespace, &injection).map_err(Refusal::Invalid),
            _ => Ok(()),
        },
    ));
    for name in ["default", "kube-system", SYSTEM_NAMESPACE] {
        let _ = store.create(&NAMESPACES, json!({"metadata": {"name": name}}));
    }
    let _ = store.create(
        &NODES,
        json!({"metadata": {"name": NODE_NAME, "labels": {"kubernetes.io/hostname": NODE_NAME}}}),
    );
    control_plane(&store);
    let mut refused = Vec::new();
    let mut order: Vec<usize> = (0..given.len()).collect();
    order.sort_by_key(|index| {
        given
            .get(*index)
            .is_none_or(|object| object::text(object, "/kind") != "Namespace")
    });
    for index in order {
        let Some(object) = given.get(index) else {
            continue;
        };
        let Some(kind) = by_object(
            object::text(object, "/apiVersion"),
            object::text(object, "/kind"),
        ) else {
            continue;
        };
        if let Err(refusal) = source::apply(&store, kind, object, None) {
            refused.push((index, refusal.to_string()));
        }
    }
    settle(&store);
    refused.sort_unstable();
    Rehearsal {
        objects: ALL.iter().flat_map(|kind| store.all(kind)).collect(),
        refused,
    }
}

/// The control plane comes first in the runtime too, so that it has the first Service address and
/// the first pod.
fn control_plane(store: &Store) {
    let labels = json!({"app": "istiod", "istio": "pilot", "sidecar.istio.io/inject": "false"});
    let containers = json!([{"name": "discovery", "image": CONTROL_IMAGE}]);
    let _ = store.create(&SERVICES, control_service());
    let _ = store.create(
        &PODS,
        json!({"metadata": {"name": "istiod", "namespace": SYSTEM_NAMESPACE, "labels": labels},
            "spec": {"serviceAccountName": "istiod", "containers": containers}}),
    );
}

fn settle(store: &Store) {
    let mut address = FIRST_ADDRESS;
    let mut number = 0_u32;
    for _ in 0..MAX_ROUNDS {
        let before = *store.version().borrow();
        for action in decide(store) {
            carry_out(store, numbered(action, &mut number));
        }
        for pod in store.all(&PODS) {
            if object::text(&pod, "/status/podIP").is_empty() {
                store.set_status(
                    &PODS,
                    object::namespace(&pod),
                    object::name(&pod),
                    running(Ipv4Addr::from(address)),
                );
                address += 1;
            }
        }
        if *store.version().borrow() == before {
            return;
        }
    }
    tracing::warn!("the controllers do not come to rest");
}

/// A name in place of one that the store would make up.
fn numbered(action: Action, number: &mut u32) -> Action {
    let Action::Create(kind, mut object) = action else {
        return action;
    };
    let prefix = object::text(&object, "/metadata/generateName").to_string();
    if object::name(&object).is_empty() && !prefix.is_empty() {
        *number += 1;
        object::set_metadata(&mut object, "name", format!("{prefix}{number:05}"));
    }
    Action::Create(kind, object)
}

fn running(address: Ipv4Addr) -> Value {
    let address = address.to_string();
    json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.244.0.1",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use inject::ProxyKind;

    fn objects() -> Vec<Value> {
        let labels = json!({"app": "a"});
        let containers = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 8080, "name": "http"}]}]);
        vec![
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "n"}, "spec": {"replicas": 3, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}, "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "http"}]}}),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"istio-injection": "enabled"}}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b", "namespace": "missing"}, "spec": {}}),
        ]
    }

    fn injection() -> Injection {
        Injection {
            proxy: ProxyKind::Tanbark,
            trust_domain: "cluster.local".into(),
        }
    }

    #[test]
    fn pods_with_proxies_and_endpoints_come_of_a_deployment_and_a_service() {
        let result = rehearse(&objects(), injection());
        let of = |kind: &str| -> Vec<&Arc<Value>> {
            result
                .objects
                .iter()
                .filter(|object| object::text(object, "/kind") == kind)
                .collect()
        };
        let pods = of("Pod");
        assert_eq!(pods.len(), 4, "three and the control plane");
        assert!(
            pods.iter()
                .filter(|pod| object::namespace(pod) == "n")
                .all(|pod| object::text(pod, "/spec/initContainers/0/name") == "istio-proxy")
        );
        let endpoints: Vec<&Value> = of("EndpointSlice")
            .iter()
            .filter(|slice| object::namespace(slice) == "n")
            .flat_map(|slice| object::list(slice, "/endpoints"))
            .collect();
        assert_eq!(endpoints.len(), 3);
        assert_eq!(result.refused.len(), 1, "{:?}", result.refused);
        assert_eq!(result.refused[0].0, 3);
    }

    #[test]
    fn the_same_objects_give_the_same_pods() {
        let names = || -> Vec<(String, String)> {
            let result = rehearse(&objects(), injection());
            let pods = result
                .objects
                .iter()
                .filter(|object| object::text(object, "/kind") == "Pod");
            pods.map(|pod| {
                (
                    object::name(pod).to_string(),
                    object::text(pod, "/status/podIP").to_string(),
                )
            })
            .collect()
        };
        assert_eq!(names(), names());
    }
}
