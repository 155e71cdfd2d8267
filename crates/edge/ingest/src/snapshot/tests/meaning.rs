//! What objects mean together.

use mesh_model::destination_rule::Algorithm;
use mesh_model::peer_authentication::MtlsMode;
use mesh_model::service::Resolution;
use mesh_model::virtual_service::HttpAction;
use mesh_model::workload::{EndpointAddress, Readiness};

use super::*;

fn built(text: &str) -> (Store, Arc<Snapshot>) {
    let (mut store, _, _) = store_of(default_mesh(), &[("test.yaml", text)]);
    let snapshot = store.build();
    (store, snapshot)
}

fn apply(store: &mut Store, text: &str) -> Vec<Applied> {
    let documents = manifest::load("change.yaml", text).unwrap();
    documents
        .into_iter()
        .map(|d| store.apply(Arc::new(d.object)))
        .collect()
}

const REVIEWS: &str = r#"
{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: reviews-v1-abc-1
  namespace: default
  labels: {app: reviews, version: v1, pod-template-hash: abc, security.istio.io/tlsMode: istio}
  ownerReferences: [{kind: ReplicaSet, name: reviews-v1-abc, controller: true}]
spec: {serviceAccountName: bookinfo-reviews, nodeName: node-1, containers: [{name: a, ports: [{name: web, containerPort: 9080}]}]}
status: {podIP: 10.1.0.1}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-x, namespace: default, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 9080}]
endpoints:
- {addresses: [10.1.0.1], targetRef: {kind: Pod, name: reviews-v1-abc-1}, conditions: {ready: true}}
- {addresses: [10.1.0.2], conditions: {ready: false}}
- {addresses: [10.1.0.3], conditions: {ready: false, serving: true, terminating: true}, zone: z9}
"#;

#[test]
fn endpoints_carry_what_their_pod_says() {
    let (_, snapshot) = built(REVIEWS);
    let service = snapshot
        .service("reviews.default.svc.cluster.local", "default")
        .unwrap();
    let endpoints = &snapshot.endpoints_of(service).unwrap().ports[&80];
    let first = &endpoints[0];
    assert_eq!(
        (first.address.clone(), first.port),
        (EndpointAddress::Ip("10.1.0.1".parse().unwrap()), 9080)
    );
    assert_eq!(
        first.identity.as_ref().unwrap().as_str(),
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
    );
    assert!(first.mesh_tls);
    assert_eq!(
        (
            &*first.workload_name,
            &*first.canonical_name,
            &*first.canonical_revision
        ),
        ("reviews-v1", "reviews", "v1")
    );
    assert_eq!(first.locality.region.as_deref(), Some("r1"));
    let states: Vec<Readiness> = endpoints.iter().map(|e| e.ready).collect();
    assert_eq!(
        states,
        [Readiness::Ready, Readiness::NotReady, Readiness::Draining]
    );
    assert_eq!(endpoints[2].locality.zone.as_deref(), Some("z9"));
    assert_eq!(
        snapshot
            .workload_at("10.1.0.1".parse().unwrap())
            .unwrap()
            .ports[0],
        ("web".into(), 9080)
    );
}

#[test]
fn only_what_changed_is_made_anew() {
    let (mut store, first) = built(REVIEWS);
    assert!(Arc::ptr_eq(&first, &store.build()), "nothing changed");
    apply(
        &mut store,
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [a.example], http: [{redirect: {uri: /}}]}}",
    );
    let second = store.build();
    assert_eq!(second.virtual_services.len(), 1);
    assert!(Arc::ptr_eq(&first.endpoints, &second.endpoints));
    assert!(Arc::ptr_eq(&first.services, &second.services));
    assert!(Arc::ptr_eq(&first.workloads, &second.workloads));
    let same = apply(&mut store, REVIEWS);
    assert!(same.iter().all(|a| !a.changed), "the same objects again");
    assert!(Arc::ptr_eq(&second, &store.build()));
    // Another node label reaches the endpoints of its pods.
    apply(
        &mut store,
        "{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {topology.kubernetes.io/region: r2}}}",
    );
    let third = store.build();
    let service = third
        .service("reviews.default.svc.cluster.local", "default")
        .unwrap();
    assert_eq!(
        third.endpoints_of(service).unwrap().ports[&80][0]
            .locality
            .region
            .as_deref(),
        Some("r2")
    );
    assert!(store.delete(&Key {
        kind: Kind::Service,
        namespace: "default".into(),
        name: "reviews".into()
    }));
    let fourth = store.build();
    assert!(fourth.services.is_empty() && fourth.endpoints.is_empty());
    assert!(Arc::ptr_eq(
        &third.virtual_services,
        &fourth.virtual_services
    ));
}

