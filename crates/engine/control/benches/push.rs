//! What a change costs the control plane: objects in, encoded responses out, for many proxies in
//! one process and without sockets.
//!
//! `cargo bench -p control -- [SERVICES [PROXIES [NAMESPACES]]]` prints a line per step. Every service has five pods; every proxy is the sidecar of
//! another service's pod and asks as Envoy does: clusters, their endpoints, listeners, routes, each
//! acknowledged.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes and sockets: measured and waited for in real time"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use control::{generate::Generator, session::Session};
use ingest::Store;
use mesh_model::Snapshot;
use prost::Message as _;
use serde_json::{Value, json};
use wire_envoy::{
    pb::{Struct, Value as PbValue, ValueKind, core::Node, discovery::DeltaDiscoveryRequest},
    type_url as urls,
};
use xds_encode::Client;
use xds_protocol as xds;

const ENDPOINTS: usize = 5;

/// The size of the mesh.
struct Size {
    services: usize,
    proxies: usize,
    namespaces: usize,
}

impl Size {
    fn from_arguments() -> Self {
        let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
        let at = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
        Self {
            services: at(0, 1000),
            proxies: at(1, 100),
            namespaces: at(2, 1),
        }
    }

    fn namespace(&self, service: usize) -> String {
        format!("ns-{}", service % self.namespaces)
    }
}

fn address(service: usize, pod: usize) -> String {
    let number = service * ENDPOINTS + pod;
    format!(
        "10.{}.{}.{}",
        1 + number / 65_536,
        number / 256 % 256,
        number % 256
    )
}

fn pod(size: &Size, service: usize, pod: usize) -> Value {
    let (namespace, address) = (size.namespace(service), address(service, pod));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("svc-{service}-{pod}"), "namespace": namespace,
            "labels": {"app": format!("svc-{service}"), "version": "v1", "security.istio.io/tlsMode": "istio"}},
        "spec": {"serviceAccountName": format!("svc-{service}"), "containers": [{"name": "app", "image": "a", "ports": [{"containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn service(size: &Size, service: usize) -> Value {
    let vip = format!("10.200.{}.{}", service / 256, service % 256);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("svc-{service}"), "namespace": size.namespace(service)},
        "spec": {"clusterIP": vip, "clusterIPs": [vip], "selector": {"app": format!("svc-{service}")}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

fn slice(size: &Size, service: usize, pods: usize) -> Value {
    let endpoint = |pod: usize| json!({"addresses": [address(service, pod)], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": format!("svc-{service}-{pod}"), "namespace": size.namespace(service)}});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("svc-{service}-1"), "namespace": size.namespace(service), "labels": {"kubernetes.io/service-name": format!("svc-{service}")}},
        "ports": [{"name": "http", "port": 8080}], "endpoints": (0..pods).map(endpoint).collect::<Vec<_>>()})
}

fn rule(size: &Size, service: usize, value: usize) -> Value {
    let host = format!("svc-{service}");
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": host, "namespace": size.namespace(service)},
        "spec": {"hosts": [host], "http": [{"headers": {"request": {"set": {"x-mark": value.to_string()}}}, "route": [{"destination": {"host": host}}]}]}})
}

fn client(size: &Size, proxy: usize) -> Arc<Client> {
    let text = |text: String| PbValue {
        kind: Some(ValueKind::StringValue(text)),
    };
    let service = proxy % size.services;
    let (namespace, app) = (size.namespace(service), format!("svc-{service}"));
    let labels = Struct {
        fields: [
            ("app".to_owned(), text(app.clone())),
            ("version".to_owned(), text("v1".into())),
        ]
        .into(),
    };
    let fields = [
        ("NAMESPACE", text(namespace.clone())),
        ("WORKLOAD_NAME", text(app.clone())),
        ("SERVICE_ACCOUNT", text(app)),
        (
            "LABELS",
            PbValue {
                kind: Some(ValueKind::StructValue(labels)),
            },
        ),
    ];
    let pod = proxy / size.services;
    let node = Node {
        id: format!(
            "sidecar~{}~svc-{service}-{pod}.{namespace}~{namespace}.svc.cluster.local",
            address(service, pod)
        ),
        metadata: Some(Struct {
            fields: fields
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        }),
        ..Default::default()
    };
    Arc::new(Client::from_node(&node).expect("a node"))
}

fn subscribe(session: &mut Session, type_url: &str, names: Vec<String>) {
    let request = DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: names,
        ..Default::default()
    };
    session
        .receive(xds::Request::Delta(request))
        .expect("a request");
}

/// Takes, encodes and acknowledges responses until there are none; the names of new clusters are
/// asked for as endpoints.
fn settle(session: &mut Session, bytes: &mut usize) {
    while let Some(xds::Response::Delta(response)) = session.next_response() {
        *bytes += response.encode_to_vec().len();
        let names: Vec<String> = response.resources.iter().map(|r| r.name.clone()).collect();
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce,
            ..Default::default()
        };
        session
            .receive(xds::Request::Delta(request))
            .expect("an acknowledgement");
        if response.type_url == urls::CLUSTER {
            let eds = names
                .into_iter()
                .filter(|name| name.starts_with("outbound|"))
                .collect();
            subscribe(session, urls::ENDPOINT, eds);
        }
    }
}

/// Resident memory in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok())
        .unwrap_or_default()
        / 1024
}

