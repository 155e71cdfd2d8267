use std::{net::SocketAddr, path::PathBuf};

use identity::TrustDomain;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};
use wire_kube::kinds::Kind;

use super::*;
use crate::{
    Listen,
    api::ApiAddress,
    fake_api::{FakeApi, PATIENCE},
    status::{self, reporter::Wishes},
};

struct World {
    api: FakeApi,
    changes: mpsc::Sender<Change>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    _tasks: JoinSet<()>,
}

fn settings() -> Settings {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    Settings {
        api: ApiAddress::UnixSocket(PathBuf::new()),
        clock: Arc::new(stdx::SystemClock),
        instance: "istiod-1".into(),
        ca_directory: PathBuf::new(),
        trust_domain: TrustDomain::parse("cluster.local").expect("a trust domain"),
        root_namespace: "istio-system".into(),
        cluster_domain: "cluster.local".into(),
        listen: Listen {
            secure: any,
            plaintext: None,
            monitoring: any,
            http: any,
        },
        mesh: None,
        workload_ttl: Duration::from_secs(24 * 3600),
    }
}

fn world() -> World {
    let api = FakeApi::start();
    let mut tasks = JoinSet::new();
    let (changes, receiver) = mpsc::channel(4096);
    let (publish, snapshots) = watch::channel(None);
    let wishes = Arc::new(Wishes::default());
    tasks.spawn(status::writer::run(
        api.client.clone(),
        Arc::new(stdx::SystemClock),
        wishes.clone(),
    ));
    let writer = Writer {
        changes: receiver,
        publish,
        objects: watch::channel(Arc::from([])).0,
        generator: Arc::default(),
        metrics: Metrics::new(Arc::new(stdx::SystemClock)),
        reporter: Reporter::new(wishes),
        changed: Changed::default(),
    };
    tasks.spawn(writer.run(&settings()));
    World {
        api,
        changes,
        snapshots,
        _tasks: tasks,
    }
}

impl World {
    async fn apply(&self, object: &Value) {
        self.changes
            .send(Change::Applied(object.clone()))
            .await
            .expect("the writer lives");
    }

    async fn sync(&self) {
        self.changes
            .send(Change::Synced)
            .await
            .expect("the writer lives");
    }

    async fn wait_for(&mut self, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let found = self
            .snapshots
            .wait_for(|snapshot| snapshot.as_deref().is_some_and(&wanted));
        timeout(PATIENCE, found)
            .await
            .expect("a snapshot in time")
            .expect("the writer lives")
            .clone()
            .expect("a snapshot")
    }
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}})
}

/// A VirtualService for `web` with one route to `web`, of this weight.
fn virtual_service(weight: i64) -> Value {
    let route = json!([{"destination": {"host": "web"}, "weight": weight}]);
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "web", "namespace": "default", "resourceVersion": "1"},
        "spec": {"hosts": ["web"], "http": [{"route": route}]}})
}

const RECONCILED: &str = "/status/conditions/0/status";

