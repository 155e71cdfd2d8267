//! What an applied text makes of an object: a merge of three (last applied, now written, present). Pure.
//!
//! Maps are merged by key. Items of a list are matched by what names them in Kubernetes (`name`, `mountPath`, port, …) so that defaults
//! which the server filled in stay; a list whose items have no such key is replaced, unless it says the same already.

use serde_json::{Map, Value};

/// Where kubectl keeps what was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Keys that tell the items of a list apart, the best first.
const ITEM_KEYS: &[&str] = &[
    "name",
    "mountPath",
    "containerPort",
    "port",
    "ip",
    "type",
    "key",
];

/// The object to create.
pub fn with_last_applied(written: &Value) -> Value {
    let text = format!("{written}\n");
    let mut object = written.clone();
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = Value::Object(Map::new());
    }
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    object
}

/// The object to put in the present one's place; equal to it when nothing is to be done.
pub fn merged(present: &Value, written: &Value) -> Value {
    let last = present
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(LAST_APPLIED))
        .and_then(Value::as_str);
    let last: Value = last
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let mut object = three_way(&last, &with_last_applied(written), present);
    // What the server owns is not the text's to say; the version makes a change in between a conflict.
    for field in ["resourceVersion", "uid", "creationTimestamp", "generation"] {
        match present.pointer(&format!("/metadata/{field}")) {
            Some(value) => object["metadata"][field] = value.clone(),
            None => {
                object["metadata"]
                    .as_object_mut()
                    .map(|metadata| metadata.remove(field));
            }
        }
    }
    match present.get("status") {
        Some(status) => object["status"] = status.clone(),
        None => {
            object.as_object_mut().map(|object| object.remove("status"));
        }
    }
    object
}

fn three_way(last: &Value, written: &Value, present: &Value) -> Value {
    match (written, present) {
        (Value::Object(written), Value::Object(present)) => {
            let mut out = present.clone();
            for key in last.as_object().into_iter().flatten().map(|(key, _)| key) {
                if !written.contains_key(key) {
                    out.remove(key);
                }
            }
            for (key, value) in written {
                let nothing = Value::Null;
                match (value, out.get(key)) {
                    (Value::Null, _) => {
                        out.remove(key);
                    }
                    (value, Some(there)) => {
                        let merged = three_way(last.get(key).unwrap_or(&nothing), value, there);
                        out.insert(key.clone(), merged);
                    }
                    (value, None) => {
                        out.insert(key.clone(), value.clone());
                    }
                }
            }
            Value::Object(out)
        }
        (Value::Array(written), Value::Array(present)) => {
            Value::Array(list(last, written, present))
        }
        (written, _) => written.clone(),
    }
}

fn list(last: &Value, written: &[Value], present: &[Value]) -> Vec<Value> {
    let Some(key) = ITEM_KEYS
        .iter()
        .find(|key| !written.is_empty() && written.iter().all(|item| item.get(key).is_some()))
    else {
        return written.to_vec();
    };
    let last_items = last.as_array().map_or(&[][..], Vec::as_slice);
    let find = |items: &[Value], wanted: &Value| {
        items
            .iter()
            .find(|item| item.get(key) == wanted.get(key))
            .cloned()
    };
    let mut out: Vec<Value> = written
        .iter()
        .map(|item| match find(present, item) {
            Some(there) => three_way(&find(last_items, item).unwrap_or(Value::Null), item, &there),
            None => item.clone(),
        })
        .collect();
    // Items that others added and no text ever named stay.
    let foreign = |item: &&Value| {
        find(written, item).is_none() && find(last_items, item).is_none() && item.get(key).is_some()
    };
    if !last_items.is_empty() {
        out.extend(present.iter().filter(foreign).cloned());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn present_of(written: &Value, with: impl FnOnce(&mut Value)) -> Value {
        let mut present = with_last_applied(written);
        present["metadata"]["resourceVersion"] = "7".into();
        with(&mut present);
        present
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let written = json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}});
        let present = present_of(&written, |present| {
            present["spec"]["clusterIP"] = "10.96.0.1".into();
            present["spec"]["ports"][0]["protocol"] = "TCP".into();
            present["status"] = json!({"loadBalancer": {}});
        });
        assert_eq!(merged(&present, &written), present);
    }

    #[test]
    fn what_the_text_leaves_out_goes_and_what_others_added_stays() {
        let before = json!({"metadata": {"name": "s", "labels": {"a": "1", "b": "2"}}, "spec": {"x": 1, "y": 2}});
        let present = present_of(&before, |present| {
            present["metadata"]["labels"]["theirs"] = "3".into();
            present["spec"]["theirs"] = true.into();
        });
        let after = json!({"metadata": {"name": "s", "labels": {"a": "9"}}, "spec": {"x": 1}});
        let object = merged(&present, &after);
        assert_eq!(
            object["metadata"]["labels"],
            json!({"a": "9", "theirs": "3"})
        );
        assert_eq!(object["spec"], json!({"x": 1, "theirs": true}));
        assert_eq!(object["metadata"]["resourceVersion"], "7");
        let last: Value = serde_json::from_str(
            object["metadata"]["annotations"][LAST_APPLIED]
                .as_str()
                .expect("text"),
        )
        .expect("JSON");
        assert_eq!(last, after);
    }

    #[test]
    fn lists_are_merged_by_the_names_of_their_items() {
        let before = json!({"metadata": {"name": "d"}, "spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]}});
        let present = present_of(&before, |present| {
            present["spec"]["containers"][0]["terminationMessagePath"] = "/dev/null".into();
            present["spec"]["containers"]
                .as_array_mut()
                .expect("a list")
                .push(json!({"name": "injected"}));
        });
        let after = json!({"metadata": {"name": "d"}, "spec": {"containers": [{"name": "a", "image": "2"}]}});
        assert_eq!(
            merged(&present, &after)["spec"]["containers"],
            json!([{"name": "a", "image": "2", "terminationMessagePath": "/dev/null"}, {"name": "injected"}])
        );
    }

    #[test]
    fn lists_without_names_are_replaced() {
        let before = json!({"metadata": {"name": "v"}, "spec": {"hosts": ["a"], "http": [{"route": []}, {"fault": {}}]}});
        let present = present_of(&before, |_| {});
        let after =
            json!({"metadata": {"name": "v"}, "spec": {"hosts": ["b"], "http": [{"fault": {}}]}});
        assert_eq!(merged(&present, &after)["spec"], after["spec"]);
    }
}