struct Mesh {
    store: Store,
    generator: Arc<Generator>,
    sessions: Vec<Session>,
}

impl Mesh {
    /// Applies a change and brings it to every proxy: time to build, time to the last proxy, bytes.
    fn change(&mut self, step: &str, object: Value) {
        let start = Instant::now();
        self.store.apply(Arc::new(object));
        let snapshot = self.store.build();
        let built = start.elapsed();
        self.push(step, start, built, &snapshot);
    }

    fn push(&mut self, step: &str, start: Instant, built: Duration, snapshot: &Arc<Snapshot>) {
        let mut bytes = 0;
        for session in &mut self.sessions {
            session.renew(snapshot.clone());
            settle(session, &mut bytes);
        }
        self.generator.sweep(snapshot.version);
        report(step, built, start.elapsed(), bytes);
    }
}

fn report(step: &str, built: Duration, all: Duration, bytes: usize) {
    println!(
        "{step:<28} snapshot {:>9.2} ms   last proxy {:>9.2} ms   {:>9.1} kB   resident {:>5} MiB",
        built.as_secs_f64() * 1e3,
        all.as_secs_f64() * 1e3,
        bytes as f64 / 1e3,
        resident(),
    );
}

fn main() {
    let size = Size::from_arguments();
    println!(
        "{} services with {ENDPOINTS} endpoints in {} namespaces, {} proxies",
        size.services, size.namespaces, size.proxies
    );
    let start = Instant::now();
    let mut store = Store::new(ingest::default_mesh());
    for number in 0..size.services {
        (0..ENDPOINTS).for_each(|p| drop(store.apply(Arc::new(pod(&size, number, p)))));
        store.apply(Arc::new(service(&size, number)));
        store.apply(Arc::new(slice(&size, number, ENDPOINTS)));
    }
    let snapshot = store.build();
    report("start", start.elapsed(), start.elapsed(), 0);
    let generator = Arc::new(Generator::default());
    let (connecting, mut bytes) = (Instant::now(), 0);
    let sessions = (0..size.proxies).map(|proxy| {
        let mut session = Session::new(
            generator.clone(),
            xds::Flavour::Delta,
            client(&size, proxy),
            snapshot.clone(),
        );
        subscribe(&mut session, urls::CLUSTER, Vec::new());
        settle(&mut session, &mut bytes);
        subscribe(&mut session, urls::LISTENER, Vec::new());
        subscribe(&mut session, urls::ROUTE, vec!["80".into()]);
        settle(&mut session, &mut bytes);
        session
    });
    let sessions = sessions.collect();
    report("connect all", Duration::ZERO, connecting.elapsed(), bytes);
    let mut mesh = Mesh {
        store,
        generator,
        sessions,
    };
    for round in 0..3 {
        mesh.change(
            "an endpoint goes",
            slice(&size, 7, ENDPOINTS - 1 - round % 2),
        );
    }
    for round in 0..3 {
        mesh.change("a VirtualService changes", rule(&size, 7, round));
    }
    let more = Size {
        services: size.services + 1,
        ..size
    };
    mesh.change("a service comes", service(&more, size.services));
    for round in 0..100 {
        mesh.store
            .apply(Arc::new(slice(&size, 11, 1 + round % ENDPOINTS)));
        let snapshot = mesh.store.build();
        let mut bytes = 0;
        for session in &mut mesh.sessions {
            session.renew(snapshot.clone());
            settle(session, &mut bytes);
        }
        mesh.generator.sweep(snapshot.version);
        if round == 0 || round == 99 {
            report(
                &format!("endpoint change {round}"),
                Duration::ZERO,
                Duration::ZERO,
                bytes,
            );
        }
    }
}
