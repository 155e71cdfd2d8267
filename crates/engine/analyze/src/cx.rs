//! The only door through which a check sees the mesh. Each look is noted, so that the analyzer
//! knows when to check again.
//!
//! Notes are as fine as questions are: one object, one host, the endpoints of one service, the
//! namespaces in which a selector selects something. The mesh configuration is not noted: with
//! another one everything is checked again.

use std::collections::HashSet;
use std::sync::Arc;

use ingest::{Domain, Key, Problem};
use mesh_model::object::{Labels, Selector, Text};
use mesh_model::peer_authentication::MtlsMode;
use mesh_model::snapshot::{ServiceEndpoints, ServiceKey};
use mesh_model::{Credential, DestinationRule, Gateway, MeshConfig, Service, Snapshot};
use serde_json::Value;
use wire_kube::kinds::Kind;

use crate::rule::{Rule, Source};
use crate::selections::{Selection, Selections};
use ingest::Store;

/// What a check looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Look {
    Object(Key),
    Kind(Kind),
    Namespace(Kind, Text),
    Host(Text),
    Hosts,
    Endpoints(ServiceKey),
    /// In which namespaces a selector selects workloads.
    Selection(Selection),
    /// Any change of a workload of the namespace.
    Workloads(Text),
    /// Is there a workload at all?
    AnyWorkload,
}

impl Look {
    fn source(&self) -> Source {
        match self {
            Self::Object(key) => Source::Objects(key.kind),
            Self::Kind(kind) | Self::Namespace(kind, _) => Source::Objects(*kind),
            Self::Host(_) | Self::Hosts => Source::Services,
            Self::Endpoints(_) => Source::Endpoints,
            Self::Selection(_) | Self::Workloads(_) | Self::AnyWorkload => Source::Workloads,
        }
    }
}

