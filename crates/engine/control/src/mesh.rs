//! The single writer: the one task that knows every object and publishes snapshots.
//!
//! It takes all changes that wait, a few milliseconds' worth more, and builds one snapshot from them; while it builds, later changes queue.
//! So one change is served at once and a thousand make a few snapshots, without a fixed window. Readers get each snapshot whole.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ingest::{Key, Store};
use mesh_model::Snapshot;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use crate::{
    Settings,
    generate::Generator,
    metrics::Metrics,
    status::{ObjectKey, Reporter},
    watch::Change,
};

/// How long the writer waits for company after a change, and at most in all.
const QUIET: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(100);
/// The metrics provider that Istio's chart sets and that users' dashboards rely on.
const PROMETHEUS: &str = "prometheus";

pub struct Writer {
    pub changes: mpsc::Receiver<Change>,
    pub publish: watch::Sender<Option<Arc<Snapshot>>>,
    pub generator: Arc<Generator>,
    pub metrics: Metrics,
    pub reporter: Reporter,
}

impl Writer {
    /// Runs until the watches end.
    pub fn run(mut self, settings: &Settings) -> impl Future<Output = ()> + Send + use<> {
        let mut mesh = settings.mesh.clone().unwrap_or_else(ingest::default_mesh);
        if mesh.default_providers.metrics.is_empty() {
            mesh.default_providers.metrics = Arc::new([PROMETHEUS.into()]);
        }
        mesh.trust_domain = settings.trust_domain.clone();
        mesh.root_namespace = settings.root_namespace.as_str().into();
        mesh.cluster_domain = settings.cluster_domain.as_str().into();
        let mut store = Store::new(mesh);
        async move {
            let mut synced = false;
            while let Some(change) = self.changes.recv().await {
                synced |= self.take(&mut store, change);
                synced |= self.gather(&mut store).await;
                if synced {
                    self.publish(&mut store);
                }
            }
        }
    }

    /// Takes what else is coming; true when the first listing became complete.
    async fn gather(&mut self, store: &mut Store) -> bool {
        let mut synced = false;
        let end = Instant::now() + LONGEST;
        while let Ok(Some(change)) =
            timeout_at(end.min(Instant::now() + QUIET), self.changes.recv()).await
        {
            synced |= self.take(store, change);
            if Instant::now() >= end {
                break;
            }
        }
        synced
    }

    fn publish(&mut self, store: &mut Store) {
        let snapshot = store.build();
        let is_new = self
            .publish
            .borrow()
            .as_ref()
            .is_none_or(|served| served.version != snapshot.version);
        if is_new {
            self.metrics
                .snapshot_version
                .set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
            let kept = self.generator.sweep(snapshot.version);
            self.metrics
                .cached_generations
                .set(i64::try_from(kept).unwrap_or(i64::MAX));
            tracing::debug!(version = snapshot.version, "publishing a snapshot");
            self.publish.send_replace(Some(snapshot));
        }
        let mut problems: HashMap<ObjectKey, Vec<ingest::Problem>> = HashMap::new();
        for (key, problem) in store.problems() {
            problems
                .entry(object_key(key))
                .or_default()
                .push(problem.clone());
        }
        self.reporter.report(problems);
    }

    /// Gives a change to the store; true for the end of the first listing.
    fn take(&mut self, store: &mut Store, change: Change) -> bool {
        match change {
            Change::Applied(object) => {
                let object = Arc::new(object);
                let applied = store.apply(object.clone());
                match applied.key {
                    Some(key) => self.reporter.found(object_key(&key), &object),
                    // It has no name to put a status on.
                    None => applied.problems.iter().for_each(|problem| {
                        tracing::warn!("an object of the API is not usable: {problem}")
                    }),
                }
            }
            Change::Deleted {
                kind,
                namespace,
                name,
            } => {
                store.delete(&Key {
                    kind,
                    namespace: namespace.into(),
                    name: name.into(),
                });
            }
            Change::Synced => return true,
        }
        false
    }
}

fn object_key(key: &Key) -> ObjectKey {
    ObjectKey {
        kind: key.kind,
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    }
}

#[cfg(test)]
mod tests;
