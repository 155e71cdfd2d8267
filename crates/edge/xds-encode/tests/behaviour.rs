//! What the generators do where no capture shows it: scopes, references, secrets, problems, and what inputs depend on.

use std::sync::Arc;

use mesh_model::Snapshot;
use serde_json::{Value as Json, json};
use wire_envoy::{Descriptors, Names, Unknown, pb};
use xds_encode::{
    Client, InvalidNode, SecretError, View, clusters, endpoints, listeners, packed, problems,
    routes, secret,
};

const BASE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: default}
spec: {clusterIP: 10.96.0.2, clusterIPs: [10.96.0.2], selector: {app: web}, internalTrafficPolicy: Local, ports: [{name: http, port: 81, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: other-name, namespace: default}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: gate, namespace: edge}
spec: {clusterIP: 10.96.0.3, clusterIPs: [10.96.0.3], selector: {istio: gate}, ports: [{name: http, port: 80, targetPort: 80}, {name: https, port: 443, targetPort: 8443}]}
"#;

fn pod(name: &str, node: &str, address: &str) -> String {
    format!(
        r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: web, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: web, nodeName: {node}, containers: [{{name: app, image: a, ports: [{{containerPort: 8080}}]}}]}}
status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}], conditions: [{{type: Ready, status: "True"}}]}}
"#
    )
}

