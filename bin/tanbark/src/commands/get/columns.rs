//! The columns of each kind, as kubectl and Istio's CRDs print them. Pure.

use serde_json::Value;

use crate::kind::Kind;
use crate::object::{
    age, condition, deleting, list, name, number, or_none, pairs, plain, ready, short_duration,
    text,
};
use crate::output::{Cell, Tone};

/// Titles of a kind's columns.
pub fn header(kind: &Kind, wide: bool) -> Vec<&'static str> {
    let (usual, more): (&[&str], &[&str]) = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => (
            &["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
            &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
        ),
        ("", "Service") => (
            &[
                "NAME",
                "TYPE",
                "CLUSTER-IP",
                "EXTERNAL-IP",
                "PORT(S)",
                "AGE",
            ],
            &["SELECTOR"],
        ),
        ("", "Namespace") => (&["NAME", "STATUS", "AGE"], &[]),
        ("", "Node") => (
            &["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
            &["INTERNAL-IP"],
        ),
        ("", "ConfigMap") => (&["NAME", "DATA", "AGE"], &[]),
        ("", "Secret") => (&["NAME", "TYPE", "DATA", "AGE"], &[]),
        ("", "Endpoints") => (&["NAME", "ENDPOINTS", "AGE"], &[]),
        ("", "Event") => (
            &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
            &["NAME"],
        ),
        ("apps", "Deployment") => (
            &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
        ),
        ("apps", "ReplicaSet") => (
            &["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
        ),
        ("apps", "StatefulSet") => (&["NAME", "READY", "AGE"], &["CONTAINERS", "IMAGES"]),
        ("apps", "DaemonSet") => (
            &[
                "NAME",
                "DESIRED",
                "CURRENT",
                "READY",
                "UP-TO-DATE",
                "AVAILABLE",
                "AGE",
            ],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
        ),
        ("batch", "Job") => (
            &["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
        ),
        ("discovery.k8s.io", "EndpointSlice") => {
            (&["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"], &[])
        }
        ("networking.istio.io", "VirtualService") => (&["NAME", "GATEWAYS", "HOSTS", "AGE"], &[]),
        ("networking.istio.io", "DestinationRule") => (&["NAME", "HOST", "AGE"], &[]),
        ("networking.istio.io", "ServiceEntry") => {
            (&["NAME", "HOSTS", "LOCATION", "RESOLUTION", "AGE"], &[])
        }
        ("networking.istio.io", "WorkloadEntry") => (&["NAME", "AGE", "ADDRESS"], &[]),
        ("security.istio.io", "PeerAuthentication") => (&["NAME", "MODE", "AGE"], &[]),
        ("security.istio.io", "AuthorizationPolicy") => (&["NAME", "ACTION", "AGE"], &[]),
        _ => (&["NAME", "AGE"], &[]),
    };
    usual
        .iter()
        .chain(if wide { more } else { &[] })
        .copied()
        .collect()
}

/// One object's cells, under [`header`].
pub fn row(kind: &Kind, object: &Value, wide: bool, now: jiff::Timestamp) -> Vec<Cell> {
    let aged = || Cell::from(age(object, now));
    let named = || Cell::from(name(object));
    let texts = |pointer: &str| -> Cell { or_empty_list(object, pointer).into() };
    let mut cells: Vec<Cell> = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => return pod(object, wide, now),
        ("", "Service") => service(object, now),
        ("", "Namespace") => vec![named(), text(object, "/status/phase").into(), aged()],
        ("", "Node") => vec![
            named(),
            if ready(object) { "Ready" } else { "NotReady" }.into(),
            "<none>".into(),
            aged(),
            text(object, "/status/nodeInfo/kubeletVersion").into(),
        ],
        ("", "ConfigMap") => vec![
            named(),
            (size(object, "data") + size(object, "binaryData"))
                .to_string()
                .into(),
            aged(),
        ],
        ("", "Secret") => vec![
            named(),
            text(object, "/type").into(),
            size(object, "data").to_string().into(),
            aged(),
        ],
        ("", "Endpoints") => vec![named(), endpoints(object).into(), aged()],
        ("", "Event") => return event(object, wide, now),
        ("apps", "Deployment") => {
            let ready = format!(
                "{}/{}",
                number(object, "/status/readyReplicas"),
                number(object, "/spec/replicas")
            );
            let count = |pointer: &str| Cell::from(number(object, pointer).to_string());
            vec![
                named(),
                fraction(ready),
                count("/status/updatedReplicas"),
                count("/status/availableReplicas"),
                aged(),
            ]
        }
        ("apps", "ReplicaSet") => {
            let count = |pointer: &str| Cell::from(number(object, pointer).to_string());
            vec![
                named(),
                count("/spec/replicas"),
                count("/status/replicas"),
                count("/status/readyReplicas"),
                aged(),
            ]
        }
        ("apps", "StatefulSet") => vec![
            named(),
            fraction(format!(
                "{}/{}",
                number(object, "/status/readyReplicas"),
                number(object, "/spec/replicas")
            )),
            aged(),
        ],
        ("apps", "DaemonSet") => {
            let count =
                |field: &str| Cell::from(number(object, &format!("/status/{field}")).to_string());
            vec![
                named(),
                count("desiredNumberScheduled"),
                count("currentNumberScheduled"),
                count("numberReady"),
                count("updatedNumberScheduled"),
                count("numberAvailable"),
                aged(),
            ]
        }
        ("batch", "Job") => job(object, now),
        ("discovery.k8s.io", "EndpointSlice") => vec![
            named(),
            text(object, "/addressType").into(),
            slice_ports(object).into(),
            slice_addresses(object).into(),
            aged(),
        ],
        ("networking.istio.io", "VirtualService") => vec![
            named(),
            texts("/spec/gateways"),
            texts("/spec/hosts"),
            aged(),
        ],
        ("networking.istio.io", "DestinationRule") => {
            vec![named(), text(object, "/spec/host").into(), aged()]
        }
        ("networking.istio.io", "ServiceEntry") => vec![
            named(),
            texts("/spec/hosts"),
            text(object, "/spec/location").into(),
            text(object, "/spec/resolution").into(),
            aged(),
        ],
        ("networking.istio.io", "WorkloadEntry") => {
            vec![named(), aged(), text(object, "/spec/address").into()]
        }
        ("security.istio.io", "PeerAuthentication") => {
            vec![named(), text(object, "/spec/mtls/mode").into(), aged()]
        }
        ("security.istio.io", "AuthorizationPolicy") => {
            vec![named(), text(object, "/spec/action").into(), aged()]
        }
        _ => vec![named(), aged()],
    };
    if wide {
        cells.extend(more(kind, object).into_iter().map(Cell::from));
    }
    cells
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

/// `2/3` in the colour of what it means.
fn fraction(text: String) -> Cell {
    let whole = text
        .split_once('/')
        .is_some_and(|(part, whole)| part == whole);
    let tone = if whole { Tone::Plain } else { Tone::Doubtful };
    Cell(text, tone)
}

fn pod(pod: &Value, wide: bool, now: jiff::Timestamp) -> Vec<Cell> {
    let Summary {
        ready,
        total,
        status,
        restarts,
        last_restart,
    } = summary(pod);
    let ago = last_restart
        .and_then(|stamp| crate::object::seconds_since(&stamp, now))
        .map(|seconds| format!(" ({} ago)", short_duration(seconds)))
        .unwrap_or_default();
    let tone = match status.as_str() {
        "Running" if ready == total => Tone::Plain,
        "Completed" | "Succeeded" | "Terminating" => Tone::Faint,
        "Running" | "Pending" | "PodInitializing" | "ContainerCreating" => Tone::Doubtful,
        status
            if status.starts_with("Init:")
                && !status.contains("rror")
                && !status.contains("Crash") =>
        {
            Tone::Doubtful
        }
        _ => Tone::Bad,
    };
    let restarts = if restarts > 0 {
        format!("{restarts}{ago}")
    } else {
        "0".into()
    };
    let mut cells = vec![
        name(pod).into(),
        Cell(
            format!("{ready}/{total}"),
            if ready == total {
                Tone::Plain
            } else {
                Tone::Doubtful
            },
        ),
        Cell(status, tone),
        restarts.into(),
        age(pod, now).into(),
    ];
    if wide {
        let or_none = |pointer: &str| Cell::from(or_none(text(pod, pointer).to_owned()));
        cells.extend([
            or_none("/status/podIP"),
            or_none("/spec/nodeName"),
            "<none>".into(),
            "<none>".into(),
        ]);
    }
    cells
}

/// What kubectl's pod line says.
pub struct Summary {
    pub ready: usize,
    pub total: usize,
    pub status: String,
    pub restarts: i64,
    pub last_restart: Option<String>,
}

/// A pod's line by kubectl's rules: sidecars count as containers, an unfinished init container hides the rest.
pub fn summary(pod: &Value) -> Summary {
    let stays = |name: &str| {
        list(pod, "/spec/initContainers").iter().any(|container| {
            text(container, "/name") == name && text(container, "/restartPolicy") == "Always"
        })
    };
    let sidecars = list(pod, "/spec/initContainers")
        .iter()
        .filter(|container| text(container, "/restartPolicy") == "Always")
        .count();
    let total = list(pod, "/spec/containers").len() + sidecars;
    let mut status = match text(pod, "/status/reason") {
        "" => text(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let (mut ready, mut restarts, mut last_restart) = (0, 0, None);
    let count = |container: &Value, restarts: &mut i64, last: &mut Option<String>| {
        *restarts += number(container, "/restartCount");
        let ended = text(container, "/lastState/terminated/finishedAt");
        if !ended.is_empty() && last.as_deref() < Some(ended) {
            *last = Some(ended.to_owned());
        }
    };
    let mut initializing = None;
    let init = list(pod, "/status/initContainerStatuses");
    let init_total = list(pod, "/spec/initContainers").len();
    for (at, container) in init.iter().enumerate() {
        let sidecar = stays(text(container, "/name"));
        let is = |field: &str| container.get(field) == Some(&Value::Bool(true));
        count(container, &mut restarts, &mut last_restart);
        if sidecar && is("ready") {
            ready += 1;
        }
        let done = (sidecar && is("started"))
            || (container.pointer("/state/terminated").is_some()
                && number(container, "/state/terminated/exitCode") == 0);
        if done || initializing.is_some() {
            continue;
        }
        initializing = Some(
            match (
                text(container, "/state/terminated/reason"),
                text(container, "/state/waiting/reason"),
            ) {
                ("", "" | "PodInitializing") => format!("Init:{at}/{init_total}"),
                ("", waiting) => format!("Init:{waiting}"),
                (ended, _) => format!("Init:{ended}"),
            },
        );
    }
    let mut applications_running = false;
    let mut reason = None;
    for container in list(pod, "/status/containerStatuses").iter().rev() {
        count(container, &mut restarts, &mut last_restart);
        match (
            text(container, "/state/waiting/reason"),
            text(container, "/state/terminated/reason"),
        ) {
            ("", "") if container.pointer("/state/terminated").is_some() => {
                reason = Some(format!(
                    "ExitCode:{}",
                    number(container, "/state/terminated/exitCode")
                ))
            }
            ("", "") => {
                let is_ready = container.get("ready") == Some(&Value::Bool(true));
                ready += usize::from(is_ready);
                applications_running |= is_ready && container.pointer("/state/running").is_some();
            }
            ("", ended) => reason = Some(ended.to_owned()),
            (waiting, _) => reason = Some(waiting.to_owned()),
        }
    }
    match (initializing, reason) {
        (Some(initializing), _) => status = initializing,
        (None, Some(reason)) if reason == "Completed" && applications_running => {
            status = if condition(pod, "Ready") {
                "Running".into()
            } else {
                "NotReady".into()
            }
        }
        (None, Some(reason)) => status = reason,
        (None, None) => {}
    }
    if deleting(pod) {
        status = "Terminating".into();
    }
    Summary {
        ready,
        total,
        status,
        restarts,
        last_restart,
    }
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

fn job(job: &Value, now: jiff::Timestamp) -> Vec<Cell> {
    let wanted = job
        .pointer("/spec/completions")
        .and_then(Value::as_i64)
        .unwrap_or(1);
    let status = if condition(job, "Complete") {
        "Complete"
    } else if condition(job, "Failed") {
        "Failed"
    } else {
        "Running"
    };
    let began: Option<jiff::Timestamp> = text(job, "/status/startTime").parse().ok();
    let ended: jiff::Timestamp = text(job, "/status/completionTime").parse().unwrap_or(now);
    let duration = began
        .map(|began| short_duration((ended.as_second() - began.as_second()).max(0)))
        .unwrap_or_default();
    vec![
        name(job).into(),
        status.into(),
        format!("{}/{wanted}", number(job, "/status/succeeded")).into(),
        duration.into(),
        age(job, now).into(),
    ]
}

fn event(event: &Value, wide: bool, now: jiff::Timestamp) -> Vec<Cell> {
    let seen = [
        text(event, "/lastTimestamp"),
        text(event, "/eventTime"),
        text(event, "/metadata/creationTimestamp"),
    ];
    let seen = seen
        .iter()
        .find(|stamp| !stamp.is_empty())
        .and_then(|stamp| crate::object::seconds_since(stamp, now));
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
