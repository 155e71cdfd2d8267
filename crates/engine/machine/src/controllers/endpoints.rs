//! Endpoints: for each Service with a selector one EndpointSlice (and the older Endpoints object)
//! of its pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::action::{Action, finished, ready};
use crate::names::NODE_NAME;
use crate::object;
use crate::probe::port_of;
use crate::store::Store;
use crate::store::kinds::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use crate::store::selector::Labels;

/// What is to be done about the endpoints of all Services.
pub fn decide(store: &Store, pods: &[Arc<Value>]) -> Vec<Action> {
    let mut actions = Vec::new();
    for service in store.all(&SERVICES) {
        let selector = object::texts(&service, "/spec/selector");
        if selector.is_empty() || object::text(&service, "/spec/type") == "ExternalName" {
            continue;
        }
        let chosen = chosen_pods(&service, selector, pods);
        let namespace = object::namespace(&service);
        for (number, slice) in slices(&service, &chosen).into_iter().enumerate() {
            let name = if number == 0 {
                format!("{}-tanbark", object::name(&service))
            } else {
                format!("{}-tanbark-{number}", object::name(&service))
            };
            actions.extend(put(
                store,
                &ENDPOINT_SLICES,
                namespace,
                &name,
                slice,
                &["addressType", "endpoints", "ports"],
            ));
        }
        let endpoints = endpoints_object(&service, &chosen);
        actions.extend(put(
            store,
            &ENDPOINTS,
            namespace,
            object::name(&service),
            endpoints,
            &["subsets"],
        ));
        actions.extend(obsolete(store, &service, &chosen));
    }
    actions
}

/// A pod with the ports it has for the Service.
struct Chosen<'a> {
    pod: &'a Value,
    ready: bool,
    ports: Vec<Option<u16>>,
}

fn chosen_pods<'a>(
    service: &Value,
    selector: BTreeMap<String, String>,
    pods: &'a [Arc<Value>],
) -> Vec<Chosen<'a>> {
    let selector = Labels::of_map(selector);
    let early = object::flag(service, "/spec/publishNotReadyAddresses");
    let fits = |pod: &&Arc<Value>| {
        object::namespace(pod) == object::namespace(service)
            && !object::text(pod, "/status/podIP").is_empty()
            && !finished(pod)
            && selector.matches(pod)
    };
    let mut chosen: Vec<Chosen<'a>> = pods
        .iter()
        .filter(fits)
        .map(|pod| {
            let containers: Vec<Value> = object::list(pod, "/spec/containers")
                .iter()
                .chain(object::list(pod, "/spec/initContainers"))
                .cloned()
                .collect();
            let ports = object::list(service, "/spec/ports")
                .iter()
                .map(|port| port_of(port.get("targetPort"), &containers))
                .collect();
            Chosen {
                pod,
                ready: early || (ready(pod) && !object::deleting(pod)),
                ports,
            }
        })
        .collect();
    chosen.sort_by_key(|chosen| object::name(chosen.pod).to_string());
    chosen
}

