//! The four ways to patch an object.
//!
//! Merge patch is RFC 7386 and JSON patch RFC 6902. A strategic merge, and a server-side apply, merge lists of named items by
//! their key as Kubernetes does for pods' fields; what an apply leaves out stays (fields have no owners here).

use serde_json::Value;

/// RFC 7386: objects are merged, `null` removes, everything else replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in fields {
        match value {
            Value::Null => {
                map.remove(key);
            }
            value => merge(map.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

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

/// RFC 6902.
///
/// # Errors
/// The operation that cannot be done.
pub fn apply_json(target: &mut Value, patch: &Value) -> Result<(), String> {
    let operations = patch.as_array().ok_or("a JSON patch is a list")?;
    for operation in operations {
        let text = |key: &str| {
            operation
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (name, path) = (text("op"), text("path"));
        let value = || {
            operation
                .get("value")
                .cloned()
                .ok_or_else(|| format!("{name} {path}: value is missing"))
        };
        let absent = || format!("{name} {path}: there is nothing at this path");
        match name {
            "add" => add(target, path, value()?)?,
            "remove" => remove(target, path).map(drop).ok_or_else(absent)?,
            "replace" => *target.pointer_mut(path).ok_or_else(absent)? = value()?,
            "test" if target.pointer(path) == Some(&value()?) => {}
            "test" => return Err(format!("test {path}: the value is another")),
            "move" => {
                let moved = remove(target, text("from")).ok_or_else(absent)?;
                add(target, path, moved)?;
            }
            "copy" => {
                let copied = target.pointer(text("from")).cloned().ok_or_else(absent)?;
                add(target, path, copied)?;
            }
            _ => return Err(format!("`{name}` is not an operation")),
        }
    }
    Ok(())
}

fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let Some((parent, last)) = split(path) else {
        *target = value;
        return Ok(());
    };
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(last, value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            let at = if last == "-" {
                list.len()
            } else {
                last.parse()
                    .map_err(|_| format!("add {path}: no such index"))?
            };
            if at > list.len() {
                return Err(format!("add {path}: no such index"));
            }
            list.insert(at, value);
            Ok(())
        }
        _ => Err(format!("add {path}: there is nothing to add to")),
    }
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(map) => map.remove(&last),
        Value::Array(list) => {
            let at: usize = last.parse().ok()?;
            (at < list.len()).then(|| list.remove(at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patches_follow_rfc_7386() {
        let mut target = json!({"a": "b", "c": {"d": "e", "f": "g"}});
        merge(&mut target, &json!({"a": "z", "c": {"f": null}}));
        assert_eq!(target, json!({"a": "z", "c": {"d": "e"}}));
    }

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
