//! From a resource on the wire to a change of the warming state; the judgement itself is `xds-decode`'s.

use wire_envoy::{pb::Any, type_url};
use xds_decode::{Decoder, Resource};

use crate::warm::{Change, Kind};

/// The text of an error is what the control plane reads in the NACK.
pub(crate) fn decode(decoder: &mut Decoder, body: &Any) -> Result<Change, String> {
    match decoder.decode(body).map_err(|reject| reject.to_string())? {
        Resource::Cluster(cluster) => Ok(Change::Cluster(cluster.into())),
        Resource::Endpoints(endpoints) => Ok(Change::Endpoints(endpoints.into())),
        Resource::Listener(listener) => Ok(Change::Listener(listener.into())),
        Resource::Routes(table) => Ok(Change::Routes(table.into())),
        Resource::Secret(secret) => Ok(Change::Secret(secret.into())),
        Resource::Names(_) => Err("name tables are not asked for".into()),
    }
}

/// The kind of a type's resources.
pub(crate) fn kind_of(type_url: &str) -> Option<Kind> {
    Some(match type_url {
        type_url::CLUSTER => Kind::Cluster,
        type_url::ENDPOINT => Kind::Endpoints,
        type_url::LISTENER => Kind::Listener,
        type_url::ROUTE => Kind::Routes,
        type_url::SECRET => Kind::Secret,
        _ => return None,
    })
}
