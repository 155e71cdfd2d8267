//! The same input as a real istiod had, and what it answered: every resource is compared as JSON, field by field.
//!
//! `known_differences.txt` lists what differs and why: patterns for scenario, client, type, resource and field. A difference that is not
//! listed fails the test, and so does a line that no difference fits any more.

use std::collections::BTreeMap;

use captures::Scenario;
use mesh_model::Snapshot;
use serde_json::Value as Json;
use wire_envoy::{Descriptors, Names};
use xds_encode::{
    Client, View, clusters, endpoints, listeners, name_table, packed, routes, secret,
};

#[path = "shared/scenario.rs"]
mod scenario;
use scenario::{client, scenarios, snapshot};

const KNOWN: &str = include_str!("known_differences.txt");

type ByName = BTreeMap<String, Json>;

fn captured(scenario: &Scenario, file: &str) -> Option<ByName> {
    let json: Json = serde_json::from_slice(scenario.answer(file)?).expect("JSON");
    let resources = json["resources"].as_array().cloned().unwrap_or_default();
    Some(
        resources
            .into_iter()
            .map(|resource| (name_of(&resource), resource))
            .collect(),
    )
}

fn name_of(resource: &Json) -> String {
    let name = resource
        .get("name")
        .or_else(|| resource.get("clusterName"))
        .and_then(Json::as_str);
    name.unwrap_or_default().to_owned()
}

fn by_name<M: prost::Message + prost::Name>(
    descriptors: &Descriptors,
    messages: impl IntoIterator<Item = M>,
) -> ByName {
    let json = |message: M| {
        descriptors
            .any_to_json(&packed(&message), Names::Camel)
            .expect("JSON")
    };
    messages
        .into_iter()
        .map(json)
        .map(|json| (name_of(&json), json))
        .collect()
}

/// What we would send in place of a captured answer.
fn ours(
    descriptors: &Descriptors,
    view: &View,
    snapshot: &Snapshot,
    client: &Client,
    kind: &str,
    names: &ByName,
) -> ByName {
    match kind {
        "cds" => by_name(descriptors, clusters(&view.cluster_inputs())),
        "lds" => by_name(descriptors, listeners(&view.listener_inputs())),
        "rds" => by_name(
            descriptors,
            names
                .keys()
                .filter_map(|name| view.route_inputs(name))
                .map(|inputs| routes(&inputs)),
        ),
        "eds" => by_name(
            descriptors,
            names
                .keys()
                .filter_map(|name| view.endpoint_inputs(name))
                .map(|inputs| endpoints(&inputs)),
        ),
        "sds" => by_name(
            descriptors,
            names
                .keys()
                .filter_map(|name| secret(name, snapshot, client).ok()),
        ),
        _ => by_name(descriptors, [name_table(&view.name_table_inputs())]),
    }
}

/// One field that differs.
struct Difference {
    /// Scenario, client, type and resource.
    place: [String; 4],
    path: String,
    values: String,
}

impl Difference {
    /// A line of five patterns with `*` in them.
    fn is_meant_by(&self, rule: &str) -> bool {
        let [scenario, who, kind, name] = &self.place;
        let fields = [scenario, who, kind, name, &self.path];
        let patterns: Vec<&str> = rule.split_whitespace().collect();
        patterns.len() == fields.len()
            && patterns
                .iter()
                .zip(fields)
                .all(|(pattern, field)| fits(pattern, field))
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.place.join(" "), self.path, self.values)
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            rest.is_empty()
                || (0..=tail.len()).any(|at| tail.is_char_boundary(at) && fits(rest, &tail[at..]))
        }),
    }
}

fn differences(path: &str, ours: &Json, theirs: &Json, found: &mut Vec<(String, String)>) {
    match (ours, theirs) {
        (Json::Object(a), Json::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                differences(
                    &format!("{path}.{key}"),
                    a.get(key).unwrap_or(&Json::Null),
                    b.get(key).unwrap_or(&Json::Null),
                    found,
                );
            }
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (Json::Array(a), Json::Array(b)) => {
            for (ours, theirs, who) in [(a, b, "ours"), (b, a, "theirs")] {
                for item in ours.iter().filter(|item| !theirs.contains(item)) {
                    let name = item.get("name").and_then(Json::as_str).unwrap_or_default();
                    found.push((format!("{path}[{name}:{who}]"), short(item)));
                }
            }
        }
        (a, b) => found.push((path.to_owned(), format!("{} | {}", short(a), short(b)))),
    }
}

