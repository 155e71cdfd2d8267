//! Objects as rows: the columns of each kind, as kubectl and Istio's CRDs print them. Pure.
//!
//! The API answers with them where a client asks for a `Table`, as kubectl does; the command line
//! prints the same. A kind is given by its group and name, so that the columns do not depend on the
//! version asked for.

mod cells;
mod pod;
pub mod words;
mod workload;

use serde_json::{Value, json};

use crate::object::{list, name, text};
use cells::{framed, number};
use words::{ago, condition, condition_status, or_none, pairs, plain, shortened};

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// `CLUSTER-IP`
    pub title: &'static str,
    /// Only with `-o wide`.
    pub wide: bool,
}

/// A kind's columns, in their order. A `+` marks one of `-o wide`.
fn titles(group: &str, kind: &str) -> &'static str {
    match (group, kind) {
        ("", "Pod") => "NAME|READY|STATUS|RESTARTS|AGE|+IP|+NODE|+NOMINATED NODE|+READINESS GATES",
        ("", "Service") => "NAME|TYPE|CLUSTER-IP|EXTERNAL-IP|PORT(S)|AGE|+SELECTOR",
        ("", "Namespace") => "NAME|STATUS|AGE",
        ("", "Node") => {
            "NAME|STATUS|ROLES|AGE|VERSION|+INTERNAL-IP|+EXTERNAL-IP|+OS-IMAGE|+KERNEL-VERSION|+CONTAINER-RUNTIME"
        }
        ("", "ConfigMap") => "NAME|DATA|AGE",
        ("", "Secret") => "NAME|TYPE|DATA|AGE",
        ("", "ServiceAccount") => "NAME|SECRETS|AGE",
        ("", "Endpoints") => "NAME|ENDPOINTS|AGE",
        ("", "Event") => {
            "LAST SEEN|TYPE|REASON|OBJECT|+SUBOBJECT|+SOURCE|MESSAGE|+FIRST SEEN|+COUNT|+NAME"
        }
        ("apps", "Deployment") => {
            "NAME|READY|UP-TO-DATE|AVAILABLE|AGE|+CONTAINERS|+IMAGES|+SELECTOR"
        }
        ("apps", "ReplicaSet") => "NAME|DESIRED|CURRENT|READY|AGE|+CONTAINERS|+IMAGES|+SELECTOR",
        ("apps", "StatefulSet") => "NAME|READY|AGE|+CONTAINERS|+IMAGES",
        ("apps", "DaemonSet") => {
            "NAME|DESIRED|CURRENT|READY|UP-TO-DATE|AVAILABLE|NODE SELECTOR|AGE|+CONTAINERS|+IMAGES|+SELECTOR"
        }
        ("batch", "Job") => "NAME|STATUS|COMPLETIONS|DURATION|AGE|+CONTAINERS|+IMAGES|+SELECTOR",
        ("discovery.k8s.io", "EndpointSlice") => "NAME|ADDRESSTYPE|PORTS|ENDPOINTS|AGE",
        ("coordination.k8s.io", "Lease") => "NAME|HOLDER|AGE",
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") | ("apiextensions.k8s.io", _) => {
            "NAME|CREATED AT"
        }
        ("rbac.authorization.k8s.io", _) => "NAME|ROLE|AGE",
        ("networking.istio.io", "VirtualService") => "NAME|GATEWAYS|HOSTS|AGE",
        ("networking.istio.io", "DestinationRule") => "NAME|HOST|AGE",
        ("networking.istio.io", "ServiceEntry") => "NAME|HOSTS|LOCATION|RESOLUTION|AGE",
        ("networking.istio.io", "WorkloadEntry") => "NAME|AGE|ADDRESS",
        ("security.istio.io", "PeerAuthentication") => "NAME|MODE|AGE",
        ("security.istio.io", "AuthorizationPolicy") => "NAME|ACTION|AGE",
        ("gateway.networking.k8s.io", "GatewayClass") => {
            "NAME|CONTROLLER|ACCEPTED|AGE|+DESCRIPTION"
        }
        ("gateway.networking.k8s.io", "Gateway") => "NAME|CLASS|ADDRESS|PROGRAMMED|AGE",
        ("gateway.networking.k8s.io", "HTTPRoute" | "GRPCRoute") => "NAME|HOSTNAMES|AGE",
        ("gateway.networking.k8s.io", "ListenerSet") => "NAME|ACCEPTED|PROGRAMMED|AGE",
        _ => "NAME|AGE",
    }
}

