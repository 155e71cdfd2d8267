//! From what users write to what the mesh means: `wire-kube` objects become `mesh-model` values, with every mistake reported.
//!
//! [`parse`] takes one object: it reads it, fills in defaults that need no other object, checks Istio's rules, and returns the
//! domain value together with its [`Problem`]s. [`Store`] keeps the last good version of every object and builds the
//! [`mesh_model::Snapshot`]: references are resolved, rules merged, endpoints put together; parts that did not change are the
//! same `Arc` as before.
//!
//! Invariants: a bad object hurts only itself; nothing that is written can panic this crate; a field that has no effect is
//! reported by name, which exhaustive destructuring of every struct enforces. It reads no files and knows no Kubernetes API.
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests measure and wait in real time"
    )
)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

use std::sync::Arc;

use mesh_model::object::Meta;
use mesh_model::{
    AuthorizationPolicy, Credential, DestinationRule, Gateway, MeshConfig, PeerAuthentication,
    Service, Sidecar, Telemetry, VirtualService,
};
use serde_json::Value;
use wire_kube::kinds::{self, Kind, Support};
use wire_kube::read::{self, FaultKind, Read};
use wire_kube::{istio, kubernetes as kube};

mod authorization_policy;
mod cx;
mod destination_rule;
mod gateway;
mod key;
pub mod kubernetes;
mod mesh_config;
mod meta;
mod peer_authentication;
mod problem;
mod re2;
pub mod service_entry;
mod sidecar;
pub mod snapshot;
mod telemetry;
mod traffic_policy;
mod value;
mod virtual_service;

pub use key::Key;
pub use mesh_config::{default_mesh, parse_mesh};
pub use problem::{Problem, Severity, code};
pub use snapshot::{Applied, Store};

use cx::Cx;
use kubernetes::endpoint_slice::Slice;
use kubernetes::pod::{Node, Pod};

/// What one object means by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Domain {
    VirtualService(Arc<VirtualService>),
    DestinationRule(Arc<DestinationRule>),
    Gateway(Arc<Gateway>),
    ServiceEntry(Arc<service_entry::Entry>),
    WorkloadEntry(Arc<service_entry::WorkloadEntry>),
    Sidecar(Arc<Sidecar>),
    PeerAuthentication(Arc<PeerAuthentication>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    Telemetry(Arc<Telemetry>),
    Service(Arc<Service>),
    EndpointSlice(Arc<Slice>),
    Pod(Arc<Pod>),
    Node(Arc<Node>),
    Namespace(Arc<Meta>),
    Credential(Arc<Credential>),
    /// The mesh configuration, from the ConfigMap that holds it.
    Mesh(Arc<MeshConfig>),
}

/// Ingests one object of a known kind. `None` when it means nothing to the mesh, or when a problem is an [`Severity::Error`].
///
/// `mesh` gives the defaults that the object's meaning depends on: cluster domain, `exportTo`, root namespace, providers.
pub fn parse(mesh: &MeshConfig, kind: Kind, object: &Value) -> (Option<Domain>, Vec<Problem>) {
    let mut problems = Vec::new();
    let api_version = object
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if let Some(refusal) = refused(kind, api_version) {
        problems.push(refusal);
        return (None, problems);
    }
    let (metadata, faults) = wire_kube::meta::read_metadata(object);
    let bad_metadata = faults.iter().any(|f| f.kind != FaultKind::UnknownField);
    let parsed_meta = meta::parse(kind, api_version, metadata, &mut problems);
    let Some(meta) = parsed_meta.filter(|_| !bad_metadata) else {
        problems.extend(faults.into_iter().map(Problem::from));
        return (None, problems);
    };
    let mut one = One {
        mesh,
        meta: &meta,
        object,
        problems,
    };
    let domain = one.parse(kind);
    (domain, one.problems)
}

/// A kind that is not supported yet, or a version that is not served.
fn refused(kind: Kind, api_version: &str) -> Option<Problem> {
    let info = kind.info();
    let (_, version) = kinds::split_api_version(api_version);
    if !info.serves(version) {
        let served = info.versions.join(", ");
        let message = format!(
            "{} is not served in version {version:?}: use one of {served}",
            info.kind
        );
        return Some(Problem::new(
            Severity::Error,
            code::UNKNOWN_KIND,
            "apiVersion",
            message,
        ));
    }
    (info.support == Support::NotYet).then(|| {
        let message = format!(
            "{} is not supported yet: this object has no effect",
            info.kind
        );
        Problem::new(Severity::Warning, code::UNSUPPORTED_KIND, "kind", message)
    })
}

struct One<'a> {
    mesh: &'a MeshConfig,
    meta: &'a Meta,
    object: &'a Value,
    problems: Vec<Problem>,
}