#[test]
fn entries_become_services_with_endpoints() {
    let (_, snapshot) = built(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vm, namespace: default}
spec:
  hosts: [vm.example, "*.vm.example"]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  workloadSelector: {labels: {app: vm}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-1, namespace: default}
spec: {address: 10.2.0.1, labels: {app: vm, version: v1}, serviceAccount: vm, weight: 2, locality: r/z, ports: {http: 8081}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-2, namespace: default}
spec: {address: 10.2.0.2, labels: {app: vm}}
---
{apiVersion: v1, kind: Pod, metadata: {name: pod, namespace: default, labels: {app: vm}}, status: {podIP: 10.1.0.9, conditions: [{type: Ready, status: "True"}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns, namespace: other}
spec:
  hosts: [api.vendor.example]
  resolution: DNS
  exportTo: ["."]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 443}]
"#,
    );
    let vm = snapshot.service("vm.example", "elsewhere").unwrap();
    let mut found: Vec<String> = snapshot.endpoints_of(vm).unwrap().ports[&80]
        .iter()
        .map(|e| {
            format!(
                "{:?}:{} w{} tls={}",
                e.address, e.port, e.weight, e.mesh_tls
            )
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "Ip(10.1.0.9):8080 w1 tls=false",
            "Ip(10.2.0.1):8081 w2 tls=true",
            "Ip(10.2.0.2):8080 w1 tls=false"
        ]
    );
    assert!(snapshot.service("a.vm.example", "elsewhere").is_some());
    assert!(
        snapshot.service("api.vendor.example", "default").is_none(),
        "not exported"
    );
    let dns = snapshot.service("api.vendor.example", "other").unwrap();
    assert_eq!(dns.resolution, Resolution::Dns);
    let endpoint = &snapshot.endpoints_of(dns).unwrap().ports[&80][0];
    assert_eq!(
        (endpoint.address.clone(), endpoint.port),
        (EndpointAddress::Name("api.vendor.example".into()), 443)
    );
    assert_eq!(snapshot.workloads.len(), 3);
}

#[test]
fn rules_for_one_host_become_one() {
    let (_, snapshot) = built(
        r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: default, creationTimestamp: "2020-01-01T00:00:00Z"}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default, creationTimestamp: "2021-01-01T00:00:00Z"}
spec: {host: reviews.default.svc.cluster.local, subsets: [{name: v1, labels: {version: other}}, {name: v2, labels: {version: v2}}], trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: c, namespace: default, creationTimestamp: "2022-01-01T00:00:00Z"}
spec: {host: reviews, exportTo: ["."], trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
"#,
    );
    let rules = &snapshot.destination_rules["default"];
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0].meta.name(), "b");
    assert_eq!(
        rules[0].policy.load_balancer.as_ref().unwrap().algorithm,
        Algorithm::Random
    );
    let subsets: Vec<_> = rules[0]
        .subsets
        .iter()
        .map(|s| (&*s.name, s.labels.0.value("version").unwrap()))
        .collect();
    assert_eq!(subsets, [("v1", "v1"), ("v2", "v2")]);
}

