//! What of a pod, and of what made it, is not on one machine as it is on Kubernetes. It is told
//! once for each pod, as an event.

use serde_json::Value;

use super::status::containers_of;
use crate::context::Context;
use crate::object;
use crate::store::kinds::by_object;

/// Controllers above a pod: a Deployment's ReplicaSet, and the Deployment.
const CONTROLLERS: usize = 2;

/// Of a kind: a field, the value that it has where it is not written, and what happens instead.
const OF_CONTROLLERS: &[(&str, &str, &str, &str)] = &[
    (
        "Deployment",
        "paused",
        "false",
        "changes are rolled out all the same",
    ),
    (
        "Deployment",
        "minReadySeconds",
        "0",
        "a ready pod is available at once",
    ),
    (
        "StatefulSet",
        "minReadySeconds",
        "0",
        "a ready pod is available at once",
    ),
    (
        "StatefulSet",
        "updateStrategy/rollingUpdate/partition",
        "0",
        "all pods are updated",
    ),
    (
        "Job",
        "activeDeadlineSeconds",
        "null",
        "the job may run for ever",
    ),
    (
        "Job",
        "ttlSecondsAfterFinished",
        "null",
        "the job stays until it is deleted",
    ),
    (
        "Job",
        "completionMode",
        "\"NonIndexed\"",
        "pods have no index",
    ),
    (
        "Job",
        "podFailurePolicy",
        "null",
        "every failure counts towards backoffLimit",
    ),
];

/// What of a pod is not on one machine as it is on Kubernetes.
pub(super) fn differences(context: &Context, pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let annotations = object::annotations(pod);
    if annotations
        .get("sidecar.istio.io/interceptionMode")
        .is_some_and(|mode| mode == "TPROXY")
    {
        found.push(
            "sidecar.istio.io/interceptionMode: TPROXY is not supported; REDIRECT is used".into(),
        );
    }
    found.extend(unused_fields(pod));
    let above = |object: &Value| {
        let owner = object::controller(object)?;
        let kind = by_object(
            object::text(owner, "/apiVersion"),
            object::text(owner, "/kind"),
        )?;
        let name = object::text(owner, "/name");
        context.store.find(kind, object::namespace(object), name)
    };
    let first = above(pod);
    let controllers = std::iter::successors(first, |controller| above(controller));
    for controller in controllers.take(CONTROLLERS) {
        found.extend(unused_by_controller(&controller));
    }
    found
}

/// Fields that are written and that one machine does nothing about.
fn unused_fields(pod: &Value) -> Vec<String> {
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let spec = [
        ("hostNetwork", "the pod has a network of its own"),
        ("hostPID", "the pod sees its own processes only"),
        ("hostIPC", "the pod has memory to share of its own"),
        (
            "shareProcessNamespace",
            "each container sees its own processes only",
        ),
        ("activeDeadlineSeconds", "the pod may run for ever"),
        ("runtimeClassName", "there is one runtime"),
        (
            "readinessGates",
            "containers alone decide whether the pod is ready",
        ),
    ];
    let fields = spec.iter().filter_map(|(field, instead)| {
        pod.pointer(&format!("/spec/{field}"))
            .filter(|value| is_set(value))?;
        Some(format!(
            "spec.{field} has no effect on one machine: {instead}"
        ))
    });
    let mut found: Vec<String> = fields.collect();
    for (_, container) in containers_of(pod) {
        let name = object::text(&container, "/name");
        let mut tell = |field: &str, instead: &str| {
            found.push(format!(
                "container {name}: {field} has no effect on one machine: {instead}"
            ));
        };
        if object::flag(&container, "/securityContext/privileged") {
            tell(
                "securityContext.privileged",
                "no application has rights over the machine",
            );
        }
        let ports = object::list(&container, "/ports");
        if ports.iter().any(|port| port.get("hostPort").is_some()) {
            tell(
                "ports.hostPort",
                "a Service of type LoadBalancer or NodePort is published",
            );
        }
        if container.get("volumeDevices").is_some() {
            tell("volumeDevices", "there are no block devices");
        }
    }
    found
}

/// Whether a value is the one that `json` writes.
fn is_written(value: &Value, json: &str) -> bool {
    serde_json::from_str::<Value>(json).is_ok_and(|written| written == *value)
}

/// The same of a controller's own fields.
fn unused_by_controller(controller: &Value) -> Vec<String> {
    let kind = object::text(controller, "/kind");
    let fields = OF_CONTROLLERS.iter().filter(|(of, ..)| *of == kind);
    let mut found: Vec<String> = fields
        .filter(|(_, field, usual, _)| {
            let value = controller.pointer(&format!("/spec/{field}"));
            value.is_some_and(|value| !value.is_null() && !is_written(value, usual))
        })
        .map(|(_, field, _, instead)| {
            let field = field.replace('/', ".");
            format!("{kind}: spec.{field} has no effect on one machine: {instead}")
        })
        .collect();
    for claim in object::list(controller, "/spec/volumeClaimTemplates") {
        found.push(format!(
            "volumeClaimTemplates: {} is an empty folder on one machine, and goes with its pod",
            object::name(claim)
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_without_effect_are_named() {
        let container = json!({"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}],
            "securityContext": {"privileged": true}});
        let spec = json!({"hostNetwork": true, "hostPID": false, "containers": [container]});
        let found = unused_fields(&json!({"spec": spec})).join("\n");
        assert_eq!(found.lines().count(), 3, "{found}");
        for part in [
            "spec.hostNetwork has no effect",
            "container c: ports.hostPort",
            "securityContext.privileged",
        ] {
            assert!(found.contains(part), "{found}");
        }
        assert_eq!(
            unused_fields(&json!({"spec": {"containers": [{"name": "c"}]}})),
            [""; 0]
        );
    }

    #[test]
    fn fields_of_controllers_without_effect_are_named() {
        let job = json!({"kind": "Job", "spec": {"activeDeadlineSeconds": 5, "completionMode": "NonIndexed"}});
        assert_eq!(
            unused_by_controller(&job),
            [
                "Job: spec.activeDeadlineSeconds has no effect on one machine: the job may run for ever"
            ]
        );
        let set = json!({"kind": "StatefulSet", "spec": {
            "updateStrategy": {"rollingUpdate": {"partition": 2}}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}});
        let found = unused_by_controller(&set).join("\n");
        assert!(
            found.contains("spec.updateStrategy.rollingUpdate.partition") && found.contains("data"),
            "{found}"
        );
        let usual = json!({"kind": "Deployment", "spec": {"paused": false, "minReadySeconds": 0, "replicas": 2}});
        assert_eq!(unused_by_controller(&usual), [""; 0]);
    }
}