fn reconciled(object: &Value) -> &str {
    object
        .pointer(RECONCILED)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[tokio::test]
async fn nothing_is_published_before_the_first_listing_is_complete() {
    let mut world = world();
    world.apply(&service("web")).await;
    // A second change that the writer has certainly taken proves that it had its chance.
    while world.changes.capacity() < world.changes.max_capacity() {
        tokio::task::yield_now().await;
    }
    assert!(world.snapshots.borrow().is_none());
    world.sync().await;
    world
        .wait_for(|snapshot| snapshot.services.len() == 1)
        .await;
}

#[tokio::test]
async fn a_burst_of_changes_makes_few_snapshots() {
    let mut world = world();
    world.sync().await;
    let first = world.wait_for(|_| true).await.version;
    for number in 0..1000 {
        world.apply(&service(&format!("s{number}"))).await;
    }
    let last = world
        .wait_for(|snapshot| snapshot.services.len() == 1000)
        .await
        .version;
    assert!(
        last - first <= 50,
        "{} snapshots for 1000 changes",
        last - first
    );
}

#[tokio::test]
async fn a_bad_object_keeps_its_last_good_version_says_so_and_is_cleared_when_mended() {
    let mut world = world();
    world.apply(&service("web")).await;
    let good = virtual_service(1);
    world.api.put(good.clone());
    world.apply(&good).await;
    world.sync().await;
    let before = world
        .wait_for(|snapshot| !snapshot.virtual_services.is_empty())
        .await;

    let bad = virtual_service(-1);
    world.api.put(bad.clone());
    world.apply(&bad).await;
    let told = world
        .api
        .wait_for("virtualservices", "default", "web", |object| {
            reconciled(object) == "False"
        })
        .await;
    let message = &told["status"]["validationMessages"][0];
    assert!(
        message["path"]
            .as_str()
            .is_some_and(|path| path.contains("weight")),
        "{told}"
    );
    let now = world.snapshots.borrow().clone().expect("a snapshot");
    assert_eq!(now.virtual_services, before.virtual_services);

    // Mended by its user; the API keeps the status.
    let mut mended = told.clone();
    mended["spec"] = good["spec"].clone();
    world.api.put(mended.clone());
    world.apply(&mended).await;
    let cleared = world
        .api
        .wait_for("virtualservices", "default", "web", |object| {
            reconciled(object) == "True"
        })
        .await;
    assert_eq!(cleared["status"]["validationMessages"], json!([]));
}

#[tokio::test]
async fn an_object_whose_status_cannot_be_written_does_not_hold_up_others() {
    let world = world();
    world.apply(&service("web")).await;
    world.api.fail_writes_of("web");
    for name in ["web", "other"] {
        let mut bad = virtual_service(-1);
        bad["metadata"]["name"] = json!(name);
        world.api.put(bad.clone());
        world.apply(&bad).await;
    }
    world.sync().await;
    let others = json!({"type": "PassedAnalysis", "status": "True"});
    let told = world
        .api
        .wait_for("virtualservices", "default", "other", |object| {
            reconciled(object) == "False"
        })
        .await;
    assert!(told["status"]["conditions"][0]["lastTransitionTime"].is_string());
    // Somebody else adds a condition; then ours changes.
    let mut mended = told.clone();
    mended["spec"] = virtual_service(1)["spec"].clone();
    mended["status"]["conditions"]
        .as_array_mut()
        .expect("conditions")
        .push(others.clone());
    world.api.put(mended.clone());
    world.apply(&mended).await;
    let told = world
        .api
        .wait_for("virtualservices", "default", "other", |object| {
            reconciled(object) == "True"
        })
        .await;
    assert_eq!(told["status"]["conditions"][1], others);
    let stuck = world.api.get("virtualservices", "default", "web");
    assert_eq!(stuck.expect("the object").get("status"), None);
}

#[tokio::test]
async fn a_status_that_could_not_be_written_is_written_later() {
    let world = world();
    let bad = virtual_service(-1);
    world.api.put(bad.clone());
    world.api.fail_writes(2);
    world.apply(&bad).await;
    world.sync().await;
    world
        .api
        .wait_for("virtualservices", "default", "web", |object| {
            reconciled(object) == "False"
        })
        .await;
}

#[tokio::test]
async fn a_problem_that_an_earlier_run_wrote_is_cleared_when_the_object_is_good_now() {
    let world = world();
    let mut mended = virtual_service(1);
    mended["status"] = json!({"conditions": [{"type": "Reconciled", "status": "False"}], "validationMessages": [{"message": "old"}]});
    world.api.put(mended.clone());
    world.apply(&service("web")).await;
    world.apply(&mended).await;
    world.sync().await;
    let cleared = world
        .api
        .wait_for("virtualservices", "default", "web", |object| {
            reconciled(object) == "True"
        })
        .await;
    assert_eq!(cleared["status"]["validationMessages"], json!([]));
}

#[tokio::test]
async fn a_deleted_object_is_gone_from_the_next_snapshot() {
    let mut world = world();
    world.apply(&service("web")).await;
    world.sync().await;
    world
        .wait_for(|snapshot| snapshot.services.len() == 1)
        .await;
    world
        .changes
        .send(Change::Deleted {
            kind: Kind::Service,
            namespace: "default".into(),
            name: "web".into(),
        })
        .await
        .expect("the writer lives");
    world
        .wait_for(|snapshot| snapshot.services.is_empty())
        .await;
}
