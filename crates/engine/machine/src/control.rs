//! The control plane as objects: the Deployment, Service and account `istiod` of the namespace
//! `istio-system`.
//!
//! Names, labels and ports are those of Istio's own installation, so that its tools find them.

use serde_json::{Value, json};

use crate::names::{CONTROL_IMAGE, SYSTEM_NAMESPACE};
use crate::object;
use crate::options::Options;
use crate::state::State;
use crate::store::kinds::{ALL, Kind};

/// `metadata` of all three.
pub fn control_metadata() -> Value {
    json!({"name": "istiod", "namespace": SYSTEM_NAMESPACE, "labels": {"app": "istiod", "istio": "pilot"}})
}

/// The labels of its pod. Istio's tools find the control planes of a cluster by the revision's.
pub fn control_labels() -> Value {
    json!({"app": "istiod", "istio": "pilot", "istio.io/rev": "default", "sidecar.istio.io/inject": "false"})
}

/// The webhook that injects sidecars on Kubernetes. Here the local API injects them itself, by the
/// same labels; the object tells Istio's tools so, which look for it by name, labels and selectors.
pub fn injector() -> Value {
    let webhook = |name: &str, namespaces: Value, objects: Value| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": {"service": {"name": "istiod", "namespace": SYSTEM_NAMESPACE, "path": "/inject", "port": 443}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"}],
            "namespaceSelector": {"matchExpressions": namespaces}, "objectSelector": {"matchExpressions": objects},
        })
    };
    let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let is_not =
        |key: &str, value: &str| json!({"key": key, "operator": "NotIn", "values": [value]});
    let absent = |key: &str| json!({"key": key, "operator": "DoesNotExist"});
    let (namespace, revision, pod) = ("istio-injection", "istio.io/rev", "sidecar.istio.io/inject");
    let webhooks = [
        webhook(
            "rev.namespace.sidecar-injector.istio.io",
            json!([is(revision, "default"), absent(namespace)]),
            json!([is_not(pod, "false")]),
        ),
        webhook(
            "rev.object.sidecar-injector.istio.io",
            json!([absent(revision), absent(namespace)]),
            json!([is_not(pod, "false"), is(revision, "default")]),
        ),
        webhook(
            "namespace.sidecar-injector.istio.io",
            json!([is(namespace, "enabled")]),
            json!([is_not(pod, "false")]),
        ),
        webhook(
            "object.sidecar-injector.istio.io",
            json!([absent(namespace), absent(revision)]),
            json!([is(pod, "true"), absent(revision)]),
        ),
    ];
    json!({
        "metadata": {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector", "istio.io/rev": "default"}},
        "webhooks": webhooks,
    })
}

/// The definitions of Istio's kinds. They are served without them; tools read them to know what
/// there is.
pub fn definitions() -> impl Iterator<Item = Value> {
    ALL.iter()
        .filter(|kind| kind.group.ends_with(".istio.io"))
        .map(definition)
}

fn definition(kind: &Kind) -> Value {
    let versions: Vec<Value> = kind
        .versions
        .iter()
        .map(|version| {
            json!({
                "name": version, "served": true, "storage": *version == kind.preferred(), "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            })
        })
        .collect();
    let names = json!({
        "kind": kind.kind, "listKind": format!("{}List", kind.kind), "plural": kind.plural, "singular": kind.singular(),
        "shortNames": kind.short_names, "categories": kind.categories(),
    });
    let condition = |name: &str, reason: &str| json!({"type": name, "status": "True", "reason": reason, "message": "", "lastTransitionTime": object::now()});
    json!({
        "metadata": {"name": kind.qualified(), "labels": {"app": "istio-pilot", "istio": kind.group.split('.').next()}},
        "spec": {"group": kind.group, "names": names, "scope": "Namespaced", "versions": versions, "conversion": {"strategy": "None"}},
        "status": {
            "acceptedNames": names, "storedVersions": [kind.preferred()],
            "conditions": [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
        },
    })
}

/// The control plane's Service, with istiod's name and ports.
pub fn control_service() -> Value {
    let port = |name: &str, port: u16, target: u16| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
    let ports = [
        port("grpc-xds", 15_010, 15_010),
        port("https-dns", 15_012, 15_012),
        port("https-webhook", 443, 15_017),
        port("http-monitoring", 15_014, 15_014),
    ];
    json!({"metadata": control_metadata(), "spec": {"selector": {"app": "istiod", "istio": "pilot"}, "ports": ports}})
}

/// The `spec` of the control plane's pod.
pub fn control_pod(options: &Options, state: &State) -> Value {
    let path = |path: std::path::PathBuf| path.display().to_string();
    let (socket, folder) = (path(state.socket()), path(state.control()));
    let mut environment = vec![
        json!({"name": "TANBARK_API_SOCKET", "value": socket}),
        json!({"name": "TANBARK_CONTROL_STATE", "value": folder}),
        json!({"name": "TRUST_DOMAIN", "value": options.trust_domain}),
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}),
        json!({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
    ];
    let mut volumes = vec![
        json!({"name": "api", "hostPath": {"path": socket}}),
        json!({"name": "state", "hostPath": {"path": folder}}),
    ];
    let mut mounts = vec![
        json!({"name": "api", "mountPath": socket}),
        json!({"name": "state", "mountPath": folder}),
    ];
    if let Some(file) = &options.mesh_config {
        let file = file.display().to_string();
        environment.push(json!({"name": "TANBARK_MESH_CONFIG", "value": file}));
        volumes.push(json!({"name": "mesh", "hostPath": {"path": file}}));
        mounts.push(json!({"name": "mesh", "mountPath": file, "readOnly": true}));
    }
    let ports = [15_010, 15_012, 15_014, 15_017]
        .map(|port: u16| json!({"containerPort": port, "protocol": "TCP"}));
    json!({
        "serviceAccountName": "istiod", "volumes": volumes, "terminationGracePeriodSeconds": 5, "enableServiceLinks": false,
        "containers": [{
            "name": "discovery", "image": CONTROL_IMAGE, "env": environment, "volumeMounts": mounts,
            "ports": ports,
            "securityContext": {"runAsUser": 0, "runAsGroup": 0},
            "readinessProbe": {"tcpSocket": {"port": 15_012}, "periodSeconds": 2},
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::kinds::{CUSTOM_RESOURCE_DEFINITIONS, MUTATING_WEBHOOK_CONFIGURATIONS};

    #[test]
    fn tools_find_the_injector_and_every_kind_of_istio() {
        let store = Store::default();
        store
            .create(&MUTATING_WEBHOOK_CONFIGURATIONS, injector())
            .expect("an object like any other");
        for definition in definitions() {
            store
                .create(&CUSTOM_RESOURCE_DEFINITIONS, definition)
                .expect("an object like any other");
        }
        let names: Vec<String> = store
            .all(&CUSTOM_RESOURCE_DEFINITIONS)
            .iter()
            .map(|object| object::name(object).to_string())
            .collect();
        for name in [
            "virtualservices.networking.istio.io",
            "telemetries.telemetry.istio.io",
        ] {
            assert!(
                names.iter().any(|other| other == name),
                "{name} in {names:?}"
            );
        }
        assert_eq!(control_labels()["istio.io/rev"], "default");
    }
}
