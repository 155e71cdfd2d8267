//! Who asks: a proxy as its xDS `Node` describes it.
//!
//! Read once, when a proxy connects. What a generator does depends on this value only through the parts that its `Inputs` copy, so
//! two proxies of one Deployment differ here (address, name) and may still share every resource whose inputs leave those out.
//!
//! The keys are Istio's node metadata (reference 1.9), plus `TANBARK_MARK` (a socket mark for the proxy's own connections) and
//! `TANBARK_STOCK_ENVOY` (no Istio extensions in this Envoy; also seen from the list of extensions that an Envoy sends).

use std::{net::IpAddr, sync::Arc};

use mesh_model::{Labels, object::Text, workload::Locality};
use wire_envoy::pb::{Struct, ValueKind, core::Node};

use crate::error::InvalidNode;

/// Role of a proxy: the first part of its node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientKind {
    /// Beside an application.
    Sidecar,
    /// At the edge (`router`).
    Gateway,
}

/// How connections of the pod reach its sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Interception {
    #[default]
    Redirect,
    Tproxy,
    /// Not at all; applications name the proxy's ports.
    None,
}

/// A proxy that asks for resources.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    pub kind: ClientKind,
    /// The whole node id, `sidecar~<address>~<pod>.<namespace>~<namespace>.svc.<domain>`.
    pub id: Text,
    /// Node cluster, e.g. `productpage.default`.
    pub cluster: Text,
    /// Pod name.
    pub name: Text,
    pub namespace: Text,
    pub workload_name: Text,
    pub labels: Labels,
    pub service_account: Text,
    /// At least one; the first is the primary one.
    pub addresses: Arc<[IpAddr]>,
    pub locality: Locality,
    pub node_name: Text,
    pub mesh_id: Text,
    pub cluster_id: Text,
    pub network: Text,
    /// `default.svc.cluster.local`
    pub dns_domain: Text,
    /// A stock Envoy: Istio's own filters do not exist in it.
    pub is_envoy_without_istio_filters: bool,
    /// Mark for every upstream socket (SO_MARK), so that redirection rules leave them alone.
    pub mark: Option<u32>,
    pub interception: Interception,
    /// Declared container ports.
    pub container_ports: Arc<[u16]>,
    /// May not bind ports below 1024.
    pub unprivileged: bool,
    /// The proxy answers DNS itself and wants the name table.
    pub dns_capture: bool,
    /// `ISTIO_VERSION`, as told.
    pub version: Text,
}

impl Client {
    /// Reads a node. Errors: an id that is not `type~address~name.namespace~domain`, or an unknown type.
    pub fn from_node(node: &Node) -> Result<Self, InvalidNode> {
        let mut parts = node.id.split('~');
        let (Some(kind), Some(address), Some(instance), Some(domain), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(InvalidNode::Id(node.id.clone()));
        };
        let kind = match kind {
            "sidecar" => ClientKind::Sidecar,
            "router" => ClientKind::Gateway,
            other => return Err(InvalidNode::Kind(other.to_owned())),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| InvalidNode::Address(address.to_owned()))?;
        let metadata = Metadata(node.metadata.as_ref());
        let (pod, pod_namespace) = instance.rsplit_once('.').unwrap_or((instance, ""));
        let locality = node.locality.clone().unwrap_or_default();
        Ok(Self {
            kind,
            id: node.id.as_str().into(),
            cluster: node.cluster.as_str().into(),
            name: metadata.text("NAME").unwrap_or_else(|| pod.into()),
            namespace: metadata
                .text("NAMESPACE")
                .unwrap_or_else(|| pod_namespace.into()),
            workload_name: metadata.text("WORKLOAD_NAME").unwrap_or_else(|| pod.into()),
            labels: metadata.labels(),
            service_account: metadata
                .text("SERVICE_ACCOUNT")
                .unwrap_or_else(|| "default".into()),
            addresses: addresses(address, metadata.text("INSTANCE_IPS").as_deref()),
            locality: Locality {
                region: filled(&locality.region),
                zone: filled(&locality.zone),
                sub_zone: filled(&locality.sub_zone),
            },
            node_name: metadata.text("NODE_NAME").unwrap_or_default(),
            mesh_id: metadata.text("MESH_ID").unwrap_or_default(),
            cluster_id: metadata.text("CLUSTER_ID").unwrap_or_default(),
            network: metadata.text("NETWORK").unwrap_or_default(),
            dns_domain: domain.into(),
            is_envoy_without_istio_filters: is_stock_envoy(node, &metadata),
            mark: metadata
                .text("TANBARK_MARK")
                .and_then(|mark| mark.parse().ok()),
            interception: interception(metadata.text("INTERCEPTION_MODE").as_deref()),
            container_ports: container_ports(metadata.text("POD_PORTS").as_deref()),
            unprivileged: metadata.is_true("UNPRIVILEGED_POD"),
            dns_capture: metadata.is_true("DNS_CAPTURE"),
            version: metadata.text("ISTIO_VERSION").unwrap_or_default(),
        })
    }

