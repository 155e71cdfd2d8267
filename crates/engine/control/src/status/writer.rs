//! Writes statuses to the API: the task beside the snapshot writer.
//!
//! Up to [`AT_ONCE`] objects are written at a time, each by one write. A write that fails is tried
//! again after a pause that grows; meanwhile all other objects go on. A newer wish for an object
//! takes the place of the one that waits. A conflict means that somebody else changed the object:
//! it is read and compared anew, so nothing of others is overwritten and nothing is written twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ingest::Key;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::Value;
use stdx::Clock;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::reporter::{Wish, Wishes, named};
use crate::watch::resource_of;

/// Who we are among those who own fields.
const FIELD_MANAGER: &str = "tanbark";
/// Objects that are written at a time.
const AT_ONCE: usize = 8;
/// Times that an object is read anew because it changed under a write; then it is tried later.
const CONFLICTS: usize = 3;
/// An API that has not answered by then is asked again later.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after the first failure; each one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The pause after many failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A wish that waits for its turn.
struct Waiting {
    wish: Wish,
    failures: u32,
    due: Instant,
}

/// Runs until it is dropped.
pub async fn run(client: Client, clock: Arc<dyn Clock>, wishes: Arc<Wishes>) {
    let mut waiting: HashMap<Key, Waiting> = HashMap::new();
    let mut under_way: HashMap<Key, u32> = HashMap::new();
    let mut writes: JoinSet<(Key, Wish, Result<(), kube::Error>)> = JoinSet::new();
    loop {
        let now = Instant::now();
        while under_way.len() < AT_ONCE
            && let Some(key) = next(&waiting, &under_way, now)
            && let Some(Waiting { wish, failures, .. }) = waiting.remove(&key)
        {
            under_way.insert(key.clone(), failures);
            let (client, clock) = (client.clone(), clock.clone());
            writes.spawn(async move {
                let result = write(&client, &*clock, &key, &wish).await;
                (key, wish, result)
            });
        }
        let free = waiting
            .iter()
            .filter(|(key, _)| !under_way.contains_key(*key));
        let due = free.map(|(_, waiting)| waiting.due).min();
        tokio::select! {
            newer = wishes.take() => for (key, wish) in newer {
                waiting.insert(key, Waiting { wish, failures: 0, due: Instant::now() });
            },
            Some(done) = writes.join_next() => match done {
                Ok((key, wish, result)) => {
                    let failures = under_way.remove(&key).unwrap_or_default();
                    if let Err(error) = result {
                        later(&mut waiting, key, wish, (failures, error));
                    }
                }
                // A panic is a bug of ours; the object gets its status with its next change.
                Err(error) => {
                    tracing::error!(%error, "bug: writing a status broke off");
                    under_way.clear();
                }
            },
            () = sleep_until(due.unwrap_or(now)), if due.is_some() && under_way.len() < AT_ONCE => {}
        }
    }
}

/// An object that is due and not being written.
fn next(
    waiting: &HashMap<Key, Waiting>,
    under_way: &HashMap<Key, u32>,
    now: Instant,
) -> Option<Key> {
    let mut due = waiting
        .iter()
        .filter(|(key, waiting)| waiting.due <= now && !under_way.contains_key(*key));
    due.next().map(|(key, _)| key.clone())
}

fn later(
    waiting: &mut HashMap<Key, Waiting>,
    key: Key,
    wish: Wish,
    (failures, error): (u32, kube::Error),
) {
    match failures {
        // Told once; until it is written nothing new is to be said.
        3 => tracing::warn!(object = %named(&key), %error, "cannot write the status; tried again"),
        _ => tracing::debug!(object = %named(&key), %error, "the status is written again later"),
    }
    let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures));
    let due = Instant::now() + pause.min(LONGEST_PAUSE);
    // A wish that came meanwhile is newer.
    waiting.entry(key).or_insert(Waiting {
        wish,
        failures: failures.saturating_add(1),
        due,
    });
}

async fn write(
    client: &Client,
    clock: &dyn Clock,
    key: &Key,
    wish: &Wish,
) -> Result<(), kube::Error> {
    let resource = resource_of(key.kind.info());
    let objects: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let mut object = wish.object.clone();
    let mut result = Ok(());
    for _ in 0..=CONFLICTS {
        let Some(body) = wish.status.body(&object, &rfc3339(clock)) else {
            return Ok(());
        };
        result = in_time(objects.patch_status(
            &key.name,
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(body),
        ))
        .await
        .map(drop);
        match &result {
            // Deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            _ => return result,
        }
        let Some(found) = in_time(objects.get_opt(&key.name)).await? else {
            return Ok(());
        };
        object = Arc::new(serde_json::to_value(found).unwrap_or(Value::Null));
        // What is wrong with its new generation is told by the next build.
        if !wish.is_about(&object) {
            return Ok(());
        }
    }
    result
}

async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service(
            "the API did not answer in time".into(),
        )),
    }
}

/// The present in UTC, whole seconds, as Kubernetes writes times.
fn rfc3339(clock: &dyn Clock) -> String {
    let now = Timestamp::try_from(clock.wall()).unwrap_or(Timestamp::MAX);
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
