//! Wire → domain: what an xDS server sends, as what the proxy obeys.
//!
//! One function a resource type; each opens its protobuf message exhaustively (`take!`), so that
//! every field has a judgement: read, ignored with a reason, or rejected by name. Extensions are
//! known by the type of their configuration; an unknown one is refused by name, because a filter
//! that authorizes must never be skipped; what only reports is left out and noted.
//!
//! A refusal costs what the refused part guards, and never security ([`Decoder::take`]): a filter,
//! filter chain, route or transport that cannot be read is replaced by one that refuses, and the
//! rest of the resource is taken. Each refusal is a [`Reject`] (the text of the NACK) and touches
//! no other resource.
//!
//! Decoding does no IO and keeps no state between resources: files and environment variables as
//! data sources are refused. The judgements are published: [`support_matrix`], [`left_out`] and
//! `docs/xds-support.md`, which a test holds equal.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]
// Older fields are read too: Istio still sends some of them.
#![allow(deprecated)]

use std::collections::BTreeMap;

use prost::{Message, Name};
use proxy_config::{Cluster, Endpoints, Listener, RouteTable, Secret, bootstrap::Bootstrap};
pub use telemetry::access_log::Environment;
use wire_envoy::{
    pb::{self, Any},
    type_url, unpack,
};

use context::Cx;
pub use judgement::{JUDGED, Judged, Judgement};
use reject::Refusal;
pub use reject::Reject;

mod access_log;
mod address;
mod bootstrap;
mod cluster;
mod config_source;
mod context;
mod endpoint;
mod extension;
mod filter;
mod grpc_service;
mod header;
mod http_connection_manager;
mod http_protocol;
mod judgement;
mod left_out;
mod listener;
mod matcher;
mod metadata;
mod reject;
mod route;
mod scalar;
mod secret;
mod tcp_proxy;
#[cfg(test)]
mod testing;
mod tls;
mod tracing;

/// Message → field → judgement, for every message that the decoder opens.
pub fn support_matrix() -> BTreeMap<String, BTreeMap<String, Judgement>> {
    // Keeps every decode function, and with it its entry, in the linked program.
    std::hint::black_box(Decoder::decode as fn(&mut Decoder, &Any) -> Result<_, Reject>);
    std::hint::black_box(Decoder::bootstrap as fn(&mut Decoder, _) -> Result<_, Reject>);
    judgement::matrix()
}

/// One decoded resource.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived: its receiver moves the value out at once"
)]
pub enum Resource {
    Cluster(Cluster),
    Endpoints(Endpoints),
    Listener(Listener),
    Routes(RouteTable),
    Secret(Secret),
}

impl Resource {
    /// The name under which it was subscribed to.
    pub fn name(&self) -> &str {
        match self {
            Self::Cluster(cluster) => cluster.name.as_str(),
            Self::Endpoints(endpoints) => &endpoints.cluster,
            Self::Listener(listener) => listener.name.as_str(),
            Self::Routes(table) => table.name.as_str(),
            Self::Secret(secret) => secret.name.as_str(),
        }
    }
}

/// What is left of a resource of which something was refused.
#[derive(Debug)]
pub struct Taken {
    /// To be put into use, with what refuses where something was refused. `None`: nothing of it can
    /// be used, and an older version of it may be laxer than this one was to be.
    pub resource: Option<Resource>,
    /// Empty: all of it is obeyed.
    pub refused: Vec<Reject>,
}

/// Decodes resources; collects what it ignored.
#[derive(Default)]
pub struct Decoder {
    cx: Cx,
}

impl Decoder {
    /// `environment`: what log formats may print of the process.
    pub fn new(environment: Environment) -> Self {
        Self {
            cx: Cx::with_environment(environment),
        }
    }

    /// Decodes a resource of any supported type, all of it.
    ///
    /// # Errors
    /// The first part that cannot be obeyed: resource, field and reason.
    pub fn decode(&mut self, resource: &Any) -> Result<Resource, Reject> {
        let Taken { resource, refused } = self.take(resource);
        match (resource, refused.into_iter().next()) {
            (_, Some(reject)) => Err(reject),
            (Some(resource), None) => Ok(resource),
            (None, None) => Err(Refusal::new("is empty").into_reject("resource", "")),
        }
    }

