//! Rows of what makes pods: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs.

use serde_json::Value;

use super::cells::{framed, number};
use super::words::{condition, or_none, pairs, short_duration};
use crate::object::{list, text};

/// One workload's cells.
pub fn row(kind: &str, object: &Value, now: jiff::Timestamp) -> Vec<String> {
    let count = |pointer: &str| number(object, pointer).to_string();
    let ready = || {
        format!(
            "{}/{}",
            count("/status/readyReplicas"),
            count("/spec/replicas")
        )
    };
    let between = match kind {
        "Deployment" => vec![
            ready(),
            count("/status/updatedReplicas"),
            count("/status/availableReplicas"),
        ],
        "ReplicaSet" => vec![
            count("/spec/replicas"),
            count("/status/replicas"),
            count("/status/readyReplicas"),
        ],
        "StatefulSet" => vec![ready()],
        "DaemonSet" => {
            let fields = [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ];
            let mut cells = fields
                .map(|field| count(&format!("/status/{field}")))
                .to_vec();
            cells.push(pairs(object.pointer("/spec/template/spec/nodeSelector")));
            cells
        }
        "Job" => job(object, now),
        _ => return framed(object, Vec::new(), now),
    };
    let mut cells = framed(object, between, now);
    cells.push(of_containers(object, "/name"));
    cells.push(of_containers(object, "/image"));
    if kind != "StatefulSet" {
        cells.push(pairs(object.pointer("/spec/selector/matchLabels")));
    }
    cells
}

fn of_containers(object: &Value, field: &str) -> String {
    let all: Vec<&str> = list(object, "/spec/template/spec/containers")
        .iter()
        .map(|container| text(container, field))
        .collect();
    or_none(all.join(","))
}

fn job(job: &Value, now: jiff::Timestamp) -> Vec<String> {
    let wanted = job
        .pointer("/spec/completions")
        .and_then(Value::as_i64)
        .unwrap_or(1);
    let status = match (condition(job, "Complete"), condition(job, "Failed")) {
        (true, _) => "Complete",
        (false, true) => "Failed",
        (false, false) => "Running",
    };
    let began: Option<jiff::Timestamp> = text(job, "/status/startTime").parse().ok();
    let ended: jiff::Timestamp = text(job, "/status/completionTime").parse().unwrap_or(now);
    let duration =
        began.map(|began| short_duration((ended.as_second() - began.as_second()).max(0)));
    let completed = format!("{}/{wanted}", number(job, "/status/succeeded"));
    vec![status.into(), completed, duration.unwrap_or_default()]
}
