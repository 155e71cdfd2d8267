//! `/openapi/v3`: what kubectl asks for before it writes: which paths there are and that they take `fieldValidation` and `dryRun`.
//!
//! There are no schemas (so `kubectl explain` finds no fields): objects are kept as they are
//! written, and what the mesh does not know in them is told in warnings of the answer, by name.

use serde_json::{Map, Value, json};

use crate::store::kinds::{ALL, Kind};

const VERBS_THAT_WRITE: [(&str, bool); 3] = [("post", false), ("put", true), ("patch", true)];

/// `/openapi/v3`: the documents, one for each group and version.
pub fn index() -> Value {
    let paths: Map<String, Value> = versions()
        .into_iter()
        .map(|(group, version)| {
            let path = root(group, version);
            let place = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
            (path, json!({"serverRelativeURL": place}))
        })
        .collect();
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`; `None` where nothing is served.
pub fn document(group: &str, version: &str) -> Option<Value> {
    let kinds = ALL
        .iter()
        .filter(|kind| kind.group == group && kind.versions.contains(&version));
    let paths: Map<String, Value> = kinds.flat_map(|kind| paths(kind, version)).collect();
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": {"title": "Tanbark", "version": env!("CARGO_PKG_VERSION")},
            "paths": paths, "components": {"schemas": {}},
        })
    })
}

fn versions() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> = ALL
        .iter()
        .flat_map(|kind| kind.versions.iter().map(|version| (kind.group, *version)))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn root(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// The list and the object of a kind.
fn paths(kind: &Kind, version: &str) -> [(String, Value); 2] {
    let namespace = if kind.namespaced() {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let list = format!("/{}/{namespace}{}", root(kind.group, version), kind.plural);
    let of_kind = json!({"group": kind.group, "version": version, "kind": kind.kind});
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    let operation = |verb: &str| {
        json!({"x-kubernetes-action": verb, "x-kubernetes-group-version-kind": of_kind, "parameters": parameters,
            "responses": {"200": {"description": "OK"}}})
    };
    let operations = |named: bool| -> Map<String, Value> {
        VERBS_THAT_WRITE
            .iter()
            .filter(|(_, of_one)| *of_one == named)
            .map(|(verb, _)| ((*verb).to_owned(), operation(verb)))
            .collect()
    };
    let one = format!("{list}/{{name}}");
    [
        (list, Value::Object(operations(false))),
        (one, Value::Object(operations(true))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_of_the_index_is_there_and_takes_field_validation() {
        let index = index();
        let paths = index["paths"].as_object().expect("paths");
        assert!(paths.contains_key("api/v1") && paths.contains_key("apis/networking.istio.io/v1"));
        for path in paths.keys() {
            let (group, version) = path.rsplit_once('/').expect("a version");
            let group = group.trim_start_matches("apis").trim_start_matches('/');
            let group = if group == "api" { "" } else { group };
            assert!(document(group, version).is_some(), "{path}");
        }
        let document = document("networking.istio.io", "v1").expect("served");
        let patch = &document["paths"]["/apis/networking.istio.io/v1/namespaces/{namespace}/virtualservices/{name}"]
            ["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"]["kind"],
            "VirtualService"
        );
        assert!(
            patch["parameters"]
                .as_array()
                .expect("a list")
                .iter()
                .any(|parameter| parameter["name"] == "fieldValidation")
        );
    }
}
