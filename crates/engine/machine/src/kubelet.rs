//! Runs the pods of the store: one task for each, from the pod's creation to its removal.
//!
//! A single loop looks at all pods whenever something changed, starts workers for new ones and
//! passes deletions on. It also writes volumes again whose ConfigMaps, Secrets or tokens changed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::blocking::blocking;
use crate::context::Context;
use crate::object;
use crate::pod;
use crate::pod::live::{Pod, Stop};
use crate::pod::volumes::write_volumes_of;
use crate::store::Store;
use crate::store::kinds::{CONFIG_MAPS, PODS, SECRETS};

/// Tokens are written again this often; half of the shortest life.
const TOKEN_REFRESH: Duration = Duration::from_secs(300);

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
    let workers = context.workers.clone();
    workers.spawn(async move {
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
    let _ = blocking(move || {
        let pods: Vec<Arc<Pod>> = context.pods.lock().values().cloned().collect();
        for pod in pods {
            let Some(network) = pod.network.lock().clone() else {
                continue;
            };
            if pod.folder.join("etc").exists()
                && let Err(problem) = write_volumes_of(&context, &pod, &network)
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