#[test]
fn delegates_take_the_place_of_their_routes() {
    let (mut store, snapshot) = built(
        r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: default}
spec:
  hosts: [a.example]
  gateways: [front]
  http:
  - {name: r, match: [{uri: {prefix: /reviews}, method: {exact: GET}}], delegate: {name: child, namespace: team}, timeout: 3s}
  - {route: [{destination: {host: rest}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: child, namespace: team}
spec:
  http:
  - {name: c, match: [{uri: {prefix: /reviews/v2}}], route: [{destination: {host: reviews}}]}
  - {match: [{uri: {prefix: /other}}], route: [{destination: {host: never}}]}
  - {timeout: 1s, route: [{destination: {host: reviews}}]}
"#,
    );
    let root = &snapshot.virtual_services["default"][0];
    assert!(
        !snapshot.virtual_services.contains_key("team"),
        "a delegate stands nowhere by itself"
    );
    assert_eq!(root.http.len(), 3);
    let first = &root.http[0];
    assert_eq!(first.name.as_deref(), Some("r-c"));
    assert_eq!(
        format!("{:?} {:?}", first.matches[0].uri, first.matches[0].method),
        "Some(Prefix(\"/reviews/v2\")) Some(Exact(\"GET\"))"
    );
    assert_eq!(first.timeout.unwrap().as_secs(), 3);
    let HttpAction::Route(to) = &first.action else {
        panic!("{first:?}")
    };
    assert_eq!(
        to[0].destination.host.as_str(),
        "reviews.team.svc.cluster.local"
    );
    assert_eq!(root.http[1].timeout.unwrap().as_secs(), 1);
    assert_eq!(
        format!("{:?}", root.http[1].matches[0].uri),
        "Some(Prefix(\"/reviews\"))"
    );
    // The child goes: its route goes too, the rest stays.
    store.delete(&Key {
        kind: Kind::VirtualService,
        namespace: "team".into(),
        name: "child".into(),
    });
    assert_eq!(store.build().virtual_services["default"][0].http.len(), 1);
}

#[test]
fn peer_authentication_goes_from_port_to_mesh() {
    let (mut store, snapshot) = built(
        r#"
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: mesh, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: default}, spec: {selector: {matchLabels: {app: a}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {9080: {mode: DISABLE}}}}
"#,
    );
    let labels: Labels = [("app", "a")].into_iter().collect();
    let modes = [
        snapshot.mtls_mode("default", &labels, 9080),
        snapshot.mtls_mode("default", &labels, 1),
        snapshot.mtls_mode("default", &Labels::default(), 1),
    ];
    assert_eq!(
        modes,
        [MtlsMode::Disable, MtlsMode::Permissive, MtlsMode::Strict]
    );
    store.delete(&Key {
        kind: Kind::PeerAuthentication,
        namespace: "istio-system".into(),
        name: "mesh".into(),
    });
    assert_eq!(
        store.build().mtls_mode("default", &Labels::default(), 1),
        MtlsMode::Permissive
    );
}

