//! The identity of an object, from its own text: kind, namespace and name.

use mesh_model::object::{ObjectRef, Text};
use serde_json::Value;
use wire_kube::kinds::{self, Kind, Scope};

use crate::problem::{Problem, Severity, code};

/// Identity of an object; ordered by kind, then namespace, then name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: Text,
    pub name: Text,
}

impl Key {
    /// The key of an object; the error says why it has none.
    pub fn of(object: &Value) -> Result<Self, Problem> {
        let field = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (api_version, kind) = (field("/apiVersion"), field("/kind"));
        let Some(info) = kinds::find(api_version, kind) else {
            let unnamed = api_version.is_empty() || kind.is_empty();
            return Err(if unnamed {
                let message = "an object must have apiVersion and kind";
                Problem::new(Severity::Error, code::UNKNOWN_KIND, "kind", message)
            } else {
                unknown_kind(api_version, kind)
            });
        };
        let name = field("/metadata/name");
        if name.is_empty() {
            return Err(Problem::new(
                Severity::Error,
                code::INVALID,
                "metadata.name",
                "an object must have a name",
            ));
        }
        let namespace = match (info.scope, field("/metadata/namespace")) {
            (Scope::Cluster, _) => "",
            (Scope::Namespaced, "") => "default",
            (Scope::Namespaced, namespace) => namespace,
        };
        Ok(Self {
            kind: info.id,
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// The same identity as messages and the model have it.
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind.name().into(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// Other people's kinds are none of the mesh's business; one of Istio's that there isn't is a mistake.
fn unknown_kind(api_version: &str, kind: &str) -> Problem {
    let (group, _) = kinds::split_api_version(api_version);
    let hint = match kinds::KINDS.iter().find(|info| info.kind == kind) {
        Some(info) => {
            let version = info.versions.first().copied().unwrap_or_default();
            let group = info.group;
            let slash = if group.is_empty() { "" } else { "/" };
            format!("; did you mean apiVersion {group}{slash}{version}?")
        }
        None => match wire_kube::read::nearest(kind, kinds::KINDS.iter().map(|info| info.kind)) {
            Some(near) => format!("; did you mean {near}?"),
            None => String::new(),
        },
    };
    let severity = match group.ends_with("istio.io") {
        true => Severity::Error,
        false => Severity::Warning,
    };
    let message = format!(
        "{kind} of {api_version} is not a kind that Tanbark knows: this object has no effect{hint}"
    );
    Problem::new(severity, code::UNKNOWN_KIND, "kind", message)
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.object_ref().fmt(f)
    }
}