/// A kind's columns.
pub fn columns(group: &str, kind: &str) -> Vec<Column> {
    titles(group, kind)
        .split('|')
        .map(|title| match title.strip_prefix('+') {
            Some(title) => Column { title, wide: true },
            None => Column { title, wide: false },
        })
        .collect()
}

/// One object's cells, one for each of [`columns`].
pub fn row(group: &str, kind: &str, object: &Value, now: jiff::Timestamp) -> Vec<String> {
    match (group, kind) {
        ("", "Pod") => pod::row(object, now),
        ("", "Event") => event(object, now),
        ("", "Service") => service(object, now),
        ("apps" | "batch", _) => workload::row(kind, object, now),
        ("networking.istio.io" | "security.istio.io", _) => istio(kind, object, now),
        ("gateway.networking.k8s.io", _) => gateway_api(kind, object, now),
        _ => others(group, kind, object, now),
    }
}

/// A Kubernetes `Table` of objects; rows carry as much of their objects as was asked for.
pub fn table(
    group: &str,
    kind: &str,
    objects: &[Value],
    carried: Carried,
    now: jiff::Timestamp,
) -> Value {
    let definitions: Vec<Value> = columns(group, kind)
        .iter()
        .map(|Column { title, wide }| {
            let format = if *title == "NAME" { "name" } else { "" };
            json!({"name": title, "type": "string", "format": format, "description": "", "priority": u8::from(*wide)})
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut line = json!({"cells": row(group, kind, object, now)});
            match carried {
                Carried::Nothing => {}
                Carried::Metadata => line["object"] = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata")}),
                Carried::Object => line["object"] = object.clone(),
            }
            line
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions, "rows": rows})
}

/// What a row of a `Table` carries of its object (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carried {
    /// No more than the cells.
    Nothing,
    /// Name, labels and the like.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

fn others(group: &str, kind: &str, object: &Value, now: jiff::Timestamp) -> Vec<String> {
    let one = |pointer: &str| text(object, pointer).to_owned();
    let between = match (group, kind) {
        ("", "Namespace") => vec![one("/status/phase")],
        ("", "Node") => return node(object, now),
        ("", "ConfigMap") => vec![(size(object, "data") + size(object, "binaryData")).to_string()],
        ("", "Secret") => vec![one("/type"), size(object, "data").to_string()],
        ("", "ServiceAccount") => vec![list(object, "/secrets").len().to_string()],
        ("", "Endpoints") => vec![endpoints(object)],
        ("discovery.k8s.io", "EndpointSlice") => vec![
            one("/addressType"),
            slice_ports(object),
            slice_addresses(object),
        ],
        ("coordination.k8s.io", "Lease") => vec![one("/spec/holderIdentity")],
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") | ("apiextensions.k8s.io", _) => {
            return vec![name(object).to_owned(), one("/metadata/creationTimestamp")];
        }
        ("rbac.authorization.k8s.io", _) => {
            vec![format!("{}/{}", one("/roleRef/kind"), one("/roleRef/name"))]
        }
        _ => Vec::new(),
    };
    framed(object, between, now)
}

fn istio(kind: &str, object: &Value, now: jiff::Timestamp) -> Vec<String> {
    let texts = |pointer: &str| or_empty_list(object, pointer);
    let one = |pointer: &str| text(object, pointer).to_owned();
    let between = match kind {
        "VirtualService" => vec![texts("/spec/gateways"), texts("/spec/hosts")],
        "DestinationRule" => vec![one("/spec/host")],
        "ServiceEntry" => vec![
            texts("/spec/hosts"),
            one("/spec/location"),
            one("/spec/resolution"),
        ],
        "WorkloadEntry" => {
            let mut cells = framed(object, Vec::new(), now);
            cells.push(one("/spec/address"));
            return cells;
        }
        "PeerAuthentication" => vec![one("/spec/mtls/mode")],
        "AuthorizationPolicy" => vec![one("/spec/action")],
        _ => Vec::new(),
    };
    framed(object, between, now)
}

fn gateway_api(kind: &str, object: &Value, now: jiff::Timestamp) -> Vec<String> {
    let one = |pointer: &str| text(object, pointer).to_owned();
    let state = |condition: &str| condition_status(object, condition).to_owned();
    let between = match kind {
        "GatewayClass" => {
            let between = vec![one("/spec/controllerName"), state("Accepted")];
            let mut cells = framed(object, between, now);
            cells.push(one("/spec/description"));
            return cells;
        }
        "Gateway" => vec![
            one("/spec/gatewayClassName"),
            text(object, "/status/addresses/0/value").to_owned(),
            state("Programmed"),
        ],
        "HTTPRoute" | "GRPCRoute" => vec![or_empty_list(object, "/spec/hostnames")],
        "ListenerSet" => vec![state("Accepted"), state("Programmed")],
        _ => Vec::new(),
    };
    framed(object, between, now)
}

