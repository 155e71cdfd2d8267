//! Discovery: which groups, versions and kinds there are.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::store::kinds::{ALL, Kind};

/// `/version`; the Kubernetes version whose API this follows.
pub fn version() -> Value {
    json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0+tanbark", "platform": "linux/amd64", "compiler": "rustc", "goVersion": "none"})
}

/// `/api`
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`
pub fn groups() -> Value {
    let mut names: Vec<&str> = ALL
        .iter()
        .map(|kind| kind.group)
        .filter(|group| !group.is_empty())
        .collect();
    names.push("authentication.k8s.io");
    names.sort_unstable();
    names.dedup();
    let groups: Vec<Value> = names.into_iter().filter_map(group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`
pub fn group(name: &str) -> Option<Value> {
    let mut versions: Vec<&str> = Vec::new();
    for kind in ALL.iter().filter(|kind| kind.group == name) {
        versions.extend(
            kind.versions
                .iter()
                .filter(|version| !versions.contains(version))
                .collect::<Vec<_>>(),
        );
    }
    if name == "authentication.k8s.io" {
        versions.push("v1");
    }
    let described: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = described.first()?.clone();
    Some(
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": described, "preferredVersion": preferred}),
    )
}

/// `/api/v1` and `/apis/GROUP/VERSION`
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let mut list: Vec<Value> = Vec::new();
    for kind in ALL
        .iter()
        .filter(|kind| kind.group == group && kind.versions.contains(&version))
    {
        list.push(resource(kind));
        list.extend(parts(kind));
    }
    if group == "authentication.k8s.io" {
        list.push(json!({"name": "tokenreviews", "singularName": "tokenreview", "namespaced": false, "kind": "TokenReview", "verbs": ["create"]}));
    }
    let name = if group.is_empty() {
        version.to_string()
    } else {
        format!("{group}/{version}")
    };
    (!list.is_empty()).then(|| json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list}))
}

fn resource(kind: &Kind) -> Value {
    json!({
        "name": kind.plural, "singularName": kind.singular(), "namespaced": kind.namespaced(), "kind": kind.kind, "shortNames": kind.short_names,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    })
}

fn parts(kind: &Kind) -> Vec<Value> {
    let known: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("pods", &["log", "exec", "proxy"][..]),
        ("services", &["proxy"][..]),
        ("serviceaccounts", &["token"][..]),
        ("deployments", &["scale"][..]),
        ("replicasets", &["scale"][..]),
        ("statefulsets", &["scale"][..]),
    ]);
    let own = known.get(kind.plural).copied().unwrap_or_default();
    let all = std::iter::once(&"status").chain(own);
    all.map(|part| json!({"name": format!("{}/{part}", kind.plural), "singularName": "", "namespaced": kind.namespaced(), "kind": part_kind(kind, part), "verbs": ["get", "patch", "update"]}))
        .collect()
}

fn part_kind<'a>(kind: &'a Kind, part: &str) -> &'a str {
    match part {
        "scale" => "Scale",
        "token" => "TokenRequest",
        _ => kind.kind,
    }
}
