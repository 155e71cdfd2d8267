//! Problems become status: each object that has one says so itself, and stops saying so when it is mended.
//!
//! The condition is `Reconciled` (as istiod's analysis writes it), with `validationMessages` of code, level and field path. Only the control
//! plane's own part of the status is written, by a merge patch, and only when it changed. The queue is bounded; what does not fit is written by the next build.

use std::collections::HashMap;

use ingest::{Problem, Severity};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};
use wire_kube::kinds::Kind;

const QUEUE: usize = 1024;

/// Which object a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

struct Report {
    key: ObjectKey,
    problems: Vec<Problem>,
}

/// Remembers what was reported and sends what changed.
pub struct Reporter {
    reported: HashMap<ObjectKey, Vec<Problem>>,
    queue: mpsc::Sender<Report>,
}

impl Reporter {
    pub fn start(client: Client, tasks: &mut JoinSet<()>) -> Self {
        let (queue, mut reports) = mpsc::channel::<Report>(QUEUE);
        tasks.spawn(async move {
            while let Some(report) = reports.recv().await {
                if let Err(error) = write(&client, &report).await {
                    tracing::warn!(object = ?report.key, %error, "could not write the status");
                }
            }
        });
        Self { reported: HashMap::new(), queue }
    }

    /// `current` holds every object that has problems now; objects that had some and have none are cleared.
    pub fn report(&mut self, current: HashMap<ObjectKey, Vec<Problem>>) {
        let cleared: Vec<ObjectKey> = self.reported.keys().filter(|key| !current.contains_key(*key)).cloned().collect();
        for key in cleared {
            if self.queue.try_send(Report { key: key.clone(), problems: Vec::new() }).is_ok() {
                self.reported.remove(&key);
            }
        }
        for (key, problems) in current {
            if self.reported.get(&key) == Some(&problems) {
                continue;
            }
            for problem in &problems {
                tracing::warn!(object = %format!("{} {}/{}", key.kind, key.namespace, key.name), "{problem}");
            }
            if self.queue.try_send(Report { key: key.clone(), problems: problems.clone() }).is_ok() {
                self.reported.insert(key, problems);
            }
        }
    }
}

async fn write(client: &Client, report: &Report) -> Result<(), kube::Error> {
    let info = report.key.kind.info();
    // Kubernetes' own kinds have a status that is not ours to write.
    if !info.group.ends_with("istio.io") {
        return Ok(());
    }
    let version = info.versions.first().copied().unwrap_or("v1");
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(info.group, version, info.kind), info.plural);
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), &report.key.namespace, &resource);
    let patch = json!({ "status": status_of(&report.problems) });
    match objects.patch_status(&report.key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

fn status_of(problems: &[Problem]) -> Value {
    let worst = problems.iter().map(|problem| problem.severity).min();
    let reconciled = worst != Some(Severity::Error);
    let messages: Vec<Value> = problems
        .iter()
        .map(|problem| json!({"type": {"code": problem.code}, "level": problem.severity.as_str().to_uppercase(), "path": problem.path, "message": problem.message}))
        .collect();
    let (reason, message) = match worst {
        Some(Severity::Error) => ("Invalid", "the object is not used; its last good version, if there was one, stays in force"),
        Some(_) => ("UsedWithProblems", "the object is used, but parts of it have no effect"),
        None => ("Valid", ""),
    };
    let condition = json!({"type": "Reconciled", "status": if reconciled { "True" } else { "False" }, "reason": reason, "message": message});
    json!({"conditions": [condition], "validationMessages": if messages.is_empty() { Value::Null } else { messages.into() }})
}