fn short(value: &Json) -> String {
    let text = match value {
        Json::Null => "-".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn scenario_differences(
    descriptors: &Descriptors,
    scenario: &Scenario,
) -> (Vec<Difference>, usize) {
    let title = scenario.number();
    let snapshot = snapshot(scenario);
    let mut found = Vec::new();
    let mut equal = 0;
    for who in ["sidecar", "gateway"] {
        let client = client(descriptors, scenario, who);
        let view = View::new(&snapshot, &client);
        for kind in ["cds", "eds", "lds", "rds", "sds", "nds"] {
            let Some(theirs) = captured(scenario, &format!("{who}.{kind}.json")) else {
                continue;
            };
            let ours = ours(descriptors, &view, &snapshot, &client, kind, &theirs);
            for name in ours
                .keys()
                .chain(theirs.keys())
                .collect::<std::collections::BTreeSet<_>>()
            {
                let mut here = Vec::new();
                match (ours.get(name), theirs.get(name)) {
                    (Some(ours), Some(theirs)) => differences("", ours, theirs, &mut here),
                    (Some(_), None) => here.push(("ours".to_owned(), "only we send it".to_owned())),
                    _ => here.push(("theirs".to_owned(), "only istiod sends it".to_owned())),
                }
                equal += usize::from(here.is_empty());
                let place = [title, who, kind, name].map(str::to_owned);
                found.extend(here.into_iter().map(|(path, values)| Difference {
                    place: place.clone(),
                    path,
                    values,
                }));
            }
        }
    }
    (found, equal)
}

#[test]
fn istiod_would_have_sent_the_same() {
    let descriptors = Descriptors::load().expect("built-in");
    let mut found = Vec::new();
    let mut equal = 0;
    for scenario in scenarios() {
        let (differences, same) = scenario_differences(&descriptors, scenario);
        found.extend(differences);
        equal += same;
    }
    println!("{equal} resources equal, {} fields differ", found.len());
    let rules: Vec<&str> = KNOWN
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let new: Vec<String> = found
        .iter()
        .filter(|found| !rules.iter().any(|rule| found.is_meant_by(rule)))
        .map(Difference::to_string)
        .collect();
    let gone: Vec<&&str> = rules
        .iter()
        .filter(|rule| !found.iter().any(|found| found.is_meant_by(rule)))
        .collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "{} new differences:\n{}\n{} lines that are no longer true:\n{}",
        new.len(),
        list(&new),
        gone.len(),
        list(&gone)
    );
    assert!(equal > 1200, "only {equal} resources are equal");
}

fn list<T: AsRef<str>>(lines: &[T]) -> String {
    lines
        .iter()
        .take(100)
        .map(|line| format!("  {}\n", line.as_ref()))
        .collect()
}

/// Equal inputs give equal bytes, whatever order the maps of the messages have.
#[test]
fn the_same_input_gives_the_same_bytes() {
    let descriptors = Descriptors::load().expect("built-in");
    for scenario in ["08-authz", "13-telemetry"].map(captures::scenario) {
        let client = client(&descriptors, scenario, "sidecar");
        let bytes = || {
            let snapshot = snapshot(scenario);
            let view = View::new(&snapshot, &client);
            let clusters = clusters(&view.cluster_inputs())
                .iter()
                .map(packed)
                .collect::<Vec<_>>();
            let listeners = listeners(&view.listener_inputs())
                .iter()
                .map(packed)
                .collect::<Vec<_>>();
            let routes = view
                .route_inputs("9080")
                .map(|inputs| packed(&routes(&inputs)));
            (
                clusters,
                listeners,
                routes,
                view.cluster_inputs(),
                view.listener_inputs(),
            )
        };
        assert_eq!(bytes(), bytes());
    }
}
