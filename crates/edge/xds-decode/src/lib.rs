//! Wire → domain: what an xDS server sends, as what the proxy obeys.
//!
//! One function a resource type; each opens its protobuf message exhaustively (`take!`), so that every field has a judgement:
//! read, ignored with a reason, or rejected by name. A bad resource yields a [`Reject`] (the text of its NACK) and touches no
//! other. Extensions are known by the type of their configuration; an unknown one is refused by name, because a filter that
//! authorizes must never be skipped; what only reports is left out and noted.
//!
//! Decoding does no IO and keeps no state between resources: files and environment variables as data sources are refused.
//! The judgements are published: [`support_matrix`], [`left_out`] and `docs/xds-support.md`, which a test holds equal.

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

use prost::{Message, Name};
use proxy_config::{
    Cluster, Endpoints, Listener, RouteTable, Secret, bootstrap::Bootstrap, name_table::NameTable,
};
pub use telemetry::access_log::Environment;
use wire_envoy::{
    pb::{self, Any},
    type_url, unpack,
};

use context::Cx;
pub use judgement::{JUDGED, Judged, Judgement, support_matrix};
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
mod name_table;
mod reject;
mod route;
mod scalar;
mod secret;
mod tcp_proxy;
#[cfg(test)]
mod testing;
mod tls;
mod tracing;

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
    Names(NameTable),
}

impl Resource {
    /// The name under which it was subscribed to; a name table has none.
    pub fn name(&self) -> &str {
        match self {
            Self::Cluster(cluster) => cluster.name.as_str(),
            Self::Endpoints(endpoints) => &endpoints.cluster,
            Self::Listener(listener) => listener.name.as_str(),
            Self::Routes(table) => table.name.as_str(),
            Self::Secret(secret) => secret.name.as_str(),
            Self::Names(_) => "",
        }
    }
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

    /// Decodes a resource of any supported type.
    ///
    /// # Errors
    /// The resource, its field and the reason; the resource then has no effect, and others are not affected.
    pub fn decode(&mut self, resource: &Any) -> Result<Resource, Reject> {
        let decoded = match resource.type_url.as_str() {
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
            type_url::NAME_TABLE => self.one(
                resource,
                "name table",
                |_: &pb::istio::nds::NameTable| "",
                name_table::name_table,
                Resource::Names,
            ),
            other => Err(Refusal::at(
                "type_url",
                format!("{other} is not a supported resource type"),
            )
            .into_reject("resource", "")),
        };
        self.cx.drop_descriptors();
        decoded
    }

    fn one<M: Message + Name + Default, T>(
        &mut self,
        resource: &Any,
        kind: &'static str,
        name: impl Fn(&M) -> &str,
        decode: impl FnOnce(&mut Cx, M) -> Result<T, Refusal>,
        wrap: impl FnOnce(T) -> Resource,
    ) -> Result<Resource, Reject> {
        let message: M =
            unpack(resource).map_err(|e| Refusal::new(e.to_string()).into_reject(kind, ""))?;
        let name = name(&message).to_owned();
        decode(&mut self.cx, message)
            .map(wrap)
            .map_err(|refusal| refusal.into_reject(kind, &name))
    }

    /// Decodes a bootstrap.
    ///
    /// # Errors
    /// The field and the reason; nothing of a bootstrap is skipped.
    pub fn bootstrap(&mut self, bootstrap: pb::bootstrap::Bootstrap) -> Result<Bootstrap, Reject> {
        let decoded = bootstrap::bootstrap(&mut self.cx, bootstrap)
            .map_err(|refusal| refusal.into_reject("bootstrap", ""));
        self.cx.drop_descriptors();
        decoded
    }

    /// What was set and ignored, or left out, since the start: `(message, field or remark)` and how often.
    pub fn ignored(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.cx
            .notes()
            .iter()
            .map(|((message, what), count)| (message.as_str(), what.as_str(), *count))
    }
}

/// Extensions that are left out without refusing their resource: message name and what is lost.
pub fn left_out() -> &'static [(&'static str, &'static str)] {
    &left_out::LEFT_OUT
}
