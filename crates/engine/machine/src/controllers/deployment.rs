//! Deployment: one ReplicaSet for each pod template, moved from the old ones to the new one step by
//! step.

use serde_json::{Value, json};

use super::action::Action;
use crate::object::{self, Round};
use crate::store::kinds::{DEPLOYMENTS, REPLICA_SETS};

/// Ten characters for a pod template; equal templates have equal ones.
pub fn hash(template: &Value) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, template.to_string().as_bytes());
    let letters = digest
        .as_ref()
        .iter()
        .take(10)
        .filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()));
    letters.map(|letter| char::from(*letter)).collect()
}

/// What is to be done about one Deployment with these ReplicaSets.
pub fn decide(deployment: &Value, sets: &[&Value]) -> Vec<Action> {
    if object::deleting(deployment) {
        return Vec::new();
    }
    let wanted = object::number(deployment, "/spec/replicas")
        .unwrap_or(1)
        .max(0);
    let template_hash = deployment
        .pointer("/spec/template")
        .map(hash)
        .unwrap_or_default();
    let is_new = |set: &&&Value| {
        object::labels(set)
            .get("pod-template-hash")
            .is_some_and(|hash| *hash == template_hash)
    };
    let new = sets.iter().find(is_new).copied();
    let old: Vec<&Value> = sets.iter().filter(|set| !is_new(set)).copied().collect();
    let mut actions = Vec::new();
    match new {
        None => {
            let first = old.iter().all(|set| replicas(set) == 0);
            let begin = if first {
                wanted
            } else {
                Step::of(deployment, wanted, 0, 0, &old).new
            };
            actions.push(Action::Create(
                &REPLICA_SETS,
                new_set(deployment, &template_hash, begin, next_revision(sets)),
            ));
        }
        Some(new) => {
            let step = Step::of(deployment, wanted, replicas(new), available(new), &old);
            if step.new != replicas(new) {
                actions.push(scaled(new, step.new));
            }
            for (set, replicas_wanted) in step.old {
                actions.push(scaled(set, replicas_wanted));
            }
        }
    }
    actions.extend(clean_history(deployment, &old));
    actions.extend(Action::status(
        &DEPLOYMENTS,
        deployment,
        status(deployment, new, sets, wanted),
    ));
    actions
}

fn replicas(set: &Value) -> i64 {
    object::number(set, "/spec/replicas").unwrap_or(0)
}

fn available(set: &Value) -> i64 {
    object::number(set, "/status/availableReplicas").unwrap_or(0)
}

fn scaled(set: &Value, to: i64) -> Action {
    let mut next = set.clone();
    object::entry(&mut next, "spec").insert("replicas".into(), to.into());
    Action::Update(&REPLICA_SETS, next)
}

/// The next numbers of replicas.
#[derive(Debug, PartialEq)]
struct Step<'a> {
    new: i64,
    old: Vec<(&'a Value, i64)>,
}

