//! What the API server adds to an object or refuses about it: defaults, Service addresses and node
//! ports, shapes of names.
//!
//! Only fields that somebody here or in the control plane reads get a default.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use base64::Engine;
use serde_json::{Value, json};
use wire_kube::meta::ObjectMeta;
use wire_kube::read::{Fault, FaultKind, read_at};

use super::Refusal;
use super::kinds::Kind;
use super::selector::Labels;
use crate::object;

const FIRST_NODE_PORT: u16 = 30_000;
const LAST_NODE_PORT: u16 = 32_767;
/// Lowest address that is given at all; below it are those with a fixed meaning (the API server's
/// and the DNS server's on Kubernetes).
const FIRST_SERVICE_ADDRESS: u16 = 16;
/// Lowest address that is given while there are others: the low part of the range is for those who
/// choose an address themselves (Kubernetes, "Service ClusterIP allocation": a band of 256 in a
/// range of this size).
const FIRST_DYNAMIC_ADDRESS: u16 = 256;

/// Service addresses and node ports in use.
#[derive(Debug, Default, Clone)]
pub struct Addresses {
    vips: BTreeSet<u16>,
    last_vip: u16,
    node_ports: BTreeSet<u16>,
}

impl Addresses {
    fn take_vip(&mut self) -> Option<Ipv4Addr> {
        let next = self.last_vip.saturating_add(1).max(FIRST_DYNAMIC_ADDRESS);
        let chosen = (next..=u16::MAX)
            .chain(FIRST_DYNAMIC_ADDRESS..next)
            .chain(FIRST_SERVICE_ADDRESS..FIRST_DYNAMIC_ADDRESS)
            .find(|number| !matches!(number & 0xff, 0 | 255) && !self.vips.contains(number))?;
        self.vips.insert(chosen);
        self.last_vip = chosen;
        let [high, low] = chosen.to_be_bytes();
        Some(Ipv4Addr::new(10, 96, high, low))
    }

    fn claim_vip(&mut self, text: &str) -> Result<(), String> {
        let address: Ipv4Addr = text
            .parse()
            .map_err(|_| format!("spec.clusterIP: {text} is not an address"))?;
        let [first, second, high, low] = address.octets();
        if (first, second) != (10, 96) || (high, low) == (0, 10) {
            return Err(format!(
                "spec.clusterIP: {text} is not in the range 10.96.0.0/16 of Services or is taken"
            ));
        }
        match self.vips.insert(u16::from_be_bytes([high, low])) {
            true => Ok(()),
            false => Err(format!("spec.clusterIP: {text} is taken")),
        }
    }

    fn take_node_port(&mut self) -> Option<u16> {
        (FIRST_NODE_PORT..=LAST_NODE_PORT).find(|port| self.node_ports.insert(*port))
    }

    /// Frees what a deleted Service had.
    pub fn release(&mut self, kind: &Kind, object: &Value) {
        if kind.plural != "services" {
            return;
        }
        if let Ok(address) = object::text(object, "/spec/clusterIP").parse::<Ipv4Addr>() {
            let [_, _, high, low] = address.octets();
            self.vips.remove(&u16::from_be_bytes([high, low]));
        }
        for port in object::list(object, "/spec/ports") {
            if let Some(port) =
                object::number(port, "/nodePort").and_then(|port| u16::try_from(port).ok())
            {
                self.node_ports.remove(&port);
            }
        }
    }
}

/// Completes a new object or a new state of `present`, or says what is wrong with it.
pub fn admit(
    kind: &'static Kind,
    object: &mut Value,
    present: Option<&Value>,
    addresses: &mut Addresses,
) -> Result<(), Refusal> {
    metadata(object, "")?;
    if kind.group == "apps" || kind.group == "batch" {
        metadata(object, "spec.template.")?;
    }
    if present.is_none() {
        check_name(kind, object::name(object))?;
    }
    match (kind.group, kind.kind) {
        ("", "Namespace") => namespace(object),
        ("", "Service") => service(object, present, addresses)?,
        ("", "Pod") => pod(object, present)?,
        ("", "Secret") => secret(object),
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") => {
            workload(kind, object)?
        }
        ("batch", "Job") => job(object),
        _ => {}
    }
    Ok(())
}

