//! Job: pods until enough of them succeeded or too many failed.

use serde_json::{Value, json};

use super::action::{Action, Name, finished, pod_of};
use crate::object;
use crate::store::kinds::{JOBS, PODS};

/// What is to be done about one Job with these pods.
pub fn decide(job: &Value, pods: &[&Value]) -> Vec<Action> {
    let number = |key: &str, default: i64| {
        object::number(job, &format!("/spec/{key}"))
            .unwrap_or(default)
            .max(0)
    };
    let over = |kind: &str| {
        object::list(job, "/status/conditions")
            .iter()
            .any(|condition| object::text(condition, "/type") == kind)
    };
    if object::deleting(job) || over("Complete") || over("Failed") {
        return Vec::new();
    }
    let phase = |wanted: &str| {
        pods.iter()
            .filter(|pod| object::text(pod, "/status/phase") == wanted)
            .count() as i64
    };
    let (succeeded, failed) = (phase("Succeeded"), phase("Failed"));
    let active: Vec<&&Value> = pods
        .iter()
        .filter(|pod| !finished(pod) && !object::deleting(pod))
        .collect();
    let restarts: i64 = active.iter().map(|pod| restarts_of(pod)).sum();
    let start = match object::text(job, "/status/startTime") {
        "" => object::now(),
        time => time.to_string(),
    };
    let mut status = json!({
        "startTime": start, "active": active.len(), "succeeded": succeeded, "failed": failed,
        "ready": active.iter().filter(|pod| super::action::ready(pod)).count(),
    });
    let mut actions = Vec::new();
    let condition = |kind: &str, reason: &str| {
        let now = object::now();
        json!([{"type": kind, "status": "True", "reason": reason, "lastProbeTime": now, "lastTransitionTime": now}])
    };
    if succeeded >= number("completions", 1) {
        status["completionTime"] = object::now().into();
        status["conditions"] = condition("Complete", "CompletionsReached");
        actions.extend(active.iter().map(|pod| Action::delete(&PODS, pod)));
    } else if failed + restarts > number("backoffLimit", 6) {
        status["conditions"] = condition("Failed", "BackoffLimitExceeded");
        actions.extend(active.iter().map(|pod| Action::delete(&PODS, pod)));
    } else if !object::flag(job, "/spec/suspend") {
        let wanted = number("parallelism", 1).min(number("completions", 1) - succeeded);
        let missing = (wanted - active.len() as i64).clamp(0, 50);
        actions.extend(
            (0..missing)
                .map(|_| Action::Create(&PODS, pod_of(job, Name::Prefix(object::name(job))))),
        );
    }
    actions.extend(Action::status(&JOBS, job, status));
    actions
}

fn restarts_of(pod: &Value) -> i64 {
    object::list(pod, "/status/containerStatuses")
        .iter()
        .filter_map(|status| object::number(status, "/restartCount"))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(spec: Value) -> Value {
        let mut job =
            json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": spec});
        job["spec"]["template"] = json!({"spec": {"containers": []}});
        job
    }

    fn pod(phase: &str) -> Value {
        json!({"metadata": {"name": "p", "uid": "p"}, "status": {"phase": phase}})
    }

    fn status(actions: &[Action]) -> Value {
        let status = actions.iter().find_map(|action| {
            if let Action::Status(_, job) = action {
                Some(job["status"].clone())
            } else {
                None
            }
        });
        status.expect("a status")
    }

    #[test]
    fn a_job_runs_until_enough_succeeded() {
        let spec = json!({"completions": 2, "parallelism": 2});
        assert_eq!(
            decide(&job(spec.clone()), &[])
                .iter()
                .filter(|action| matches!(action, Action::Create(..)))
                .count(),
            2
        );
        let actions = decide(&job(spec), &[&pod("Succeeded"), &pod("Succeeded")]);
        assert_eq!(status(&actions)["conditions"][0]["type"], "Complete");
    }

    #[test]
    fn too_many_failures_end_it() {
        let actions = decide(
            &job(json!({"backoffLimit": 1})),
            &[&pod("Failed"), &pod("Failed")],
        );
        assert_eq!(status(&actions)["conditions"][0]["type"], "Failed");
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::Create(..)))
        );
    }
}
