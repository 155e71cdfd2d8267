//! The single writer: the one task that knows every object and publishes snapshots.
//!
//! It takes all changes that wait, a few milliseconds' worth more, and builds one snapshot from
//! them; while it builds, later changes queue. So one change is served at once and a thousand make
//! a few snapshots, without a fixed window. Readers get each snapshot whole.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use analyze::Analyzer;
use ingest::{Key, Store, code};
use mesh_model::Snapshot;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use crate::{
    generate::Generator,
    metrics::{Build, Event, Metrics},
    settings::Settings,
    status::reporter::Reporter,
    watch::Change,
};
use wire_kube::kinds::Kind;

/// How long the writer waits for company after a change, and at most in all.
const QUIET: Duration = Duration::from_millis(5);
/// How long the writer waits for company in all.
const LONGEST: Duration = Duration::from_millis(100);
/// The metrics provider that Istio's chart sets and that users' dashboards rely on.
const PROMETHEUS: &str = "prometheus";

pub struct Writer {
    pub changes: mpsc::Receiver<Change>,
    pub publish: watch::Sender<Option<Arc<Snapshot>>>,
    /// Objects of Istio's kinds as they were written, for those who ask what is configured.
    pub objects: watch::Sender<Arc<[Arc<Value>]>>,
    pub generator: Arc<Generator>,
    pub metrics: Metrics,
    pub reporter: Reporter,
    /// Since the last snapshot; start with nothing.
    pub changed: Changed,
}

/// What changed.
#[derive(Default)]
pub struct Changed {
    kinds: BTreeSet<Kind>,
    /// An object of one of Istio's kinds came, went, or is written otherwise.
    written: bool,
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
        let mut store = Store::with_auto_addresses(mesh);
        let mut analyzer = Analyzer::default();
        async move {
            let mut synced = false;
            while let Some(change) = self.changes.recv().await {
                let began = Instant::now();
                synced |= self.take(&mut store, change);
                synced |= self.gather(&mut store).await;
                if synced {
                    self.publish(&mut store, &mut analyzer, began);
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

    fn publish(&mut self, store: &mut Store, analyzer: &mut Analyzer, began: Instant) {
        let gathered = began.elapsed();
        let snapshot = store.build();
        let built = began.elapsed() - gathered;
        let is_new = self
            .publish
            .borrow()
            .as_ref()
            .is_none_or(|served| served.version != snapshot.version);
        if is_new {
            let metrics = &self.metrics.source;
            metrics.published(&snapshot, gathered, built);
            metrics.triggered(&std::mem::take(&mut self.changed.kinds));
            let kept = self.generator.sweep(snapshot.version);
            metrics
                .cached_generations
                .set(i64::try_from(kept).unwrap_or(i64::MAX));
            let published = Instant::now();
            self.metrics
                .builds
                .published(snapshot.version, Build { began, published });
            tracing::debug!(version = snapshot.version, "publishing a snapshot");
            if std::mem::take(&mut self.changed.written) {
                let written = store.objects().filter(|(key, _)| is_istios(key.kind));
                self.objects
                    .send_replace(written.map(|(_, object)| object.clone()).collect());
            }
            self.publish.send_replace(Some(snapshot));
        }
        self.analyze(store, analyzer);
    }

    /// After publishing, so that no proxy waits for it: says what is wrong with the objects for
    /// which that changed.
    fn analyze(&mut self, store: &mut Store, analyzer: &mut Analyzer) {
        let changed = analyzer.update(store).objects;
        let domains = analyzer.count(code::MESH_HOST_CONFLICT);
        self.metrics.source.duplicate_domains(domains);
        let has_entries = changed.iter().any(|key| key.kind == Kind::ServiceEntry);
        self.reporter.changed(changed.iter().cloned());
        if has_entries {
            let addresses = store.auto_addresses().map(|(key, by_host)| {
                let list = by_host.iter().map(|(host, ip)| (host.clone(), *ip));
                (key.clone(), list.collect())
            });
            self.reporter.addresses_changed(addresses.collect());
        }
        self.reporter.report(|key| {
            let object = store.object(key)?.clone();
            Some((object, analyzer.problems_of(store, key).cloned().collect()))
        });
    }

    /// Gives a change to the store; true for the end of the first listing.
    fn take(&mut self, store: &mut Store, change: Change) -> bool {
        match change {
            Change::Applied(object) => {
                let object = Arc::new(object);
                let known = Key::of(&object).is_ok_and(|key| store.object(&key).is_some());
                let applied = store.apply(object.clone());
                match applied.key {
                    Some(key) => {
                        self.changed.written |= is_istios(key.kind);
                        let event = if known { Event::Update } else { Event::Add };
                        let version = api_version_of(&object);
                        let metrics = &self.metrics.source;
                        metrics.event(key.kind, event);
                        metrics.validated(key.kind, &key.name, version, &applied.problems);
                        if applied.changed {
                            self.changed.kinds.insert(key.kind);
                        }
                        self.reporter.found(&key, &object);
                    }
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
                self.metrics.source.event(kind, Event::Delete);
                self.changed.kinds.insert(kind);
                self.changed.written |= is_istios(kind);
                let key = Key {
                    kind,
                    namespace: namespace.into(),
                    name: name.into(),
                };
                store.delete(&key);
                self.reporter.changed(std::iter::once(key));
            }
            Change::Synced => return true,
        }
        false
    }
}

fn api_version_of(object: &Value) -> &str {
    object
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn is_istios(kind: Kind) -> bool {
    kind.info().group.ends_with("istio.io")
}

#[cfg(test)]
mod tests;