fn slice(service: &str, pods: &[(&str, &str, &str)]) -> String {
    let endpoints: Vec<String> = pods
        .iter()
        .map(|(name, node, address)| format!("{{addresses: [{address}], nodeName: {node}, conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}, namespace: default}}}}"))
        .collect();
    format!(
        "\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

const PODS: [(&str, &str, &str); 2] = [
    ("web-1", "node-1", "10.1.0.1"),
    ("web-2", "node-2", "10.1.0.2"),
];

fn world(pods: &[(&str, &str, &str)], more: &str) -> Arc<Snapshot> {
    world_of(&json!({}), pods, more)
}

fn world_of(mesh: &Json, pods: &[(&str, &str, &str)], more: &str) -> Arc<Snapshot> {
    let mut text = BASE.to_owned();
    for (name, node, address) in pods {
        text += &pod(name, node, address);
    }
    text += &slice("web", pods);
    text += &slice("local", pods);
    if !more.is_empty() {
        text = format!("{text}\n---\n{more}");
    }
    let (mesh, _) = ingest::parse_mesh(mesh);
    let mut store = ingest::Store::new(mesh.expect("a mesh configuration"));
    for document in wire_kube::manifest::load("test.yaml", &text).expect("YAML") {
        store.apply(Arc::new(document.object));
    }
    let said: Vec<String> = store
        .problems()
        .filter(|(_, problem)| problem.severity == ingest::Severity::Error)
        .map(|(key, problem)| format!("{key:?}: {problem:?}"))
        .collect();
    assert!(said.is_empty(), "{said:#?}");
    store.build()
}

fn node(json: Json) -> pb::core::Node {
    let descriptors = Descriptors::load().expect("built-in");
    descriptors.from_json(json, Unknown::Deny).expect("a node")
}

fn sidecar() -> Arc<Client> {
    let json = json!({"id": "sidecar~10.1.0.1~web-1.default~default.svc.cluster.local", "cluster": "web.default",
        "metadata": {"NAMESPACE": "default", "LABELS": {"app": "web"}, "NODE_NAME": "node-1", "SERVICE_ACCOUNT": "web"}});
    Arc::new(Client::from_node(&node(json)).expect("a client"))
}

fn gateway() -> Arc<Client> {
    let json = json!({"id": "router~10.1.0.9~gate-1.edge~edge.svc.cluster.local", "cluster": "gate.edge",
        "metadata": {"NAMESPACE": "edge", "LABELS": {"istio": "gate"}, "UNPRIVILEGED_POD": "true"}});
    Arc::new(Client::from_node(&node(json)).expect("a client"))
}

fn text<M: prost::Message + prost::Name>(message: &M) -> String {
    let descriptors = Descriptors::load().expect("built-in");
    descriptors
        .any_to_json(&packed(message), Names::Camel)
        .expect("JSON")
        .to_string()
}

fn said(view: &View) -> String {
    problems(view)
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

#[test]
fn nodes_that_do_not_say_who_they_are_are_refused() {
    let id = |id: &str| {
        Client::from_node(&pb::core::Node {
            id: id.to_owned(),
            ..Default::default()
        })
    };
    assert!(matches!(id(""), Err(InvalidNode::Id(_))));
    assert!(matches!(
        id("sidecar~10.0.0.1~a.b"),
        Err(InvalidNode::Id(_))
    ));
    assert!(matches!(
        id("sidecar~10.0.0.1~a.b~c~d"),
        Err(InvalidNode::Id(_))
    ));
    assert!(matches!(
        id("ztunnel~10.0.0.1~a.b~c"),
        Err(InvalidNode::Kind(_))
    ));
    assert!(matches!(
        id("sidecar~here~a.b~c"),
        Err(InvalidNode::Address(_))
    ));
    let bare = id("sidecar~10.0.0.1~pod-1.ns~ns.svc.cluster.local").expect("a client");
    assert_eq!((&*bare.name, &*bare.namespace), ("pod-1", "ns"));
    assert_eq!(bare.mark, None);
}

#[test]
fn an_envoy_that_lists_no_istio_extension_is_a_stock_one() {
    let mut node =
        node(json!({"id": "sidecar~10.0.0.1~a.b~c", "metadata": {"TANBARK_MARK": 1337}}));
    let extension = |name: &str| pb::core::Extension {
        name: name.to_owned(),
        ..Default::default()
    };
    let client = |node: &pb::core::Node| Client::from_node(node).expect("a client");
    assert!(!client(&node).is_envoy_without_istio_filters);
    assert_eq!(client(&node).mark, Some(1337));
    node.extensions = vec![extension("envoy.filters.http.router")];
    assert!(client(&node).is_envoy_without_istio_filters);
    node.extensions.push(extension("istio.stats"));
    assert!(!client(&node).is_envoy_without_istio_filters);
}

#[test]
fn an_alias_is_a_domain_of_what_it_means() {
    let snapshot = world(&PODS, "");
    let view = View::new(&snapshot, &sidecar());
    let table = routes(&view.route_inputs("80").expect("a table"));
    let host = table
        .virtual_hosts
        .iter()
        .find(|host| host.name.starts_with("web."))
        .expect("web");
    assert!(
        host.domains
            .iter()
            .any(|domain| domain == "other-name.default.svc.cluster.local"),
        "{:?}",
        host.domains
    );
    let names: Vec<String> = clusters(&view.cluster_inputs())
        .into_iter()
        .map(|cluster| cluster.name)
        .collect();
    assert!(
        !names.iter().any(|name| name.contains("other-name")),
        "{names:?}"
    );
}

#[test]
fn node_local_services_stay_on_the_node() {
    let snapshot = world(&PODS, "");
    let view = View::new(&snapshot, &sidecar());
    let count = |cluster: &str| {
        let answer = endpoints(&view.endpoint_inputs(cluster).expect("a cluster name"));
        answer
            .endpoints
            .iter()
            .map(|group| group.lb_endpoints.len())
            .sum::<usize>()
    };
    assert_eq!(count("outbound|80||web.default.svc.cluster.local"), 2);
    assert_eq!(count("outbound|81||local.default.svc.cluster.local"), 1);
    assert_eq!(count("outbound|80|gone|web.default.svc.cluster.local"), 0);
    assert_eq!(count("outbound|80||gone.default.svc.cluster.local"), 0);
    assert!(view.endpoint_inputs("BlackHoleCluster").is_none());
}

/// Invariant 4: an input changes only with what its output depends on.
#[test]
fn endpoints_change_only_endpoints() {
    let client = sidecar();
    let (before, after) = (world(&PODS, ""), world(&PODS[..1], ""));
    let (before, after) = (View::new(&before, &client), View::new(&after, &client));
    assert_eq!(before.cluster_inputs(), after.cluster_inputs());
    assert_eq!(before.listener_inputs(), after.listener_inputs());
    assert_eq!(before.route_inputs("80"), after.route_inputs("80"));
    let web = "outbound|80||web.default.svc.cluster.local";
    assert_ne!(before.endpoint_inputs(web), after.endpoint_inputs(web));
}

#[test]
fn a_connection_pool_changes_clusters_and_not_routes() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: default}\nspec: {host: web, trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 1}}}}";
    let client = sidecar();
    let (before, after) = (world(&PODS, ""), world(&PODS, rule));
    let (before, after) = (View::new(&before, &client), View::new(&after, &client));
    assert_ne!(before.cluster_inputs(), after.cluster_inputs());
    assert_eq!(before.route_inputs("80"), after.route_inputs("80"));
    let own = clusters(&after.cluster_inputs());
    let inbound = own
        .iter()
        .find(|cluster| cluster.name == "inbound|8080||")
        .expect("inbound");
    assert!(
        text(inbound).contains("\"maxPendingRequests\":1"),
        "a rule holds at its own workload too"
    );
}

