//! Problems become status: each object that has one says so itself, and stops saying so when it is
//! mended.
//!
//! The condition is `Reconciled` (as istiod's analysis writes it), with `validationMessages` of
//! code, level and field path. Only the control plane's own part of the status is written, by a
//! merge patch, and only when it changed. The queue is bounded; what does not fit is written by the
//! next build. A problem that an earlier run wrote and that is mended meanwhile is cleared as well:
//! `Reporter::found` sees it in the object.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

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
    /// Objects whose status may say something else than what is known of them.
    due: BTreeSet<ObjectKey>,
    addresses: HashMap<ObjectKey, Addresses>,
    reported_addresses: HashMap<ObjectKey, Addresses>,
    addresses_due: bool,
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
            due: BTreeSet::new(),
            addresses: HashMap::new(),
            reported_addresses: HashMap::new(),
            addresses_due: false,
            queue,
        }
    }

    /// Sees an object as the API has it: a problem in its status that this run did not write counts
    /// as reported, so that it is cleared or replaced.
    pub fn found(&mut self, key: ObjectKey, object: &Value) {
        if has_problem_status(object) && !self.reported.contains_key(&key) {
            self.reported.insert(key.clone(), Vec::new());
            self.due.insert(key);
        }
    }

    /// Tells the objects whose problems changed what `problems_of` knows of them now; one that has
    /// none any more is cleared.
    pub fn report(
        &mut self,
        changed: impl IntoIterator<Item = ObjectKey>,
        problems_of: impl Fn(&ObjectKey) -> Vec<Problem>,
    ) {
        self.due.extend(changed);
        for key in std::mem::take(&mut self.due) {
            let problems = problems_of(&key);
            let said = self.reported.get(&key);
            let is_said = match said {
                Some(said) => !said.is_empty() && *said == problems,
                None => problems.is_empty(),
            };
            if is_said {
                continue;
            }
            for problem in &problems {
                tracing::warn!(object = %format!("{} {}/{}", key.kind, key.namespace, key.name), "{problem}");
            }
            let status = status_of(&problems);
            if !self.send(&key, status) {
                self.due.insert(key);
            } else if problems.is_empty() {
                self.reported.remove(&key);
            } else {
                self.reported.insert(key, problems);
            }
        }
    }

    /// False when the queue is full.
    fn send(&self, key: &ObjectKey, status: Value) -> bool {
        let key = key.clone();
        self.queue.try_send(Report { key, status }).is_ok()
    }

    /// `current` holds every ServiceEntry that was given addresses; tools and the cluster's DNS
    /// read them there.
    pub fn addresses_changed(&mut self, current: HashMap<ObjectKey, Addresses>) {
        self.addresses = current;
        self.addresses_due = true;
    }

    /// Writes the addresses that are not in the status yet.
    pub fn report_addresses(&mut self) {
        if !std::mem::take(&mut self.addresses_due) {
            return;
        }
        let gone = |key: &&ObjectKey| !self.addresses.contains_key(*key);
        let gone: Vec<ObjectKey> = self
            .reported_addresses
            .keys()
            .filter(gone)
            .cloned()
            .collect();
        let cleared = gone.into_iter().map(|key| (key, Addresses::new()));
        let others: Vec<(ObjectKey, Addresses)> = self
            .addresses
            .iter()
            .filter(|(key, addresses)| self.reported_addresses.get(*key) != Some(*addresses))
            .map(|(key, addresses)| (key.clone(), addresses.clone()))
            .chain(cleared)
            .collect();
        for (key, addresses) in others {
            let entries = addresses
                .iter()
                .map(|(host, ip)| json!({"value": ip.to_string(), "host": &**host}));
            let status = json!({"addresses": entries.collect::<Vec<_>>()});
            if !self.send(&key, status) {
                self.addresses_due = true;
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
