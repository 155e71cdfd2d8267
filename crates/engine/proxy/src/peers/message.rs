//! The `google.protobuf.Struct` of peer metadata, with the fields that Istio's proxies write and
//! read.

use std::{collections::BTreeMap, sync::Arc};

use prost::Message;
use telemetry::record::Peer;

#[derive(Clone, PartialEq, Message)]
struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

/// Of the kinds of value only those that occur here; others read as nothing.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(oneof = "Kind", tags = "3, 5")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(message, tag = "5")]
    Struct(Struct),
}

pub fn encode(peer: &Peer) -> Vec<u8> {
    let Peer {
        workload,
        namespace,
        app,
        version,
        canonical_service,
        canonical_revision,
        cluster,
        workload_type,
        instance,
        identity,
    } = peer;
    let labels = structure(&[
        ("app", app),
        ("version", version),
        ("service.istio.io/canonical-name", canonical_service),
        ("service.istio.io/canonical-revision", canonical_revision),
    ]);
    let owner: Arc<str> = match &**workload_type {
        "" => Arc::from(""),
        kind => {
            format!("kubernetes://apis/apps/v1/namespaces/{namespace}/{kind}s/{workload}").into()
        }
    };
    let mut message = structure(&[
        ("NAMESPACE", namespace),
        ("CLUSTER_ID", cluster),
        ("WORKLOAD_NAME", workload),
        ("NAME", instance),
        ("OWNER", &owner),
        ("IDENTITY", identity),
    ]);
    if !labels.fields.is_empty() {
        message.fields.insert(
            "LABELS".to_owned(),
            Value {
                kind: Some(Kind::Struct(labels)),
            },
        );
    }
    message.encode_to_vec()
}

/// `None`: not a message.
pub fn decode(bytes: &[u8]) -> Option<Peer> {
    let message = Struct::decode(bytes).ok()?;
    let labels = match message.fields.get("LABELS") {
        Some(Value {
            kind: Some(Kind::Struct(labels)),
        }) => labels.clone(),
        _ => Struct::default(),
    };
    Some(Peer {
        workload: message.text("WORKLOAD_NAME"),
        namespace: message.text("NAMESPACE"),
        app: labels.text("app"),
        version: labels.text("version"),
        canonical_service: labels.text("service.istio.io/canonical-name"),
        canonical_revision: labels.text("service.istio.io/canonical-revision"),
        cluster: message.text("CLUSTER_ID"),
        workload_type: workload_type(&message.text("OWNER")),
        instance: message.text("NAME"),
        identity: message.text("IDENTITY"),
    })
}

fn structure(fields: &[(&str, &Arc<str>)]) -> Struct {
    let given = fields.iter().filter(|(_, text)| !text.is_empty());
    Struct {
        fields: given
            .map(|(name, text)| {
                (
                    (*name).to_owned(),
                    Value {
                        kind: Some(Kind::Text(text.to_string())),
                    },
                )
            })
            .collect(),
    }
}

impl Struct {
    fn text(&self, name: &str) -> Arc<str> {
        match self.fields.get(name) {
            Some(Value {
                kind: Some(Kind::Text(text)),
            }) => Arc::from(text.as_str()),
            _ => Arc::from(""),
        }
    }
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";
const METADATA_FIELD: &str = "x-envoy-peer-metadata";
const ID_FIELD: &str = "x-envoy-peer-metadata-id";

/// The message of the exchange over TCP.
pub fn encode_exchange(id: &str, peer: &Peer) -> Vec<u8> {
    let metadata = Struct::decode(&*encode(peer)).unwrap_or_default();
    let mut message = Struct::default();
    message.fields.insert(
        METADATA_FIELD.to_owned(),
        Value {
            kind: Some(Kind::Struct(metadata)),
        },
    );
    message.fields.insert(
        ID_FIELD.to_owned(),
        Value {
            kind: Some(Kind::Text(id.to_owned())),
        },
    );
    Any {
        type_url: STRUCT_URL.to_owned(),
        value: message.encode_to_vec(),
    }
    .encode_to_vec()
}

/// `None`: not such a message, or it tells nothing.
pub fn decode_exchange(bytes: &[u8]) -> Option<Peer> {
    let any = Any::decode(bytes)
        .ok()
        .filter(|any| any.type_url == STRUCT_URL)?;
    let message = Struct::decode(&*any.value).ok()?;
    match message.fields.get(METADATA_FIELD) {
        Some(Value {
            kind: Some(Kind::Struct(metadata)),
        }) => decode(&metadata.encode_to_vec()),
        _ => None,
    }
}

/// `kubernetes://apis/apps/v1/namespaces/default/deployments/reviews` → `deployment`.
pub(super) fn workload_type(owner: &str) -> Arc<str> {
    let kind = owner.rsplit('/').nth(1).unwrap_or_default();
    Arc::from(match kind {
        "deployments" => "deployment",
        "jobs" => "job",
        "cronjobs" => "cronjob",
        "statefulsets" => "statefulset",
        "daemonsets" => "daemonset",
        _ => "pod",
    })
}