/// What one unit's check sees and says.
pub struct Cx<'a> {
    rule: &'static Rule,
    store: &'a Store,
    snapshot: &'a Snapshot,
    selections: &'a mut Selections,
    pub(crate) looks: HashSet<Look>,
    pub(crate) found: Vec<(Key, Problem)>,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(
        rule: &'static Rule,
        store: &'a Store,
        snapshot: &'a Snapshot,
        selections: &'a mut Selections,
    ) -> Self {
        Self {
            rule,
            store,
            snapshot,
            selections,
            looks: HashSet::new(),
            found: Vec::new(),
        }
    }

    /// Reports a finding. The code's severity is the rule's.
    pub fn say(
        &mut self,
        key: &Key,
        code: &'static str,
        path: impl Into<String>,
        message: impl Into<String>,
    ) {
        let declared = self.rule.codes.iter().find(|(known, _)| *known == code);
        debug_assert!(
            declared.is_some(),
            "rule {} has no code {code}",
            self.rule.name
        );
        let severity = declared.map_or(ingest::Severity::Warning, |(_, severity)| *severity);
        self.found
            .push((key.clone(), Problem::new(severity, code, path, message)));
    }

    fn look(&mut self, look: Look) {
        debug_assert!(
            self.rule.reads.contains(&look.source()),
            "rule {} does not declare that it reads {:?}",
            self.rule.name,
            look.source()
        );
        self.looks.insert(look);
    }

    pub fn mesh(&self) -> &'a MeshConfig {
        &self.snapshot.mesh
    }

    /// The object as it was written, for exact paths. For the unit's own objects, which need no
    /// note.
    pub fn written(&self, key: &Key) -> Option<&'a Arc<Value>> {
        self.store.object(key)
    }

    /// What an object means: its last good version.
    pub fn meaning(&mut self, key: &Key) -> Option<&'a Domain> {
        self.look(Look::Object(key.clone()));
        self.store.meaning(key)
    }

    /// Is there such an object, good or bad?
    pub fn exists(&mut self, key: &Key) -> bool {
        self.look(Look::Object(key.clone()));
        self.store.object(key).is_some()
    }

    /// The service that a host means to a proxy in `namespace`.
    pub fn service(&mut self, host: &str, namespace: &str) -> Option<&'a Arc<Service>> {
        self.look(Look::Host(host.into()));
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            self.look(Look::Host(format!("*.{suffix}").into()));
            rest = suffix;
        }
        self.snapshot.service(host, namespace)
    }

    /// Services that a proxy in `namespace` may know.
    pub fn visible_services<'n>(
        &mut self,
        namespace: &'n str,
    ) -> impl Iterator<Item = &'a Arc<Service>> + use<'a, 'n> {
        self.look(Look::Hosts);
        self.snapshot.visible_services(namespace)
    }

    /// Services of a namespace whose selector selects these labels.
    pub fn services_of(&mut self, namespace: &str, labels: &Labels) -> Vec<&'a Arc<Service>> {
        self.look(Look::Hosts);
        let all = self.snapshot.services.values().flat_map(|list| list.iter());
        let selects = |service: &&Arc<Service>| {
            let selector = service.selector.as_ref();
            service.namespace() == namespace
                && selector.is_some_and(|s| !s.0.is_empty() && s.selects(labels))
        };
        all.filter(selects).collect()
    }

    pub fn endpoints_of(&mut self, service: &Service) -> Option<&'a Arc<ServiceEndpoints>> {
        self.look(Look::Endpoints(ServiceKey {
            namespace: service.meta.object.namespace.clone(),
            host: service.host.shared(),
        }));
        self.snapshot.endpoints_of(service)
    }

    /// See [`Snapshot::destination_rule`], for a client without labels.
    pub fn destination_rule(
        &mut self,
        client_namespace: &str,
        host: &str,
        service_namespace: &str,
    ) -> Option<&'a Arc<DestinationRule>> {
        let root = self.mesh().root_namespace.clone();
        for namespace in [client_namespace, service_namespace, &*root] {
            self.look(Look::Namespace(Kind::DestinationRule, namespace.into()));
        }
        self.snapshot.destination_rule(
            client_namespace,
            &Labels::default(),
            host,
            service_namespace,
        )
    }

    pub fn gateway(&mut self, namespace: &Text, name: &Text) -> Option<&'a Arc<Gateway>> {
        self.look(Look::Object(Key {
            kind: Kind::Gateway,
            namespace: namespace.clone(),
            name: name.clone(),
        }));
        let list = self.snapshot.gateways.get(namespace)?;
        list.iter()
            .find(|gateway| gateway.meta.object.name == *name)
    }

    /// Gateways whose selector selects these labels.
    pub fn gateways_of(&mut self, labels: &Labels) -> Vec<&'a Arc<Gateway>> {
        self.look(Look::Kind(Kind::Gateway));
        self.snapshot.gateways_of(labels)
    }

    pub fn credential(&mut self, namespace: &Text, name: &Text) -> Option<&'a Credential> {
        self.look(Look::Object(Key {
            kind: Kind::Secret,
            namespace: namespace.clone(),
            name: name.clone(),
        }));
        let found = self
            .snapshot
            .credentials
            .get(&(namespace.clone(), name.clone()))?;
        Some(found)
    }

    /// The mode of mutual TLS that workloads with these labels take on a port.
    pub fn mtls_mode(&mut self, namespace: &Text, labels: &Labels, port: u16) -> MtlsMode {
        let root = self.mesh().root_namespace.clone();
        for namespace in [namespace, &root] {
            self.look(Look::Namespace(Kind::PeerAuthentication, namespace.clone()));
        }
        self.snapshot.mtls_mode(namespace, labels, port)
    }

    /// A namespace's labels; `None` when there is no such namespace.
    pub fn namespace_labels(&mut self, namespace: &Text) -> Option<&'a Labels> {
        self.look(Look::Object(Key {
            kind: Kind::Namespace,
            namespace: "".into(),
            name: namespace.clone(),
        }));
        self.snapshot.namespaces.get(namespace)
    }

    /// Is a Namespace known at all?
    pub fn any_namespace(&mut self) -> bool {
        self.look(Look::Kind(Kind::Namespace));
        !self.snapshot.namespaces.is_empty()
    }

    /// Does a workload of the namespace run that speaks no mutual TLS of the mesh?
    pub fn runs_without_proxy(&mut self, namespace: &Text) -> bool {
        self.look(Look::Workloads(namespace.clone()));
        let first = (namespace.clone(), Text::from(""));
        self.snapshot
            .workloads
            .range(first..)
            .take_while(|((of, _), _)| of == namespace)
            .any(|(_, workload)| !workload.mesh_tls && !workload.addresses.is_empty())
    }

    /// Is anything known to run?
    pub fn any_workload(&mut self) -> bool {
        self.look(Look::AnyWorkload);
        !self.snapshot.workloads.is_empty()
    }

    /// Labels of the workloads of a namespace, by name.
    pub fn workloads(
        &mut self,
        namespace: &Text,
    ) -> impl Iterator<Item = (&'a Text, &'a Labels)> + use<'a> {
        self.look(Look::Workloads(namespace.clone()));
        let first = (namespace.clone(), Text::from(""));
        let namespace = namespace.clone();
        self.snapshot
            .workloads
            .range(first..)
            .take_while(move |((of, _), _)| *of == namespace)
            .map(|((_, name), workload)| (name, &workload.labels))
    }

    /// Namespaces (all, or the one that is given) in which the selector selects a workload.
    pub fn selected_in(&mut self, namespace: Option<&str>, selector: &Selector) -> Vec<Text> {
        let selection = Selection {
            namespace: namespace.map(Text::from),
            selector: selector.clone(),
        };
        self.look(Look::Selection(selection.clone()));
        self.selections.namespaces(selection, self.snapshot)
    }

    /// A selector that selects no workload of `namespace` (of any, when it is `None`) is reported.
    /// Silent while nothing runs at all.
    pub fn check_selector(
        &mut self,
        key: &Key,
        path: &str,
        namespace: Option<&str>,
        selector: &Selector,
    ) {
        if !self.any_workload() || !self.selected_in(namespace, selector).is_empty() {
            return;
        }
        let wanted: Vec<String> = selector.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let place = namespace
            .map(|n| format!(" in namespace {n}"))
            .unwrap_or_default();
        let message = format!("no workload{place} has the labels {}", wanted.join(", "));
        self.say(key, ingest::code::NO_MATCHING_WORKLOADS, path, message);
    }
}