#[test]
fn rules_of_other_namespaces_that_keep_to_themselves_change_nothing() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: far}\nspec: {hosts: [web.default.svc.cluster.local], exportTo: [\".\"], http: [{route: [{destination: {host: web.default.svc.cluster.local}}]}]}";
    let client = sidecar();
    let (before, after) = (world(&PODS, ""), world(&PODS, rule));
    let (before, after) = (View::new(&before, &client), View::new(&after, &client));
    assert_eq!(before.route_inputs("80"), after.route_inputs("80"));
    assert_eq!(before.listener_inputs(), after.listener_inputs());
}

#[test]
fn the_longest_wildcard_and_the_oldest_rule_win() {
    let rule = |name: &str, host: &str, status: u16, time: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default, creationTimestamp: \"2026-01-01T00:00:{time}Z\"}}\nspec: {{hosts: [\"{host}\"], http: [{{directResponse: {{status: {status}}}}}]}}"
        )
    };
    let status = |rules: &[String]| {
        let snapshot = world(&PODS, &rules.join("\n---\n"));
        let table = routes(
            &View::new(&snapshot, &sidecar())
                .route_inputs("80")
                .expect("a table"),
        );
        let host = table
            .virtual_hosts
            .into_iter()
            .find(|host| host.name.starts_with("web."))
            .expect("web");
        let action = host.routes.first().and_then(|route| route.action.clone());
        match action {
            Some(pb::route::route::Action::DirectResponse(answer)) => answer.status,
            other => panic!("{other:?}"),
        }
    };
    let wide = rule("wide", "*.svc.cluster.local", 201, "01");
    let narrow = rule("narrow", "*.default.svc.cluster.local", 202, "02");
    let exact = rule("exact", "web.default.svc.cluster.local", 203, "03");
    let younger = rule("a-younger", "web.default.svc.cluster.local", 204, "04");
    assert_eq!(status(std::slice::from_ref(&wide)), 201);
    assert_eq!(status(&[wide.clone(), narrow.clone()]), 202);
    assert_eq!(status(&[wide.clone(), narrow.clone(), exact.clone()]), 203);
    assert_eq!(status(&[younger, wide, narrow, exact]), 203);
}

#[test]
fn aliases_of_the_trust_domain_are_accepted_everywhere() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: web, namespace: default}\nspec: {rules: [{from: [{source: {principals: [new.example/ns/default/sa/web]}}]}]}";
    let mesh = json!({"trustDomain": "new.example", "trustDomainAliases": ["old.example"]});
    let snapshot = world_of(&mesh, &PODS, policy);
    let view = View::new(&snapshot, &sidecar());
    let all = clusters(&view.cluster_inputs());
    let web = text(
        all.iter()
            .find(|cluster| cluster.name.starts_with("outbound|80||web"))
            .expect("web"),
    );
    let inbound = listeners(&view.listener_inputs())
        .iter()
        .map(text)
        .collect::<String>();
    for domain in ["new.example", "old.example"] {
        let id = format!("spiffe://{domain}/ns/default/sa/web");
        assert!(web.contains(&id), "{web}");
        assert!(
            inbound.contains(&format!("{{\"exact\":\"{id}\"}}")),
            "policy"
        );
        assert!(
            inbound.contains(&format!("{{\"prefix\":\"spiffe://{domain}/\"}}")),
            "peers"
        );
    }
}