/// What other clients of the API cannot read is not stored: one `version: 1.0` among the labels
/// would hide all objects of its kind from the control plane. An entry without a value is left out.
fn metadata(object: &mut Value, owner: &str) -> Result<(), Refusal> {
    let pointer = format!("/{owner}metadata").replace('.', "/");
    let Some(metadata) = object.pointer_mut(&pointer) else {
        return Ok(());
    };
    for entries in ["labels", "annotations"] {
        if let Some(Value::Object(entries)) = metadata.get_mut(entries) {
            entries.retain(|_, value| !value.is_null());
        }
    }
    let (_, faults) = read_at::<ObjectMeta>("metadata", metadata);
    let wrong = faults
        .into_iter()
        .find(|fault| fault.kind != FaultKind::UnknownField);
    wrong.map_or(Ok(()), |Fault { path, message, .. }| {
        let path = format!("{owner}{path}");
        Err(Refusal::Field { path, message })
    })
}

/// A DNS subdomain (RFC 1123), which all names are here but those of roles.
fn check_name(kind: &Kind, name: &str) -> Result<(), Refusal> {
    let fine = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || "-.".contains(character)
    };
    let edges = |text: &str| !text.starts_with(['-', '.']) && !text.ends_with(['-', '.']);
    let role = kind.group == "rbac.authorization.k8s.io";
    if role || (!name.is_empty() && name.len() <= 253 && name.chars().all(fine) && edges(name)) {
        return Ok(());
    }
    Err(Refusal::Invalid(format!(
        "{} \"{name}\" is invalid: metadata.name: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'",
        kind.kind
    )))
}

fn default(object: &mut Value, parent: &str, key: &str, value: Value) {
    if let Some(Value::Object(map)) = object.pointer_mut(parent) {
        map.entry(key).or_insert(value);
    }
}

fn namespace(object: &mut Value) {
    let name = object::name(object).to_string();
    object::label(object, "kubernetes.io/metadata.name", &name);
    if object.get("status").is_none() {
        object["status"] = json!({"phase": "Active"});
    }
}

fn secret(object: &mut Value) {
    if let Some(Value::Object(texts)) = object.get_mut("stringData").map(Value::take) {
        let data = object::entry(object, "data");
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            data.insert(
                key,
                base64::engine::general_purpose::STANDARD
                    .encode(text)
                    .into(),
            );
        }
    }
    if let Some(map) = object.as_object_mut() {
        map.remove("stringData");
        map.entry("type").or_insert("Opaque".into());
    }
}

fn service(
    object: &mut Value,
    present: Option<&Value>,
    addresses: &mut Addresses,
) -> Result<(), Refusal> {
    let name = object::name(object).to_string();
    let invalid =
        |message: String| Refusal::Invalid(format!("Service \"{name}\" is invalid: {message}"));
    object::entry(object, "spec");
    default(object, "/spec", "type", "ClusterIP".into());
    default(object, "/spec", "sessionAffinity", "None".into());
    let kind = object::text(object, "/spec/type").to_string();
    let mut seen = BTreeSet::new();
    if let Some(Value::Array(ports)) = object.pointer_mut("/spec/ports") {
        let several = ports.len() > 1;
        for port in ports {
            let number =
                object::number(port, "/port").filter(|number| (1..=65_535).contains(number));
            let number = number
                .ok_or_else(|| invalid("spec.ports.port: must be between 1 and 65535".into()))?;
            default(port, "", "protocol", "TCP".into());
            default(port, "", "targetPort", number.into());
            if several && object::text(port, "/name").is_empty() {
                return Err(invalid(format!("spec.ports: port {number} needs a name")));
            }
            if !seen.insert((number, object::text(port, "/protocol").to_string())) {
                return Err(invalid(format!("spec.ports: port {number} is there twice")));
            }
        }
    } else if kind != "ExternalName" && object::text(object, "/spec/clusterIP") != "None" {
        return Err(invalid("spec.ports: Required value".into()));
    }
    cluster_ip(object, present, &kind, addresses).map_err(invalid)?;
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        node_ports(object, present, addresses).map_err(invalid)?;
    }
    Ok(())
}

