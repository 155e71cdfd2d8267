//! A pod's `status`, computed from what its containers do. Pure.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::object;

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next begins.
    Init,
    /// An init container with `restartPolicy: Always`: stays.
    Sidecar,
    /// The application.
    Application,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; 128 + signal.
    pub code: i32,
    /// `Completed`, `Error`, `StartError`
    pub reason: String,
    /// Why it could not start.
    pub message: String,
    /// When it was started.
    pub started: String,
    /// When it ended.
    pub finished: String,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// Nothing yet, or not again yet.
    Waiting {
        /// `PodInitializing`, `CrashLoopBackOff`, `ErrImagePull`, …
        reason: String,
        /// For people.
        message: String,
    },
    /// It runs since then.
    Running {
        /// When it was started.
        since: String,
    },
    /// It ended and will not be started again.
    Ended(Ended),
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Its image as written.
    pub image: String,
    /// What it is for.
    pub role: Role,
    /// What it does.
    pub doing: Doing,
    /// Its readiness probe succeeds, or it runs and has none.
    pub ready: bool,
    /// Its startup probe succeeded, or it runs and has none.
    pub started: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// How its last run ended.
    pub last: Option<Ended>,
}

impl ContainerStatus {
    /// A container of a pod that has just been made.
    pub fn new(container: &Value, role: Role) -> Self {
        Self {
            name: object::text(container, "/name").into(),
            image: object::text(container, "/image").into(),
            role,
            doing: Doing::Waiting {
                reason: "PodInitializing".into(),
                message: String::new(),
            },
            ready: false,
            started: false,
            restarts: 0,
            last: None,
        }
    }
}

/// The containers of a pod with their roles, init containers first.
pub fn containers_of(pod: &Value) -> Vec<(Role, Value)> {
    let role = |container: &Value| {
        if object::text(container, "/restartPolicy") == "Always" {
            Role::Sidecar
        } else {
            Role::Init
        }
    };
    let init = object::list(pod, "/spec/initContainers")
        .iter()
        .map(|container| (role(container), container.clone()));
    let own = object::list(pod, "/spec/containers")
        .iter()
        .map(|container| (Role::Application, container.clone()));
    init.chain(own).collect()
}

/// `Pending`, `Running`, `Succeeded`, `Failed`.
pub fn phase(containers: &[ContainerStatus], restart_policy: &str) -> &'static str {
    let failed = |container: &ContainerStatus| matches!(&container.doing, Doing::Ended(end) if end.code != 0);
    if restart_policy == "Never"
        && containers
            .iter()
            .any(|container| container.role == Role::Init && failed(container))
    {
        return "Failed";
    }
    let applications: Vec<&ContainerStatus> = containers
        .iter()
        .filter(|container| container.role == Role::Application)
        .collect();
    if applications
        .iter()
        .all(|container| matches!(container.doing, Doing::Ended(_)))
    {
        return if applications.iter().any(|container| failed(container)) {
            "Failed"
        } else {
            "Succeeded"
        };
    }
    let begun = |container: &&ContainerStatus| {
        !matches!(container.doing, Doing::Waiting { .. }) || container.last.is_some()
    };
    if applications.iter().any(begun) {
        "Running"
    } else {
        "Pending"
    }
}

/// The whole status; `before` keeps the times of conditions that did not change.
pub fn status(
    pod: &Value,
    address: Option<Ipv4Addr>,
    containers: &[ContainerStatus],
    terminating: bool,
    before: &Value,
) -> Value {
    let phase = phase(containers, object::text(pod, "/spec/restartPolicy"));
    let done = |container: &ContainerStatus| match container.role {
        Role::Init => matches!(&container.doing, Doing::Ended(end) if end.code == 0),
        Role::Sidecar => container.started,
        Role::Application => true,
    };
    let initialized = containers.iter().all(done);
    let running = phase == "Running" && !terminating;
    let containers_ready = running
        && containers
            .iter()
            .filter(|container| container.role != Role::Init)
            .all(|container| container.ready);
    let gates = object::list(pod, "/spec/readinessGates")
        .iter()
        .all(|gate| {
            let wanted = object::text(gate, "/conditionType");
            object::list(before, "/conditions").iter().any(|condition| {
                object::text(condition, "/type") == wanted
                    && object::text(condition, "/status") == "True"
            })
        });
    let mut conditions = vec![
        condition("PodScheduled", true, before),
        condition("Initialized", initialized, before),
        condition("ContainersReady", containers_ready, before),
        condition("Ready", containers_ready && gates, before),
    ];
    let ours = ["PodScheduled", "Initialized", "ContainersReady", "Ready"];
    conditions.extend(
        object::list(before, "/conditions")
            .iter()
            .filter(|condition| !ours.contains(&object::text(condition, "/type")))
            .cloned(),
    );
    let of_role = |init: bool| -> Vec<Value> {
        containers
            .iter()
            .filter(|container| (container.role == Role::Application) != init)
            .map(container_status)
            .collect()
    };
    let start = match object::text(before, "/startTime") {
        "" => object::now(),
        time => time.to_string(),
    };
    let mut status = json!({
        "phase": phase, "conditions": conditions, "hostIP": crate::network::BRIDGE_ADDRESS.to_string(), "startTime": start,
        "containerStatuses": of_role(false), "qosClass": "BestEffort",
    });
    let init = of_role(true);
    if !init.is_empty() {
        status["initContainerStatuses"] = init.into();
    }
    if let Some(address) = address {
        status["podIP"] = address.to_string().into();
        status["podIPs"] = json!([{"ip": address.to_string()}]);
    }
    status
}