fn node(node: &Value, now: jiff::Timestamp) -> Vec<String> {
    let address = |kind: &str| {
        let mut addresses = list(node, "/status/addresses").iter();
        let found = addresses.find(|address| text(address, "/type") == kind);
        or_none(
            found
                .map(|address| text(address, "/address").to_owned())
                .unwrap_or_default(),
        )
    };
    let ready = if condition(node, "Ready") {
        "Ready"
    } else {
        "NotReady"
    };
    let about = |field: &str| or_unknown(text(node, &format!("/status/nodeInfo/{field}")));
    let mut cells = framed(node, vec![ready.into(), "<none>".into()], now);
    cells.extend([
        text(node, "/status/nodeInfo/kubeletVersion").to_owned(),
        address("InternalIP"),
        address("ExternalIP"),
        about("osImage"),
        about("kernelVersion"),
        about("containerRuntimeVersion"),
    ]);
    cells
}

fn or_unknown(text: &str) -> String {
    if text.is_empty() {
        "<unknown>".into()
    } else {
        text.into()
    }
}

fn size(object: &Value, field: &str) -> usize {
    object
        .get(field)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

/// `["a","b"]` as CRD columns of lists are printed; empty when absent.
fn or_empty_list(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .map(Value::to_string)
        .unwrap_or_default()
}

fn service(service: &Value, now: jiff::Timestamp) -> Vec<String> {
    let kind = text(service, "/spec/type");
    let external = match kind {
        "LoadBalancer" => {
            let addresses: Vec<&str> = list(service, "/status/loadBalancer/ingress")
                .iter()
                .map(|entry| text(entry, "/ip"))
                .collect();
            if addresses.is_empty() {
                "<pending>".into()
            } else {
                addresses.join(",")
            }
        }
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        _ => {
            let addresses: Vec<String> = list(service, "/spec/externalIPs")
                .iter()
                .map(plain)
                .collect();
            or_none(addresses.join(","))
        }
    };
    let port = |port: &Value| {
        let (number_of, node, protocol) = (
            number(port, "/port"),
            number(port, "/nodePort"),
            text(port, "/protocol"),
        );
        let protocol = if protocol.is_empty() { "TCP" } else { protocol };
        if node > 0 {
            format!("{number_of}:{node}/{protocol}")
        } else {
            format!("{number_of}/{protocol}")
        }
    };
    let ports: Vec<String> = list(service, "/spec/ports").iter().map(port).collect();
    let cluster = or_none(text(service, "/spec/clusterIP").to_owned());
    let kind = if kind.is_empty() { "ClusterIP" } else { kind };
    let between = vec![kind.to_owned(), cluster, external, or_none(ports.join(","))];
    let mut cells = framed(service, between, now);
    cells.push(pairs(service.pointer("/spec/selector")));
    cells
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        for address in list(subset, "/addresses") {
            for port in list(subset, "/ports") {
                all.push(format!(
                    "{}:{}",
                    text(address, "/ip"),
                    number(port, "/port")
                ));
            }
        }
    }
    shortened(all)
}

fn slice_ports(slice: &Value) -> String {
    shortened(
        list(slice, "/ports")
            .iter()
            .map(|port| number(port, "/port").to_string())
            .collect(),
    )
}

fn slice_addresses(slice: &Value) -> String {
    shortened(
        list(slice, "/endpoints")
            .iter()
            .flat_map(|endpoint| list(endpoint, "/addresses"))
            .map(plain)
            .collect(),
    )
}