fn cluster_ip(
    object: &mut Value,
    present: Option<&Value>,
    kind: &str,
    addresses: &mut Addresses,
) -> Result<(), String> {
    if kind == "ExternalName" {
        return Ok(());
    }
    one_family(object)?;
    let wanted = object::text(object, "/spec/clusterIP").to_string();
    let had = present
        .map(|present| object::text(present, "/spec/clusterIP").to_string())
        .unwrap_or_default();
    let address = match (wanted.as_str(), had.as_str()) {
        ("None", _) => "None".to_string(),
        ("", had) if !had.is_empty() => had.to_string(),
        (wanted, had) if wanted == had && !had.is_empty() => had.to_string(),
        ("", _) => addresses
            .take_vip()
            .ok_or("all Service addresses are in use")?
            .to_string(),
        (wanted, "") => {
            addresses.claim_vip(wanted)?;
            wanted.to_string()
        }
        _ => return Err("spec.clusterIP: field is immutable".into()),
    };
    let spec = object::entry(object, "spec");
    spec.insert("clusterIPs".into(), json!([address]));
    spec.insert("clusterIP".into(), address.into());
    spec.insert("ipFamilies".into(), json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert("SingleStack".into());
    Ok(())
}

/// Pods and Services of one machine have IPv4 addresses; whoever asks for another family is told
/// so, as by a cluster with one family (Kubernetes, "IPv4/IPv6 dual-stack").
fn one_family(service: &Value) -> Result<(), String> {
    let families = object::list(service, "/spec/ipFamilies");
    if let Some((index, family)) = families
        .iter()
        .enumerate()
        .find(|(_, family)| family.as_str() != Some("IPv4"))
    {
        return Err(format!(
            "spec.ipFamilies[{index}]: Invalid value: {family}: not configured on this cluster, whose addresses are IPv4"
        ));
    }
    match object::text(service, "/spec/ipFamilyPolicy") {
        "" | "SingleStack" | "PreferDualStack" => Ok(()),
        "RequireDualStack" => Err("spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services".into()),
        other => Err(format!(
            "spec.ipFamilyPolicy: Unsupported value: \"{other}\": supported values: \"SingleStack\", \"PreferDualStack\", \"RequireDualStack\""
        )),
    }
}

fn node_ports(
    object: &mut Value,
    present: Option<&Value>,
    addresses: &mut Addresses,
) -> Result<(), String> {
    let had: Vec<(Option<i64>, i64)> = present
        .map(|present| object::list(present, "/spec/ports"))
        .unwrap_or_default()
        .iter()
        .filter_map(|port| {
            Some((
                object::number(port, "/port"),
                object::number(port, "/nodePort")?,
            ))
        })
        .collect();
    let Some(Value::Array(ports)) = object.pointer_mut("/spec/ports") else {
        return Ok(());
    };
    for port in ports {
        let wanted = object::number(port, "/nodePort").filter(|number| *number != 0);
        let before = had
            .iter()
            .find(|(number, _)| *number == object::number(port, "/port"))
            .map(|(_, node_port)| *node_port);
        let chosen = match (wanted, before) {
            (Some(wanted), _) if had.iter().any(|(_, node_port)| *node_port == wanted) => wanted,
            (Some(wanted), _) => {
                let number = u16::try_from(wanted)
                    .ok()
                    .filter(|number| (FIRST_NODE_PORT..=LAST_NODE_PORT).contains(number));
                let number = number.ok_or_else(|| format!("spec.ports.nodePort: {wanted}: must be between {FIRST_NODE_PORT} and {LAST_NODE_PORT}"))?;
                if !addresses.node_ports.insert(number) {
                    return Err(format!(
                        "spec.ports.nodePort: {wanted}: provided port is already allocated"
                    ));
                }
                wanted
            }
            (None, Some(before)) => before,
            (None, None) => i64::from(
                addresses
                    .take_node_port()
                    .ok_or("all node ports are in use")?,
            ),
        };
        port["nodePort"] = chosen.into();
    }
    Ok(())
}

/// What a pod runs is decided when it is made: nobody here changes a running container.
fn pod(object: &mut Value, present: Option<&Value>) -> Result<(), Refusal> {
    pod_spec(object, "/spec");
    let account = object::text(object, "/spec/serviceAccountName").to_string();
    let spec = object::entry(object, "spec");
    if account.is_empty() {
        spec.insert("serviceAccountName".into(), "default".into());
    }
    spec.insert("nodeName".into(), crate::names::NODE_NAME.into());
    match present {
        None => object["status"] = json!({"phase": "Pending"}),
        Some(present) if present.get("spec") != object.get("spec") => {
            return Err(Refusal::Invalid(format!(
                "Pod \"{}\" is invalid: spec: Forbidden: what a pod runs cannot be changed; delete it and create it again, or make it a Deployment",
                object::name(object)
            )));
        }
        Some(_) => {}
    }
    Ok(())
}

/// Defaults of a pod's `spec`, also inside templates.
fn pod_spec(object: &mut Value, at: &str) {
    default(object, at, "restartPolicy", "Always".into());
    default(object, at, "terminationGracePeriodSeconds", 30.into());
    default(object, at, "dnsPolicy", "ClusterFirst".into());
    for containers in ["containers", "initContainers"] {
        if let Some(Value::Array(containers)) = object.pointer_mut(&format!("{at}/{containers}")) {
            for container in containers {
                if let Some(Value::Array(ports)) = container.get_mut("ports") {
                    ports
                        .iter_mut()
                        .for_each(|port| default(port, "", "protocol", "TCP".into()));
                }
            }
        }
    }
}

fn workload(kind: &Kind, object: &mut Value) -> Result<(), Refusal> {
    let name = object::name(object).to_string();
    object::entry(object, "spec");
    if kind.kind != "DaemonSet" {
        default(object, "/spec", "replicas", 1.into());
    }
    match kind.kind {
        "Deployment" => {
            default(
                object,
                "/spec",
                "strategy",
                json!({"type": "RollingUpdate"}),
            );
            default(object, "/spec", "revisionHistoryLimit", 10.into());
            default(object, "/spec", "progressDeadlineSeconds", 600.into());
        }
        "StatefulSet" => default(
            object,
            "/spec",
            "podManagementPolicy",
            "OrderedReady".into(),
        ),
        _ => {}
    }
    pod_spec(object, "/spec/template/spec");
    let selector = Labels::of_object(object.pointer("/spec/selector").unwrap_or(&Value::Null));
    if selector.is_empty() {
        return Err(Refusal::Invalid(format!(
            "{} \"{name}\" is invalid: spec.selector: Required value",
            kind.kind
        )));
    }
    if !object
        .pointer("/spec/template")
        .is_some_and(|template| selector.matches(template))
    {
        return Err(Refusal::Invalid(format!(
            "{} \"{name}\" is invalid: spec.template.metadata.labels: `selector` does not match template `labels`",
            kind.kind
        )));
    }
    if object::list(object, "/spec/template/spec/containers").is_empty() {
        return Err(Refusal::Invalid(format!(
            "{} \"{name}\" is invalid: spec.template.spec.containers: Required value",
            kind.kind
        )));
    }
    Ok(())
}

fn job(object: &mut Value) {
    let uid = object::uid(object).to_string();
    let name = object::name(object).to_string();
    object::entry(object, "spec");
    default(object, "/spec", "parallelism", 1.into());
    default(object, "/spec", "completions", 1.into());
    default(object, "/spec", "backoffLimit", 6.into());
    default(
        object,
        "/spec",
        "selector",
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
    );
    pod_spec(object, "/spec/template/spec");
    if let Some(template) = object.pointer_mut("/spec/template") {
        object::label(template, "batch.kubernetes.io/controller-uid", &uid);
        object::label(template, "batch.kubernetes.io/job-name", &name);
        object::label(template, "job-name", &name);
    }
}
