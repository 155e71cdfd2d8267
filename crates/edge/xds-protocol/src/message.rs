//! What goes over the stream, in either flavour.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use prost::Message;
use wire_envoy::{
    pb::{
        Any,
        discovery::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        },
    },
    type_url,
};

/// The two variants of the protocol. A stream speaks one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    StateOfTheWorld,
    Delta,
}

/// From client to server.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    StateOfTheWorld(DiscoveryRequest),
    Delta(DeltaDiscoveryRequest),
}

/// From server to client.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    StateOfTheWorld(DiscoveryResponse),
    Delta(DeltaDiscoveryResponse),
}

/// One resource as it is sent: encoded once, shared by all streams.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// Equal versions mean equal bytes; usually a hash of them.
    pub version: Arc<str>,
    /// The encoded message, without the `Any` around it.
    pub body: Bytes,
}

/// The other side does not keep to the protocol; the stream should be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("the request names no resource type")]
    NoType,
    #[error("the request is of the other flavour than the stream")]
    Flavour,
    #[error("more than {limit} resource types on one stream")]
    TooManyTypes { limit: usize },
    #[error("more than {limit} names of {type_url}")]
    TooManyNames { type_url: String, limit: usize },
}

impl Request {
    pub fn type_url(&self) -> &str {
        match self {
            Self::StateOfTheWorld(request) => &request.type_url,
            Self::Delta(request) => &request.type_url,
        }
    }
}

impl Response {
    pub fn type_url(&self) -> &str {
        match self {
            Self::StateOfTheWorld(response) => &response.type_url,
            Self::Delta(response) => &response.type_url,
        }
    }

    pub fn nonce(&self) -> &str {
        match self {
            Self::StateOfTheWorld(response) => &response.nonce,
            Self::Delta(response) => &response.nonce,
        }
    }
}

impl Resource {
    pub(crate) fn to_any(&self, type_url: &str) -> Any {
        Any {
            type_url: type_url.to_owned(),
            value: self.body.to_vec(),
        }
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}@{} ({} bytes)",
            self.name,
            self.version,
            self.body.len()
        )
    }
}

/// The name inside a resource of the state of the world, which has none beside it. Field 1 of every
/// named type is its name.
pub fn resource_name(type_url: &str, any: &Any) -> Option<String> {
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    if [type_url::NAME_TABLE, type_url::PROXY_CONFIG].contains(&type_url) {
        return Some(String::new());
    }
    Named::decode(any.value.as_slice())
        .ok()
        .map(|named| named.name)
}