impl<'a> Step<'a> {
    fn of(
        deployment: &Value,
        wanted: i64,
        new: i64,
        new_available: i64,
        old: &[&'a Value],
    ) -> Self {
        let old_total: i64 = old.iter().map(|set| replicas(set)).sum();
        if object::text(deployment, "/spec/strategy/type") == "Recreate" {
            let still: i64 = old
                .iter()
                .map(|set| object::number(set, "/status/replicas").unwrap_or(0))
                .sum();
            let down = old
                .iter()
                .filter(|set| replicas(set) > 0)
                .map(|set| (*set, 0))
                .collect();
            return Self {
                new: if old_total + still == 0 {
                    wanted
                } else {
                    new.min(wanted)
                },
                old: down,
            };
        }
        let share = |key: &str, round| {
            object::share(
                deployment.pointer(&format!("/spec/strategy/rollingUpdate/{key}")),
                wanted,
                round,
                "25%",
            )
        };
        let surge = share("maxSurge", Round::Up);
        let mut unavailable = share("maxUnavailable", Round::Down);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        let room = (wanted + surge - new - old_total).max(0);
        let next_new = if new > wanted {
            wanted
        } else {
            new + room.min(wanted - new)
        };
        // Of the available pods as many may go as leave the least that must stay; unavailable old
        // ones may always go.
        let least = (wanted - unavailable).max(0);
        let old_available: i64 = old.iter().map(|set| available(set)).sum();
        let mut may_go = (new_available + old_available - least).max(0);
        let mut next_old = Vec::new();
        for set in old {
            let present = replicas(set);
            let useless = (present - available(set)).max(0);
            let useful = (present - useless).min(may_go).max(0);
            may_go -= useful;
            let next = (present - useless - useful).max(0);
            if next != present {
                next_old.push((*set, next));
            }
        }
        Self {
            new: next_new,
            old: next_old,
        }
    }
}

fn next_revision(sets: &[&Value]) -> i64 {
    let revision = |set: &&Value| {
        object::annotations(set)
            .get("deployment.kubernetes.io/revision")
            .and_then(|text| text.parse::<i64>().ok())
    };
    sets.iter().filter_map(revision).max().unwrap_or(0) + 1
}

fn new_set(deployment: &Value, hash: &str, replicas: i64, revision: i64) -> Value {
    let mut template = deployment
        .pointer("/spec/template")
        .cloned()
        .unwrap_or_default();
    object::label(&mut template, "pod-template-hash", hash);
    let mut selector = deployment
        .pointer("/spec/selector")
        .cloned()
        .unwrap_or_default();
    object::entry(&mut selector, "matchLabels").insert("pod-template-hash".into(), hash.into());
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", object::name(deployment)), "namespace": object::namespace(deployment),
            "labels": template.pointer("/metadata/labels").cloned().unwrap_or_default(),
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [object::owner_reference(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    })
}

fn clean_history(deployment: &Value, old: &[&Value]) -> Vec<Action> {
    let keep = usize::try_from(
        object::number(deployment, "/spec/revisionHistoryLimit")
            .unwrap_or(10)
            .max(0),
    )
    .unwrap_or(10);
    let mut idle: Vec<&&Value> = old
        .iter()
        .filter(|set| {
            replicas(set) == 0 && object::number(set, "/status/replicas").unwrap_or(0) == 0
        })
        .collect();
    idle.sort_by_key(|set| object::version(set));
    idle.iter()
        .take(idle.len().saturating_sub(keep))
        .map(|set| Action::delete(&REPLICA_SETS, set))
        .collect()
}

fn status(deployment: &Value, new: Option<&Value>, sets: &[&Value], wanted: i64) -> Value {
    let sum = |key: &str| {
        sets.iter()
            .map(|set| object::number(set, &format!("/status/{key}")).unwrap_or(0))
            .sum::<i64>()
    };
    let updated = new
        .and_then(|set| object::number(set, "/status/replicas"))
        .unwrap_or(0);
    let (total, ready) = (sum("replicas"), sum("readyReplicas"));
    let least = wanted
        - object::share(
            deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable"),
            wanted,
            Round::Down,
            "25%",
        );
    let complete = updated == wanted && total == wanted && ready == wanted;
    let before = deployment.get("status").cloned().unwrap_or_default();
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        let value = if holds { "True" } else { "False" };
        let mut conditions = object::list(&before, "/conditions").iter();
        let same = conditions.find(|condition| {
            object::text(condition, "/type") == kind
                && object::text(condition, "/status") == value
                && object::text(condition, "/reason") == reason
        });
        let since = same.map_or_else(object::now, |condition| {
            object::text(condition, "/lastTransitionTime").into()
        });
        json!({"type": kind, "status": value, "reason": reason, "message": message, "lastUpdateTime": since, "lastTransitionTime": since})
    };
    let (reason, text) = match complete {
        true => (
            "NewReplicaSetAvailable",
            "ReplicaSet has successfully progressed.",
        ),
        false => ("ReplicaSetUpdated", "ReplicaSet is progressing."),
    };
    let available = ready >= least.max(0);
    let (available_reason, available_text) = match available {
        true => (
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        ),
        false => (
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    json!({
        "observedGeneration": object::number(deployment, "/metadata/generation").unwrap_or(1),
        "replicas": total, "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready,
        "unavailableReplicas": (wanted - ready).max(0),
        "conditions": [condition("Available", available, available_reason, available_text), condition("Progressing", true, reason, text)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i64) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n", "uid": "u"},
            "spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate"}, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}}})
    }

    fn set(name: &str, replicas: i64, available: i64) -> Value {
        json!({"metadata": {"name": name}, "spec": {"replicas": replicas}, "status": {"replicas": replicas, "availableReplicas": available}})
    }

    #[test]
    fn the_first_set_has_all_replicas() {
        let actions = decide(&deployment(3), &[]);
        let Action::Create(_, set) = &actions[0] else {
            panic!("{actions:?}")
        };
        assert_eq!(replicas(set), 3);
        assert_eq!(
            object::labels(&set["spec"]["template"])["pod-template-hash"],
            hash(&deployment(3)["spec"]["template"])
        );
    }

    #[test]
    fn a_rolling_update_adds_one_before_it_takes_one() {
        let old = set("old", 3, 3);
        assert_eq!(
            Step::of(&deployment(3), 3, 0, 0, &[&old]),
            Step {
                new: 1,
                old: vec![]
            }
        );
        assert_eq!(
            Step::of(&deployment(3), 3, 1, 0, &[&old]),
            Step {
                new: 1,
                old: vec![]
            }
        );
        assert_eq!(
            Step::of(&deployment(3), 3, 1, 1, &[&old]),
            Step {
                new: 1,
                old: vec![(&old, 2)]
            }
        );
        let fewer = set("old", 2, 2);
        assert_eq!(
            Step::of(&deployment(3), 3, 1, 1, &[&fewer]),
            Step {
                new: 2,
                old: vec![]
            }
        );
    }

    #[test]
    fn broken_old_pods_do_not_hold_the_update() {
        let old = set("old", 3, 0);
        assert_eq!(
            Step::of(&deployment(3), 3, 1, 0, &[&old]).old,
            vec![(&old, 0)]
        );
    }

    #[test]
    fn recreate_waits_until_the_old_are_gone() {
        let mut recreate = deployment(2);
        recreate["spec"]["strategy"]["type"] = "Recreate".into();
        let old = set("old", 2, 2);
        assert_eq!(
            Step::of(&recreate, 2, 0, 0, &[&old]),
            Step {
                new: 0,
                old: vec![(&old, 0)]
            }
        );
        let mut ending = set("old", 0, 0);
        ending["status"]["replicas"] = 1.into();
        assert_eq!(Step::of(&recreate, 2, 0, 0, &[&ending]).new, 0);
        assert_eq!(Step::of(&recreate, 2, 0, 0, &[&set("old", 0, 0)]).new, 2);
    }
}
