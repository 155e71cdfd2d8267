use std::time::{Duration, SystemTime};

use identity::{ServiceAccountName, SpiffeId, TrustDomain};
use serde_json::json;
use tokio::time::timeout;
use tonic::Code;
use wire_envoy::{
    pb::{Struct, Value, ValueKind, google::rpc},
    type_url as urls,
};

use super::*;
use crate::{
    debug::Pages,
    fake_api::{FakeApi, PATIENCE},
    metrics::Build,
};

struct World {
    api: FakeApi,
    store: ingest::Store,
    publish: watch::Sender<Option<Arc<Snapshot>>>,
    shared: Arc<Discovery>,
    trigger: stdx::drain::DrainTrigger,
}

fn world() -> World {
    let api = FakeApi::start();
    let mut store = ingest::Store::new(ingest::default_mesh());
    store.apply(Arc::new(service("web")));
    let (publish, snapshots) = watch::channel(Some(store.build()));
    let (trigger, drain) = stdx::drain::channel();
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let (proxies, generator) = (Arc::<Proxies>::default(), Arc::<Generator>::default());
    let metrics = Metrics::new(Arc::new(stdx::SystemClock));
    let pages = Pages {
        proxies: proxies.clone(),
        metrics: metrics.clone(),
        snapshots: snapshots.clone(),
        objects: watch::channel(Arc::from([])).1,
        generator: generator.clone(),
    };
    let shared = Arc::new(Discovery {
        authenticator: Arc::new(Authenticator::new(api.client.clone(), domain)),
        authorizer: Authorizer::new(api.client.clone()),
        snapshots,
        generator,
        proxies,
        metrics,
        tools: tools::Tools::new(pages, "istio-system"),
        control_plane: tools::control_plane("istiod-1"),
        clock: Arc::new(stdx::SystemClock),
        drain,
    });
    World {
        api,
        store,
        publish,
        shared,
        trigger,
    }
}

fn service(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}})
}

fn node(name: &str, namespace: &str) -> Node {
    let text = |text: &str| Value {
        kind: Some(ValueKind::StringValue(text.to_owned())),
    };
    let fields = [
        ("NAMESPACE", text(namespace)),
        ("SERVICE_ACCOUNT", text("cart")),
    ];
    let metadata = Struct {
        fields: fields
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    };
    Node {
        id: format!("sidecar~10.1.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"),
        metadata: Some(metadata),
        ..Default::default()
    }
}

/// A stream without a network: what gRPC would carry goes through channels.
struct Stream {
    requests: mpsc::Sender<Result<xds::Request, Status>>,
    responses: mpsc::Receiver<Result<xds::Response, Status>>,
    task: tokio::task::JoinHandle<Result<(), Status>>,
}

impl World {
    fn open(&self, namespace: &str, account: &str) -> Stream {
        let account = ServiceAccountName::new(namespace, account).expect("an account");
        let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
        let caller = Caller {
            id: SpiffeId::workload(&domain, &account),
            account,
        };
        let (requests, incoming) = mpsc::channel(16);
        let (outgoing, responses) = mpsc::channel(16);
        let shared = self.shared.clone();
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming).boxed();
        let task = tokio::spawn(async move {
            shared
                .serve(caller, None, xds::Flavour::Delta, incoming, &outgoing)
                .await
        });
        Stream {
            requests,
            responses,
            task,
        }
    }

    fn apply(&mut self, object: serde_json::Value) {
        let began = Instant::now();
        self.store.apply(Arc::new(object));
        let snapshot = self.store.build();
        let published = Instant::now();
        self.shared
            .metrics
            .builds
            .published(snapshot.version, Build { began, published });
        self.publish.send_replace(Some(snapshot));
    }

    fn has_line(&self, line: &str) -> bool {
        self.shared.metrics.text().lines().any(|l| l == line)
    }
}

impl Stream {
    async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests
            .send(Ok(xds::Request::Delta(request)))
            .await
            .expect("the stream lives");
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        match timeout(PATIENCE, self.responses.recv())
            .await
            .expect("a response in time")
        {
            Some(Ok(xds::Response::Delta(response))) => response,
            other => panic!("{other:?}"),
        }
    }

    async fn acknowledge(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let error_detail = error.map(|message| rpc::Status {
            code: 3,
            message: message.to_owned(),
            ..Default::default()
        });
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..Default::default()
        })
        .await;
    }

    async fn end(self) -> Status {
        timeout(PATIENCE, self.task)
            .await
            .expect("an end in time")
            .expect("no panic")
            .expect_err("an error")
    }
}

fn first(node: Node) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(node),
        type_url: urls::CLUSTER.to_owned(),
        ..Default::default()
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .filter(|name| name.starts_with("outbound"))
        .collect()
}

#[tokio::test]
async fn a_node_of_another_namespace_or_account_is_refused() {
    let world = world();
    for (namespace, account, why) in [
        ("other", "cart", "namespace shop"),
        ("shop", "thief", "service account cart"),
    ] {
        let stream = world.open(namespace, account);
        stream.send(first(node("web-1", "shop"))).await;
        let refused = stream.end().await;
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains(why), "{refused}");
    }
    let stream = world.open("shop", "cart");
    stream
        .send(DeltaDiscoveryRequest {
            type_url: urls::CLUSTER.to_owned(),
            ..Default::default()
        })
        .await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument, "no node");
    assert!(world.shared.proxies.list().is_empty());
}

