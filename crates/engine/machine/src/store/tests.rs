use serde_json::json;

use super::kinds::{CONFIG_MAPS, NAMESPACES, PODS, SERVICES};
use super::*;

fn store() -> Store {
    let store = Store::default();
    store
        .create(&NAMESPACES, json!({"metadata": {"name": "default"}}))
        .expect("a namespace");
    store
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

#[test]
fn an_object_needs_its_namespace_and_a_free_name() {
    let store = store();
    store.create(&CONFIG_MAPS, map("a")).expect("created");
    assert_eq!(
        store
            .create(&CONFIG_MAPS, map("a"))
            .expect_err("twice")
            .status(),
        (409, "AlreadyExists")
    );
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "nowhere"}});
    assert_eq!(
        store
            .create(&CONFIG_MAPS, elsewhere)
            .expect_err("no namespace")
            .status(),
        (404, "NotFound")
    );
    let bad = json!({"metadata": {"name": "Not_A_Name"}});
    assert_eq!(
        store
            .create(&CONFIG_MAPS, bad)
            .expect_err("bad name")
            .status(),
        (422, "Invalid")
    );
}

#[test]
fn an_update_with_an_old_version_conflicts_and_one_without_change_makes_none() {
    let store = store();
    let first = store.create(&CONFIG_MAPS, map("a")).expect("created");
    let mut next = (*first).clone();
    next["data"]["a"] = "c".into();
    let second = store
        .update(&CONFIG_MAPS, next.clone(), Part::Main)
        .expect("updated");
    assert!(object::version(&second) > object::version(&first));
    assert_eq!(
        store
            .update(&CONFIG_MAPS, next, Part::Main)
            .expect_err("stale")
            .status(),
        (409, "Conflict")
    );
    let same = store
        .update(&CONFIG_MAPS, (*second).clone(), Part::Main)
        .expect("no change");
    assert_eq!(object::version(&same), object::version(&second));
}

#[test]
fn changes_are_replayed_from_a_version_and_too_old_ones_expire() {
    let store = store();
    let first = store.create(&CONFIG_MAPS, map("a")).expect("created");
    store
        .delete(&CONFIG_MAPS, "default", "a", &Deletion::default())
        .expect("deleted");
    let changes = store
        .changes_since(object::version(&first), 10)
        .expect("in the history");
    assert_eq!(
        changes
            .iter()
            .map(|change| change.happening)
            .collect::<Vec<_>>(),
        [Happening::Deleted]
    );
    for number in 0..MAX_HISTORY {
        store
            .change(&NAMESPACES, "", "default", Part::Main, |present| {
                let mut next = present.clone();
                object::annotate(&mut next, "n", &number.to_string());
                Ok(next)
            })
            .expect("changed");
    }
    assert_eq!(
        store
            .changes_since(object::version(&first), 10)
            .expect_err("expired")
            .status(),
        (410, "Expired")
    );
}

#[test]
fn status_and_the_rest_are_written_apart() {
    let store = store();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Lies"}});
    let pod = store.create(&PODS, pod).expect("created");
    assert_eq!(object::text(&pod, "/status/phase"), "Pending");
    store.set_status(&PODS, "default", "p", json!({"phase": "Running"}));
    let mut next = (*pod).clone();
    object::set_metadata(&mut next, "resourceVersion", Value::Null);
    next["status"]["phase"] = "Failed".into();
    let pod = store.update(&PODS, next, Part::Main).expect("updated");
    assert_eq!(object::text(&pod, "/status/phase"), "Running");
}

#[test]
fn a_pod_is_marked_first_and_removed_later() {
    let store = store();
    let pod = store
        .create(
            &PODS,
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .expect("created");
    let marked = store
        .delete(&PODS, "default", "p", &Deletion::default())
        .expect("marked");
    assert!(object::deleting(&marked));
    assert_eq!(
        object::number(&marked, "/metadata/deletionGracePeriodSeconds"),
        Some(30)
    );
    store.remove(&PODS, "default", "p", "another");
    assert!(store.find(&PODS, "default", "p").is_some());
    store.remove(&PODS, "default", "p", object::uid(&pod));
    assert!(store.find(&PODS, "default", "p").is_none());
}

#[test]
fn services_get_addresses_and_ports_and_give_them_back() {
    let store = store();
    let service = |name: &str, address: Option<&str>| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "clusterIP": address, "ports": [{"port": 80}]}});
    let first = store
        .create(&SERVICES, service("a", None))
        .expect("created");
    assert_eq!(object::text(&first, "/spec/clusterIP"), "10.96.1.1");
    assert_eq!(
        object::number(&first, "/spec/ports/0/nodePort"),
        Some(30_000)
    );
    assert_eq!(object::number(&first, "/spec/ports/0/targetPort"), Some(80));
    let taken = store
        .create(&SERVICES, service("b", Some("10.96.1.1")))
        .expect_err("taken");
    assert!(taken.to_string().contains("10.96.1.1 is taken"));
    store
        .delete(&SERVICES, "default", "a", &Deletion::default())
        .expect("deleted");
    store
        .create(&SERVICES, service("b", Some("10.96.1.1")))
        .expect("free again");
}