fn condition(kind: &str, holds: bool, before: &Value) -> Value {
    let wanted = if holds { "True" } else { "False" };
    let same = object::list(before, "/conditions")
        .iter()
        .find(|condition| {
            object::text(condition, "/type") == kind && object::text(condition, "/status") == wanted
        });
    let since = same
        .map(|condition| object::text(condition, "/lastTransitionTime").to_string())
        .unwrap_or_else(object::now);
    json!({"type": kind, "status": wanted, "lastProbeTime": null, "lastTransitionTime": since})
}

fn container_status(container: &ContainerStatus) -> Value {
    let ended = |end: &Ended| json!({"exitCode": end.code, "reason": end.reason, "message": end.message, "startedAt": end.started, "finishedAt": end.finished});
    let state = match &container.doing {
        Doing::Waiting { reason, message } if message.is_empty() => {
            json!({"waiting": {"reason": reason}})
        }
        Doing::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        Doing::Running { since } => json!({"running": {"startedAt": since}}),
        Doing::Ended(end) => json!({"terminated": ended(end)}),
    };
    json!({
        "name": container.name, "image": container.image, "imageID": container.image, "ready": container.ready,
        "started": container.started, "restartCount": container.restarts, "state": state,
        "lastState": container.last.as_ref().map_or_else(|| json!({}), |last| json!({"terminated": ended(last)})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(role: Role, doing: Doing, ready: bool) -> ContainerStatus {
        ContainerStatus {
            doing,
            ready,
            started: ready,
            ..ContainerStatus::new(&json!({"name": "c"}), role)
        }
    }

    fn running() -> Doing {
        Doing::Running { since: "t".into() }
    }

    fn ended(code: i32) -> Doing {
        Doing::Ended(Ended {
            code,
            reason: "x".into(),
            message: String::new(),
            started: "t".into(),
            finished: "t".into(),
        })
    }

    fn waiting() -> Doing {
        Doing::Waiting {
            reason: "x".into(),
            message: String::new(),
        }
    }

    #[test]
    fn phases_follow_the_application() {
        use Role::{Application, Init, Sidecar};
        for (containers, expected) in [
            (
                vec![
                    container(Sidecar, running(), true),
                    container(Application, waiting(), false),
                ],
                "Pending",
            ),
            (vec![container(Application, running(), false)], "Running"),
            (
                vec![
                    container(Application, ended(0), false),
                    container(Application, running(), true),
                ],
                "Running",
            ),
            (
                vec![
                    container(Sidecar, running(), true),
                    container(Application, ended(0), false),
                ],
                "Succeeded",
            ),
            (
                vec![
                    container(Application, ended(0), false),
                    container(Application, ended(3), false),
                ],
                "Failed",
            ),
            (
                vec![
                    container(Init, ended(1), false),
                    container(Application, waiting(), false),
                ],
                "Failed",
            ),
        ] {
            assert_eq!(phase(&containers, "Never"), expected, "{containers:?}");
        }
    }

    #[test]
    fn a_pod_is_ready_when_all_are_and_not_while_it_ends() {
        let pod = json!({"spec": {}});
        let containers = [
            container(Role::Sidecar, running(), true),
            container(Role::Application, running(), true),
        ];
        let ready = |terminating| {
            let status = status(&pod, None, &containers, terminating, &json!({}));
            object::list(&status, "/conditions")
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        assert!(ready(false));
        assert!(!ready(true));
    }
}