#[tokio::test]
async fn a_change_brings_only_what_is_new() {
    let mut world = world();
    let mut stream = world.open("shop", "cart");
    stream.send(first(node("web-1", "shop"))).await;
    let all = stream.next().await;
    assert_eq!(names(&all), ["outbound|80||web.shop.svc.cluster.local"]);
    stream.acknowledge(&all, None).await;
    world.apply(service("second"));
    let change = stream.next().await;
    assert_eq!(
        names(&change),
        ["outbound|80||second.shop.svc.cluster.local"]
    );
    assert_eq!(
        change.resources.len(),
        1,
        "unchanged resources are not pushed again"
    );
    assert!(change.removed_resources.is_empty());
}

#[tokio::test]
async fn a_change_has_converged_when_the_proxy_has_taken_it() {
    let mut world = world();
    let mut stream = world.open("shop", "cart");
    stream.send(first(node("web-1", "shop"))).await;
    let all = stream.next().await;
    stream.acknowledge(&all, None).await;
    world.apply(service("second"));
    let change = stream.next().await;
    assert!(world.has_line("pilot_proxy_convergence_time_count 0"));
    stream.acknowledge(&change, None).await;
    timeout(PATIENCE, async {
        while !world.has_line("pilot_proxy_convergence_time_count 1") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the change is counted");
    for line in [
        "pilot_xds{version=\"unknown\"} 1",
        "pilot_proxy_queue_time_count 1",
        "pilot_xds_push_time_count{type=\"cds\"} 2",
        "pilot_xds_config_size_bytes_count{type=\"cds\"} 2",
    ] {
        assert!(world.has_line(line), "{line}");
    }
}

#[tokio::test]
async fn a_rejection_is_recorded_and_others_go_on() {
    let mut world = world();
    let (mut good, mut bad) = (world.open("shop", "cart"), world.open("shop", "cart"));
    for (stream, name) in [(&mut good, "good"), (&mut bad, "bad")] {
        stream.send(first(node(name, "shop"))).await;
        let response = stream.next().await;
        stream
            .acknowledge(&response, (name == "bad").then_some("cluster x: no"))
            .await;
    }
    world.apply(service("second"));
    assert_eq!(
        names(&good.next().await),
        ["outbound|80||second.shop.svc.cluster.local"]
    );
    // The refused one is told of what changed as well, and its rejection stays on record until it
    // takes a newer version.
    bad.next().await;
    let rejected = |name: &str| {
        let list = world.shared.proxies.list();
        let status = list
            .iter()
            .find(|(_, proxy)| proxy.name == format!("{name}.shop"))
            .and_then(|(_, proxy)| proxy.types.get(urls::CLUSTER).cloned());
        status.map_or(0, |status| status.rejected)
    };
    let label = type_label(urls::CLUSTER);
    assert_eq!(
        world
            .shared
            .metrics
            .streams
            .rejects
            .get_or_create(&label)
            .get(),
        1
    );
    timeout(PATIENCE, async {
        while rejected("bad") != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the rejection is on record");
    assert_eq!(rejected("good"), 0);
}

#[tokio::test]
async fn a_drain_ends_the_streams_and_the_list_forgets_them() {
    let world = world();
    let mut stream = world.open("shop", "cart");
    stream.send(first(node("web-1", "shop"))).await;
    stream.next().await;
    world.trigger.start();
    assert_eq!(stream.end().await.code(), Code::Unavailable);
    assert!(world.shared.proxies.list().is_empty());
    assert!(Duration::ZERO < PATIENCE);
}

/// A workload that calls itself a gateway is not believed.
#[tokio::test]
async fn keys_of_secrets_are_for_accounts_that_may_read_them() {
    let mut world = world();
    let authority = identity::CertificateAuthority::self_signed(
        &TrustDomain::parse("cluster.local").expect("a trust domain"),
        SystemTime::now(),
    )
    .expect("a certificate with its key")
    .to_pem();
    world.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "front", "namespace": "shop"}, "stringData": {
        "tls.crt": authority.ca_cert, "tls.key": authority.ca_key.as_str(), "ca.crt": authority.root_cert,
    }}));
    let mut stream = world.open("shop", "cart");
    let mut gateway = node("front-1", "shop");
    gateway.id = gateway.id.replace("sidecar~", "router~");
    stream
        .send(DeltaDiscoveryRequest {
            node: Some(gateway),
            type_url: urls::SECRET.to_owned(),
            resource_names_subscribe: vec![
                "kubernetes://front".into(),
                "kubernetes://front-cacert".into(),
            ],
            ..Default::default()
        })
        .await;
    let sent = |response: &DeltaDiscoveryResponse| -> Vec<String> {
        response.resources.iter().map(|r| r.name.clone()).collect()
    };
    let first = stream.next().await;
    assert_eq!(
        sent(&first),
        ["kubernetes://front-cacert"],
        "roots are public"
    );
    stream.acknowledge(&first, None).await;

    world
        .api
        .let_read_secrets("system:serviceaccount:shop:cart", "shop");
    world.apply(service("another"));
    assert_eq!(sent(&stream.next().await), ["kubernetes://front"]);
}

