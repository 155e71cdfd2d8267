//! A pod's row: what kubectl's printer makes of its containers' states. Pure.

use serde_json::Value;

use super::cells::number;
use super::words::{age, condition, or_none, seconds_since, short_duration};
use crate::object::{deleting, list, name, text};

/// A pod's cells.
pub fn row(pod: &Value, now: jiff::Timestamp) -> Vec<String> {
    let Summary {
        ready,
        total,
        status,
        restarts,
        last_restart,
    } = summary(pod);
    let ago = last_restart
        .and_then(|stamp| seconds_since(&stamp, now))
        .map(|seconds| format!(" ({} ago)", short_duration(seconds)))
        .unwrap_or_default();
    let restarts = if restarts > 0 {
        format!("{restarts}{ago}")
    } else {
        "0".into()
    };
    let or_none = |pointer: &str| or_none(text(pod, pointer).to_owned());
    vec![
        name(pod).to_owned(),
        format!("{ready}/{total}"),
        status,
        restarts,
        age(pod, now),
        or_none("/status/podIP"),
        or_none("/spec/nodeName"),
        or_none("/status/nominatedNodeName"),
        "<none>".into(),
    ]
}

/// What kubectl's pod line says.
struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    last_restart: Option<String>,
}

/// Sidecars count as containers; an unfinished init container hides the rest.
fn summary(pod: &Value) -> Summary {
    let own = list(pod, "/status/containerStatuses");
    let init = list(pod, "/status/initContainerStatuses");
    let sidecars = init.iter().filter(|container| stays(pod, container));
    let specified = list(pod, "/spec/initContainers")
        .iter()
        .filter(|container| text(container, "/restartPolicy") == "Always")
        .count();
    let runs = |container: &&Value| container.get("ready") == Some(&Value::Bool(true));
    let all = || init.iter().chain(own);
    let status = match (deleting(pod), initializing(pod), reason(pod)) {
        (true, _, _) => "Terminating".into(),
        (false, Some(initializing), _) => initializing,
        (false, None, Some(reason)) => reason,
        (false, None, None) if text(pod, "/status/reason").is_empty() => {
            text(pod, "/status/phase").into()
        }
        (false, None, None) => text(pod, "/status/reason").into(),
    };
    Summary {
        ready: own.iter().filter(runs).count() + sidecars.filter(runs).count(),
        total: list(pod, "/spec/containers").len() + specified,
        status,
        restarts: all()
            .map(|container| number(container, "/restartCount"))
            .sum(),
        last_restart: all()
            .map(|container| text(container, "/lastState/terminated/finishedAt"))
            .filter(|stamp| !stamp.is_empty())
            .max()
            .map(str::to_owned),
    }
}

/// Is this the status of an init container that stays?
fn stays(pod: &Value, status: &Value) -> bool {
    let same = |container: &&Value| text(container, "/name") == text(status, "/name");
    let found = list(pod, "/spec/initContainers").iter().find(same);
    found.is_some_and(|container| text(container, "/restartPolicy") == "Always")
}

/// `Init:0/2`, or what keeps the first unfinished init container from being done.
fn initializing(pod: &Value) -> Option<String> {
    let total = list(pod, "/spec/initContainers").len();
    let done = |container: &Value| match stays(pod, container) {
        true => container.get("started") == Some(&Value::Bool(true)),
        false => {
            container.pointer("/state/terminated").is_some()
                && number(container, "/state/terminated/exitCode") == 0
        }
    };
    let statuses = list(pod, "/status/initContainerStatuses");
    let at = statuses.iter().position(|container| !done(container))?;
    let container = statuses.get(at)?;
    Some(
        match (
            text(container, "/state/terminated/reason"),
            text(container, "/state/waiting/reason"),
        ) {
            ("", "" | "PodInitializing") => format!("Init:{at}/{total}"),
            ("", waiting) => format!("Init:{waiting}"),
            (ended, _) => format!("Init:{ended}"),
        },
    )
}

/// Why an application's container waits or has ended: the first one's reason counts.
fn reason(pod: &Value) -> Option<String> {
    let containers = list(pod, "/status/containerStatuses");
    let of = |container: &Value| match (
        text(container, "/state/waiting/reason"),
        text(container, "/state/terminated/reason"),
    ) {
        ("", "") if container.pointer("/state/terminated").is_some() => Some(format!(
            "ExitCode:{}",
            number(container, "/state/terminated/exitCode")
        )),
        ("", "") => None,
        ("", ended) => Some(ended.to_owned()),
        (waiting, _) => Some(waiting.to_owned()),
    };
    let reason = containers.iter().find_map(of)?;
    let one_runs = containers.iter().any(|container| {
        container.get("ready") == Some(&Value::Bool(true))
            && container.pointer("/state/running").is_some()
    });
    // One container is over and another goes on.
    match reason == "Completed" && one_runs {
        true if condition(pod, "Ready") => Some("Running".into()),
        true => Some("NotReady".into()),
        false => Some(reason),
    }
}