#[test]
fn another_mesh_configuration_reads_everything_anew() {
    let (mut store, snapshot) = built(REVIEWS);
    let service = snapshot.service("reviews.default.svc.cluster.local", "other");
    assert!(service.is_some());
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    defaultServiceExportTo: [\".\"]\n    trustDomain: corp.example\n";
    assert!(apply(&mut store, map)[0].changed);
    let snapshot = store.build();
    assert!(
        snapshot
            .service("reviews.default.svc.cluster.local", "other")
            .is_none()
    );
    let service = snapshot
        .service("reviews.default.svc.cluster.local", "default")
        .unwrap();
    let identity = snapshot.endpoints_of(service).unwrap().ports[&80][0]
        .identity
        .clone()
        .unwrap();
    assert_eq!(
        identity.as_str(),
        "spiffe://corp.example/ns/default/sa/bookinfo-reviews"
    );
    store.delete(&Key {
        kind: Kind::ConfigMap,
        namespace: "istio-system".into(),
        name: "istio".into(),
    });
    assert!(
        store
            .build()
            .service("reviews.default.svc.cluster.local", "other")
            .is_some()
    );
}

#[test]
fn a_certificate_must_match_its_key() {
    let text = captures::scenario("10-gateway-tls").input();
    let documents = manifest::load("input.yaml", &text).unwrap();
    let secret = |name: &str| {
        documents
            .iter()
            .find(|d| d.object.pointer("/metadata/name") == Some(&name.into()))
            .unwrap()
            .object
            .clone()
    };
    let (one, two) = (secret("one-cert"), secret("two-cert"));
    let mut mixed = one.clone();
    mixed["data"]["tls.key"] = two["data"]["key"].clone();
    let (good, problems) = parse(&default_mesh(), Kind::Secret, &one);
    assert!(
        matches!(good, Some(Domain::Credential(c)) if c.certificate.is_some())
            && problems.is_empty()
    );
    let (bad, problems) = parse(&default_mesh(), Kind::Secret, &mixed);
    assert!(bad.is_none());
    assert_eq!(problems[0].code, code::GATEWAY_CREDENTIAL);
    assert!(
        problems[0].message.contains("key"),
        "{}",
        problems[0].message
    );
}

#[test]
fn mesh_configuration_has_istios_defaults() {
    let (empty, problems) = parse_mesh(&serde_json::json!({}));
    assert_eq!((empty, problems), (Some(default_mesh()), vec![]));
    let text = r#"
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
accessLogFile: /dev/stdout
accessLogEncoding: JSON
meshMTLS: {minProtocolVersion: TLSV1_3}
trustDomain: corp.example
trustDomainAliases: [old.example]
defaultVirtualServiceExportTo: [team-a, team-b]
localityLbSetting: {distribute: [{from: a/*, to: {"b/*": 100}}]}
defaultHttpRetryPolicy: {attempts: 5, retryOn: 5xx}
defaultConfig: {tracing: {sampling: 50}, drainDuration: 1m, gatewayTopology: {numTrustedProxies: 2}, runtimeValues: {a: b}}
hboneIdleTimeout: 1h
extensionProviders:
- {name: z, zipkin: {service: zipkin.tracing.svc.cluster.local, port: 9411}}
- {name: a, envoyExtAuthzGrpc: {service: x, port: 1}}
"#;
    let document = manifest::load("mesh.yaml", text).unwrap().remove(0);
    let (mesh, problems) = parse_mesh(&document.object);
    let mesh = mesh.unwrap();
    let reported: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        reported,
        ["hboneIdleTimeout", "defaultConfig.runtimeValues"]
    );
    assert_eq!(
        mesh.outbound,
        mesh_model::sidecar::OutboundMode::RegistryOnly
    );
    assert!(mesh.access_log.as_ref().unwrap().json && mesh.min_tls_13);
    assert_eq!(
        (
            mesh.trust_domain.as_str(),
            mesh.trust_domain_aliases[0].as_str()
        ),
        ("corp.example", "old.example")
    );
    assert_eq!(mesh.locality_lb.enabled, Some(true));
    assert_eq!(
        (
            mesh.tracing_sampling.value(),
            mesh.drain.as_secs(),
            mesh.gateway_trusted_proxies
        ),
        (500_000, 60, 2)
    );
    assert_eq!(mesh.default_http_retry.as_ref().unwrap().attempts, 5);
    let own: Text = "mine".into();
    assert!(
        !mesh
            .default_virtual_service_export_to
            .for_namespace(&own)
            .includes("mine")
    );
    assert_eq!(mesh.extension_providers.len(), 2);
}

const DATABASES: &str = r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: orders, namespace: default}
spec: {hosts: [orders.db.example], resolution: DNS, ports: [{number: 5432, name: tcp, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: users, namespace: default}
spec: {hosts: [users.db.example], resolution: DNS, ports: [{number: 5432, name: tcp, protocol: TCP}]}
status: {addresses: [{value: 240.240.7.7, host: users.db.example}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: default}
spec: {hosts: [web.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: without, namespace: default, labels: {networking.istio.io/enable-autoallocate-ip: "false"}}
spec: {hosts: [without.example], resolution: DNS, ports: [{number: 5432, name: tcp, protocol: TCP}]}
"#;

#[test]
fn tcp_service_entries_without_addresses_get_one_each_and_keep_it() {
    let addresses = |store: &mut Store| -> BTreeMap<String, String> {
        let snapshot = store.build();
        let all = snapshot.services.values().flat_map(|list| list.iter());
        all.map(|s| {
            (
                s.host.to_string(),
                s.vips().map(|ip| ip.to_string()).collect(),
            )
        })
        .collect()
    };
    let mut store = Store::with_auto_addresses(default_mesh());
    let documents = manifest::load("a.yaml", DATABASES).unwrap();
    for document in &documents {
        store.apply(Arc::new(document.object.clone()));
    }
    let first = addresses(&mut store);
    assert_eq!(
        first["users.db.example"], "240.240.7.7",
        "what its status says"
    );
    assert!(
        first["orders.db.example"].starts_with("240.240."),
        "{first:?}"
    );
    assert_ne!(first["orders.db.example"], first["users.db.example"]);
    assert_eq!(first["web.example"], "", "HTTP has its host");
    assert_eq!(first["without.example"], "");
    let needed: Vec<_> = store
        .problems()
        .filter(|(_, p)| p.code == code::ADDRESSES_NEEDED)
        .map(|(key, _)| key.name.to_string())
        .collect();
    assert_eq!(needed, ["without"]);

    let mut again = Store::with_auto_addresses(default_mesh());
    for document in documents.iter().rev() {
        again.apply(Arc::new(document.object.clone()));
    }
    assert_eq!(addresses(&mut again), first, "the same in another run");
    assert_eq!(again.auto_addresses().count(), 2);
    let (mut plain, _, _) = store_of(default_mesh(), &[("a.yaml", DATABASES)]);
    assert!(addresses(&mut plain).values().all(String::is_empty));
}