    /// Decodes a resource of any supported type as far as it can be obeyed.
    pub fn take(&mut self, resource: &Any) -> Taken {
        let taken = match resource.type_url.as_str() {
            type_url::CLUSTER => self.one(
                resource,
                "cluster",
                |m: &pb::cluster::Cluster| &m.name,
                cluster::cluster,
                Resource::Cluster,
            ),
            type_url::ENDPOINT => self.one(
                resource,
                "endpoints",
                |m: &pb::endpoint::ClusterLoadAssignment| &m.cluster_name,
                endpoint::endpoints,
                Resource::Endpoints,
            ),
            type_url::LISTENER => self.one(
                resource,
                "listener",
                |m: &pb::listener::Listener| &m.name,
                listener::listener,
                Resource::Listener,
            ),
            type_url::ROUTE => self.one(
                resource,
                "route table",
                |m: &pb::route::RouteConfiguration| &m.name,
                route::table,
                Resource::Routes,
            ),
            type_url::SECRET => self.one(
                resource,
                "secret",
                |m: &pb::tls::Secret| &m.name,
                secret::secret,
                Resource::Secret,
            ),
            type_url::NAME_TABLE => Err(Refusal::at(
                "type_url",
                "name tables are not supported: this proxy does not answer DNS",
            )
            .into_reject("name table", ""))
            .into(),
            other => Err(Refusal::at(
                "type_url",
                format!("{other} is not a supported resource type"),
            )
            .into_reject("resource", ""))
            .into(),
        };
        self.cx.drop_descriptors();
        taken
    }

    fn one<M: Message + Name + Default, T>(
        &mut self,
        resource: &Any,
        kind: &'static str,
        name: impl Fn(&M) -> &str,
        decode: impl FnOnce(&mut Cx, M) -> Result<T, Refusal>,
        wrap: impl FnOnce(T) -> Resource,
    ) -> Taken {
        let message: M = match unpack(resource) {
            Ok(message) => message,
            Err(error) => {
                return Err(Refusal::new(error.to_string()).into_reject(kind, "")).into();
            }
        };
        let name = name(&message).to_owned();
        let (resource, whole) = match decode(&mut self.cx, message) {
            Ok(decoded) => (Some(wrap(decoded)), None),
            Err(refusal) => (None, Some(refusal)),
        };
        let refusals = whole.into_iter().chain(self.cx.take_refused());
        Taken {
            resource,
            refused: refusals.map(|r| r.into_reject(kind, &name)).collect(),
        }
    }

    /// Decodes a bootstrap.
    ///
    /// # Errors
    /// The field and the reason; nothing of a bootstrap is skipped.
    pub fn bootstrap(&mut self, bootstrap: pb::bootstrap::Bootstrap) -> Result<Bootstrap, Reject> {
        let decoded = bootstrap::bootstrap(&mut self.cx, bootstrap);
        self.cx.drop_descriptors();
        let part = self.cx.take_refused().into_iter().next();
        match (decoded, part) {
            (Ok(decoded), None) => Ok(decoded),
            (Err(refusal), _) | (Ok(_), Some(refusal)) => Err(refusal.into_reject("bootstrap", "")),
        }
    }

    /// What was set and ignored, or left out, since the start: `(message, field or remark)` and how
    /// often.
    pub fn ignored(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.cx
            .notes()
            .iter()
            .map(|((message, what), count)| (message.as_str(), what.as_str(), *count))
    }
}

impl From<Result<Resource, Reject>> for Taken {
    fn from(result: Result<Resource, Reject>) -> Self {
        match result {
            Ok(resource) => Self {
                resource: Some(resource),
                refused: Vec::new(),
            },
            Err(reject) => Self {
                resource: None,
                refused: vec![reject],
            },
        }
    }
}

/// Extensions that are left out without refusing their resource: message name and what is lost.
pub fn left_out() -> &'static [(&'static str, &'static str)] {
    &left_out::LEFT_OUT
}
