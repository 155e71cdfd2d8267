//! Rows of what makes pods: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs.

use serde_json::Value;

use super::framed;
use crate::kind::Kind;
use crate::object::{condition, number, short_duration, text};
use crate::output::{Cell, Tone};

/// One workload's cells, without those of `-o wide`.
pub fn row(kind: &Kind, object: &Value, now: jiff::Timestamp) -> Vec<Cell> {
    let count = |pointer: &str| Cell::from(number(object, pointer).to_string());
    let ready = || {
        fraction(
            number(object, "/status/readyReplicas"),
            number(object, "/spec/replicas"),
        )
    };
    let between = match kind.kind.as_str() {
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
            fields
                .map(|field| count(&format!("/status/{field}")))
                .to_vec()
        }
        "Job" => job(object, now),
        _ => Vec::new(),
    };
    framed(object, between, now)
}

/// `2/3` in the colour of what it means.
fn fraction(part: i64, whole: i64) -> Cell {
    let tone = if part == whole {
        Tone::Plain
    } else {
        Tone::Doubtful
    };
    Cell(format!("{part}/{whole}"), tone)
}

fn job(job: &Value, now: jiff::Timestamp) -> Vec<Cell> {
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
    vec![
        status.into(),
        completed.into(),
        duration.unwrap_or_default().into(),
    ]
}
