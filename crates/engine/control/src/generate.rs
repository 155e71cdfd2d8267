//! From a snapshot and a client to encoded resources, memoised by the generators' inputs (invariant 4).
//!
//! A resource is encoded once; its version is a hash of its bytes, so an unchanged resource keeps its version through any number of snapshots
//! and restarts and is not sent again.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use mesh_model::Snapshot;
use prost::{Message, Name};
use wire_envoy::{pb, type_url as urls};
use xds_encode::{
    Client, ClusterInputs, EndpointInputs, ListenerInputs, NameTableInputs, RouteInputs, View,
};
use xds_protocol::Resource;

use crate::memo::Memo;

type Set = Arc<[Resource]>;

/// Generated resources of all types, shared by all streams.
#[derive(Default)]
pub struct Generator {
    clusters: Memo<ClusterInputs, Set>,
    listeners: Memo<ListenerInputs, Set>,
    routes: Memo<RouteInputs, Resource>,
    endpoints: Memo<EndpointInputs, Resource>,
    name_tables: Memo<NameTableInputs, Resource>,
}

impl Generator {
    /// What a client should have of a type: all of it for wildcard types, else those of `names` that exist.
    pub fn resources(
        &self,
        type_url: &str,
        names: &BTreeSet<String>,
        snapshot: &Snapshot,
        client: &Client,
        view: &View,
    ) -> Set {
        let version = snapshot.version;
        match type_url {
            urls::CLUSTER => self.clusters.output(&"".into(), view.cluster_inputs(), version, |inputs| {
                encoded(xds_encode::clusters(inputs), |cluster: &pb::cluster::Cluster| cluster.name.as_str())
            }),
            urls::LISTENER => self.listeners.output(&"".into(), view.listener_inputs(), version, |inputs| {
                encoded(xds_encode::listeners(inputs), |listener: &pb::listener::Listener| listener.name.as_str())
            }),
            urls::ROUTE => self.by_name(names, |name| {
                let inputs = view.route_inputs(name)?;
                Some(self.routes.output(&name.into(), inputs, version, |inputs| resource(name, &xds_encode::routes(inputs))))
            }),
            urls::ENDPOINT => self.by_name(names, |name| {
                let inputs = view.endpoint_inputs(name)?;
                Some(self.endpoints.output(&name.into(), inputs, version, |inputs| resource(name, &xds_encode::endpoints(inputs))))
            }),
            urls::SECRET => self.by_name(names, |name| match xds_encode::secret(name, snapshot, client) {
                Ok(secret) => Some(resource(name, &secret)),
                Err(error) => {
                    tracing::warn!(proxy = %client.id, secret = name, %error, "a secret is not served");
                    None
                }
            }),
            urls::NAME_TABLE => {
                let inputs = view.name_table_inputs();
                Arc::new([self.name_tables.output(&"".into(), inputs, version, |inputs| resource("", &xds_encode::name_table(inputs)))])
            }
            _ => Arc::new([]),
        }
    }

    fn by_name(&self, names: &BTreeSet<String>, one: impl Fn(&str) -> Option<Resource>) -> Set {
        names.iter().filter_map(|name| one(name)).collect()
    }

    /// Forgets what is not used any more; returns the number of entries left.
    pub fn sweep(&self, snapshot: u64) -> usize {
        let Self {
            clusters,
            listeners,
            routes,
            endpoints,
            name_tables,
        } = self;
        clusters.sweep(snapshot)
            + listeners.sweep(snapshot)
            + routes.sweep(snapshot)
            + endpoints.sweep(snapshot)
            + name_tables.sweep(snapshot)
    }
}

fn encoded<M: Message + Name>(messages: Vec<M>, name: impl Fn(&M) -> &str) -> Set {
    messages
        .iter()
        .map(|message| resource(name(message), message))
        .collect()
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
