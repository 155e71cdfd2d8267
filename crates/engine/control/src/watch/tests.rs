use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::fake_api::{FakeApi, PATIENCE};

struct World {
    api: FakeApi,
    changes: mpsc::Receiver<Change>,
    _tasks: JoinSet<()>,
}

fn world(prepare: impl FnOnce(&FakeApi)) -> World {
    let api = FakeApi::start();
    prepare(&api);
    let mut tasks = JoinSet::new();
    let changes = start(&api.client, &mut tasks);
    World {
        api,
        changes,
        _tasks: tasks,
    }
}

impl World {
    async fn next(&mut self) -> Change {
        timeout(PATIENCE, self.changes.recv())
            .await
            .expect("a change in time")
            .expect("the watches live")
    }

    /// Changes up to the end of the first listing.
    async fn first_listing(&mut self) -> Vec<Change> {
        let mut seen = Vec::new();
        loop {
            match self.next().await {
                Change::Synced => return seen,
                change => seen.push(change),
            }
        }
    }
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}]}})
}

fn name_of(change: &Change) -> &str {
    match change {
        Change::Applied(object) => object["metadata"]["name"].as_str().unwrap_or_default(),
        Change::Deleted { name, .. } => name,
        Change::Synced => "",
    }
}

#[tokio::test]
async fn listed_objects_carry_their_kind_and_come_before_the_end_of_the_listing() {
    let mut world = world(|api| api.put(service("web")));
    let seen = world.first_listing().await;
    let [Change::Applied(object)] = seen.as_slice() else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (object["kind"].as_str(), object["apiVersion"].as_str()),
        (Some("Service"), Some("v1"))
    );
    world.api.put(service("later"));
    assert_eq!(name_of(&world.next().await), "later");
    world.api.remove("services", "default", "later");
    let gone = world.next().await;
    assert!(
        matches!(&gone, Change::Deleted { kind: Kind::Service, name, .. } if name == "later"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn an_object_that_vanished_while_the_watch_was_down_is_deleted() {
    let mut world = world(|api| {
        api.put(service("stays"));
        api.put(service("goes"));
    });
    assert_eq!(world.first_listing().await.len(), 2);
    world
        .api
        .remove_while_watches_are_down("services", "default", "goes");
    loop {
        match world.next().await {
            Change::Deleted { name, .. } => {
                assert_eq!(name, "goes");
                return;
            }
            relisted => assert_eq!(name_of(&relisted), "stays"),
        }
    }
}

#[tokio::test]
async fn a_kind_that_is_not_served_does_not_hold_up_the_first_listing() {
    let mut world = world(|api| {
        api.do_not_serve("virtualservices");
        api.put(service("web"));
    });
    let seen = world.first_listing().await;
    assert_eq!(seen.iter().map(name_of).collect::<Vec<_>>(), ["web"]);
}

#[tokio::test]
async fn objects_of_a_kind_that_is_no_longer_served_are_deleted() {
    let mut world = world(|api| {
        api.put_yaml("{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s, namespace: a}, spec: {}}")
    });
    assert_eq!(world.first_listing().await.len(), 1);
    world.api.do_not_serve("sidecars");
    // Ends the watches; the next listing of the kind finds nothing there.
    world
        .api
        .remove_while_watches_are_down("sidecars", "a", "s");
    let gone = world.next().await;
    assert!(
        matches!(
            &gone,
            Change::Deleted {
                kind: Kind::Sidecar,
                ..
            }
        ),
        "{gone:?}"
    );
}
