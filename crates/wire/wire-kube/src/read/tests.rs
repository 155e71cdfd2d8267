use serde_json::json;

use super::*;

message! {
    struct Inner {
        weight: i32,
        http2_max: Option<u32>,
        consecutive_5xx_errors: Option<u32>,
    }
}

names! {
    enum Mode {
        Unset = 0 "UNSET",
        Strict = 3 "STRICT",
    }
}

message! {
    struct Outer {
        r#match: Vec<Inner>,
        labels: BTreeMap<String, String>,
        mode: Mode,
        timeout: Option<Duration>,
        cluster_ips as "clusterIPs": Vec<String>,
        anything: Option<Value>,
    }
}

message! {
    partial struct Part {
        name: String,
    }
}

fn faults<T: Read>(value: Value) -> Vec<String> {
    let (_, faults) = read::<T>(&value);
    faults
        .into_iter()
        .map(|f| format!("{}: {}", f.path, f.message))
        .collect()
}

#[test]
fn both_spellings_and_text_numbers_are_read() {
    let (outer, faults) = read::<Outer>(&json!({
        "match": [{"weight": "10", "http2Max": 3, "consecutive5xxErrors": 7}, {"http2_max": 4.0, "consecutive_5xx_errors": null}],
        "labels": {"a.b/c": "d"},
        "mode": 3,
        "timeout": "1m30s",
        "clusterIPs": ["10.0.0.1"],
        "anything": [1, {"x": null}],
    }));
    assert_eq!(faults, vec![]);
    assert_eq!(outer.r#match[0].weight, 10);
    assert_eq!(outer.r#match[0].consecutive_5xx_errors, Some(7));
    assert_eq!(outer.r#match[1].http2_max, Some(4));
    assert_eq!(outer.mode, Mode::Strict);
    assert_eq!(outer.mode.name(), "STRICT");
    assert_eq!(outer.timeout, Some(Duration::from_secs(90)));
    assert_eq!(outer.cluster_ips, vec!["10.0.0.1"]);
}

#[test]
fn every_fault_is_found_in_one_reading() {
    let found = faults::<Outer>(json!({
        "match": [{"wieght": 1}, {"weight": 1.5}, null, "x"],
        "labels": {"a.b": 1, "c": true},
        "mode": "STRCT",
        "timeout": "5",
        "cluster_ips": [],
    }));
    let want = vec![
        "match[0].wieght: unknown field; did you mean \"weight\"?",
        "match[1].weight: must be a whole number from -2147483648 to 2147483647, but is the number 1.5",
        "match[2]: must be a value, but is null",
        "match[2]: must be an object, but is null",
        "match[3]: must be an object, but is the text \"x\"",
        "labels[\"a.b\"]: must be text, but is the number 1; put it in quotes",
        "labels.c: must be text, but is the boolean true; put it in quotes",
        "mode: \"STRCT\" is not known: use one of UNSET, STRICT",
        "timeout: \"5\" has no unit: write for example 5s",
        "cluster_ips: unknown field; did you mean \"clusterIPs\"?",
    ];
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(
        sorted(found),
        sorted(want.into_iter().map(str::to_owned).collect())
    );
}

#[test]
fn a_partial_struct_skips_what_it_does_not_list() {
    let (part, faults) = read::<Part>(&json!({"name": "n", "other": 1}));
    assert_eq!((part.name.as_str(), faults), ("n", vec![]));
}

#[test]
fn a_list_of_faults_ends() {
    let many: Vec<Value> = (0..1000).map(|_| json!({"x": 1})).collect();
    assert_eq!(faults::<Outer>(json!({"match": many})).len(), FAULTS_MAX);
}
