//! After any change the findings are those of a fresh look, and a change costs the checks of what
//! it touches.

use std::collections::BTreeMap;

use ingest::Problem;
use serde_json::Value;

use super::*;

fn fresh(store_objects: &BTreeMap<Key, Arc<Value>>) -> Vec<(Key, Problem)> {
    let mut store = Store::new(default_mesh());
    for object in store_objects.values() {
        store.apply(object.clone());
    }
    let mut analyzer = Analyzer::default();
    analyzer.update(&mut store);
    said(&store, &analyzer)
}

fn said(store: &Store, analyzer: &Analyzer) -> Vec<(Key, Problem)> {
    analyzer
        .problems(store)
        .map(|(key, problem)| (key.clone(), problem.clone()))
        .collect()
}

/// All objects of all cases, renamed so that each file is apart.
fn everything() -> Vec<Value> {
    let mut files: Vec<_> = std::fs::read_dir(cases())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        for document in manifest::load("x", &read(&file)).unwrap() {
            objects.push(document.object);
        }
    }
    objects
}

#[test]
fn an_update_comes_to_what_a_fresh_look_comes_to() {
    let objects = everything();
    let mut store = Store::new(default_mesh());
    let mut analyzer = Analyzer::default();
    let mut now: BTreeMap<Key, Arc<Value>> = BTreeMap::new();
    let mut compared = 0;
    // One after the other comes; then every third goes, and comes again.
    for (index, object) in objects.iter().enumerate() {
        let object = Arc::new(object.clone());
        if let Some(key) = store.apply(object.clone()).key {
            now.insert(key, object);
        }
        let before = said(&store, &analyzer);
        let updated = analyzer.update(&mut store);
        let after = said(&store, &analyzer);
        if index % 7 == 0 {
            assert_eq!(after, fresh(&now), "after object {index}");
            compared += 1;
        }
        // Whose problems are others is told.
        for key in now.keys() {
            let of = |all: &[(Key, Problem)]| -> Vec<Problem> {
                let own = all.iter().filter(|(k, _)| k == key);
                own.map(|(_, problem)| problem.clone()).collect()
            };
            if !updated.objects.contains(key) {
                assert_eq!(of(&before), of(&after), "{key} is not told of");
            }
        }
    }
    let keys: Vec<Key> = now.keys().step_by(3).cloned().collect();
    for (index, key) in keys.iter().enumerate() {
        store.delete(key);
        let gone = now.remove(key).unwrap();
        analyzer.update(&mut store);
        if index % 5 == 0 {
            assert_eq!(said(&store, &analyzer), fresh(&now), "without {key}");
            compared += 1;
        }
        if index % 2 == 0 {
            store.apply(gone.clone());
            now.insert(key.clone(), gone);
            analyzer.update(&mut store);
        }
    }
    assert_eq!(said(&store, &analyzer), fresh(&now));
    assert!(compared > 15, "{compared}");
}

/// A mesh of `n` services with a pod, a rule with a subset, a route and a policy each.
fn many(n: usize) -> (Store, Analyzer) {
    let mut store = Store::new(default_mesh());
    for n in 0..n {
        for object in [
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{n}"), "namespace": "default"}, "spec": {"selector": {"app": format!("s{n}")}, "ports": [{"name": "http", "port": 80}]}}),
            pod(n, 1, "v1"),
            slice(n, &[1]),
            json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": format!("s{n}"), "namespace": "default"}, "spec": {"host": format!("s{n}"), "subsets": [{"name": "v1", "labels": {"v": "v1"}}]}}),
            json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": format!("s{n}"), "namespace": "default"}, "spec": {"hosts": [format!("s{n}")], "http": [{"route": [{"destination": {"host": format!("s{n}"), "subset": "v1"}}]}]}}),
            json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": format!("s{n}"), "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": format!("s{n}")}}, "rules": [{}]}}),
        ] {
            let applied = store.apply(Arc::new(object));
            assert_eq!(applied.problems, vec![]);
        }
    }
    let mut analyzer = Analyzer::default();
    analyzer.update(&mut store);
    (store, analyzer)
}

fn pod(n: usize, replica: usize, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("s{n}-{replica}"), "namespace": "default", "labels": {"app": format!("s{n}"), "v": version}},
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}, "status": {"podIP": format!("10.{replica}.{}.{}", n / 250, n % 250)}})
}