/// A DENY for `*w.example/…` that left out the alias would let through whom it denies.
#[test]
fn a_principal_that_begins_with_a_star_means_the_aliases_too() {
    let policy = |principal: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: web, namespace: default}}\nspec: {{action: DENY, rules: [{{from: [{{source: {{principals: [\"{principal}\"]}}}}]}}]}}"
        )
    };
    let inbound = |principal: &str| {
        let mesh = json!({"trustDomain": "new.example", "trustDomainAliases": ["old.other"]});
        let snapshot = world_of(&mesh, &PODS, &policy(principal));
        let view = View::new(&snapshot, &sidecar());
        let all = listeners(&view.listener_inputs());
        all.iter().map(text).collect::<String>()
    };
    let alias = "{\"exact\":\"spiffe://old.other/ns/a/sa/b\"}";
    let found = inbound("*w.example/ns/a/sa/b");
    assert!(
        found.contains(r"spiffe://.*w\\.example/ns/a/sa/b"),
        "{found}"
    );
    assert!(found.contains(alias), "{found}");
    assert!(!inbound("*elsewhere/ns/a/sa/b").contains(alias));
    assert!(!inbound("*/ns/a/sa/b").contains(alias));
}

const GATE: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gate, namespace: edge}
spec:
  selector: {istio: gate}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: missing}}
  - {port: {number: 443, name: tcp, protocol: TCP}, hosts: [b.example]}
"#;

#[test]
fn what_a_gateway_cannot_do_is_said() {
    let snapshot = world(&PODS, GATE);
    let view = View::new(&snapshot, &gateway());
    let said = said(&view);
    assert!(
        said.contains("port 80 cannot be opened by an unprivileged gateway"),
        "{said}"
    );
    assert!(
        said.contains("Secret edge/missing does not exist"),
        "{said}"
    );
    assert!(said.contains("server tcp is left out"), "{said}");
    let names: Vec<String> = listeners(&view.listener_inputs())
        .into_iter()
        .map(|listener| listener.name)
        .collect();
    assert_eq!(names, ["0.0.0.0_8443"]);
    let table = routes(
        &view
            .route_inputs("https.443.https.gate.edge")
            .expect("a table"),
    );
    assert_eq!(
        table.virtual_hosts.first().map(|host| host.name.as_str()),
        Some("blackhole:443")
    );
    assert!(view.route_inputs("http.9999").is_none());
}

#[test]
fn contradictions_between_client_and_server_are_said() {
    let more = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\nspec: {mtls: {mode: STRICT}}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: default}\nspec: {host: web, trafficPolicy: {tls: {mode: DISABLE}}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: gone, namespace: default}\nspec: {hosts: [web], http: [{route: [{destination: {host: gone}}]}]}";
    let snapshot = world(&PODS, more);
    let said = said(&View::new(&snapshot, &sidecar()));
    assert!(said.contains("DestinationRule default/web: tls DISABLE for web.default.svc.cluster.local port 80, whose PeerAuthentication is STRICT"), "{said}");
    assert!(said.contains("VirtualService default/gone: destination host gone.default.svc.cluster.local is not a known service"), "{said}");
}

#[test]
fn secrets_are_for_gateways_of_their_own_namespace() {
    let snapshot = world(&PODS, "");
    let get = |name: &str, client: &Client| secret(name, &snapshot, client).expect_err("no secret");
    assert_eq!(get("kubernetes://a", &sidecar()), SecretError::NotAGateway);
    assert!(matches!(
        get("kubernetes://default/a", &gateway()),
        SecretError::OtherNamespace { .. }
    ));
    assert!(matches!(
        get("kubernetes://a", &gateway()),
        SecretError::Missing { .. }
    ));
    assert!(matches!(get("a", &gateway()), SecretError::Name(_)));
    assert!(matches!(
        get("kubernetes://", &gateway()),
        SecretError::Name(_)
    ));
}

#[test]
fn every_listener_and_cluster_has_a_name_of_its_own() {
    let snapshot = world(&PODS, GATE);
    for client in [sidecar(), gateway()] {
        let view = View::new(&snapshot, &client);
        let mut names: Vec<String> = clusters(&view.cluster_inputs())
            .into_iter()
            .map(|cluster| cluster.name)
            .collect();
        names.extend(
            listeners(&view.listener_inputs())
                .into_iter()
                .map(|listener| listener.name),
        );
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
