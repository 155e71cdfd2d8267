//! Every resource of a proxy as proto3 JSON: clusters and listeners, then what they name (endpoints, routes), then the names of secrets.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::ValueEnum;
use prost::{Message, Name};
use serde_json::{Map, Value, json};
use wire_envoy::{Descriptors, Names};
use xds_encode::View;

/// A part of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Clusters,
    Endpoints,
    Listeners,
    Routes,
    Secrets,
}

/// An object with one list for each part, each in order of names.
pub fn render(view: &View, descriptors: &Descriptors, node: &str, parts: &[Part]) -> Result<Value> {
    let clusters = all(descriptors, &xds_encode::clusters(&view.cluster_inputs()))?;
    let listeners = all(descriptors, &xds_encode::listeners(&view.listener_inputs()))?;
    let mut routes = Vec::new();
    for name in named(&listeners, "routeConfigName") {
        if let Some(inputs) = view.route_inputs(&name) {
            routes.push(xds_encode::routes(&inputs));
        }
    }
    let mut endpoints = Vec::new();
    for name in assignments(&clusters) {
        if let Some(inputs) = view.endpoint_inputs(&name) {
            endpoints.push(xds_encode::endpoints(&inputs));
        }
    }
    let secrets: BTreeSet<String> = secrets(&clusters)
        .into_iter()
        .chain(secrets(&listeners))
        .collect();
    let mut out = Map::new();
    out.insert("node".into(), node.into());
    for part in parts {
        let (name, value) = match part {
            Part::Clusters => ("clusters", clusters.clone()),
            Part::Endpoints => ("endpoints", all(descriptors, &endpoints)?),
            Part::Listeners => ("listeners", listeners.clone()),
            Part::Routes => ("routes", all(descriptors, &routes)?),
            Part::Secrets => ("secrets", secrets.iter().map(|name| json!(name)).collect()),
        };
        out.insert(name.into(), value.into());
    }
    Ok(Value::Object(out))
}

fn all<M: Message + Name>(descriptors: &Descriptors, messages: &[M]) -> Result<Vec<Value>> {
    let mut values = messages
        .iter()
        .map(|message| Ok(descriptors.to_json(message, Names::Camel)?))
        .collect::<Result<Vec<Value>>>()?;
    values.sort_by_key(|value| {
        value
            .get("name")
            .or(value.get("clusterName"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    });
    Ok(values)
}

/// Every text under this key, however deep.
fn named(values: &[Value], key: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for value in values {
        walk(value, &mut |name, value| {
            if name == key
                && let Some(text) = value.as_str()
            {
                found.insert(text.to_owned());
            }
        });
    }
    found
}

fn secrets(values: &[Value]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for value in values {
        walk(value, &mut |_, value| {
            // A secret that comes by SDS has a name and a source.
            if value.get("sdsConfig").is_some()
                && let Some(name) = value.get("name").and_then(Value::as_str)
            {
                found.insert(name.to_owned());
            }
        });
    }
    found
}

fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                visit(key, value);
                walk(value, visit);
            }
        }
        Value::Array(items) => {
            for item in items {
                visit("", item);
                walk(item, visit);
            }
        }
        _ => {}
    }
}

/// Names of endpoint assignments that clusters of type EDS ask for.
fn assignments(clusters: &[Value]) -> BTreeSet<String> {
    let eds = clusters
        .iter()
        .filter(|cluster| cluster.get("type").and_then(Value::as_str) == Some("EDS"));
    let name = |cluster: &Value| {
        let service = cluster
            .pointer("/edsClusterConfig/serviceName")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty());
        service
            .or(cluster.get("name").and_then(Value::as_str))
            .unwrap_or_default()
            .to_owned()
    };
    eds.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_stand() {
        let listeners = [
            json!({"filterChains": [{"filters": [{"typedConfig": {"rds": {"routeConfigName": "80"}}}], "tls": {"certificates": [{"name": "kubernetes://c", "sdsConfig": {}}]}}]}),
        ];
        assert_eq!(
            named(&listeners, "routeConfigName"),
            BTreeSet::from(["80".to_owned()])
        );
        assert_eq!(
            secrets(&listeners),
            BTreeSet::from(["kubernetes://c".to_owned()])
        );
        let clusters = [
            json!({"name": "a", "type": "EDS", "edsClusterConfig": {"serviceName": "b"}}),
            json!({"name": "c", "type": "EDS"}),
            json!({"name": "d", "type": "STATIC"}),
        ];
        assert_eq!(
            assignments(&clusters),
            BTreeSet::from(["b".to_owned(), "c".to_owned()])
        );
    }
}