fn question(type_url: &str, names: &[&str]) -> xds::Request {
    xds::Request::StateOfTheWorld(DiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    })
}

impl World {
    /// What a tool of this namespace is answered.
    async fn ask(
        &self,
        namespace: &str,
        question: xds::Request,
    ) -> Result<DiscoveryResponse, Status> {
        let mut stream = self.open(namespace, "default");
        stream
            .requests
            .send(Ok(question))
            .await
            .expect("the stream lives");
        match timeout(PATIENCE, stream.responses.recv())
            .await
            .expect("an answer in time")
        {
            Some(Ok(xds::Response::StateOfTheWorld(response))) => Ok(response),
            Some(other) => panic!("{other:?}"),
            None => Err(stream.task.await.expect("no panic").expect_err("a refusal")),
        }
    }
}

#[tokio::test]
async fn tools_ask_over_ads_how_far_proxies_are_and_what_they_have() {
    use wire_envoy::pb::envoy::{
        admin::v3::ClustersConfigDump,
        service::status::v3::{ClientConfig, ConfigStatus},
    };
    let world = world();
    let mut proxy = world.open("shop", "cart");
    proxy
        .send(DeltaDiscoveryRequest {
            node: Some(node("web-1", "shop")),
            type_url: urls::CLUSTER.to_owned(),
            ..Default::default()
        })
        .await;
    let clusters = proxy.next().await;
    let identifier = clusters
        .control_plane
        .as_ref()
        .expect("who answers")
        .identifier
        .clone();
    let identifier: serde_json::Value = serde_json::from_str(&identifier).expect("JSON");
    assert_eq!(identifier["ID"], "istiod-1");

    let sync = |answer: DiscoveryResponse| -> (String, i32) {
        let [only] = &answer.resources[..] else {
            panic!("{answer:?}")
        };
        let config: ClientConfig = wire_envoy::unpack(only).expect("a ClientConfig");
        let status = config.generic_xds_configs[0].config_status;
        (config.node.expect("a node").id, status)
    };
    let stale = world
        .ask("istio-system", question("istio.io/debug/syncz", &[]))
        .await;
    let name = "web-1.shop".to_owned();
    assert_eq!(
        sync(stale.expect("an answer")),
        (name.clone(), ConfigStatus::Stale.into())
    );
    proxy.acknowledge(&clusters, None).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = world
            .ask("istio-system", question("istio.io/debug/syncz", &[]))
            .await;
        if sync(answer.expect("an answer")).1 == i32::from(ConfigStatus::Synced) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "never synced");
        tokio::task::yield_now().await;
    }

    let dump = world
        .ask("shop", question("istio.io/debug/config_dump", &[&name]))
        .await;
    let dump = dump
        .expect("a dump of a proxy of the own namespace")
        .resources;
    let clusters = dump
        .iter()
        .find_map(|part| wire_envoy::unpack::<ClustersConfigDump>(part).ok());
    assert!(
        !clusters
            .expect("clusters")
            .dynamic_active_clusters
            .is_empty()
    );

    let page = world
        .ask("istio-system", question("istio.io/debug", &["connections"]))
        .await;
    let page = page.expect("a page").resources.remove(0);
    let page: serde_json::Value = serde_json::from_slice(&page.value).expect("JSON");
    assert_eq!(page["totalClients"], 1);
}

#[tokio::test]
async fn tools_of_other_namespaces_see_their_own_proxies_only() {
    let world = world();
    for (type_url, names) in [
        ("istio.io/debug/syncz", vec![]),
        ("istio.io/debug/config_dump", vec!["web-1.shop"]),
        ("istio.io/debug", vec!["configz"]),
        ("istio.io/debug", vec!["edsz?proxyID=web-1.shop"]),
    ] {
        let refused = world.ask("other", question(type_url, &names)).await;
        assert_eq!(refused.expect_err(type_url).code(), Code::PermissionDenied);
    }
    let unknown = world
        .ask("istio-system", question("istio.io/debug/nothing", &[]))
        .await;
    assert_eq!(
        unknown.expect_err("no such type").code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn proxyless_grpc_is_refused_by_name() {
    let world = world();
    let mut client = node("app-1", "shop");
    let fields = &mut client.metadata.as_mut().expect("metadata").fields;
    let kind = Some(ValueKind::StringValue("grpc".into()));
    fields.insert("GENERATOR".into(), Value { kind });
    let stream = world.open("shop", "cart");
    stream
        .send(DeltaDiscoveryRequest {
            node: Some(client),
            type_url: urls::LISTENER.to_owned(),
            ..Default::default()
        })
        .await;
    let refused = stream.task.await.expect("no panic").expect_err("a refusal");
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("proxyless gRPC"), "{refused}");
}
