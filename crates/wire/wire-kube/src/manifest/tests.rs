use serde_json::json;

use super::*;

fn one(text: &str) -> Document {
    let mut documents = load("a.yaml", text).unwrap();
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

fn refusal(text: &str) -> String {
    load("a.yaml", text).unwrap_err().to_string()
}

#[test]
fn fields_are_found_where_they_stand() {
    let document = one(
        "# head\n---\nkind: A\nspec:\n  http:\n  - route:\n    - {destination: {host: a}, weight: 1}\n    - destination:\n        host: b\n      weight: 110\n  port-map:\n    9080: x\n    \"a.b/c\": y\n",
    );
    assert_eq!(
        document.object.pointer("/spec/http/0/route/1/weight"),
        Some(&json!(110))
    );
    assert_eq!(
        document.object.pointer("/spec/port-map/9080"),
        Some(&json!("x"))
    );
    let at = |path: &str| document.positions.find(path);
    assert_eq!(document.source.to_string(), "a.yaml:3");
    assert_eq!(at("spec.http[0].route[1].weight"), (10, 7));
    assert_eq!(at("spec.http[0].route[0].weight"), (7, 32));
    assert_eq!(at("spec.http[0].route[0]"), (7, 7));
    assert_eq!(at("spec.port-map[\"a.b/c\"]"), (13, 5));
    assert_eq!(at("spec.port-map.9080"), (12, 5));
    // What is not there is shown at what is around it.
    assert_eq!(at("spec.http[0].route[1].nothing.here"), (8, 7));
    assert_eq!(at("nothing"), (3, 1));
    assert_eq!(document.place("spec.http[7]"), "a.yaml:5:3");
}

#[test]
fn scalars_are_kubectls() {
    let document = one(
        "a: on\nb: 0755\nc: \"0755\"\nd: 1_000\ne: 1.5\nf: ~\ng: yes\nh: 'no'\ni: 2026-01-01\nj: 0x1F\nk: -3\nl: 18446744073709551615\n",
    );
    assert_eq!(
        document.object,
        json!({"a": true, "b": 493, "c": "0755", "d": 1000, "e": 1.5, "f": null, "g": true, "h": "no", "i": "2026-01-01", "j": 31, "k": -3, "l": 18446744073709551615u64})
    );
}

#[test]
fn documents_lists_and_json_are_taken_apart() {
    let text = "kind: A\n---\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- kind: B\n  x: 1\n- kind: CList\n  items:\n  - kind: D\n---\n{\"kind\": \"E\",\n\t\"y\": [1, 2]}\n...\n";
    let documents = load("a.yaml", text).unwrap();
    let seen: Vec<String> = documents
        .iter()
        .map(|d| format!("{} {}", d.source.line, d.object["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, ["1 A", "9 B", "13 D", "15 E"]);
    assert_eq!(documents[1].positions.find("x"), (10, 3));
    assert_eq!(load("a.yaml", "").unwrap().len(), 0);
    assert_eq!(
        load("a.yaml", "\u{feff}kind: A\n").unwrap()[0].object,
        json!({"kind": "A"})
    );
    let long = "x".repeat(5000);
    assert_eq!(
        one(&format!("{{\"kind\": \"{long}\", \"b\": 1}}")).object["b"],
        json!(1)
    );
}

#[test]
fn anchors_and_merge_keys_work() {
    let document = one("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nlist: [*b, *b]\n");
    assert_eq!(document.object["use"], json!({"x": 1, "y": 3}));
    assert_eq!(document.positions.find("list[1].x"), (5, 12));
}

#[test]
fn mistakes_are_shown_with_their_place() {
    let cases = [
        "kind: A\nspec:\n  a: 1\n  a: 2\n",
        "kind: A\n  bad: [1\n",
        "kind: A\nb: [1, 2\n---\n",
        "kind: A\n\tb: 1\n",
        "- a\n- b\n",
        "just text\n",
        "a: *nothing\n",
        "a: \"open\n",
        "a: .inf\n",
    ];
    let mut found = String::new();
    for case in cases {
        found.push_str(&refusal(case));
        found.push('\n');
    }
    expect("manifest_mistakes.txt", &found);
}

#[test]
fn a_file_of_ten_megabytes_is_refused_unread() {
    let text = "a: \"".to_owned() + &"x".repeat(10_000_000) + "\"\n";
    assert_eq!(
        refusal(&text),
        "a.yaml: 10000006 bytes: a file of objects must be smaller than 10000000 bytes; split it"
    );
}

fn alias_bomb() -> String {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = level - 1;
        let uses = vec![format!("*a{before}"); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
    }
    bomb
}

#[test]
fn endless_aliases_are_refused() {
    let deep = "[".repeat(100) + &"]".repeat(100);
    let cases = [
        alias_bomb(),
        "a: &a [*a]\n".into(),
        "a: &b\n  c: *b\n".into(),
        format!("a: {deep}\n"),
    ];
    let found: Vec<String> = cases.iter().map(|case| refusal(case)).collect();
    expect("manifest_limits.txt", &(found.join("\n") + "\n"));
}

#[test]
fn depth_and_number_of_documents_are_limited() {
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(
        refusal(&format!("a: {deep}\n")).contains("limit"),
        "{}",
        refusal(&format!("a: {deep}\n"))
    );
    let limits = Limits {
        documents_max: 3,
        ..Limits::default()
    };
    assert!(load_within(&limits, "a.yaml", "a: 1\n---\nb: 1\n---\nc: 1\n").is_ok());
    assert!(load_within(&limits, "a.yaml", "a: 1\n---\nb: 1\n---\nc: 1\n---\nd: 1\n").is_err());
}

#[test]
fn an_object_written_twice_is_found() {
    let text = "{apiVersion: v1, kind: Service, metadata: {name: a}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: a, namespace: other}}\n---\n\
                {apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a}}\n---\n{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: a}}\n---\n\
                {apiVersion: networking.istio.io/v1beta1, kind: Gateway, metadata: {name: a, namespace: default}}\n---\n{kind: Service}\n---\n{kind: Service}\n";
    let documents = load("a.yaml", text).unwrap();
    assert_eq!(
        duplicates(&documents),
        vec![Duplicate { first: 2, again: 4 }]
    );
}

#[test]
fn five_thousand_documents_are_read() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b, labels: {app: x}}\nspec:\n  selector: {app: a}\n  ports:\n  - {name: http, port: 80, targetPort: 8080}\n---\n".repeat(5000);
    let start = std::time::Instant::now();
    assert_eq!(load("a.yaml", &text).unwrap().len(), 5000);
    println!("5,000 documents: {:?}", start.elapsed());
}

fn expect(name: &str, found: &str) {
    let path = format!("{}/tests/expect/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    assert_eq!(
        found,
        std::fs::read_to_string(&path).unwrap_or_default(),
        "UPDATE_EXPECT=1 rewrites {path}"
    );
}