#[test]
fn finalizers_hold_an_object_until_they_are_gone() {
    let store = store();
    let object = json!({"metadata": {"name": "a", "finalizers": ["x"]}});
    store.create(&CONFIG_MAPS, object).expect("created");
    store
        .delete(&CONFIG_MAPS, "default", "a", &Deletion::default())
        .expect("marked");
    let present = store
        .find(&CONFIG_MAPS, "default", "a")
        .expect("still there");
    let mut next = (*present).clone();
    object::set_metadata(&mut next, "finalizers", json!([]));
    store
        .update(&CONFIG_MAPS, next, Part::Main)
        .expect("updated");
    assert!(store.find(&CONFIG_MAPS, "default", "a").is_none());
}

#[test]
fn labels_that_are_no_text_are_refused_with_their_path() {
    let store = Store::default();
    let create = |kind, object| store.create(kind, object);
    create(&NAMESPACES, json!({"metadata": {"name": "n"}})).expect("a namespace");
    let pod =
        |labels: Value| json!({"metadata": {"name": "p", "namespace": "n", "labels": labels}});
    let refusal = create(&PODS, pod(json!({"inject": true}))).expect_err("refused");
    let text = refusal.to_string();
    assert!(
        text.starts_with("metadata.labels.inject: must be text"),
        "{text}"
    );
    let created = create(&PODS, pod(json!({"a": null, "b": "1"}))).expect("created");
    assert_eq!(created["metadata"]["labels"], json!({"b": "1"}));
    let template = json!({"metadata": {"labels": {"version": 1.0}}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let deployment = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": spec});
    let refusal = create(&kinds::DEPLOYMENTS, deployment).expect_err("refused");
    let text = refusal.to_string();
    assert!(
        text.starts_with("spec.template.metadata.labels.version: "),
        "{text}"
    );
}

#[test]
fn what_a_pod_runs_cannot_be_changed() {
    let store = Store::default();
    let create = |kind, object| store.create(kind, object).expect("created");
    create(&NAMESPACES, json!({"metadata": {"name": "n"}}));
    let containers = json!([{"name": "c", "image": "i"}]);
    create(
        &PODS,
        json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": containers}}),
    );
    let change = |pointer: &str, value: Value| {
        store.change(&PODS, "n", "p", Part::Main, |present| {
            let mut next = present.clone();
            *next.pointer_mut(pointer).expect("a field") = value;
            Ok(next)
        })
    };
    let refusal = change("/spec/containers/0/image", "j".into()).expect_err("refused");
    assert!(
        refusal.to_string().contains("cannot be changed"),
        "{refusal}"
    );
    change("/metadata/namespace", "n".into()).expect("nothing else is refused");
}

#[test]
fn the_low_part_of_the_range_is_for_those_who_choose() {
    let store = store();
    let service = |name: &str, more: serde_json::Value| {
        let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        json_patch::merge(&mut service, &json!({"spec": more}));
        service
    };
    let given = store
        .create(&SERVICES, service("a", json!({})))
        .expect("created");
    let address: std::net::Ipv4Addr = object::text(&given, "/spec/clusterIP")
        .parse()
        .expect("an address");
    assert!(
        address >= std::net::Ipv4Addr::new(10, 96, 1, 0),
        "{address}"
    );
    store
        .create(&SERVICES, service("b", json!({"clusterIP": "10.96.0.16"})))
        .expect("nobody was given it");
}

#[test]
fn a_family_that_is_not_there_is_refused_by_its_place() {
    let store = store();
    let service = |name: &str, spec: serde_json::Value| {
        let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        json_patch::merge(&mut service, &json!({"spec": spec}));
        service
    };
    for (spec, place) in [
        (json!({"ipFamilies": ["IPv6"]}), "spec.ipFamilies[0]"),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}),
            "spec.ipFamilies[1]",
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy",
        ),
        (json!({"ipFamilyPolicy": "Both"}), "spec.ipFamilyPolicy"),
    ] {
        let refusal = store
            .create(&SERVICES, service("a", spec))
            .expect_err(place);
        assert!(refusal.to_string().contains(place), "{refusal}");
    }
    let given = store
        .create(
            &SERVICES,
            service("a", json!({"ipFamilyPolicy": "PreferDualStack"})),
        )
        .expect("one family is enough");
    assert_eq!(
        object::text(&given, "/spec/ipFamilyPolicy"),
        "PreferDualStack"
    );
    assert_eq!(given.pointer("/spec/ipFamilies"), Some(&json!(["IPv4"])));
}
