//! How the mesh comes up: one line that moves on a terminal, otherwise a line whenever more pods are ready.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::api::Api;
use crate::{object, output};

/// How long pods get to become ready before the summary is shown all the same.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often the runtime is asked.
const LOOK: Duration = Duration::from_millis(100);
/// Reasons that waiting hardly mends: the summary is shown when only such pods are left for [`HOPE`].
const HOPELESS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "CrashLoopBackOff",
    "CreateContainerError",
    "StartError",
    "Error",
];
/// A first crash may be of a program that came before what it needs.
const HOPE: Duration = Duration::from_secs(5);

/// How what happens is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// On a terminal, redrawn.
    Live,
    /// A line each.
    Lines,
}

/// Waits until every pod is ready, only hopeless ones are left, or the time is up; the runtime's last summary.
pub async fn settle(api: &Api, show: Show, patience: Duration) -> Result<Value> {
    let bar = match show {
        Show::Live => ProgressBar::new(0),
        Show::Lines => ProgressBar::hidden(),
    };
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len} pods ready  {wide_msg:.dim}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    let deadline = Instant::now() + patience;
    let mut told = None;
    let mut hopeless_since = None;
    loop {
        let summary = api.client().summary().await?;
        let ready = number(&summary, "/pods/ready");
        let total = number(&summary, "/pods/total");
        bar.set_length(total);
        bar.set_position(ready);
        bar.set_message(waiting_for(&summary));
        if show == Show::Lines && told != Some((ready, total)) {
            output::say(&format!("{ready}/{total} pods ready"));
            told = Some((ready, total));
        }
        if !is_hopeless(&summary) {
            hopeless_since = None;
        }
        let given_up = is_hopeless(&summary)
            && hopeless_since.get_or_insert_with(Instant::now).elapsed() > HOPE;
        if is_settled(&summary) || given_up || Instant::now() > deadline {
            bar.finish_and_clear();
            return Ok(summary);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn number(summary: &Value, pointer: &str) -> u64 {
    summary
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or(0)
}

fn is_settled(summary: &Value) -> bool {
    number(summary, "/pods/total") > 0 && summary.get("settled") == Some(&Value::Bool(true))
}

/// Only pods are left that waiting hardly mends.
fn is_hopeless(summary: &Value) -> bool {
    let waiting = object::list(summary, "/notReady");
    !waiting.is_empty()
        && waiting
            .iter()
            .all(|pod| HOPELESS.contains(&object::text(pod, "/reason")))
}

fn waiting_for(summary: &Value) -> String {
    let waiting = object::list(summary, "/notReady");
    let names: Vec<&str> = waiting
        .iter()
        .map(|pod| object::text(pod, "/pod"))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("waiting for {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_ready_is_settled_and_only_broken_ones_left_is_hopeless() {
        let summary = |settled: bool, reasons: &[&str]| {
            let pods: Vec<Value> = reasons
                .iter()
                .map(|reason| json!({"pod": "a/b", "reason": reason}))
                .collect();
            json!({"pods": {"total": 3, "ready": 3 - pods.len()}, "settled": settled, "notReady": pods})
        };
        assert!(is_settled(&summary(true, &[])));
        assert!(!is_settled(&summary(false, &["Pending"])));
        assert!(!is_hopeless(&summary(
            false,
            &["CrashLoopBackOff", "NotReady"]
        )));
        assert!(is_hopeless(&summary(
            false,
            &["CrashLoopBackOff", "ErrImagePull"]
        )));
        assert!(!is_hopeless(&summary(true, &[])));
        assert!(!is_settled(&json!({"pods": {"total": 0}, "settled": true})));
    }
}
