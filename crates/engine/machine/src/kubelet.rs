//! Runs the pods of the store: one task for each, from the pod's creation to its removal.
//!
//! A single loop looks at all pods whenever something changed, starts workers for new ones and passes deletions on. It also
//! writes volumes again whose ConfigMaps, Secrets or tokens changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::images::ImageMap;
use crate::namespaces::Privilege;
use crate::network::Network;
use crate::object;
use crate::options::Options;
use crate::pod::{self, Pod, Stop};
use crate::processes::Processes;
use crate::state::State;
use crate::store::kinds::{CONFIG_MAPS, EVENTS, PODS, SECRETS};
use crate::store::{Deletion, Store};
use crate::token::Tokens;

/// The name of the one node.
pub const NODE_NAME: &str = "tanbark";
/// Events that are kept; the oldest go.
const MAX_EVENTS: usize = 1_000;
/// Tokens are written again this often; half of the shortest life.
const TOKEN_REFRESH: Duration = Duration::from_secs(300);

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
    /// What is wrong with files, by file.
    pub problems: Mutex<BTreeMap<String, Vec<String>>>,
    /// What the program adds.
    pub hooks: crate::init::Hooks,
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
        while !self.pods.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Looks after pods until the task is dropped.
pub async fn run(context: Arc<Context>) {
    let mut version = context.store.version();
    let mut refresh = tokio::time::interval(TOKEN_REFRESH);
    let mut sources = 0;
    loop {
        version.mark_unchanged();
        look(&context);
        let now = source_version(&context.store);
        if now != sources {
            sources = now;
            write_volumes(&context).await;
        }
        tokio::select! {
            changed = version.changed() => if changed.is_err() { return },
            _ = refresh.tick() => write_volumes(&context).await,
        }
    }
}

fn look(context: &Arc<Context>) {
    for object in context.store.all(&PODS) {
        let worker = context.pods.lock().get(object::uid(&object)).cloned();
        match worker {
            Some(pod) if object::deleting(&object) => {
                let seconds = object::number(&object, "/metadata/deletionGracePeriodSeconds")
                    .unwrap_or(30)
                    .max(0);
                let grace = Duration::from_secs(seconds.unsigned_abs());
                pod.stop.send_if_modified(|stop| {
                    let sooner = match *stop {
                        Stop::No => true,
                        Stop::Within(before) => grace < before,
                        Stop::Now => false,
                    };
                    if sooner {
                        *stop = Stop::Within(grace);
                    }
                    sooner
                });
            }
            Some(_) => {}
            None if object::deleting(&object) => {
                context.store.remove(
                    &PODS,
                    object::namespace(&object),
                    object::name(&object),
                    object::uid(&object),
                );
            }
            None => begin(context, object),
        }
    }
    let pods: Vec<Arc<Pod>> = context.pods.lock().values().cloned().collect();
    for pod in pods {
        let present = context.store.find(
            &PODS,
            object::namespace(&pod.object),
            object::name(&pod.object),
        );
        let gone = present.is_none_or(|present| object::uid(&present) != object::uid(&pod.object));
        if gone && *pod.stop.borrow() == Stop::No {
            pod.stop.send_replace(Stop::Now);
        }
    }
}

fn begin(context: &Arc<Context>, object: Arc<Value>) {
    let uid = object::uid(&object).to_string();
    let pod = Arc::new(Pod::new(
        object,
        context.state.run().join("pods").join(&uid),
    ));
    context.pods.lock().insert(uid.clone(), pod.clone());
    let context = context.clone();
    // task: one pod from start to end; stopped when its object is deleted
    tokio::spawn(async move {
        pod::run(context.clone(), pod.clone()).await;
        context.store.remove(
            &PODS,
            object::namespace(&pod.object),
            object::name(&pod.object),
            &uid,
        );
        context.pods.lock().remove(&uid);
    });
}

/// Becomes another number when a ConfigMap or Secret changes.
fn source_version(store: &Store) -> u64 {
    let newest = |kind| {
        store
            .all(kind)
            .iter()
            .map(|object| object::version(object))
            .max()
            .unwrap_or(0)
    };
    newest(&CONFIG_MAPS).max(newest(&SECRETS))
}

async fn write_volumes(context: &Arc<Context>) {
    let context = context.clone();
    let _ = pod::blocking(move || {
        let pods: Vec<Arc<Pod>> = context.pods.lock().values().cloned().collect();
        for pod in pods {
            let Some(network) = pod.network.lock().clone() else {
                continue;
            };
            if pod.folder.join("etc").exists()
                && let Err(problem) = pod::write_volumes(&context, &pod, &network)
            {
                tracing::debug!(
                    ?problem,
                    pod = object::name(&pod.object),
                    "volumes are not written again"
                );
            }
        }
        Ok(())
    })
    .await;
}
