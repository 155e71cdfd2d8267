//! Watching: one stream of changes over all kinds that the control plane reads.
//!
//! Each kind is listed, then watched; a broken watch is taken up again with back-off
//! (`kube::runtime::watcher`), and what vanished meanwhile is reported as deleted. A kind that the
//! API does not serve has no objects; it is asked for again, as its definition may come. The order
//! between kinds is not defined; `Synced` comes once every kind has been listed, before which
//! nothing may be derived.

use std::{collections::BTreeSet, time::Duration};

use futures_util::StreamExt;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde_json::Value;
use tokio::{
    sync::mpsc::{self, error::SendError},
    task::JoinSet,
};
use wire_kube::kinds::{KINDS, Kind, KindInfo, Support};

/// Changes that wait for the single writer; a full queue slows the watches down, never loses a
/// change.
const QUEUE: usize = 4096;
/// The pause before a watch whose version is too old lists anew.
const RELIST_PAUSE: Duration = Duration::from_secs(1);

/// What happened to an object.
#[derive(Debug)]
pub enum Change {
    Applied(Value),
    Deleted {
        kind: Kind,
        namespace: String,
        name: String,
    },
    /// All kinds have been listed.
    Synced,
}

/// Starts a watch for each kind; they end when the receiver is dropped.
pub fn start(client: &Client, tasks: &mut JoinSet<()>) -> mpsc::Receiver<Change> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let kinds: Vec<&'static KindInfo> = KINDS
        .iter()
        .filter(|info| matches!(info.support, Support::Supported | Support::NotYet))
        .collect();
    let (listed, mut remaining) = mpsc::channel(kinds.len().max(1));
    let count = kinds.len();
    for info in kinds {
        tasks.spawn(watch_kind(
            client.clone(),
            info,
            sender.clone(),
            listed.clone(),
        ));
    }
    tasks.spawn(async move {
        for _ in 0..count {
            if remaining.recv().await.is_none() {
                return;
            }
        }
        // The receiver is gone only when the process ends.
        let _ = sender.send(Change::Synced).await;
    });
    receiver
}

async fn watch_kind(
    client: Client,
    info: &'static KindInfo,
    changes: mpsc::Sender<Change>,
    listed: mpsc::Sender<()>,
) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource_of(info));
    let open = || {
        watcher::watcher(api.clone(), watcher::Config::default())
            .default_backoff()
            .boxed()
    };
    let mut stream = open();
    let mut held = Held::default();
    let mut first_list = true;
    while let Some(event) = stream.next().await {
        let is_listed = match &event {
            Ok(event) => matches!(event, Event::InitDone),
            // No objects of a kind that the API does not know (yet): the listing need not wait for
            // it.
            Err(error) => is_not_served(error),
        };
        let expired = event.as_ref().is_err_and(is_expired);
        let sent = match event {
            Ok(event) => held.take(info, &changes, event).await,
            Err(_) if is_listed => {
                tracing::debug!(
                    kind = info.kind,
                    "the API does not serve this kind; asked again later"
                );
                vanished(info, &changes, std::mem::take(&mut held.known).iter()).await
            }
            Err(error) => {
                tracing::warn!(kind = info.kind, %error, "the watch broke and is taken up again");
                Ok(())
            }
        };
        if sent.is_err() {
            return;
        }
        if is_listed && std::mem::take(&mut first_list) {
            let _ = listed.send(()).await;
        }
        if expired {
            // The watcher would ask from the same version for ever; a new one lists first.
            tokio::time::sleep(RELIST_PAUSE).await;
            stream = open();
        }
    }
}

/// Namespace and name of the objects that were told of, and of those that the listing under way has
/// shown.
#[derive(Default)]
struct Held {
    known: BTreeSet<(String, String)>,
    relisted: BTreeSet<(String, String)>,
}

impl Held {
    async fn take(
        &mut self,
        info: &KindInfo,
        changes: &mpsc::Sender<Change>,
        event: Event<DynamicObject>,
    ) -> Result<(), SendError<Change>> {
        match event {
            Event::Init => {
                self.relisted.clear();
                Ok(())
            }
            Event::InitApply(object) => {
                // Known from now on: when this listing breaks off and the next one lacks the
                // object, it must still be deleted.
                self.known.insert(key_of(&object));
                self.relisted.insert(key_of(&object));
                changes.send(applied(info, object)).await
            }
            Event::InitDone => {
                // Objects that vanished while the watch was down are in no event.
                let gone = self.known.difference(&self.relisted);
                let result = vanished(info, changes, gone).await;
                self.known = std::mem::take(&mut self.relisted);
                result
            }
            Event::Apply(object) => {
                self.known.insert(key_of(&object));
                changes.send(applied(info, object)).await
            }
            Event::Delete(object) => {
                let key = key_of(&object);
                self.known.remove(&key);
                vanished(info, changes, std::iter::once(&key)).await
            }
        }
    }
}

/// How the API names a kind: in the first of its versions, which is the one that is read.
pub fn resource_of(info: &KindInfo) -> ApiResource {
    let version = info.versions.first().copied().unwrap_or("v1");
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(info.group, version, info.kind),
        info.plural,
    )
}

fn api_version(info: &KindInfo) -> String {
    resource_of(info).api_version
}

/// 404 for a whole kind: its definition is not installed.
fn is_not_served(error: &watcher::Error) -> bool {
    code_of(error) == Some(404)
}

/// A watch that was refused as a whole because its version is too old.
fn is_expired(error: &watcher::Error) -> bool {
    code_of(error) == Some(410)
}

/// The HTTP status with which the API refused; a refused watch comes as a failure to start it or of
/// its first line.
fn code_of(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

fn key_of(object: &DynamicObject) -> (String, String) {
    (
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.name.clone().unwrap_or_default(),
    )
}

async fn vanished(
    info: &KindInfo,
    changes: &mpsc::Sender<Change>,
    gone: impl Iterator<Item = &(String, String)>,
) -> Result<(), SendError<Change>> {
    for (namespace, name) in gone {
        changes
            .send(Change::Deleted {
                kind: info.id,
                namespace: namespace.clone(),
                name: name.clone(),
            })
            .await?;
    }
    Ok(())
}

/// The items of an API server's list carry no kind of their own.
fn applied(info: &KindInfo, mut object: DynamicObject) -> Change {
    object.types.get_or_insert_with(|| TypeMeta {
        api_version: api_version(info),
        kind: info.kind.to_owned(),
    });
    // An object that came as JSON goes back to JSON.
    Change::Applied(serde_json::to_value(object).unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests;