fn event(event: &Value, now: jiff::Timestamp) -> Vec<String> {
    let about = format!(
        "{}/{}",
        text(event, "/involvedObject/kind").to_lowercase(),
        text(event, "/involvedObject/name")
    );
    let source = match (
        text(event, "/source/component"),
        text(event, "/source/host"),
    ) {
        (component, "") => component.to_owned(),
        (component, host) => format!("{component}, {host}"),
    };
    let first = match text(event, "/firstTimestamp") {
        "" => words::last_seen(event),
        first => first,
    };
    vec![
        ago(words::last_seen(event), now),
        text(event, "/type").into(),
        text(event, "/reason").into(),
        about,
        text(event, "/involvedObject/fieldPath").into(),
        source,
        text(event, "/message").trim().replace('\n', " "),
        ago(first, now),
        number(event, "/count").max(1).to_string(),
        name(event).into(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::kinds;

    fn line(kind: &kinds::Kind, object: &Value, wide: bool) -> String {
        let now = "2026-01-01T00:10:00Z".parse().expect("a time");
        let columns = columns(kind.group, kind.kind);
        let cells = row(kind.group, kind.kind, object, now);
        assert_eq!(cells.len(), columns.len());
        let shown: Vec<String> = cells
            .into_iter()
            .zip(columns)
            .filter(|(_, column)| wide || !column.wide)
            .map(|(cell, _)| cell)
            .collect();
        shown.join("|")
    }

    #[test]
    fn every_kind_has_as_many_cells_as_columns() {
        for kind in kinds::ALL {
            line(kind, &json!({"metadata": {"name": "a"}}), true);
        }
    }

    #[test]
    fn a_table_tells_a_wide_column_by_its_priority() {
        let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}});
        let now = "2026-01-01T00:10:00Z".parse().expect("a time");
        let table = table(
            "",
            "Pod",
            std::slice::from_ref(&pod),
            Carried::Metadata,
            now,
        );
        assert_eq!(
            table["columnDefinitions"][0],
            json!({"name": "NAME", "type": "string", "format": "name", "description": "", "priority": 0})
        );
        assert_eq!(table["columnDefinitions"][5]["priority"], 1);
        assert_eq!(table["rows"][0]["cells"][1], "0/1");
        assert_eq!(table["rows"][0]["object"]["metadata"], pod["metadata"]);
        assert_eq!(table["rows"][0]["object"].get("spec"), None);
    }

    #[test]
    fn events_are_wide_in_the_middle() {
        let event = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "BackOff", "message": "m\nn", "count": 3, "source": {"component": "kubelet", "host": "h"},
            "involvedObject": {"kind": "Pod", "name": "p"}, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:00Z"});
        assert_eq!(
            line(&kinds::EVENTS, &event, false),
            "60s|Warning|BackOff|pod/p|m n"
        );
        assert_eq!(
            line(&kinds::EVENTS, &event, true),
            "60s|Warning|BackOff|pod/p||kubelet, h|m n|10m|3|e"
        );
    }

    fn pod_with(init: Value, containers: Value) -> Value {
        json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}]},
            "status": {"phase": "Running", "podIP": "10.244.0.2", "initContainerStatuses": init, "containerStatuses": containers},
        })
    }

    #[test]
    fn pods_are_shown_as_kubectl_shows_them() {
        let pods = &kinds::PODS;
        let sidecar = json!([{"name": "istio-proxy", "ready": true, "started": true, "restartCount": 0, "state": {"running": {}}}]);
        let running =
            json!([{"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}}]);
        assert_eq!(
            line(pods, &pod_with(sidecar.clone(), running), true),
            "p|2/2|Running|0|10m|10.244.0.2|<none>|<none>|<none>"
        );
        let crashing = json!([{"name": "c", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:30Z"}}}]);
        assert_eq!(
            line(pods, &pod_with(sidecar, crashing), false),
            "p|1/2|CrashLoopBackOff|3 (30s ago)|10m"
        );
        let starting = json!([{"name": "istio-proxy", "ready": false, "started": false, "restartCount": 0, "state": {"running": {}}}]);
        let waiting = json!([{"name": "c", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}]);
        assert_eq!(
            line(pods, &pod_with(starting, waiting), false),
            "p|0/2|Init:0/1|0|10m"
        );
    }

    #[test]
    fn services_show_their_ports_and_addresses() {
        let service = json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:09:00Z"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "selector": {"app": "a"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}, "status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}});
        assert_eq!(
            line(&kinds::SERVICES, &service, true),
            "s|LoadBalancer|10.96.0.9|127.0.0.1|80:30080/TCP,53/UDP|60s|app=a"
        );
    }

    #[test]
    fn kinds_of_istio_have_the_columns_of_their_crds() {
        let kind = wire_kube::kinds::Kind::VirtualService.info();
        let object = json!({"metadata": {"name": "v", "creationTimestamp": "2026-01-01T00:09:00Z"}, "spec": {"hosts": ["a", "b"], "gateways": ["g"]}});
        assert_eq!(line(kind, &object, false), r#"v|["g"]|["a","b"]|60s"#);
        let kind = wire_kube::kinds::Kind::Sidecar.info();
        assert_eq!(line(kind, &object, false), "v|60s");
    }
}
