//! All that a client is sent, to be compared with what it is sent when a field is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_model::Snapshot;
use prost::Message as _;
use serde_json::Value as Json;
use wire_envoy::{Descriptors, Names};
use xds_encode::{
    Client, ClusterInputs, EndpointInputs, ListenerInputs, NameTableInputs, RouteInputs, View,
    clusters, endpoints, listeners, name_table, packed, routes, secret,
};

/// Names of what a client asks for beside clusters and listeners.
#[derive(Default)]
pub struct Asked {
    tables: BTreeSet<String>,
    endpoints: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

pub fn asked(descriptors: &Descriptors, snapshot: &Snapshot, client: &Arc<Client>) -> Asked {
    let view = View::new(snapshot, client);
    let mut asked = Asked::default();
    let clusters = clusters(&view.cluster_inputs());
    asked
        .endpoints
        .extend(clusters.iter().map(|cluster| cluster.name.clone()));
    let all = clusters.iter().map(packed);
    let listeners = listeners(&view.listener_inputs());
    for any in all.chain(listeners.iter().map(packed)) {
        let json = descriptors.any_to_json(&any, Names::Camel).expect("JSON");
        names(&json, &mut asked);
    }
    asked
}

fn names(json: &Json, asked: &mut Asked) {
    match json {
        Json::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("routeConfigName", Json::String(name)) => {
                        asked.tables.insert(name.clone());
                    }
                    ("name", Json::String(name)) if name.contains("://") => {
                        asked.secrets.insert(name.clone());
                    }
                    _ => names(value, asked),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| names(item, asked)),
        _ => {}
    }
}

/// What everything that is sent is made of.
pub struct Sent {
    clusters: ClusterInputs,
    listeners: ListenerInputs,
    tables: BTreeMap<String, Option<RouteInputs>>,
    endpoints: BTreeMap<String, Option<EndpointInputs>>,
    names: NameTableInputs,
    secrets: Vec<Option<Vec<u8>>>,
}

pub fn sent(snapshot: &Snapshot, client: &Arc<Client>, asked: &Asked) -> Sent {
    let view = View::new(snapshot, client);
    let table = |name: &String| (name.clone(), view.route_inputs(name));
    let endpoint = |name: &String| (name.clone(), view.endpoint_inputs(name));
    let secret = |name: &String| {
        secret(name, snapshot, client)
            .ok()
            .map(|secret| secret.encode_to_vec())
    };
    Sent {
        clusters: view.cluster_inputs(),
        listeners: view.listener_inputs(),
        tables: asked.tables.iter().map(table).collect(),
        endpoints: asked.endpoints.iter().map(endpoint).collect(),
        names: view.name_table_inputs(),
        secrets: asked.secrets.iter().map(secret).collect(),
    }
}

impl Sent {
    /// Would a proxy see a difference? Equal inputs make equal resources; others are made.
    pub fn differs(&self, other: &Self) -> bool {
        let all = |sent: &Self, differ: &dyn Fn(&Self) -> Vec<wire_envoy::pb::Any>| differ(sent);
        let make_clusters = |s: &Self| clusters(&s.clusters).iter().map(packed).collect::<Vec<_>>();
        let make_listeners = |s: &Self| {
            listeners(&s.listeners)
                .iter()
                .map(packed)
                .collect::<Vec<_>>()
        };
        let make_names = |s: &Self| vec![packed(&name_table(&s.names))];
        self.secrets != other.secrets
            || self.clusters != other.clusters
                && all(self, &make_clusters) != all(other, &make_clusters)
            || self.listeners != other.listeners
                && all(self, &make_listeners) != all(other, &make_listeners)
            || self.names != other.names && all(self, &make_names) != all(other, &make_names)
            || self.tables.iter().any(|(name, ours)| {
                let theirs = other.tables.get(name).and_then(Option::as_ref);
                let made = |inputs: Option<&RouteInputs>| inputs.map(|i| packed(&routes(i)));
                ours.as_ref() != theirs && made(ours.as_ref()) != made(theirs)
            })
            || self.endpoints.iter().any(|(name, ours)| {
                let theirs = other.endpoints.get(name).and_then(Option::as_ref);
                let made = |inputs: Option<&EndpointInputs>| inputs.map(|i| packed(&endpoints(i)));
                ours.as_ref() != theirs && made(ours.as_ref()) != made(theirs)
            })
    }
}
