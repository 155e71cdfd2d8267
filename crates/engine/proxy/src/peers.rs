//! Who the two sides of a request are, as Istio's proxies tell each other.
//!
//! [`Own`] is this proxy; [`PeerCache`] remembers what header values said. The value is the base64
//! of a `google.protobuf.Struct` with the fields that Istio's proxies write ([`message`]). What
//! does not parse is ignored. The HTTP filter and the TCP exchange stand on it.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use proxy_config::{bootstrap::Node, metadata::Value};
use telemetry::record::Peer;

use crate::headers::{
    names::{X_ENVOY_PEER_METADATA, X_ENVOY_PEER_METADATA_ID},
    text,
};

pub(crate) mod message;

/// Parsed values that a worker remembers; more than this many different peers are parsed again.
const CACHED_PEERS: usize = 500;
/// Longer values are not metadata of any proxy.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// This proxy, as it tells its peers.
#[derive(Debug, Clone, Default)]
pub struct Own {
    pub id: Option<HeaderValue>,
    pub value: Option<HeaderValue>,
    pub peer: Arc<Peer>,
}

/// Peers by the header value that told them.
#[derive(Default)]
pub struct PeerCache(Mutex<HashMap<HeaderValue, Arc<Peer>, RandomState>>);

impl Own {
    /// From the node that the proxy was started with.
    pub fn new(node: &Node) -> Self {
        let peer = Arc::new(of_node(&node.metadata));
        let value = STANDARD.encode(message::encode(&peer));
        Self {
            id: Some(text(&node.id)),
            value: Some(text(&value)),
            peer,
        }
    }
}

/// Adds our own metadata.
pub(crate) fn tell(headers: &mut HeaderMap, own: &Own) {
    if let (Some(id), Some(value)) = (&own.id, &own.value) {
        headers.insert(X_ENVOY_PEER_METADATA_ID, id.clone());
        headers.insert(X_ENVOY_PEER_METADATA, value.clone());
    }
}

/// Takes the metadata of the other side out of the headers; `None`: it told none, or none that can
/// be read.
pub(crate) fn take(headers: &mut HeaderMap, cache: &PeerCache) -> Option<Arc<Peer>> {
    headers.remove(X_ENVOY_PEER_METADATA_ID);
    let value = headers
        .remove(X_ENVOY_PEER_METADATA)
        .filter(|value| value.len() <= MAX_VALUE_BYTES)?;
    let mut cache = cache.0.lock();
    if let Some(peer) = cache.get(&value) {
        return Some(peer.clone());
    }
    let peer = Arc::new(message::decode(&STANDARD.decode(&value).ok()?)?);
    if cache.len() >= CACHED_PEERS {
        cache.clear();
    }
    cache.insert(value, peer.clone());
    Some(peer)
}

/// The peer that an endpoint's metadata names: `istio.workload` =
/// `name;namespace;service;revision;cluster`.
pub fn of_endpoint(metadata: &proxy_config::metadata::Metadata) -> Option<Arc<Peer>> {
    let mut parts = metadata
        .lookup("istio", &["workload"])?
        .as_str()?
        .split(';')
        .map(Arc::from);
    let mut next = || parts.next().unwrap_or_else(|| Arc::from(""));
    let (workload, namespace, canonical_service, canonical_revision, cluster) =
        (next(), next(), next(), next(), next());
    Some(Arc::new(Peer {
        workload,
        namespace,
        canonical_service,
        canonical_revision,
        cluster,
        ..Peer::default()
    }))
}

/// Node metadata as Istio's agents write it.
fn of_node(metadata: &Value) -> Peer {
    let field = |name: &str| {
        metadata
            .field(name)
            .and_then(Value::as_str)
            .map(Arc::from)
            .unwrap_or_default()
    };
    let label = |name: &str| {
        metadata
            .field("LABELS")
            .and_then(|l| l.field(name))
            .and_then(Value::as_str)
            .map(Arc::<str>::from)
    };
    let app = label("app").unwrap_or_default();
    let version = label("version").unwrap_or_default();
    let workload: Arc<str> = field("WORKLOAD_NAME");
    let or = |first: Option<Arc<str>>, second: &Arc<str>| {
        first
            .filter(|t| !t.is_empty())
            .unwrap_or_else(|| second.clone())
    };
    let named = or(
        label("app.kubernetes.io/name"),
        &or(Some(app.clone()), &workload),
    );
    let revision = or(
        label("app.kubernetes.io/version"),
        &or(Some(version.clone()), &Arc::from("latest")),
    );
    Peer {
        namespace: field("NAMESPACE"),
        canonical_service: or(label("service.istio.io/canonical-name"), &named),
        canonical_revision: or(label("service.istio.io/canonical-revision"), &revision),
        cluster: field("CLUSTER_ID"),
        workload_type: message::workload_type(&field("OWNER")),
        instance: field("NAME"),
        identity: Arc::from(""),
        workload,
        app,
        version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struct_of(fields: &[(&str, Value)]) -> Value {
        Value::Struct(Arc::new(
            fields
                .iter()
                .map(|(k, v)| (Arc::from(*k), v.clone()))
                .collect(),
        ))
    }

    #[test]
    fn what_a_node_tells_its_peer_reads_back() {
        let string = |text: &str| Value::String(text.into());
        let labels = struct_of(&[("app", string("reviews")), ("version", string("v2"))]);
        let node = Node {
            id: "sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local".into(),
            cluster: "reviews.default".into(),
            metadata: struct_of(&[
                ("NAME", string("reviews-1")),
                ("NAMESPACE", string("default")),
                ("WORKLOAD_NAME", string("reviews-v2")),
                ("CLUSTER_ID", string("Kubernetes")),
                (
                    "OWNER",
                    string("kubernetes://apis/apps/v1/namespaces/default/deployments/reviews-v2"),
                ),
                ("LABELS", labels),
            ]),
            locality: Default::default(),
        };
        let own = Own::new(&node);
        let mut headers = HeaderMap::new();
        tell(&mut headers, &own);
        assert_eq!(headers.len(), 2);
        let cache = PeerCache::default();
        let peer = take(&mut headers, &cache).unwrap();
        assert!(headers.is_empty());
        assert_eq!(peer, own.peer);
        assert_eq!(
            (
                &*peer.canonical_service,
                &*peer.canonical_revision,
                &*peer.workload_type
            ),
            ("reviews", "v2", "deployment")
        );
        headers.insert(
            X_ENVOY_PEER_METADATA,
            HeaderValue::from_static("no base64!"),
        );
        assert!(take(&mut headers, &cache).is_none());
    }
}
