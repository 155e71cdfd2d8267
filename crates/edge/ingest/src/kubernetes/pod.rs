//! Pod, Node and Namespace: who runs where, under which name and with which identity.

use std::net::IpAddr;

use mesh_model::object::{Labels, Meta, Text};
use mesh_model::workload::Locality;
use wire_kube::kubernetes::{namespace, node as node_wire, pod as wire};
use wire_kube::meta::OwnerReference;

use crate::cx::Cx;
use crate::value::text;

/// A pod, without what its node says about its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    pub meta: Meta,
    pub workload_name: Text,
    pub service_account: Text,
    /// Empty until the pod has an address, and when it has ended.
    pub addresses: Vec<IpAddr>,
    /// It shares its address with its node, and with other pods.
    pub host_network: bool,
    pub node: Text,
    pub ready: bool,
    pub ports: Vec<(Text, u16)>,
    pub hostname: Option<Text>,
    pub subdomain: Option<Text>,
}

/// The place of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub meta: Meta,
    pub locality: Locality,
}

pub fn parse(cx: &mut Cx, value: wire::Pod) -> Option<Pod> {
    let wire::Pod {
        metadata,
        spec,
        status,
    } = value;
    let wire::PodSpec {
        service_account_name,
        node_name,
        hostname,
        subdomain,
        host_network,
        containers,
        init_containers,
    } = spec;
    let wire::PodStatus {
        phase,
        pod_ip,
        pod_ips,
        host_ip: _,
        conditions,
    } = status;
    let workload_name = workload_name(cx.meta, &metadata.owner_references);
    let mut written: Vec<&str> = pod_ips.iter().map(|p| p.ip.as_str()).collect();
    if written.is_empty() && !pod_ip.is_empty() {
        written.push(&pod_ip);
    }
    let ended = matches!(phase.as_str(), "Succeeded" | "Failed");
    let addresses = written
        .iter()
        .filter(|_| !ended)
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let ready = conditions
        .iter()
        .any(|c| c.r#type == "Ready" && c.status == "True");
    let long_lived = init_containers
        .iter()
        .filter(|c| c.restart_policy == "Always");
    let ports = containers.iter().chain(long_lived).flat_map(|c| &c.ports);
    Some(Pod {
        meta: cx.meta.clone(),
        workload_name,
        service_account: if service_account_name.is_empty() {
            "default".into()
        } else {
            service_account_name.into()
        },
        addresses,
        host_network,
        node: node_name.into(),
        ready,
        ports: ports
            .filter_map(|p| {
                Some((
                    Text::from(p.name.as_str()),
                    u16::try_from(p.container_port).ok()?,
                ))
            })
            .collect(),
        hostname: text(&hostname),
        subdomain: text(&subdomain),
    })
}

/// The Deployment, StatefulSet, Job, … that a pod belongs to; its own name when it belongs to none.
fn workload_name(meta: &Meta, owners: &[OwnerReference]) -> Text {
    if let Some(name) = meta.labels.value("service.istio.io/workload-name") {
        return name.into();
    }
    let Some(owner) = owners
        .iter()
        .find(|o| o.controller)
        .or_else(|| owners.first())
    else {
        return meta.object.name.clone();
    };
    let hash = meta.labels.value("pod-template-hash");
    let without_hash = hash
        .and_then(|hash| owner.name.strip_suffix(hash))
        .and_then(|name| name.strip_suffix('-'));
    match (owner.kind.as_str(), without_hash) {
        ("ReplicaSet", Some(deployment)) => deployment.into(),
        _ => owner.name.as_str().into(),
    }
}

/// The name under which metrics group versions of one application.
pub fn canonical_name(labels: &Labels, workload_name: &Text) -> Text {
    let known = [
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ];
    known
        .iter()
        .find_map(|key| labels.value(key))
        .map_or_else(|| workload_name.clone(), Text::from)
}

/// The version of that application.
pub fn canonical_revision(labels: &Labels) -> Text {
    let known = [
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ];
    known
        .iter()
        .find_map(|key| labels.value(key))
        .unwrap_or("latest")
        .into()
}

pub fn parse_node(cx: &mut Cx, value: node_wire::Node) -> Option<Node> {
    let node_wire::Node {
        metadata: _,
        status: _,
    } = value;
    let label = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| cx.meta.labels.value(key))
            .and_then(text)
    };
    let locality = Locality {
        region: label(&[
            "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/region",
        ]),
        zone: label(&[
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/zone",
        ]),
        sub_zone: label(&["topology.istio.io/subzone"]),
    };
    Some(Node {
        meta: cx.meta.clone(),
        locality,
    })
}

pub fn parse_namespace(cx: &mut Cx, value: namespace::Namespace) -> Option<Meta> {
    let namespace::Namespace { metadata: _ } = value;
    Some(cx.meta.clone())
}