    /// The first of the pod's addresses.
    pub fn address(&self) -> IpAddr {
        self.addresses
            .first()
            .copied()
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    /// The proxy has IPv4 addresses only, or both families; false: IPv6 only.
    pub fn has_ipv4(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv4)
    }

    /// Listens on every address: `0.0.0.0`, or `::` in a pod without IPv4.
    pub fn wildcard(&self) -> &'static str {
        if self.has_ipv4() { "0.0.0.0" } else { "::" }
    }

    /// Nothing but what tells how a proxy of this sort forwards: two clients that are equal in this get equal clusters of services.
    pub(crate) fn forwarding_traits(&self) -> Self {
        let family = |is_v6: bool| -> IpAddr {
            match is_v6 {
                true => std::net::Ipv6Addr::UNSPECIFIED.into(),
                false => std::net::Ipv4Addr::UNSPECIFIED.into(),
            }
        };
        let families = [false, true]
            .into_iter()
            .filter(|is_v6| self.addresses.iter().any(|a| a.is_ipv6() == *is_v6));
        Self {
            kind: self.kind,
            id: "".into(),
            cluster: "".into(),
            name: "".into(),
            namespace: "".into(),
            workload_name: "".into(),
            labels: Labels::default(),
            service_account: "".into(),
            addresses: families.map(family).collect(),
            locality: Locality::default(),
            node_name: "".into(),
            mesh_id: "".into(),
            cluster_id: "".into(),
            network: "".into(),
            dns_domain: "".into(),
            is_envoy_without_istio_filters: self.is_envoy_without_istio_filters,
            mark: self.mark,
            interception: self.interception,
            container_ports: Arc::default(),
            unprivileged: self.unprivileged,
            dns_capture: self.dns_capture,
            version: "".into(),
        }
    }

    /// What Istio calls the canonical service and revision of the workload.
    pub fn canonical(&self) -> (&str, &str) {
        let service = [
            "service.istio.io/canonical-name",
            "app.kubernetes.io/name",
            "app",
        ]
        .iter()
        .find_map(|key| self.labels.value(key))
        .unwrap_or(&self.workload_name);
        let revision = [
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ]
        .iter()
        .find_map(|key| self.labels.value(key))
        .unwrap_or("latest");
        (service, revision)
    }
}

fn filled(text: &str) -> Option<Text> {
    (!text.is_empty()).then(|| text.into())
}

fn addresses(primary: IpAddr, listed: Option<&str>) -> Arc<[IpAddr]> {
    let mut all: Vec<IpAddr> = listed
        .unwrap_or_default()
        .split(',')
        .filter_map(|text| text.trim().parse().ok())
        .collect();
    if !all.contains(&primary) {
        all.insert(0, primary);
    }
    all.into()
}

fn interception(mode: Option<&str>) -> Interception {
    match mode {
        Some("TPROXY") => Interception::Tproxy,
        Some("NONE") => Interception::None,
        _ => Interception::Redirect,
    }
}

/// `[{"containerPort":9080,"protocol":"TCP"}]`; what does not read as such declares nothing.
fn container_ports(json: Option<&str>) -> Arc<[u16]> {
    let parsed: Option<serde_json::Value> = json.and_then(|text| serde_json::from_str(text).ok());
    let entries = parsed
        .as_ref()
        .and_then(|value| value.as_array())
        .map(Vec::as_slice)
        .unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| u16::try_from(entry.get("containerPort")?.as_u64()?).ok())
        .collect()
}

fn is_stock_envoy(node: &Node, metadata: &Metadata<'_>) -> bool {
    let lists_none_of_istio = !node.extensions.is_empty()
        && !node
            .extensions
            .iter()
            .any(|extension| extension.name.starts_with("istio."));
    metadata.is_true("TANBARK_STOCK_ENVOY") || lists_none_of_istio
}

struct Metadata<'a>(Option<&'a Struct>);

impl Metadata<'_> {
    fn kind(&self, key: &str) -> Option<&ValueKind> {
        self.0?.fields.get(key)?.kind.as_ref()
    }
    /// Strings as they are, numbers and booleans as text.
    fn text(&self, key: &str) -> Option<Text> {
        match self.kind(key)? {
            ValueKind::StringValue(text) if !text.is_empty() => Some(text.as_str().into()),
            ValueKind::NumberValue(number) => Some(number.to_string().into()),
            ValueKind::BoolValue(value) => Some(value.to_string().into()),
            _ => None,
        }
    }
    fn is_true(&self, key: &str) -> bool {
        self.text(key)
            .is_some_and(|text| &*text == "true" || &*text == "1")
    }
    fn labels(&self) -> Labels {
        let Some(ValueKind::StructValue(labels)) = self.kind("LABELS") else {
            return Labels::default();
        };
        let texts = labels
            .fields
            .iter()
            .filter_map(|(key, value)| match value.kind.as_ref()? {
                ValueKind::StringValue(text) => Some((key.as_str(), text.as_str())),
                _ => None,
            });
        texts.collect()
    }
}
