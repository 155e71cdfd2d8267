//! The ways to patch an object that are Kubernetes' own; merge patch (RFC 7386) and JSON patch (RFC
//! 6902) are `json_patch`'s.
//!
//! A strategic merge, and a server-side apply, merge lists of named items by their key as
//! Kubernetes does for pods' fields; what an apply leaves out stays (fields have no owners here).

use serde_json::Value;

/// The key of a list's items, for the lists that Kubernetes merges.
fn list_key(field: &str) -> Option<&'static [&'static str]> {
    match field {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => Some(&["name"]),
        "volumeMounts" => Some(&["mountPath"]),
        "ports" => Some(&["containerPort", "port"]),
        "conditions" => Some(&["type"]),
        "ownerReferences" => Some(&["uid"]),
        "hostAliases" => Some(&["ip"]),
        _ => None,
    }
}

/// Strategic merge: as [`merge`], but known lists by the key of their items.
pub fn merge_strategic(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in fields.iter().filter(|(key, _)| !key.starts_with('$')) {
        match (value, list_key(key)) {
            (Value::Null, _) => {
                map.remove(key);
            }
            (Value::Array(items), Some(keys)) if map.get(key).is_some_and(Value::is_array) => {
                if let Some(Value::Array(present)) = map.get_mut(key) {
                    merge_lists(present, items, keys);
                }
            }
            _ => merge_strategic(map.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

fn merge_lists(present: &mut Vec<Value>, items: &[Value], keys: &[&str]) {
    for item in items {
        let same = |other: &Value| {
            keys.iter()
                .any(|key| item.get(key).is_some() && item.get(key) == other.get(key))
        };
        let place = present.iter().position(same);
        let deletion = item
            .get("$patch")
            .is_some_and(|directive| directive == "delete");
        match (place, deletion) {
            (Some(place), true) => {
                present.remove(place);
            }
            (Some(place), false) => {
                if let Some(other) = present.get_mut(place) {
                    merge_strategic(other, item);
                }
            }
            (None, true) => {}
            (None, false) => present.push(item.clone()),
        }
    }
}

/// RFC 6902: all operations or none.
///
/// # Errors
/// What is wrong with the patch, or the operation that cannot be done, by its index and path.
pub fn apply_json(target: &mut Value, patch: &Value) -> Result<(), String> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| format!("the JSON patch: {error}"))?;
    json_patch::patch(target, &patch).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strategic_merges_keep_other_items_of_known_lists() {
        let mut target =
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "args": [1, 2]});
        merge_strategic(
            &mut target,
            &json!({"containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}], "args": [3]}),
        );
        assert_eq!(
            target,
            json!({"containers": [{"name": "a", "image": "2"}], "args": [3]})
        );
    }

    #[test]
    fn json_patches_follow_rfc_6902() {
        let mut target = json!({"a": [1, 2], "b/c": 1});
        let patch = json!([
            {"op": "test", "path": "/a/0", "value": 1}, {"op": "add", "path": "/a/-", "value": 3},
            {"op": "remove", "path": "/a/0"}, {"op": "move", "from": "/b~1c", "path": "/d"},
        ]);
        apply_json(&mut target, &patch).expect("applied");
        assert_eq!(target, json!({"a": [2, 3], "d": 1}));
        apply_json(
            &mut target,
            &json!([{"op": "replace", "path": "/x", "value": 1}]),
        )
        .expect_err("nothing there");
    }
}
