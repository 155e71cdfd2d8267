//! Several objects that declare one host.

use super::*;

const PAY: [&str; 4] = [
    "
kind: ServiceEntry
apiVersion: networking.istio.io/v1
metadata: {name: web, namespace: default, creationTimestamp: 2026-01-01T00:00:00Z}
spec:
  hosts: [pay.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 192.0.2.1}]
",
    "
kind: ServiceEntry
apiVersion: networking.istio.io/v1
metadata: {name: web-8080, namespace: default, creationTimestamp: 2026-01-02T00:00:00Z}
spec:
  hosts: [other.example.com, pay.example.com]
  resolution: STATIC
  ports: [{number: 8080, name: http-b, protocol: HTTP}, {number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 192.0.2.2}]
",
    "
kind: ServiceEntry
apiVersion: networking.istio.io/v1
metadata: {name: resolved, namespace: default, creationTimestamp: 2026-01-03T00:00:00Z}
spec:
  hosts: [pay.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: pay.example.net}]
",
    "
kind: ServiceEntry
apiVersion: networking.istio.io/v1
metadata: {name: over, namespace: default, creationTimestamp: 2025-01-01T00:00:00Z}
spec:
  hosts: [plain.default.svc.cluster.local]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 192.0.2.7}]
",
];

const PLAIN: [&str; 2] = [
    "
kind: Service
apiVersion: v1
metadata: {name: plain, namespace: default, creationTimestamp: 2026-01-01T00:00:00Z}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}]}
",
    "
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: plain-x, namespace: default, labels: {kubernetes.io/service-name: plain}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.1], conditions: {ready: true}}]
",
];

fn object(text: &str) -> Arc<Value> {
    let mut documents = manifest::load("objects.yaml", text).unwrap();
    Arc::new(documents.remove(0).object)
}

fn store(texts: &[&str]) -> Store {
    let mut store = Store::new(default_mesh());
    for text in texts {
        let applied = store.apply(object(text));
        assert_eq!(applied.problems, [], "{text}");
    }
    store
}

/// `port: address…` of a host's service.
fn endpoints(snapshot: &Snapshot, host: &str) -> Vec<String> {
    let service = snapshot.service(host, "default").expect(host);
    let of = snapshot.endpoints_of(service).expect("its endpoints");
    let ports = service.ports.iter().map(|port| {
        let number = port.port.number;
        let list = of.ports[&number].iter();
        let addresses: Vec<String> = list.map(|e| format!("{:?}", e.address)).collect();
        format!("{number}: {}", addresses.join(" "))
    });
    ports.collect()
}

#[test]
fn ports_and_endpoints_of_entries_with_one_host_are_joined() {
    let snapshot = store(&PAY[..2]).build();
    assert_eq!(
        endpoints(&snapshot, "pay.example.com"),
        ["80: Ip(192.0.2.1) Ip(192.0.2.2)", "8080: Ip(192.0.2.2)"]
    );
    // One that is found in another way is another service, which the older one hides.
    let snapshot = store(&PAY[..3]).build();
    assert_eq!(
        endpoints(&snapshot, "pay.example.com"),
        ["80: Ip(192.0.2.1) Ip(192.0.2.2)", "8080: Ip(192.0.2.2)"]
    );
}

#[test]
fn an_entry_for_a_services_host_adds_endpoints_and_hides_nothing() {
    let snapshot = store(&[PLAIN[0], PLAIN[1], PAY[3]]).build();
    let host = "plain.default.svc.cluster.local";
    let service = snapshot.service(host, "default").expect("the service");
    assert_eq!(&*service.meta.object.kind, "Service");
    assert_eq!(
        endpoints(&snapshot, host),
        ["80: Ip(10.1.0.1) Ip(192.0.2.7)"]
    );
}

/// Whatever comes and goes in whatever order, with builds between, the result is that of a build
/// from what is there at the end.
#[test]
fn an_update_gives_what_a_build_from_nothing_gives() {
    let texts: Vec<&str> = PAY.iter().chain(&PLAIN).copied().collect();
    let objects: Vec<Arc<Value>> = texts.iter().map(|text| object(text)).collect();
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut live = Store::new(default_mesh());
        let mut present = vec![false; objects.len()];
        for _ in 0..rng.usize(1..12) {
            let at = rng.usize(..objects.len());
            present[at] = !present[at];
            if present[at] {
                live.apply(objects[at].clone());
            } else {
                live.delete(&Key::of(&objects[at]).unwrap());
            }
            if rng.bool() {
                live.build();
            }
        }
        let mut fresh = Store::new(default_mesh());
        for (object, _) in objects.iter().zip(&present).filter(|(_, is)| **is) {
            fresh.apply(object.clone());
        }
        let (live, fresh) = (live.build(), fresh.build());
        assert_eq!(live.services, fresh.services, "seed {seed}");
        assert_eq!(live.endpoints, fresh.endpoints, "seed {seed}");
    }
}
