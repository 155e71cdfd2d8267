//! Problems become status: each object that has one says so itself, and stops saying so when it is
//! mended.
//!
//! The condition is `Reconciled` (as istiod's analysis writes it), with `validationMessages` of
//! code, level and field path. Only the control plane's own part of the status is written, by a
//! merge patch, and only when it changed. The queue is bounded; what does not fit is written by the
//! next build. A problem that an earlier run wrote and that is mended meanwhile is cleared as well:
//! `Reporter::found` sees it in the object.

use std::{collections::HashMap, net::Ipv4Addr, time::Duration};

use ingest::{Problem, Severity};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use mesh_model::object::Text;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};
use wire_kube::kinds::Kind;

use crate::watch::resource_of;

const QUEUE: usize = 1024;
/// Pauses before a write that failed is tried again; after the last one it is given up until the
/// object's problems change.
const RETRY_AFTER: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(2),
    Duration::from_secs(10),
];

/// Which object a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

struct Report {
    key: ObjectKey,
    /// To be merged into the object's status.
    status: Value,
}

/// Addresses of a ServiceEntry, by host.
pub type Addresses = Vec<(Text, Ipv4Addr)>;

/// Remembers what was reported and sends what changed.
pub struct Reporter {
    reported: HashMap<ObjectKey, Vec<Problem>>,
    reported_addresses: HashMap<ObjectKey, Addresses>,
    queue: mpsc::Sender<Report>,
}

impl Reporter {
    pub fn start(client: Client, tasks: &mut JoinSet<()>) -> Self {
        let (queue, mut reports) = mpsc::channel::<Report>(QUEUE);
        tasks.spawn(async move {
            while let Some(report) = reports.recv().await {
                if let Err(error) = write_with_retries(&client, &report).await {
                    tracing::warn!(object = ?report.key, %error, "could not write the status");
                }
            }
        });
        Self {
            reported: HashMap::new(),
            reported_addresses: HashMap::new(),
            queue,
        }
    }

    /// Sees an object as the API has it: a problem in its status that this run did not write counts
    /// as reported, so that it is cleared or replaced.
    pub fn found(&mut self, key: ObjectKey, object: &Value) {
        if has_problem_status(object) {
            self.reported.entry(key).or_default();
        }
    }

    /// `current` holds every object that has problems now; objects that had some and have none are cleared.
    pub fn report(&mut self, current: HashMap<ObjectKey, Vec<Problem>>) {
        let cleared: Vec<ObjectKey> = self
            .reported
            .keys()
            .filter(|key| !current.contains_key(*key))
            .cloned()
            .collect();
        for key in cleared {
            if self
                .queue
                .try_send(Report {
                    key: key.clone(),
                    status: status_of(&[]),
                })
                .is_ok()
            {
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
            if self
                .queue
                .try_send(Report {
                    key: key.clone(),
                    status: status_of(&problems),
                })
                .is_ok()
            {
                self.reported.insert(key, problems);
            }
        }
    }
}

impl Reporter {
    /// `current` holds every ServiceEntry that was given addresses; tools and the cluster's DNS read them there.
    pub fn report_addresses(&mut self, current: HashMap<ObjectKey, Addresses>) {
        let gone = |key: &&ObjectKey| !current.contains_key(*key);
        let gone: Vec<ObjectKey> = self
            .reported_addresses
            .keys()
            .filter(gone)
            .cloned()
            .collect();
        let cleared = gone.into_iter().map(|key| (key, Addresses::new()));
        for (key, addresses) in cleared.chain(current.clone()) {
            if self.reported_addresses.get(&key) == Some(&addresses) {
                continue;
            }
            let entries = addresses
                .iter()
                .map(|(host, ip)| json!({"value": ip.to_string(), "host": &**host}));
            let status = json!({"addresses": entries.collect::<Vec<_>>()});
            let report = Report {
                key: key.clone(),
                status,
            };
            if self.queue.try_send(report).is_err() {
                continue;
            }
            match addresses.is_empty() {
                true => drop(self.reported_addresses.remove(&key)),
                false => drop(self.reported_addresses.insert(key, addresses)),
            }
        }
    }
}

async fn write_with_retries(client: &Client, report: &Report) -> Result<(), kube::Error> {
    for pause in RETRY_AFTER {
        match write(client, report).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::debug!(object = ?report.key, %error, "the status is written again later")
            }
        }
        tokio::time::sleep(pause).await;
    }
    write(client, report).await
}

/// Does the status say what [`status_of`] says about an object with problems?
fn has_problem_status(object: &Value) -> bool {
    let status = &object["status"];
    let messages = status["validationMessages"]
        .as_array()
        .is_some_and(|messages| !messages.is_empty());
    let conditions = status["conditions"].as_array().into_iter().flatten();
    messages
        || conditions
            .into_iter()
            .any(|condition| condition["type"] == "Reconciled" && condition["status"] == "False")
}

async fn write(client: &Client, report: &Report) -> Result<(), kube::Error> {
    let info = report.key.kind.info();
    // Kubernetes' own kinds have a status that is not ours to write.
    if !info.group.ends_with("istio.io") {
        return Ok(());
    }
    let objects: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &report.key.namespace, &resource_of(info));
    let patch = json!({ "status": report.status });
    match objects
        .patch_status(
            &report.key.name,
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
    {
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
        Some(Severity::Error) => (
            "Invalid",
            "the object is not used; its last good version, if there was one, stays in force",
        ),
        Some(_) => (
            "UsedWithProblems",
            "the object is used, but parts of it have no effect",
        ),
        None => ("Valid", ""),
    };
    let condition = json!({"type": "Reconciled", "status": if reconciled { "True" } else { "False" }, "reason": reason, "message": message});
    json!({"conditions": [condition], "validationMessages": if messages.is_empty() { Value::Null } else { messages.into() }})
}
