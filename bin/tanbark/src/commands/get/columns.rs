//! The columns of each kind, as kubectl and Istio's CRDs print them. Pure.

mod pod;
mod workload;

use serde_json::Value;

use crate::kind::Kind;
use crate::object::{age, list, name, number, or_none, pairs, plain, ready, short_duration, text};
use crate::output::{Cell, Tone};

/// Titles of a kind's columns.
pub fn header(kind: &Kind, wide: bool) -> Vec<&'static str> {
    let (usual, more) = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => (
            "NAME|READY|STATUS|RESTARTS|AGE",
            "IP|NODE|NOMINATED NODE|READINESS GATES",
        ),
        ("", "Service") => ("NAME|TYPE|CLUSTER-IP|EXTERNAL-IP|PORT(S)|AGE", "SELECTOR"),
        ("", "Namespace") => ("NAME|STATUS|AGE", ""),
        ("", "Node") => ("NAME|STATUS|ROLES|AGE|VERSION", "INTERNAL-IP"),
        ("", "ConfigMap") => ("NAME|DATA|AGE", ""),
        ("", "Secret") => ("NAME|TYPE|DATA|AGE", ""),
        ("", "Endpoints") => ("NAME|ENDPOINTS|AGE", ""),
        ("", "Event") => ("LAST SEEN|TYPE|REASON|OBJECT|MESSAGE", "NAME"),
        ("apps", "Deployment") => (
            "NAME|READY|UP-TO-DATE|AVAILABLE|AGE",
            "CONTAINERS|IMAGES|SELECTOR",
        ),
        ("apps", "ReplicaSet") => (
            "NAME|DESIRED|CURRENT|READY|AGE",
            "CONTAINERS|IMAGES|SELECTOR",
        ),
        ("apps", "StatefulSet") => ("NAME|READY|AGE", "CONTAINERS|IMAGES"),
        ("apps", "DaemonSet") => (
            "NAME|DESIRED|CURRENT|READY|UP-TO-DATE|AVAILABLE|AGE",
            "CONTAINERS|IMAGES|SELECTOR",
        ),
        ("batch", "Job") => (
            "NAME|STATUS|COMPLETIONS|DURATION|AGE",
            "CONTAINERS|IMAGES|SELECTOR",
        ),
        ("discovery.k8s.io", "EndpointSlice") => ("NAME|ADDRESSTYPE|PORTS|ENDPOINTS|AGE", ""),
        ("networking.istio.io", "VirtualService") => ("NAME|GATEWAYS|HOSTS|AGE", ""),
        ("networking.istio.io", "DestinationRule") => ("NAME|HOST|AGE", ""),
        ("networking.istio.io", "ServiceEntry") => ("NAME|HOSTS|LOCATION|RESOLUTION|AGE", ""),
        ("networking.istio.io", "WorkloadEntry") => ("NAME|AGE|ADDRESS", ""),
        ("security.istio.io", "PeerAuthentication") => ("NAME|MODE|AGE", ""),
        ("security.istio.io", "AuthorizationPolicy") => ("NAME|ACTION|AGE", ""),
        _ => ("NAME|AGE", ""),
    };
    let more = if wide { more } else { "" };
    usual
        .split('|')
        .chain(more.split('|').filter(|title| !title.is_empty()))
        .collect()
}

/// One object's cells, under [`header`].
pub fn row(kind: &Kind, object: &Value, wide: bool, now: jiff::Timestamp) -> Vec<Cell> {
    let mut cells = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => return pod::row(object, wide, now),
        ("", "Event") => return event(object, wide, now),
        ("", "Service") => service(object, now),
        ("apps" | "batch", _) => workload::row(kind, object, now),
        ("", _) | ("discovery.k8s.io", _) => core(kind, object, now),
        _ => istio(kind, object, now),
    };
    if wide {
        cells.extend(more(kind, object).into_iter().map(Cell::from));
    }
    cells
}

/// Name, what a kind has between, and age.
fn framed(object: &Value, between: Vec<Cell>, now: jiff::Timestamp) -> Vec<Cell> {
    let mut cells = vec![Cell::from(name(object))];
    cells.extend(between);
    cells.push(age(object, now).into());
    cells
}

fn core(kind: &Kind, object: &Value, now: jiff::Timestamp) -> Vec<Cell> {
    let between: Vec<Cell> = match kind.kind.as_str() {
        "Namespace" => vec![text(object, "/status/phase").into()],
        "Node" => {
            let mut cells = framed(
                object,
                vec![
                    if ready(object) { "Ready" } else { "NotReady" }.into(),
                    "<none>".into(),
                ],
                now,
            );
            cells.push(text(object, "/status/nodeInfo/kubeletVersion").into());
            return cells;
        }
        "ConfigMap" => vec![
            (size(object, "data") + size(object, "binaryData"))
                .to_string()
                .into(),
        ],
        "Secret" => vec![
            text(object, "/type").into(),
            size(object, "data").to_string().into(),
        ],
        "Endpoints" => vec![endpoints(object).into()],
        "EndpointSlice" => vec![
            text(object, "/addressType").into(),
            slice_ports(object).into(),
            slice_addresses(object).into(),
        ],
        _ => Vec::new(),
    };
    framed(object, between, now)
}

