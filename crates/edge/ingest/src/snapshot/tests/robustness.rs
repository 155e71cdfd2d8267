//! Whatever is written where, nothing panics and the rest of the mesh stands.

use serde_json::json;

use super::*;

/// Every value of `object`, one after the other, replaced by `other`.
fn each_replaced(object: &Value, other: &Value, check: &mut dyn FnMut(&Value)) {
    fn walk(
        root: &mut Value,
        path: &mut Vec<String>,
        other: &Value,
        check: &mut dyn FnMut(&Value),
    ) {
        let pointer: String = path
            .iter()
            .map(|p| format!("/{}", p.replace('~', "~0").replace('/', "~1")))
            .collect();
        let keys: Vec<String> = match root.pointer(&pointer) {
            Some(Value::Object(map)) => map.keys().cloned().collect(),
            Some(Value::Array(list)) => (0..list.len()).map(|i| i.to_string()).collect(),
            _ => Vec::new(),
        };
        for key in keys {
            path.push(key);
            walk(root, path, other, check);
            path.pop();
        }
        if let Some(slot) = root.pointer_mut(&pointer) {
            let kept = std::mem::replace(slot, other.clone());
            check(root);
            if let Some(slot) = root.pointer_mut(&pointer) {
                *slot = kept;
            }
        }
    }
    walk(&mut object.clone(), &mut Vec::new(), other, check);
}

#[test]
fn no_value_in_any_place_panics() {
    let mut files: Vec<String> = captures::scenarios()
        .iter()
        .map(captures::Scenario::input)
        .collect();
    // The base is long and repeats itself.
    let base = captures::general("base.yaml");
    let start: Vec<&str> = base.split("\n---").take(13).collect();
    files.push(start.join("\n---"));
    let mesh = default_mesh();
    let others = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("*"),
        json!("é/[\"\u{0}"),
        json!([]),
        json!([null]),
        json!({"a": 1}),
        json!(true),
    ];
    let mut parsed = 0_usize;
    for file in files {
        for document in manifest::load("x", &file).unwrap() {
            let Ok(key) = Key::of(&document.object) else {
                continue;
            };
            for other in &others {
                each_replaced(&document.object, other, &mut |object| {
                    let (domain, problems) = parse(&mesh, key.kind, object);
                    let failed = problems.iter().any(|p| p.severity == Severity::Error);
                    assert!(
                        !(failed && domain.is_some()),
                        "an object with an error was used: {object}"
                    );
                    parsed += 1;
                });
            }
        }
    }
    assert!(parsed > 10_000, "{parsed}");
}

#[test]
fn a_bad_version_leaves_the_last_good_one_in_force() {
    let mut store = Store::new(default_mesh());
    let rule = |weight: i64| {
        Arc::new(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a", "namespace": "default"},
            "spec": {"hosts": ["a.example"], "http": [{"route": [{"destination": {"host": "a"}, "weight": weight}, {"destination": {"host": "b"}, "weight": 1}]}]}
        }))
    };
    assert!(store.apply(rule(10)).changed);
    let good = store.build();
    let bad = store.apply(rule(-1));
    assert!(!bad.changed);
    assert_eq!(
        bad.problems[0].message,
        "route weight -1: weights must not be negative"
    );
    assert!(Arc::ptr_eq(&good, &store.build()));
    assert_eq!(
        store
            .problems()
            .filter(|(_, p)| p.severity == Severity::Error && p.code == code::INVALID)
            .count(),
        1
    );
    assert!(store.apply(rule(20)).changed);
    assert_eq!(store.build().version, 2);
    assert_eq!(
        store
            .problems()
            .filter(|(_, p)| p.code == code::INVALID)
            .count(),
        0
    );
}

#[test]
fn a_thousand_services_stay_quick() {
    let mut store = Store::new(default_mesh());
    let start = std::time::Instant::now();
    for n in 0..1000 {
        let name = format!("s{n}");
        let namespace = format!("n{}", n % 20);
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}}}\n---\n\
             {{apiVersion: v1, kind: Pod, metadata: {{name: {name}-1, namespace: {namespace}, labels: {{app: {name}}}}}, status: {{podIP: 10.1.{}.{}}}}}\n---\n\
             {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {name}-x, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}, addressType: IPv4, ports: [{{name: http, port: 80}}], endpoints: [{{addresses: [10.1.{}.{}], targetRef: {{kind: Pod, name: {name}-1}}}}]}}\n---\n\
             {{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{host: {name}}}}}\n",
            n / 250,
            n % 250,
            n / 250,
            n % 250
        );
        for document in manifest::load("x", &text).unwrap() {
            store.apply(Arc::new(document.object));
        }
    }
    let applied = start.elapsed();
    let first = store.build();
    let built = start.elapsed();
    store.apply(Arc::new(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "s7-1", "namespace": "n7", "labels": {"app": "s7", "v": "2"}}, "status": {"podIP": "10.1.0.7"}})));
    let second = store.build();
    println!(
        "1,000 services: applied {applied:?}, built {:?}, one pod {:?}",
        built - applied,
        start.elapsed() - built
    );
    let changed = second
        .endpoints
        .iter()
        .filter(|(key, value)| !Arc::ptr_eq(value, &first.endpoints[*key]))
        .count();
    assert_eq!(changed, 1);
    assert!(Arc::ptr_eq(&first.services, &second.services));
    assert!(Arc::ptr_eq(
        &first.destination_rules,
        &second.destination_rules
    ));
}