fn slice(n: usize, replicas: &[usize]) -> Value {
    let endpoints: Vec<Value> = replicas
        .iter()
        .map(|replica| json!({"addresses": [format!("10.{replica}.{}.{}", n / 250, n % 250)], "targetRef": {"kind": "Pod", "name": format!("s{n}-{replica}")}}))
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": format!("s{n}-x"), "namespace": "default", "labels": {"kubernetes.io/service-name": format!("s{n}")}}, "addressType": "IPv4", "ports": [{"name": "http", "port": 80}], "endpoints": endpoints})
}

#[test]
fn a_change_of_endpoints_checks_what_looked_at_them() {
    let (mut store, mut analyzer) = many(300);
    let costs = |change: &mut dyn FnMut(&mut Store), store: &mut Store, analyzer: &mut Analyzer| {
        let before = analyzer.checks();
        change(store);
        analyzer.update(store);
        analyzer.checks() - before
    };
    let whole = analyzer.checks();
    assert!(whole > 1000, "{whole}");
    let second = costs(
        &mut |store| {
            store.apply(Arc::new(pod(7, 2, "v2")));
            store.apply(Arc::new(slice(7, &[1, 2])));
        },
        &mut store,
        &mut analyzer,
    );
    assert!(
        second <= 12,
        "a second pod of one service costs {second} checks"
    );
    let gone = costs(
        &mut |store| {
            store.apply(Arc::new(slice(7, &[2])));
        },
        &mut store,
        &mut analyzer,
    );
    assert!(gone <= 12, "{gone}");
    let rule = Key {
        kind: Kind::DestinationRule,
        namespace: "default".into(),
        name: "s7".into(),
    };
    let problems: Vec<_> = analyzer
        .problems_of(&store, &rule)
        .map(|p| p.code)
        .collect();
    assert_eq!(problems, [code::SUBSET_WITHOUT_PODS]);
    let nothing = costs(&mut |_| {}, &mut store, &mut analyzer);
    assert_eq!(nothing, 0);
}

#[test]
fn a_status_or_a_new_version_number_is_no_change() {
    let (mut store, mut analyzer) = many(3);
    let before = analyzer.checks();
    let mut rule = (**store
        .object(&Key {
            kind: Kind::DestinationRule,
            namespace: "default".into(),
            name: "s1".into(),
        })
        .unwrap())
    .clone();
    rule["status"] = json!({"conditions": []});
    rule["metadata"]["resourceVersion"] = json!("17");
    store.apply(Arc::new(rule));
    let updated = analyzer.update(&mut store);
    assert!(updated.objects.is_empty(), "{:?}", updated.objects);
    assert_eq!(analyzer.checks(), before);
}

#[test]
fn what_an_author_does_not_want_to_hear_is_not_said() {
    let rule = |suppress: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: a, namespace: default, annotations: {{galley.istio.io/analyze-suppress: '{suppress}'}}}}, spec: {{host: nobody}}}}"
        )
    };
    let count = |suppress: &str| {
        let mesh = mesh(default_mesh(), &[("a.yaml", &rule(suppress))]);
        mesh.analyzer.problems(&mesh.store).count()
    };
    assert_eq!(count("IST0101"), 1);
    assert_eq!(count("IST0101, IST0174"), 0);
    assert_eq!(count("*"), 0);
}

#[test]
fn an_object_without_meaning_still_changes_what_is_said_about_others() {
    let gateway = r#"
{apiVersion: v1, kind: Pod, metadata: {name: gw, namespace: edge, labels: {istio: gw}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: default}
spec: {selector: {istio: gw}, servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: cert}}]}
"#;
    let Mesh {
        mut store,
        mut analyzer,
        ..
    } = mesh(default_mesh(), &[("test.yaml", gateway)]);
    let said = |store: &Store, analyzer: &Analyzer| {
        let of_gateway = analyzer
            .problems(store)
            .filter(|(key, _)| key.kind == Kind::Gateway);
        of_gateway.map(|(_, p)| p.code).collect::<Vec<_>>()
    };
    let before = store.build();
    assert_eq!(said(&store, &analyzer), [code::REFERENCE_NOT_FOUND]);
    let useless = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "edge"}, "data": {"other": "eA=="}});
    assert!(!store.apply(Arc::new(useless)).changed);
    assert!(Arc::ptr_eq(&before, &analyzer.update(&mut store).snapshot));
    assert_eq!(said(&store, &analyzer), [code::GATEWAY_CREDENTIAL]);
    store.delete(&Key {
        kind: Kind::Secret,
        namespace: "edge".into(),
        name: "cert".into(),
    });
    analyzer.update(&mut store);
    assert_eq!(said(&store, &analyzer), [code::REFERENCE_NOT_FOUND]);
}
