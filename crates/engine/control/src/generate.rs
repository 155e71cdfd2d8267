//! From a snapshot and a client to encoded resources, memoised by the generators' inputs (invariant
//! 4).
//!
//! A resource is encoded once; its version is a hash of its bytes, so an unchanged resource keeps
//! its version through any number of snapshots and restarts and is not sent again.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use mesh_model::Snapshot;
use parking_lot::Mutex;
use prost::{Message, Name};
use wire_envoy::{pb, type_url as urls};
use xds_encode::{
    Client, ClusterInputs, EndpointInputs, ListenerInputs, NameTableInputs, RouteInputs, View,
};
use xds_protocol::Resource;

use crate::{
    change::Change,
    memo::{Held, Memo},
};

type Set = Arc<[Resource]>;

/// Streams keep the versions of what they sent.
impl Held for Resource {
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.version) > 1
    }
}

impl Held for Set {
    fn is_held(&self) -> bool {
        self.iter().any(Held::is_held)
    }
}

/// The snapshots before and after a change.
type Versions = (u64, u64);

/// Generated resources of all types, shared by all streams.
#[derive(Default)]
pub struct Generator {
    clusters: Memo<ClusterInputs, Set>,
    own_clusters: Memo<ClusterInputs, Set>,
    listeners: Memo<ListenerInputs, Set>,
    routes: Memo<RouteInputs, Resource>,
    endpoints: Memo<EndpointInputs, Resource>,
    name_tables: Memo<NameTableInputs, Resource>,
    last_change: Mutex<Option<(Versions, Arc<Change>)>>,
}

impl Generator {
    /// What a client should have of a type: all of it for wildcard types, else those of `names`
    /// that exist. In the order of names.
    /// `version` is the snapshot's.
    pub fn resources(
        &self,
        type_url: &str,
        names: &BTreeSet<String>,
        version: u64,
        view: &View,
    ) -> Set {
        match type_url {
            urls::CLUSTER => self.clusters(version, view),
            urls::LISTENER => {
                let client = view.client();
                let name = format!("{}.{}", client.workload_name, client.namespace);
                self.listeners
                    .output(&name.into(), view.listener_inputs(), version, |inputs| {
                        encoded(
                            xds_encode::listeners(inputs),
                            |listener: &pb::listener::Listener| listener.name.as_str(),
                        )
                    })
            }
            urls::ROUTE => self.by_name(names, |name| {
                let inputs = view.route_inputs(name)?;
                Some(self.routes.output(&name.into(), inputs, version, |inputs| {
                    resource(name, &xds_encode::routes(inputs))
                }))
            }),
            urls::ENDPOINT => self.by_name(names, |name| self.endpoints_of(name, version, view)),
            urls::NAME_TABLE => {
                let inputs = view.name_table_inputs();
                Arc::new([self
                    .name_tables
                    .output(&"".into(), inputs, version, |inputs| {
                        resource("", &xds_encode::name_table(inputs))
                    })])
            }
            _ => Arc::new([]),
        }
    }

    /// The endpoints of one cluster; `None`: it is no cluster with endpoints.
    pub fn endpoints_of(&self, name: &str, version: u64, view: &View) -> Option<Resource> {
        let inputs = view.endpoint_inputs(name)?;
        let make = |inputs: &EndpointInputs| resource(name, &xds_encode::endpoints(inputs));
        Some(self.endpoints.output(&name.into(), inputs, version, make))
    }

    /// The clusters of each service are made once for all clients that forward alike.
    fn clusters(&self, version: u64, view: &View) -> Set {
        let inputs = view.cluster_inputs();
        let mut all: Vec<Resource> = Vec::new();
        for (host, of_service) in inputs.by_service() {
            let set = self.clusters.output(&host, of_service, version, |inputs| {
                encoded(xds_encode::service_clusters(inputs), cluster_name)
            });
            all.extend(set.iter().cloned());
        }
        let client = view.client();
        let own = format!("{}.{}", client.workload_name, client.namespace);
        let own =
            self.own_clusters
                .output(&own.into(), inputs.without_services(), version, |inputs| {
                    encoded(xds_encode::own_clusters(inputs), cluster_name)
                });
        all.extend(own.iter().cloned());
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into()
    }

    /// What differs between two snapshots; worked out once for all streams that make the same step.
    pub fn change(&self, from: &Arc<Snapshot>, to: &Arc<Snapshot>) -> Arc<Change> {
        let step = (from.version, to.version);
        let mut last = self.last_change.lock();
        if let Some((known, change)) = &*last
            && *known == step
        {
            return change.clone();
        }
        let change = Arc::new(Change::between(from, to));
        *last = Some((step, change.clone()));
        change
    }

    /// The Secrets among `names` that a client gets. Roots are public; certificates with their keys
    /// are for clients that may read Secrets.
    pub fn secrets(
        &self,
        names: &BTreeSet<String>,
        snapshot: &Snapshot,
        client: &Client,
        reads_secrets: bool,
    ) -> Set {
        self.by_name(names, |name| {
            if !reads_secrets && !xds_encode::secrets::is_public(name) {
                tracing::warn!(proxy = %client.id, secret = name, "a secret is not served: the proxy's service account may not read the Secrets of its namespace");
                return None;
            }
            match xds_encode::secret(name, snapshot, client) {
                Ok(secret) => Some(resource(name, &secret)),
                Err(error) => {
                    tracing::warn!(proxy = %client.id, secret = name, %error, "a secret is not served");
                    None
                }
            }
        })
    }

    fn by_name(&self, names: &BTreeSet<String>, one: impl Fn(&str) -> Option<Resource>) -> Set {
        names.iter().filter_map(|name| one(name)).collect()
    }

    /// Forgets what is not used any more; returns the number of entries left.
    pub fn sweep(&self, snapshot: u64) -> usize {
        let Self {
            clusters,
            own_clusters,
            listeners,
            routes,
            endpoints,
            name_tables,
            last_change: _,
        } = self;
        clusters.sweep(snapshot)
            + own_clusters.sweep(snapshot)
            + listeners.sweep(snapshot)
            + routes.sweep(snapshot)
            + endpoints.sweep(snapshot)
            + name_tables.sweep(snapshot)
    }
}

fn cluster_name(cluster: &pb::cluster::Cluster) -> &str {
    &cluster.name
}

fn encoded<M: Message + Name>(messages: Vec<M>, name: impl Fn(&M) -> &str) -> Set {
    let mut all: Vec<Resource> = messages
        .iter()
        .map(|message| resource(name(message), message))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.into()
}

/// Encodes deterministically: equal messages give equal bytes, and so equal versions.
fn resource<M: Message + Name>(name: &str, message: &M) -> Resource {
    let body = xds_encode::packed(message).value;
    // A fixed hasher: the same bytes have the same version after a restart of the control plane.
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&body);
    Resource {
        name: name.into(),
        version: format!("{hash:016x}").into(),
        body: body.into(),
    }
}

/// The version of a whole response: a hash of its parts' versions.
pub fn version_of(set: &[Resource]) -> Arc<str> {
    let parts: Vec<(&str, &str)> = set
        .iter()
        .map(|resource| (&*resource.name, &*resource.version))
        .collect();
    format!(
        "{:016x}",
        BuildHasherDefault::<DefaultHasher>::default().hash_one(&parts)
    )
    .into()
}