fn istio(kind: &Kind, object: &Value, now: jiff::Timestamp) -> Vec<Cell> {
    let texts = |pointer: &str| Cell::from(or_empty_list(object, pointer));
    let one = |pointer: &str| Cell::from(text(object, pointer));
    let between = match (kind.group.as_str(), kind.kind.as_str()) {
        ("networking.istio.io", "VirtualService") => {
            vec![texts("/spec/gateways"), texts("/spec/hosts")]
        }
        ("networking.istio.io", "DestinationRule") => vec![one("/spec/host")],
        ("networking.istio.io", "ServiceEntry") => vec![
            texts("/spec/hosts"),
            one("/spec/location"),
            one("/spec/resolution"),
        ],
        ("networking.istio.io", "WorkloadEntry") => {
            let mut cells = framed(object, Vec::new(), now);
            cells.push(one("/spec/address"));
            return cells;
        }
        ("security.istio.io", "PeerAuthentication") => vec![one("/spec/mtls/mode")],
        ("security.istio.io", "AuthorizationPolicy") => vec![one("/spec/action")],
        _ => Vec::new(),
    };
    framed(object, between, now)
}

fn more(kind: &Kind, object: &Value) -> Vec<String> {
    let of_containers = |field: &str| {
        let all: Vec<&str> = list(object, "/spec/template/spec/containers")
            .iter()
            .map(|container| text(container, field))
            .collect();
        or_none(all.join(","))
    };
    let selector = || match object.pointer("/spec/selector/matchLabels") {
        Some(labels) => pairs(Some(labels)),
        None => pairs(object.pointer("/spec/selector")),
    };
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Service") => vec![selector()],
        ("", "Node") => vec![text(object, "/status/addresses/0/address").into()],
        ("apps", "StatefulSet") => vec![of_containers("/name"), of_containers("/image")],
        ("apps", _) | ("batch", "Job") => {
            vec![of_containers("/name"), of_containers("/image"), selector()]
        }
        _ => Vec::new(),
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

fn service(service: &Value, now: jiff::Timestamp) -> Vec<Cell> {
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
    vec![
        name(service).into(),
        kind.into(),
        cluster.into(),
        external.into(),
        or_none(ports.join(",")).into(),
        age(service, now).into(),
    ]
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

/// The first three and how many more, as kubectl shortens lists.
fn shortened(all: Vec<String>) -> String {
    let more = all.len().saturating_sub(3);
    let shown: Vec<String> = all.into_iter().take(3).collect();
    let text = or_none(shown.join(","));
    if more > 0 {
        format!("{text} + {more} more...")
    } else {
        text
    }
}

fn event(event: &Value, wide: bool, now: jiff::Timestamp) -> Vec<Cell> {
    let seen = crate::object::seconds_since(crate::object::last_seen(event), now);
    let about = format!(
        "{}/{}",
        text(event, "/involvedObject/kind").to_lowercase(),
        text(event, "/involvedObject/name")
    );
    let kind = text(event, "/type");
    let tone = if kind == "Warning" {
        Tone::Doubtful
    } else {
        Tone::Plain
    };
    let message = text(event, "/message").trim().replace('\n', " ");
    let mut cells = vec![
        seen.map_or_else(|| "<unknown>".into(), short_duration)
            .into(),
        Cell(kind.into(), tone),
        text(event, "/reason").into(),
        about.into(),
        message.into(),
    ];
    if wide {
        cells.push(name(event).into());
    }
    cells
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(kind: &Kind, object: &Value, wide: bool) -> String {
        let now = "2026-01-01T00:10:00Z".parse().expect("a time");
        let cells: Vec<String> = row(kind, object, wide, now)
            .into_iter()
            .map(|cell| cell.0)
            .collect();
        assert_eq!(cells.len(), header(kind, wide).len());
        cells.join("|")
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
        let pods = Kind::pods();
        let sidecar = json!([{"name": "istio-proxy", "ready": true, "started": true, "restartCount": 0, "state": {"running": {}}}]);
        let running =
            json!([{"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}}]);
        assert_eq!(
            line(&pods, &pod_with(sidecar.clone(), running), true),
            "p|2/2|Running|0|10m|10.244.0.2|<none>|<none>|<none>"
        );
        let crashing = json!([{"name": "c", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:30Z"}}}]);
        assert_eq!(
            line(&pods, &pod_with(sidecar, crashing), false),
            "p|1/2|CrashLoopBackOff|3 (30s ago)|10m"
        );
        let starting = json!([{"name": "istio-proxy", "ready": false, "started": false, "restartCount": 0, "state": {"running": {}}}]);
        let waiting = json!([{"name": "c", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}]);
        assert_eq!(
            line(&pods, &pod_with(starting, waiting), false),
            "p|0/2|Init:0/1|0|10m"
        );
    }

    #[test]
    fn services_show_their_ports_and_addresses() {
        let service = json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:09:00Z"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "selector": {"app": "a"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}, "status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}});
        assert_eq!(
            line(&Kind::services(), &service, true),
            "s|LoadBalancer|10.96.0.9|127.0.0.1|80:30080/TCP,53/UDP|60s|app=a"
        );
    }

    #[test]
    fn kinds_of_istio_have_the_columns_of_their_crds() {
        let kind = Kind::typed("vs").expect("known");
        let object = json!({"metadata": {"name": "v", "creationTimestamp": "2026-01-01T00:09:00Z"}, "spec": {"hosts": ["a", "b"], "gateways": ["g"]}});
        assert_eq!(line(&kind, &object, false), r#"v|["g"]|["a","b"]|60s"#);
        let kind = Kind::typed("sidecars").expect("known");
        assert_eq!(line(&kind, &object, false), "v|60s");
    }
}