impl One<'_> {
    fn parse(&mut self, kind: Kind) -> Option<Domain> {
        match kind {
            Kind::VirtualService => self.spec(virtual_service::parse, Domain::VirtualService),
            Kind::DestinationRule => self.spec(destination_rule::parse, Domain::DestinationRule),
            Kind::Gateway => self.spec(gateway::parse, Domain::Gateway),
            Kind::ServiceEntry => self.spec(service_entry::parse, Domain::ServiceEntry),
            Kind::WorkloadEntry => {
                self.spec(service_entry::parse_workload_entry, Domain::WorkloadEntry)
            }
            Kind::Sidecar => self.spec(sidecar::parse, Domain::Sidecar),
            Kind::PeerAuthentication => {
                self.spec(peer_authentication::parse, Domain::PeerAuthentication)
            }
            Kind::AuthorizationPolicy => self.authorization_policy(),
            Kind::Telemetry => self.spec(telemetry::parse, Domain::Telemetry),
            Kind::Service => self.whole(kubernetes::service::parse, Domain::Service),
            Kind::EndpointSlice => {
                self.whole(kubernetes::endpoint_slice::parse, Domain::EndpointSlice)
            }
            Kind::Pod => self.whole(kubernetes::pod::parse, Domain::Pod),
            Kind::Node => self.whole(kubernetes::pod::parse_node, Domain::Node),
            Kind::Namespace => self.whole(kubernetes::pod::parse_namespace, Domain::Namespace),
            Kind::Secret => self.whole(kubernetes::secret::parse, Domain::Credential),
            Kind::ConfigMap => self.mesh_config(),
            // Nothing of a ServiceAccount matters but its name, which pods carry; the rest is the runtime's or refused above.
            _ => None,
        }
    }

    /// An Istio kind: its `spec`.
    fn spec<Spec: Read, T>(
        &mut self,
        parse: fn(&mut Cx, Spec) -> Option<T>,
        wrap: fn(Arc<T>) -> Domain,
    ) -> Option<Domain> {
        let (object, faults) = wire_kube::meta::read_object::<Spec>(self.object);
        self.take(faults, parse, object.spec, |mut problem| {
            if !problem.path.is_empty() {
                // A list's or name's own path follows without a dot where it is in brackets.
                let dot = if problem.path.starts_with('[') {
                    ""
                } else {
                    "."
                };
                problem.path.insert_str(0, dot);
            }
            problem.path.insert_str(0, "spec");
            problem
        })
        .map(|value| wrap(Arc::new(value)))
    }

    /// A Kubernetes kind: the whole object.
    fn whole<W: Read, T>(
        &mut self,
        parse: fn(&mut Cx, W) -> Option<T>,
        wrap: fn(Arc<T>) -> Domain,
    ) -> Option<Domain> {
        let (value, faults) = read::read::<W>(self.object);
        self.take(faults, parse, value, |problem| problem)
            .map(|value| wrap(Arc::new(value)))
    }

    fn take<W, T>(
        &mut self,
        faults: Vec<read::Fault>,
        parse: fn(&mut Cx, W) -> Option<T>,
        value: W,
        place: impl Fn(Problem) -> Problem,
    ) -> Option<T> {
        let unread: Vec<String> = faults
            .iter()
            .filter(|f| f.kind != FaultKind::UnknownField)
            .map(|f| f.path.clone())
            .collect();
        self.problems.extend(faults.into_iter().map(Problem::from));
        let mut cx = Cx::new(self.mesh, self.meta);
        let parsed = parse(&mut cx, value);
        let (found, failed) = cx.finish();
        // What could not be read stands at its default; complaints about that would only repeat the fault.
        let is_echo = |p: &Problem| {
            p.message.contains("needed") && !unread.is_empty()
                || unread.iter().any(|path| p.path.starts_with(path.as_str()))
        };
        self.problems
            .extend(found.into_iter().map(place).filter(|p| !is_echo(p)));
        let unreadable = self.problems.iter().any(|p| p.severity == Severity::Error);
        parsed.filter(|_| !failed && !unreadable)
    }

    /// In a rule of a policy, an unknown field is an error: without it the rule would match more than was meant.
    fn authorization_policy(&mut self) -> Option<Domain> {
        let parsed = self.spec::<istio::authorization_policy::AuthorizationPolicy, _>(
            authorization_policy::parse,
            Domain::AuthorizationPolicy,
        );
        let mut widened = false;
        for problem in &mut self.problems {
            if problem.code == code::UNKNOWN_FIELD && problem.path.starts_with("spec") {
                problem.severity = Severity::Error;
                problem.message.push_str("; a policy is not used while it has one, since it could allow more than it says");
                widened = true;
            }
        }
        parsed.filter(|_| !widened)
    }

    /// The ConfigMap `istio` of the root namespace holds the mesh configuration under `mesh`; others mean nothing here.
    fn mesh_config(&mut self) -> Option<Domain> {
        let is_mesh =
            self.meta.name() == "istio" && self.meta.namespace() == &*self.mesh.root_namespace;
        if !is_mesh {
            return None;
        }
        let (map, faults) = read::read::<kube::secret::ConfigMap>(self.object);
        self.problems.extend(faults.into_iter().map(Problem::from));
        let text = map.data.get("mesh")?;
        let (mesh, problems) = mesh_config::parse_mesh_text(text);
        self.problems
            .extend(problems.into_iter().map(|mut problem| {
                problem.message = format!("{}: {}", problem.path, problem.message);
                problem.path = "data.mesh".into();
                problem
            }));
        mesh.map(|mesh| Domain::Mesh(Arc::new(mesh)))
    }
}
