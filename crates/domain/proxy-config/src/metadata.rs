//! Static and dynamic metadata: `filter name → struct`, as `envoy.config.core.v3.Metadata`.

use std::{collections::BTreeMap, sync::Arc};

/// A value of `google.protobuf.Struct`.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(Arc<str>),
    List(Arc<[Value]>),
    Struct(Arc<BTreeMap<Arc<str>, Value>>),
}

impl Value {
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(s) = self {
            Some(s)
        } else {
            None
        }
    }
    pub fn field(&self, name: &str) -> Option<&Value> {
        if let Value::Struct(fields) = self {
            fields.get(name)
        } else {
            None
        }
    }
    pub fn as_list(&self) -> &[Value] {
        if let Value::List(items) = self {
            items
        } else {
            &[]
        }
    }
}

/// Metadata by filter name (`istio`, `envoy.lb`, `envoy.transport_socket_match`,
/// `envoy.filters.http.rbac`, …).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata(pub Arc<BTreeMap<Arc<str>, Value>>);

impl Metadata {
    /// The value at `filter` → `path[0]` → `path[1]` …
    pub fn lookup(&self, filter: &str, path: &[impl AsRef<str>]) -> Option<&Value> {
        let mut value = self.0.get(filter)?;
        for key in path {
            value = value.field(key.as_ref())?;
        }
        Some(value)
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
