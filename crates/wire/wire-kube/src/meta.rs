//! What every object has: its type, name, namespace, labels and annotations.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::read::{Fault, Read, read_at};

message! {
    /// `metadata`. The API server's own fields are read past.
    struct ObjectMeta {
        name: String,
        generate_name: String,
        namespace: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        creation_timestamp: Option<String>,
        deletion_timestamp: Option<String>,
        deletion_grace_period_seconds: Option<i64>,
        generation: Option<i64>,
        resource_version: String,
        uid: String,
        self_link: String,
        finalizers: Vec<String>,
        owner_references: Vec<OwnerReference>,
        managed_fields: Option<Value>,
    }
}

message! {
    partial struct OwnerReference {
        api_version: String,
        kind: String,
        name: String,
        uid: String,
        controller: bool,
    }
}

/// An object of an Istio kind: what was written in its metadata and its `spec`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object<Spec> {
    pub metadata: ObjectMeta,
    pub spec: Spec,
}

message! {
    struct Envelope {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: Option<Value>,
        status: Option<Value>,
    }
}

/// Reads a custom resource; fields beside `metadata`, `spec` and `status` are reported.
pub fn read_object<Spec: Read>(value: &Value) -> (Object<Spec>, Vec<Fault>) {
    let (
        Envelope {
            api_version: _,
            kind: _,
            metadata,
            spec,
            status: _,
        },
        mut faults,
    ) = crate::read::read::<Envelope>(value);
    let spec = match spec {
        Some(spec) => {
            let (spec, more) = read_at::<Spec>("spec", &spec);
            faults.extend(more);
            spec
        }
        None => Spec::default(),
    };
    (Object { metadata, spec }, faults)
}

/// Reads only the metadata, for objects whose kind does not matter.
pub fn read_metadata(value: &Value) -> (ObjectMeta, Vec<Fault>) {
    match value.get("metadata") {
        Some(metadata) => read_at("metadata", metadata),
        None => (ObjectMeta::default(), Vec::new()),
    }
}
