use serde_json::json;

use super::*;

const NOW: &str = "2026-12-01T10:00:00Z";
const EARLIER: &str = "2026-11-30T08:00:00Z";

fn object(status: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7", "generation": 3, "labels": {"a": "b"}},
        "spec": {"hosts": ["web"]}, "status": status})
}

fn problem(severity: Severity) -> ObjectStatus {
    ObjectStatus {
        problems: vec![Problem {
            severity,
            code: "IST0101",
            path: "spec.hosts[0]".into(),
            message: "no such host".into(),
        }],
        addresses: Vec::new(),
    }
}

fn applied(status: &ObjectStatus, present: &Value) -> Value {
    let mut next = present.clone();
    let body = status.body(present, NOW).expect("something to write");
    for (field, value) in body["status"].as_object().expect("a status") {
        next["status"][field] = value.clone();
    }
    next
}

#[test]
fn a_body_names_the_object_its_version_and_nothing_but_the_status() {
    let body = problem(Severity::Error)
        .body(&object(Value::Null), NOW)
        .expect("a body");
    assert_eq!(
        body,
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"},
            "status": {
                "conditions": [{"type": "Reconciled", "status": "False", "reason": "Invalid", "lastTransitionTime": NOW, "observedGeneration": 3,
                    "message": "the object is not used; its last good version, if there was one, stays in force"}],
                "validationMessages": [{"type": {"code": "IST0101"}, "level": "ERROR", "path": "spec.hosts[0]", "message": "no such host"}]}})
    );
}

#[test]
fn what_is_said_already_is_not_written_again_and_a_good_object_is_left_alone() {
    let status = problem(Severity::Error);
    let told = applied(&status, &object(Value::Null));
    assert_eq!(status.body(&told, "2027-01-01T00:00:00Z"), None);
    assert_eq!(
        ObjectStatus::default().body(&object(Value::Null), NOW),
        None
    );
    assert!(says_something(&told) && !says_something(&object(Value::Null)));
}

#[test]
fn conditions_of_others_stay_as_they_are_and_where_they_are() {
    let other = json!({"type": "PassedAnalysis", "status": "True", "lastProbeTime": EARLIER});
    let last = json!({"type": "example.com/Checked", "status": "False"});
    let ours = json!({"type": "Reconciled", "status": "True"});
    let present = object(json!({"conditions": [other, ours, last]}));
    let next = applied(&problem(Severity::Error), &present);
    let conditions = next["status"]["conditions"].as_array().expect("a list");
    assert_eq!((&conditions[0], &conditions[2]), (&other, &last));
    assert_eq!(conditions[1]["status"], "False");
    assert_eq!(conditions.len(), 3);
}

#[test]
fn the_transition_time_is_that_of_the_last_change_between_true_and_false() {
    let ours = json!({"type": "Reconciled", "status": "True", "reason": "Valid", "message": "", "observedGeneration": 2, "lastTransitionTime": EARLIER});
    let present = object(json!({ "conditions": [ours] }));
    let time = "/status/conditions/0/lastTransitionTime";
    // A new generation, a warning: still true.
    let warned = applied(&problem(Severity::Warning), &present);
    assert_eq!(warned.pointer(time), Some(&json!(EARLIER)));
    assert_eq!(
        warned.pointer("/status/conditions/0/observedGeneration"),
        Some(&json!(3))
    );
    let refused = applied(&problem(Severity::Error), &warned);
    assert_eq!(refused.pointer(time), Some(&json!(NOW)));
}

#[test]
fn what_is_mended_is_true_again_and_its_messages_go() {
    let bad = applied(&problem(Severity::Error), &object(Value::Null));
    let good = applied(&ObjectStatus::default(), &bad);
    assert_eq!(
        good.pointer("/status/conditions/0/reason"),
        Some(&json!("Valid"))
    );
    assert_eq!(good.pointer("/status/validationMessages"), Some(&json!([])));
    assert_eq!(ObjectStatus::default().body(&good, NOW), None);
}

#[test]
fn addresses_are_given_and_taken_back() {
    let given = ObjectStatus {
        problems: Vec::new(),
        addresses: vec![("db.example".into(), Ipv4Addr::new(240, 240, 0, 1))],
    };
    let told = applied(&given, &object(Value::Null));
    assert_eq!(
        told["status"],
        json!({"addresses": [{"value": "240.240.0.1", "host": "db.example"}]})
    );
    let taken = applied(&ObjectStatus::default(), &told);
    assert_eq!(taken["status"]["addresses"], json!([]));
}
