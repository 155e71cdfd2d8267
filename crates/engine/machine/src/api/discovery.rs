//! Discovery: which groups, versions and kinds there are.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::store::kinds::{ALL, Kind, Support};

/// Questions, which are created and not kept: group, plural and singular name, kind. All in version
/// `v1`.
const REVIEWS: [(&str, &str, &str, &str); 2] = [
    (
        "authentication.k8s.io",
        "tokenreviews",
        "tokenreview",
        "TokenReview",
    ),
    (
        "authorization.k8s.io",
        "subjectaccessreviews",
        "subjectaccessreview",
        "SubjectAccessReview",
    ),
];

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
    names.extend(REVIEWS.map(|(group, ..)| group));
    in_order(&mut names);
    let groups: Vec<Value> = names.into_iter().filter_map(group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// Each group once, those with an effect first: of kinds with one name (`gateway` of Istio and of
/// the Gateway API) kubectl takes the one whose group stands first.
fn in_order(names: &mut Vec<&str>) {
    let without_effect = |name: &str| {
        let mut kinds = ALL.iter().filter(|kind| kind.group == name).peekable();
        kinds.peek().is_some() && kinds.all(|kind| kind.support == Support::NotYet)
    };
    names.sort_unstable_by_key(|name| (without_effect(name), *name));
    names.dedup();
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
    if REVIEWS.iter().any(|(group, ..)| *group == name) {
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
    for (_, plural, singular, kind) in REVIEWS.iter().filter(|(own, ..)| *own == group) {
        list.push(json!({"name": plural, "singularName": singular, "namespaced": false, "kind": kind, "verbs": ["create"]}));
    }
    let name = if group.is_empty() {
        version.to_string()
    } else {
        format!("{group}/{version}")
    };
    (!list.is_empty()).then(|| json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list}))
}

/// `/api` (the core group) and `/apis` (all others) with everything in them at once, as newer clients ask for it.
pub fn aggregated(core: bool) -> Value {
    let mut names: Vec<&str> = ALL
        .iter()
        .map(|kind| kind.group)
        .filter(|group| group.is_empty() == core)
        .collect();
    in_order(&mut names);
    let items: Vec<Value> = names
        .into_iter()
        .map(|name| json!({"metadata": {"name": name}, "versions": aggregated_versions(name)}))
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_versions(group: &str) -> Vec<Value> {
    let of_group = || ALL.iter().filter(|kind| kind.group == group);
    let mut versions: Vec<&str> = Vec::new();
    for version in of_group().flat_map(|kind| kind.versions) {
        if !versions.contains(version) {
            versions.push(version);
        }
    }
    let resources = |version: &str| -> Vec<Value> {
        of_group()
            .filter(|kind| kind.versions.contains(&version))
            .map(|kind| aggregated_resource(kind, version))
            .collect()
    };
    versions
        .iter()
        .map(|version| json!({"version": version, "freshness": "Current", "resources": resources(version)}))
        .collect()
}

fn aggregated_resource(kind: &Kind, version: &str) -> Value {
    let response = |name: &str| json!({"group": kind.group, "version": version, "kind": name});
    let parts: Vec<Value> = part_names(kind)
        .map(|part| json!({"subresource": part, "responseKind": response(part_kind(kind, part)), "verbs": PART_VERBS}))
        .collect();
    let scope = if kind.namespaced() {
        "Namespaced"
    } else {
        "Cluster"
    };
    json!({
        "resource": kind.plural, "responseKind": response(kind.kind), "scope": scope, "singularResource": kind.singular(),
        "verbs": VERBS, "shortNames": kind.short_names, "categories": kind.categories(), "subresources": parts,
    })
}

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

fn resource(kind: &Kind) -> Value {
    json!({
        "name": kind.plural, "singularName": kind.singular(), "namespaced": kind.namespaced(), "kind": kind.kind, "shortNames": kind.short_names,
        "categories": kind.categories(), "verbs": VERBS,
    })
}

fn parts(kind: &Kind) -> Vec<Value> {
    part_names(kind)
        .map(|part| json!({"name": format!("{}/{part}", kind.plural), "singularName": "", "namespaced": kind.namespaced(), "kind": part_kind(kind, part), "verbs": PART_VERBS}))
        .collect()
}

fn part_names(kind: &Kind) -> impl Iterator<Item = &'static str> {
    let known: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("pods", &["log", "exec", "proxy"][..]),
        ("services", &["proxy"][..]),
        ("serviceaccounts", &["token"][..]),
        ("deployments", &["scale"][..]),
        ("replicasets", &["scale"][..]),
        ("statefulsets", &["scale"][..]),
    ]);
    let own = known.get(kind.plural).copied().unwrap_or_default();
    std::iter::once(&"status").chain(own).copied()
}

fn part_kind<'a>(kind: &'a Kind, part: &str) -> &'a str {
    match part {
        "scale" => "Scale",
        "token" => "TokenRequest",
        _ => kind.kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_discovery_tell_of_the_same() {
        let mut groups = 0;
        for item in aggregated(true)["items"]
            .as_array()
            .into_iter()
            .chain(aggregated(false)["items"].as_array())
            .flatten()
        {
            groups += 1;
            let group = item["metadata"]["name"].as_str().expect("a name");
            for version in item["versions"].as_array().expect("versions") {
                let name = version["version"].as_str().expect("a name");
                let flat = resources(group, name).expect("served");
                let plain = flat["resources"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter(|resource| {
                        resource["name"]
                            .as_str()
                            .is_some_and(|name| !name.contains('/'))
                            && !REVIEWS.iter().any(|(.., kind)| resource["kind"] == *kind)
                    })
                    .count();
                assert_eq!(
                    version["resources"].as_array().expect("a list").len(),
                    plain,
                    "{group}/{name}"
                );
            }
        }
        assert!(groups > 10);
    }

    #[test]
    fn istios_gateway_stands_before_the_gateway_apis() {
        for (list, key) in [
            (groups()["groups"].clone(), "/name"),
            (aggregated(false)["items"].clone(), "/metadata/name"),
        ] {
            let place = |group: &str| {
                let list = list.as_array().expect("a list");
                let named = |item: &Value| item.pointer(key) == Some(&json!(group));
                list.iter().position(named).expect("in the list")
            };
            assert!(place("networking.istio.io") < place("gateway.networking.k8s.io"));
        }
    }

    #[test]
    fn pods_are_among_all_and_have_a_log() {
        let core = resources("", "v1").expect("served");
        let list = core["resources"].as_array().expect("a list");
        let pods = list
            .iter()
            .find(|resource| resource["name"] == "pods")
            .expect("pods");
        assert_eq!(pods["categories"], json!(["all"]));
        assert!(list.iter().any(|resource| resource["name"] == "pods/log"));
    }
}
