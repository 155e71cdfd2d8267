//! What the parts of the runtime share: options, objects, network, and the pods that run.
//!
//! Made once by [`crate::init`]; every part holds it by an `Arc`. It stands above the handles that
//! it holds and below all parts that use it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::hooks::Hooks;
use crate::images::ImageMap;
use crate::names::NODE_NAME;
use crate::namespaces::Privilege;
use crate::network::Network;
use crate::object;
use crate::options::Options;
use crate::pod::live::{Pod, Stop};
use crate::processes::Processes;
use crate::state::State;
use crate::store::kinds::EVENTS;
use crate::store::{Deletion, Store};
use crate::token::Tokens;

/// Events that are kept; the oldest go.
const MAX_EVENTS: usize = 1_000;

/// What the runtime's parts share.
#[derive(Debug)]
pub struct Context {
    /// What the person chose.
    pub options: Options,
    /// Root or not.
    pub privilege: Privilege,
    /// The state folder.
    pub state: State,
    /// The objects.
    pub store: Arc<Store>,
    /// Children.
    pub processes: Arc<Processes>,
    /// Bridge and namespaces.
    pub network: Network,
    /// Signs and checks service-account tokens.
    pub tokens: Tokens,
    /// The image map as it is now.
    pub images: watch::Receiver<Arc<ImageMap>>,
    /// Pods with a worker, by uid.
    pub pods: Mutex<HashMap<String, Arc<Pod>>>,
    /// Their workers.
    pub workers: TaskTracker,
    /// What is wrong with files, by file.
    pub problems: Mutex<BTreeMap<String, Vec<String>>>,
    /// What the program adds.
    pub hooks: Hooks,
}

impl Context {
    /// Records an event about an object, as `kubectl get events` shows it.
    pub fn event(&self, about: &Value, kind: &str, reason: &str, message: &str) {
        let (namespace, name) = (object::namespace(about), object::name(about));
        let namespace = if namespace.is_empty() {
            "default"
        } else {
            namespace
        };
        if kind == "Warning" {
            tracing::warn!(namespace, name, reason, message, "event");
        } else {
            tracing::debug!(namespace, name, reason, message, "event");
        }
        let now = object::now();
        let event = json!({
            "metadata": {"generateName": format!("{name}."), "namespace": namespace},
            "involvedObject": {"kind": object::text(about, "/kind"), "apiVersion": object::text(about, "/apiVersion"),
                "namespace": namespace, "name": name, "uid": object::uid(about)},
            "type": kind, "reason": reason, "message": message, "count": 1, "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "tanbark", "host": NODE_NAME}, "reportingComponent": "tanbark",
        });
        if let Err(refusal) = self.store.create(&EVENTS, event) {
            tracing::debug!(%refusal, "the event is not kept");
        }
        let events = self.store.all(&EVENTS);
        if events.len() > MAX_EVENTS
            && let Some(oldest) = events.iter().min_by_key(|event| object::version(event))
        {
            let _ = self.store.delete(
                &EVENTS,
                object::namespace(oldest),
                object::name(oldest),
                &Deletion::default(),
            );
        }
    }

    /// The pod with this name that has a worker.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.pods.lock();
        pods.values()
            .find(|pod| {
                object::namespace(&pod.object) == namespace && object::name(&pod.object) == name
            })
            .cloned()
    }

    /// Ends all pods quickly and waits for them.
    pub async fn stop_all(&self) {
        let pods: Vec<Arc<Pod>> = self.pods.lock().values().cloned().collect();
        for pod in &pods {
            pod.stop.send_replace(Stop::Now);
        }
        self.workers.close();
        self.workers.wait().await;
    }
}
