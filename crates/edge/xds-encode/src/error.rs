//! What can be wrong: with a proxy that connects, with a secret it asks for, and with objects that cannot be said in xDS.

use mesh_model::ObjectRef;

/// A proxy whose node does not say who it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNode {
    #[error("node id `{0}` is not `type~address~pod.namespace~domain`")]
    Id(String),
    #[error("node type `{0}` is not served: expected `sidecar` or `router`")]
    Kind(String),
    #[error("`{0}` in the node id is not an IP address")]
    Address(String),
}

/// Why a secret cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("`{0}` is not a name of the form kubernetes://[namespace/]name")]
    Name(String),
    #[error("only gateways may ask for Secrets")]
    NotAGateway,
    #[error("Secret {namespace}/{name} may only be used by gateways of its own namespace")]
    OtherNamespace { namespace: String, name: String },
    #[error("there is no Secret {namespace}/{name}")]
    Missing { namespace: String, name: String },
    #[error("Secret {namespace}/{name} holds no {part}")]
    Part {
        namespace: String,
        name: String,
        part: &'static str,
    },
}

/// Something in an object that could not be encoded for a client, or that has no effect there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{object}: {message}")]
pub struct Problem {
    pub object: ObjectRef,
    pub message: String,
}
