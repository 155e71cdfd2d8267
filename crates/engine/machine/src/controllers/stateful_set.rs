//! StatefulSet: pods with a number, started in order, ended in the other one.

use serde_json::{Value, json};

use super::action::{Action, Name, finished, pod_of, ready};
use crate::object;
use crate::store::kinds::{PODS, STATEFUL_SETS};

/// What is to be done about one StatefulSet with these pods.
pub fn decide(set: &Value, pods: &[&Value]) -> Vec<Action> {
    let wanted = object::number(set, "/spec/replicas").unwrap_or(1).max(0);
    let first = object::number(set, "/spec/ordinals/start")
        .unwrap_or(0)
        .max(0);
    let parallel = object::text(set, "/spec/podManagementPolicy") == "Parallel";
    let revision = set
        .pointer("/spec/template")
        .map(super::deployment::hash)
        .unwrap_or_default();
    let mut actions = Vec::new();
    if !object::deleting(set) {
        actions = step(set, pods, (first, first + wanted), parallel, &revision);
    }
    let current = pods
        .iter()
        .filter(|pod| revision_of(pod) == revision)
        .count();
    let ready_count = pods.iter().filter(|pod| ready(pod)).count();
    let status = json!({
        "replicas": pods.len(), "readyReplicas": ready_count, "availableReplicas": ready_count, "currentReplicas": current, "updatedReplicas": current,
        "currentRevision": revision, "updateRevision": revision,
        "observedGeneration": object::number(set, "/metadata/generation").unwrap_or(1),
    });
    actions.extend(Action::status(&STATEFUL_SETS, set, status));
    actions
}

fn revision_of(pod: &Value) -> &str {
    object::text(pod, "/metadata/labels/controller-revision-hash")
}

fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    object::name(pod)
        .strip_prefix(object::name(set))?
        .strip_prefix('-')?
        .parse()
        .ok()
}

fn step(
    set: &Value,
    pods: &[&Value],
    (first, end): (i64, i64),
    parallel: bool,
    revision: &str,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let of = |number: i64| {
        pods.iter()
            .find(|pod| ordinal(set, pod) == Some(number))
            .copied()
    };
    for number in first..end {
        match of(number) {
            None => actions.push(Action::Create(&PODS, new_pod(set, number, revision))),
            Some(pod) if finished(pod) && !object::deleting(pod) => {
                actions.push(Action::delete(&PODS, pod))
            }
            Some(pod) if ready(pod) && !object::deleting(pod) => continue,
            Some(_) => {}
        }
        if !parallel {
            return actions;
        }
    }
    let mut surplus: Vec<&&Value> = pods
        .iter()
        .filter(|pod| ordinal(set, pod).is_none_or(|number| !(first..end).contains(&number)))
        .collect();
    surplus.sort_by_key(|pod| std::cmp::Reverse(ordinal(set, pod)));
    if let Some(last) = surplus.first() {
        if !object::deleting(last) {
            actions.push(Action::delete(&PODS, last));
        }
        return actions;
    }
    // The template changed: from the last to the first, each when the one before is ready again.
    let outdated = (first..end)
        .rev()
        .filter_map(of)
        .find(|pod| revision_of(pod) != revision);
    if let Some(pod) = outdated
        && object::text(set, "/spec/updateStrategy/type") != "OnDelete"
        && !object::deleting(pod)
        && actions.is_empty()
    {
        actions.push(Action::delete(&PODS, pod));
    }
    actions
}

fn new_pod(set: &Value, number: i64, revision: &str) -> Value {
    let name = format!("{}-{number}", object::name(set));
    let mut pod = pod_of(set, Name::Exact(&name));
    object::label(&mut pod, "statefulset.kubernetes.io/pod-name", &name);
    object::label(
        &mut pod,
        "apps.kubernetes.io/pod-index",
        &number.to_string(),
    );
    object::label(&mut pod, "controller-revision-hash", revision);
    let service = object::text(set, "/spec/serviceName").to_string();
    let spec = object::entry(&mut pod, "spec");
    spec.insert("hostname".into(), name.into());
    spec.insert("subdomain".into(), service.into());
    // A claim is a folder that lives as long as its pod: there is one machine and no storage to
    // keep.
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Value::Array(volumes) = volumes {
        for claim in object::list(set, "/spec/volumeClaimTemplates") {
            volumes.push(json!({"name": object::name(claim), "emptyDir": {}}));
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i64) -> Value {
        json!({"metadata": {"name": "s", "namespace": "n", "uid": "u"}, "spec": {"replicas": replicas, "serviceName": "h", "template": {"spec": {"containers": []}}}})
    }

    fn pod(number: i64, is_ready: bool) -> Value {
        let revision = super::super::deployment::hash(&set(0)["spec"]["template"]);
        json!({"metadata": {"name": format!("s-{number}"), "uid": number.to_string(), "labels": {"controller-revision-hash": revision}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]}})
    }

    fn created(actions: &[Action]) -> Vec<&str> {
        actions
            .iter()
            .filter_map(|action| {
                if let Action::Create(_, pod) = action {
                    Some(object::name(pod))
                } else {
                    None
                }
            })
            .collect()
    }

    #[test]
    fn pods_start_one_after_another() {
        assert_eq!(created(&decide(&set(3), &[])), ["s-0"]);
        assert!(created(&decide(&set(3), &[&pod(0, false)])).is_empty());
        assert_eq!(created(&decide(&set(3), &[&pod(0, true)])), ["s-1"]);
    }

    #[test]
    fn the_last_goes_first_and_a_new_template_moves_downwards() {
        let pods = [pod(0, true), pod(1, true)];
        let of = |set: &Value| decide(set, &[&pods[0], &pods[1]]);
        assert!(matches!(&of(&set(0))[0], Action::Delete(_, _, name, _) if name == "s-1"));
        let mut changed = set(2);
        changed["spec"]["template"]["spec"]["x"] = 1.into();
        assert!(matches!(&of(&changed)[0], Action::Delete(_, _, name, _) if name == "s-1"));
        assert!(
            !of(&set(2))
                .iter()
                .any(|action| matches!(action, Action::Delete(..)))
        );
    }
}
