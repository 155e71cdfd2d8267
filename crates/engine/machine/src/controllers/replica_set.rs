//! ReplicaSet: as many pods as wanted. DaemonSet: one, on the one node.

use serde_json::{Value, json};

use super::action::{Action, Name, finished, pod_of, ready};
use crate::object;
use crate::store::kinds::{DAEMON_SETS, Kind, PODS};

/// New pods in one go, so that a wrong number does not drown the machine.
const MAX_NEW_PODS: usize = 50;

/// What is to be done about one ReplicaSet with these pods.
pub fn decide(kind: &'static Kind, set: &Value, pods: &[&Value]) -> Vec<Action> {
    let wanted =
        usize::try_from(object::number(set, "/spec/replicas").unwrap_or(1).max(0)).unwrap_or(0);
    let mut actions = scale(set, wanted, pods);
    let active: Vec<&&Value> = pods
        .iter()
        .filter(|pod| !finished(pod) && !object::deleting(pod))
        .collect();
    let ready = active.iter().filter(|pod| ready(pod)).count();
    let status = json!({
        "replicas": active.len(), "readyReplicas": ready, "availableReplicas": ready, "fullyLabeledReplicas": active.len(),
        "observedGeneration": object::number(set, "/metadata/generation").unwrap_or(1),
    });
    actions.extend(Action::status(kind, set, status));
    actions
}

/// What is to be done about a DaemonSet.
pub fn decide_daemon(set: &Value, pods: &[&Value]) -> Vec<Action> {
    let template = set
        .pointer("/spec/template")
        .map(super::deployment::hash)
        .unwrap_or_default();
    let current = |pod: &&&Value| {
        object::labels(pod)
            .get("controller-revision-hash")
            .is_some_and(|hash| *hash == template)
    };
    let old: Vec<&&Value> = pods.iter().filter(|pod| !current(pod)).collect();
    let fresh: Vec<&&Value> = pods.iter().filter(current).collect();
    let mut actions: Vec<Action> = old
        .iter()
        .filter(|pod| !object::deleting(pod))
        .map(|pod| Action::delete(&PODS, pod))
        .collect();
    if !object::deleting(set) && old.is_empty() && fresh.is_empty() {
        let mut pod = pod_of(set, Name::Prefix(object::name(set)));
        object::label(&mut pod, "controller-revision-hash", &template);
        actions.push(Action::Create(&PODS, pod));
    }
    let ready = fresh.iter().filter(|pod| ready(pod)).count();
    let status = json!({
        "desiredNumberScheduled": 1, "currentNumberScheduled": fresh.len(), "numberReady": ready, "numberAvailable": ready,
        "updatedNumberScheduled": fresh.len(), "numberMisscheduled": 0,
        "observedGeneration": object::number(set, "/metadata/generation").unwrap_or(1),
    });
    actions.extend(Action::status(&DAEMON_SETS, set, status));
    actions
}

fn scale(set: &Value, wanted: usize, pods: &[&Value]) -> Vec<Action> {
    if object::deleting(set) {
        return Vec::new();
    }
    let mut active: Vec<&&Value> = pods
        .iter()
        .filter(|pod| !finished(pod) && !object::deleting(pod))
        .collect();
    if active.len() < wanted {
        let missing = (wanted - active.len()).min(MAX_NEW_PODS);
        return (0..missing)
            .map(|_| Action::Create(&PODS, pod_of(set, Name::Prefix(object::name(set)))))
            .collect();
    }
    // Those that are not ready go first, then the youngest.
    active.sort_by_key(|pod| {
        (
            ready(pod),
            std::cmp::Reverse(object::text(pod, "/metadata/creationTimestamp")),
        )
    });
    active
        .iter()
        .take(active.len() - wanted)
        .map(|pod| Action::delete(&PODS, pod))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kinds::REPLICA_SETS;

    fn set(replicas: i64) -> Value {
        json!({"metadata": {"name": "s", "namespace": "n", "uid": "u"}, "spec": {"replicas": replicas, "template": {"spec": {"containers": []}}}})
    }

    fn pod(name: &str, ready: bool) -> Value {
        json!({"metadata": {"name": name, "uid": name}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    #[test]
    fn pods_are_added_and_the_unready_go_first() {
        let created = decide(&REPLICA_SETS, &set(3), &[&pod("a", true)]);
        assert_eq!(
            created
                .iter()
                .filter(|action| matches!(action, Action::Create(..)))
                .count(),
            2
        );
        let (first, second) = (pod("a", true), pod("b", false));
        let actions = decide(&REPLICA_SETS, &set(1), &[&first, &second]);
        assert!(matches!(&actions[0], Action::Delete(_, _, name, _) if name == "b"));
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::Delete(_, _, name, _) if name == "a"))
        );
    }

    #[test]
    fn ended_pods_are_replaced() {
        let mut over = pod("a", false);
        over["status"]["phase"] = "Failed".into();
        let actions = decide(&REPLICA_SETS, &set(1), &[&over]);
        assert!(matches!(actions[0], Action::Create(..)));
    }
}
