//! A pod that has a worker: what of it changes while it runs, and how that becomes the object's
//! status.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::status::{ContainerStatus, Doing, containers_of, status};
use crate::container::spec::Command;
use crate::network::PodNetwork;
use crate::object;
use crate::store::kinds::PODS;
use crate::store::{Part, Store};

/// What the pod is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Run.
    No,
    /// End within this time, in order.
    Within(Duration),
    /// End all at once, quickly; the machine stops.
    Now,
}

/// A running container: what `exec` needs.
#[derive(Debug, Clone)]
pub struct Process {
    /// Process 1 of the container, as seen from the runtime.
    pub pid: i32,
    /// What it was started with.
    pub command: Command,
}

/// A pod that has a worker.
#[derive(Debug)]
pub struct Pod {
    /// The object as it was created.
    pub object: Arc<Value>,
    /// Its network, once made.
    pub network: Mutex<Option<Arc<PodNetwork>>>,
    /// Its containers, init containers first.
    pub containers: Mutex<Vec<ContainerStatus>>,
    /// Their processes, by container name.
    pub processes: Mutex<HashMap<String, Process>>,
    /// Counts changes of [`Pod::containers`].
    pub changed: watch::Sender<u64>,
    /// What it is to do.
    pub stop: watch::Sender<Stop>,
    /// Its folder in the memory file system.
    pub folder: PathBuf,
    /// Held while its volumes are written: its worker does that, and whoever sees that a source
    /// changed.
    pub writing: Mutex<()>,
}

impl Pod {
    /// A pod whose worker is about to start.
    pub fn new(object: Arc<Value>, folder: PathBuf) -> Self {
        let containers = containers_of(&object)
            .iter()
            .map(|(role, container)| ContainerStatus::new(container, *role))
            .collect();
        Self {
            object,
            network: Mutex::new(None),
            containers: Mutex::new(containers),
            processes: Mutex::default(),
            changed: watch::Sender::new(0),
            stop: watch::Sender::new(Stop::No),
            folder,
            writing: Mutex::default(),
        }
    }

    /// Namespace and name.
    pub fn place(&self) -> (&str, &str) {
        (object::namespace(&self.object), object::name(&self.object))
    }

    /// Changes one container's state and publishes the pod's status.
    pub fn update(&self, store: &Store, index: usize, change: impl FnOnce(&mut ContainerStatus)) {
        if let Some(container) = self.containers.lock().get_mut(index) {
            change(container);
        }
        self.publish(store);
    }

    /// Writes the status into the store.
    pub fn publish(&self, store: &Store) {
        let (namespace, name) = self.place();
        let containers = self.containers.lock().clone();
        let address = self.network.lock().as_ref().map(|network| network.address);
        let terminating = *self.stop.borrow() != Stop::No;
        let uid = object::uid(&self.object);
        let result = store.change(&PODS, namespace, name, Part::Status, |present| {
            let mut next = present.clone();
            if object::uid(present) == uid {
                let before = present.get("status").cloned().unwrap_or_default();
                next["status"] = status(&self.object, address, &containers, terminating, &before);
            }
            Ok(next)
        });
        if let Err(refusal) = result {
            tracing::debug!(%refusal, namespace, name, "the pod's status is not written");
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Says why the containers that have not started wait, and publishes that.
    pub fn wait_reason(&self, store: &Store, reason: &str, message: &str) {
        for container in self.containers.lock().iter_mut() {
            if matches!(container.doing, Doing::Waiting { .. }) {
                container.doing = Doing::Waiting {
                    reason: reason.into(),
                    message: message.into(),
                };
            }
        }
        self.publish(store);
    }
}
