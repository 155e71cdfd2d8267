//! How each kind is taken out of a [`Domain`], with the metadata that its place in a list depends on.

use std::sync::Arc;

use mesh_model::object::Meta;
use mesh_model::{
    AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, Sidecar, Telemetry,
    VirtualService,
};

use crate::Domain;

pub(super) type Pick<T> = fn(&Domain) -> Option<(&Meta, &Arc<T>)>;

macro_rules! picks {
    ($($name:ident: $kind:ident),*) => {$(
        pub(super) fn $name(domain: &Domain) -> Option<(&Meta, &Arc<$kind>)> {
            match domain {
                Domain::$kind(value) => Some((&value.meta, value)),
                _ => None,
            }
        }
    )*};
}

picks! {
    virtual_service: VirtualService,
    destination_rule: DestinationRule,
    gateway: Gateway,
    sidecar: Sidecar,
    peer_authentication: PeerAuthentication,
    authorization_policy: AuthorizationPolicy,
    telemetry: Telemetry
}
