//! From a resource on the wire to a change of the warming state; the judgement itself is
//! `xds-decode`'s.

use wire_envoy::{pb::Any, type_url};
use xds_decode::{Decoder, Resource, Taken};

use crate::warm::{Change, Kind};

/// What one resource changes, and what of it cannot be obeyed.
pub(crate) struct Decoded {
    /// `None`: nothing of it can be used.
    pub change: Option<Change>,
    /// What the control plane reads in the NACK; `None`: all of it is obeyed.
    pub refused: Option<String>,
}

pub(crate) fn decode(decoder: &mut Decoder, body: &Any) -> Decoded {
    let Taken { resource, refused } = decoder.take(body);
    let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
    let change = match resource {
        None => None,
        Some(Resource::Cluster(cluster)) => Some(Change::Cluster(cluster.into())),
        Some(Resource::Endpoints(endpoints)) => Some(Change::Endpoints(endpoints.into())),
        Some(Resource::Listener(listener)) => Some(Change::Listener(listener.into())),
        Some(Resource::Routes(table)) => Some(Change::Routes(table.into())),
        Some(Resource::Secret(secret)) => Some(Change::Secret(secret.into())),
    };
    Decoded {
        change,
        refused: (!refused.is_empty()).then(|| refused.join("; ")),
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
