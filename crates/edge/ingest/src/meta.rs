//! An object's identity and age.

use mesh_model::object::{Meta, ObjectRef};
use wire_kube::ObjectMeta;
use wire_kube::kinds::{Kind, Scope};

use crate::problem::{Problem, Severity, code};
use crate::value::{is_dns_label, labels};

/// The metadata of an object of `kind`; a namespaced object without a namespace is in `default`.
pub fn parse(
    kind: Kind,
    api_version: &str,
    metadata: ObjectMeta,
    problems: &mut Vec<Problem>,
) -> Option<Meta> {
    let ObjectMeta {
        name,
        generate_name: _,
        namespace,
        labels: own_labels,
        annotations,
        creation_timestamp,
        // The API server's own bookkeeping means nothing to the mesh.
        deletion_timestamp: _,
        deletion_grace_period_seconds: _,
        generation: _,
        resource_version: _,
        uid: _,
        self_link: _,
        finalizers: _,
        owner_references: _,
        managed_fields: _,
    } = metadata;
    let mut refuse = |path: &str, message: String| {
        problems.push(Problem::new(Severity::Error, code::INVALID, path, message))
    };
    if name.is_empty() {
        refuse("metadata.name", "an object must have a name".into());
        return None;
    }
    if !name.split('.').all(is_dns_label) || name.len() > 253 {
        refuse(
            "metadata.name",
            format!("{name:?} is not a name: use lower-case letters, digits, `-` and `.`"),
        );
        return None;
    }
    let namespace = namespace_of(kind, namespace)
        .map_err(|message| refuse("metadata.namespace", message))
        .ok()?;
    let created_at_seconds = match creation_timestamp
        .as_deref()
        .map(str::parse::<jiff::Timestamp>)
    {
        None => 0,
        Some(Ok(timestamp)) => timestamp.as_second(),
        Some(Err(_)) => {
            refuse(
                "metadata.creationTimestamp",
                "is not a time such as 2026-01-31T12:00:00Z".into(),
            );
            return None;
        }
    };
    Some(Meta {
        object: ObjectRef {
            kind: kind.name().into(),
            namespace: namespace.into(),
            name: name.into(),
        },
        created_at_seconds,
        labels: labels(&own_labels),
        annotations: labels(&annotations),
        api_version: api_version.into(),
    })
}

fn namespace_of(kind: Kind, written: String) -> Result<String, String> {
    match kind.info().scope {
        Scope::Cluster => Ok(String::new()),
        Scope::Namespaced if written.is_empty() => Ok("default".to_owned()),
        Scope::Namespaced if is_dns_label(&written) => Ok(written),
        Scope::Namespaced => Err(format!(
            "{written:?} is not a namespace: use lower-case letters, digits and `-`"
        )),
    }
}