/// One slice for each set of target ports: named ports may differ from pod to pod.
fn slices(service: &Value, chosen: &[Chosen<'_>]) -> Vec<Value> {
    let mut groups: BTreeMap<Vec<Option<u16>>, Vec<&Chosen<'_>>> = BTreeMap::new();
    for pod in chosen {
        groups.entry(pod.ports.clone()).or_default().push(pod);
    }
    if groups.is_empty() {
        let ports = object::list(service, "/spec/ports")
            .iter()
            .map(|port| port_of(port.get("targetPort"), &[]))
            .collect();
        groups.insert(ports, Vec::new());
    }
    let of_group = |(ports, pods): (Vec<Option<u16>>, Vec<&Chosen<'_>>)| {
        let endpoints: Vec<Value> = pods.iter().map(|chosen| endpoint(chosen)).collect();
        json!({
            "metadata": {
                "namespace": object::namespace(service),
                "labels": {"kubernetes.io/service-name": object::name(service), "endpointslice.kubernetes.io/managed-by": "tanbark"},
                "ownerReferences": [object::owner_reference(service)],
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": slice_ports(service, &ports),
        })
    };
    groups.into_iter().map(of_group).collect()
}

fn slice_ports(service: &Value, targets: &[Option<u16>]) -> Vec<Value> {
    let ports = object::list(service, "/spec/ports").iter().zip(targets);
    let known = ports.filter_map(|(port, target)| {
        let mut entry = json!({"name": object::text(port, "/name"), "port": (*target)?, "protocol": object::text(port, "/protocol")});
        if let Some(protocol) = port.get("appProtocol") {
            entry["appProtocol"] = protocol.clone();
        }
        Some(entry)
    });
    known.collect()
}

fn endpoint(chosen: &Chosen<'_>) -> Value {
    let pod = chosen.pod;
    let terminating = object::deleting(pod);
    let mut endpoint = json!({
        "addresses": [object::text(pod, "/status/podIP")],
        "conditions": {"ready": chosen.ready, "serving": ready(pod) || chosen.ready, "terminating": terminating},
        "nodeName": NODE_NAME,
        "targetRef": {"kind": "Pod", "name": object::name(pod), "namespace": object::namespace(pod), "uid": object::uid(pod)},
    });
    let hostname = object::text(pod, "/spec/hostname");
    if !hostname.is_empty() && !object::text(pod, "/spec/subdomain").is_empty() {
        endpoint["hostname"] = hostname.into();
    }
    endpoint
}

fn endpoints_object(service: &Value, chosen: &[Chosen<'_>]) -> Value {
    let address = |chosen: &&Chosen<'_>| {
        let pod = chosen.pod;
        json!({"ip": object::text(pod, "/status/podIP"), "nodeName": NODE_NAME,
            "targetRef": {"kind": "Pod", "name": object::name(pod), "namespace": object::namespace(pod), "uid": object::uid(pod)}})
    };
    let mut groups: BTreeMap<&Vec<Option<u16>>, Vec<&Chosen<'_>>> = BTreeMap::new();
    for pod in chosen {
        groups.entry(&pod.ports).or_default().push(pod);
    }
    let subsets: Vec<Value> = groups
        .into_iter()
        .map(|(ports, pods)| {
            let (ready, not_ready): (Vec<&Chosen<'_>>, Vec<&Chosen<'_>>) =
                pods.into_iter().partition(|chosen| chosen.ready);
            let mut subset = json!({"ports": slice_ports(service, ports)});
            for (key, pods) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                if !pods.is_empty() {
                    subset[key] = pods.iter().map(address).collect::<Vec<_>>().into();
                }
            }
            subset
        })
        .collect();
    json!({
        "metadata": {"namespace": object::namespace(service), "ownerReferences": [object::owner_reference(service)]},
        "subsets": subsets,
    })
}

/// Creates the object or changes the given fields of the present one.
fn put(
    store: &Store,
    kind: &'static crate::store::kinds::Kind,
    namespace: &str,
    name: &str,
    mut wanted: Value,
    fields: &[&str],
) -> Option<Action> {
    object::set_metadata(&mut wanted, "name", name);
    let Some(present) = store.find(kind, namespace, name) else {
        return Some(Action::Create(kind, wanted));
    };
    if fields
        .iter()
        .all(|field| present.get(field) == wanted.get(field))
    {
        return None;
    }
    let mut next = (*present).clone();
    for field in fields {
        next[*field] = wanted.get(field).cloned().unwrap_or_default();
    }
    Some(Action::Update(kind, next))
}

/// Further slices that are no longer needed.
fn obsolete(store: &Store, service: &Value, chosen: &[Chosen<'_>]) -> Vec<Action> {
    let groups: std::collections::BTreeSet<&Vec<Option<u16>>> =
        chosen.iter().map(|chosen| &chosen.ports).collect();
    let prefix = format!("{}-tanbark-", object::name(service));
    let slices = store
        .list(&ENDPOINT_SLICES, Some(object::namespace(service)))
        .0;
    let beyond = slices.iter().filter(|slice| {
        let number = object::name(slice)
            .strip_prefix(&prefix)
            .and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|number| number >= groups.len().max(1))
            && object::controlled_by(slice, service)
    });
    beyond
        .map(|slice| Action::delete(&ENDPOINT_SLICES, slice))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kinds::NAMESPACES;

    #[test]
    fn a_pod_is_an_endpoint_while_ready_and_named_ports_are_its_own() {
        let store = Store::default();
        store
            .create(&NAMESPACES, json!({"metadata": {"name": "n"}}))
            .expect("a namespace");
        let service = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"selector": {"a": "b"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}});
        store.create(&SERVICES, service).expect("a service");
        let pod = |name: &str, address: &str, port: u16, ready: &str| {
            Arc::new(json!({
                "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"a": "b"}},
                "spec": {"containers": [{"ports": [{"name": "web", "containerPort": port}]}]},
                "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": ready}]},
            }))
        };
        let pods = [
            pod("p", "10.244.0.2", 8080, "True"),
            pod("q", "10.244.0.3", 9090, "False"),
        ];
        for action in decide(&store, &pods) {
            super::super::action::carry_out(&store, action);
        }
        let slices = store.all(&ENDPOINT_SLICES);
        assert_eq!(slices.len(), 2);
        assert_eq!(slices[0]["ports"][0]["port"], 8080);
        assert_eq!(slices[0]["endpoints"][0]["conditions"]["ready"], true);
        assert_eq!(slices[1]["endpoints"][0]["conditions"]["ready"], false);
        assert!(decide(&store, &pods).is_empty());
        for action in decide(&store, &pods[..1]) {
            super::super::action::carry_out(&store, action);
        }
        assert_eq!(store.all(&ENDPOINT_SLICES).len(), 1);
    }
}
