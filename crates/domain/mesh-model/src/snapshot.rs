//! One consistent state of the mesh, immutable, shared by everything that reads it.
//!
//! `ingest` builds it (reusing every unchanged part by `Arc`); `xds-encode`, analysis and the debug endpoints only read it.
//! The questions that Istio's documentation answers with precedence rules ("which DestinationRule holds here?") are methods, pure and in one place.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    authorization_policy::AuthorizationPolicy,
    destination_rule::DestinationRule,
    gateway::Gateway,
    mesh_config::MeshConfig,
    object::{ExportTo, Labels, Selector, Text},
    peer_authentication::{MtlsMode, PeerAuthentication},
    secret::Credential,
    service::Service,
    sidecar::Sidecar,
    telemetry::Telemetry,
    virtual_service::{GatewayRef, VirtualService},
    workload::{Endpoint, Workload},
};

/// Objects of one kind by namespace, each list in precedence order (oldest first, then name).
pub type ByNamespace<T> = BTreeMap<Text, Arc<[Arc<T>]>>;

#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Grows with every build.
    pub version: u64,
    pub mesh: Arc<MeshConfig>,
    /// Namespace → its labels.
    pub namespaces: Arc<BTreeMap<Text, Labels>>,
    /// By host; one host may be declared in several namespaces (oldest first).
    pub services: Arc<BTreeMap<Text, Arc<[Arc<Service>]>>>,
    /// Namespace and host of a service → its endpoints.
    pub endpoints: Arc<HashMap<ServiceKey, Arc<ServiceEndpoints>>>,
    /// Namespace and name.
    pub workloads: Arc<BTreeMap<(Text, Text), Arc<Workload>>>,
    pub workload_by_address: Arc<HashMap<IpAddr, (Text, Text)>>,
    /// Delegates are merged into their roots already.
    pub virtual_services: Arc<ByNamespace<VirtualService>>,
    pub destination_rules: Arc<ByNamespace<DestinationRule>>,
    pub gateways: Arc<ByNamespace<Gateway>>,
    pub sidecars: Arc<ByNamespace<Sidecar>>,
    pub peer_authentications: Arc<ByNamespace<PeerAuthentication>>,
    pub authorization_policies: Arc<ByNamespace<AuthorizationPolicy>>,
    pub telemetries: Arc<ByNamespace<Telemetry>>,
    /// Namespace and name of the Secret.
    pub credentials: Arc<BTreeMap<(Text, Text), Arc<Credential>>>,
}

/// Namespace and host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub namespace: Text,
    pub host: Text,
}

/// Endpoints by service port number, with what is asked of all of them together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceEndpoints {
    pub ports: BTreeMap<u16, Arc<[Endpoint]>>,
    /// Their SPIFFE ids, sorted, each once.
    pub accounts: Arc<[Text]>,
    /// Ports that have endpoints, all of which speak mutual TLS of the mesh.
    pub mesh_tls_ports: Arc<[u16]>,
}

impl ServiceEndpoints {
    pub fn new(ports: BTreeMap<u16, Arc<[Endpoint]>>) -> Self {
        let all = ports.values().flat_map(|list| list.iter());
        let accounts: BTreeSet<&str> = all
            .filter_map(|endpoint| endpoint.identity.as_ref())
            .map(|id| id.as_str())
            .collect();
        let mesh_tls_ports = ports
            .iter()
            .filter(|(_, list)| !list.is_empty() && list.iter().all(|e| e.mesh_tls))
            .map(|(port, _)| *port);
        Self {
            accounts: accounts.into_iter().map(Text::from).collect(),
            mesh_tls_ports: mesh_tls_ports.collect(),
            ports,
        }
    }
}

impl Snapshot {
    /// Services that a proxy in `namespace` may know, in host order. Where a host is declared in several namespaces, the proxy's own wins,
    /// then a Kubernetes service, then the oldest.
    pub fn visible_services<'a, 'n>(
        &'a self,
        namespace: &'n str,
    ) -> impl Iterator<Item = &'a Arc<Service>> + use<'a, 'n> {
        self.services
            .values()
            .filter_map(move |candidates| visible(candidates, namespace))
    }

    /// The service that `host` means to a proxy in `namespace`: exact host first, else the longest wildcard.
    pub fn service(&self, host: &str, namespace: &str) -> Option<&Arc<Service>> {
        if let Some(found) = self
            .services
            .get(host)
            .and_then(|candidates| visible(candidates, namespace))
        {
            return Some(found);
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(found) = self
                .services
                .get(format!("*.{suffix}").as_str())
                .and_then(|candidates| visible(candidates, namespace))
            {
                return Some(found);
            }
            rest = suffix;
        }
        None
    }

    pub fn endpoints_of(&self, service: &Service) -> Option<&Arc<ServiceEndpoints>> {
        self.endpoints.get(&ServiceKey {
            namespace: service.meta.object.namespace.clone(),
            host: service.host.shared(),
        })
    }

    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.get(self.workload_by_address.get(&address)?)
    }

    /// Services of the workload's own namespace whose selector selects it, in host order.
    pub fn services_of<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> + 'a {
        self.services
            .values()
            .flat_map(|c| c.iter())
            .filter(move |s| {
                s.namespace() == namespace
                    && s.selector
                        .as_ref()
                        .is_some_and(|selector| !selector.0.is_empty() && selector.selects(labels))
            })
    }

    /// VirtualServices for a gateway (or the mesh) that a proxy in `namespace` may see, in precedence order.
    pub fn virtual_services_for(
        &self,
        gateway: &GatewayRef,
        namespace: &str,
    ) -> Vec<&Arc<VirtualService>> {
        let mut found: Vec<_> = self
            .virtual_services
            .values()
            .flat_map(|list| list.iter())
            .filter(|vs| vs.export_to.includes(namespace) && vs.gateways.contains(gateway))
            .collect();
        found.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        found
    }

    /// The DestinationRule that holds for a service seen from a client: (1) of the client's namespace, (2) of the service's, (3) of the root
    /// namespace; in the first of these that has a match, the most specific host wins, rules that select the client's workload before
    /// those without a selector. (`ingest` has merged rules of one host and one export.)
    ///
    /// For clients in the root namespace (gateways, often) its exported rules are the mesh's defaults and come last as for everybody; only
    /// what it keeps to itself (`exportTo: ["."]`) is theirs first.
    pub fn destination_rule(
        &self,
        client_namespace: &str,
        client_labels: &Labels,
        service_host: &str,
        service_namespace: &str,
    ) -> Option<&Arc<DestinationRule>> {
        let root = &*self.mesh.root_namespace;
        let in_root = client_namespace == root;
        let is_private = |rule: &DestinationRule| matches!(&rule.export_to, ExportTo::Namespaces(only) if only.iter().all(|n| &**n == rule.meta.namespace()));
        let selects = |rule: &DestinationRule| {
            rule.workload_selector
                .as_ref()
                .is_none_or(|s| s.selects(client_labels))
        };
        // Selectors do not reach into other namespaces.
        let exported = |rule: &DestinationRule| {
            let near = rule.meta.namespace() == client_namespace;
            rule.export_to.includes(client_namespace)
                && (rule.workload_selector.is_none() || near && selects(rule))
        };
        self.best_rule(client_namespace, service_host, |rule| {
            rule.export_to.includes(client_namespace)
                && selects(rule)
                && (!in_root || is_private(rule))
        })
        .or_else(|| self.best_rule(service_namespace, service_host, exported))
        .or_else(|| self.best_rule(root, service_host, exported))
    }

    fn best_rule(
        &self,
        namespace: &str,
        host: &str,
        usable: impl Fn(&DestinationRule) -> bool,
    ) -> Option<&Arc<DestinationRule>> {
        self.destination_rules
            .get(namespace)?
            .iter()
            .filter(|rule| rule.host.covers(host) && usable(rule))
            .min_by_key(|rule| (rule.host.specificity(), rule.workload_selector.is_none()))
    }

    /// The Sidecar resource of a workload: selected, else the namespace's default, else the root namespace's default.
    pub fn sidecar_of(&self, namespace: &str, labels: &Labels) -> Option<&Arc<Sidecar>> {
        let own = self.sidecars.get(namespace);
        own.and_then(|list| {
            list.iter().find(|s| {
                s.workload_selector
                    .as_ref()
                    .is_some_and(|selector| selector.selects(labels))
            })
        })
        .or_else(|| own.and_then(|list| list.iter().find(|s| s.workload_selector.is_none())))
        .or_else(|| {
            self.sidecars
                .get(&*self.mesh.root_namespace)?
                .iter()
                .find(|s| s.workload_selector.is_none())
        })
    }

    /// The mode a workload takes on one of its ports: port, then workload, then namespace, then mesh; PERMISSIVE when nothing says otherwise.
    pub fn mtls_mode(&self, namespace: &str, labels: &Labels, port: u16) -> MtlsMode {
        let selected = self.selected(&self.peer_authentications, namespace, labels, |p| {
            p.selector.as_ref()
        });
        let workload = selected.first();
        if let Some(mode) = workload
            .and_then(|policy| policy.port_level.iter().find(|(number, _)| *number == port))
            .and_then(|(_, mode)| *mode)
        {
            return mode;
        }
        let scope_default = |scope: &str| {
            self.peer_authentications
                .get(scope)
                .and_then(|list| list.iter().find(|p| p.selector.is_none()))
                .and_then(|p| p.mode)
        };
        workload
            .and_then(|policy| policy.mode)
            .or_else(|| scope_default(namespace))
            .or_else(|| scope_default(&self.mesh.root_namespace))
            .unwrap_or(MtlsMode::Permissive)
    }

    /// Every AuthorizationPolicy that holds for a workload: of the root namespace and of its own, in that order.
    pub fn authorization_policies_of(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> Vec<&Arc<AuthorizationPolicy>> {
        let holds = |policy: &AuthorizationPolicy| {
            policy.selector.as_ref().is_none_or(|s| s.selects(labels))
        };
        let root = &*self.mesh.root_namespace;
        let scopes = [Some(root), (namespace != root).then_some(namespace)];
        scopes
            .into_iter()
            .flatten()
            .filter_map(|scope| self.authorization_policies.get(scope))
            .flat_map(|list| list.iter())
            .filter(|policy| holds(policy))
            .collect()
    }

    /// Telemetry resources of a workload from the widest to the narrowest scope: root namespace, namespace, workload. At most one each.
    pub fn telemetries_of(&self, namespace: &str, labels: &Labels) -> Vec<&Arc<Telemetry>> {
        let default_of = |scope: &str| {
            self.telemetries
                .get(scope)
                .and_then(|list| list.iter().find(|t| t.selector.is_none()))
        };
        let root = &*self.mesh.root_namespace;
        let selected = self.telemetries.get(namespace).and_then(|list| {
            list.iter()
                .find(|t| t.selector.as_ref().is_some_and(|s| s.selects(labels)))
        });
        [
            default_of(root),
            (namespace != root).then(|| default_of(namespace)).flatten(),
            selected,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Gateways whose selector selects a gateway workload, in any namespace, oldest first.
    pub fn gateways_of(&self, labels: &Labels) -> Vec<&Arc<Gateway>> {
        let mut found: Vec<_> = self
            .gateways
            .values()
            .flat_map(|list| list.iter())
            .filter(|g| g.selector.selects(labels))
            .collect();
        found.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        found
    }

    fn selected<'a, T>(
        &'a self,
        index: &'a ByNamespace<T>,
        namespace: &str,
        labels: &Labels,
        selector: impl Fn(&T) -> Option<&Selector>,
    ) -> Vec<&'a Arc<T>> {
        index
            .get(namespace)
            .into_iter()
            .flat_map(|list| list.iter())
            .filter(|item| selector(item).is_some_and(|s| s.selects(labels)))
            .collect()
    }
}

fn visible<'a>(candidates: &'a [Arc<Service>], namespace: &str) -> Option<&'a Arc<Service>> {
    candidates
        .iter()
        .filter(|s| s.export_to.includes(namespace))
        .min_by_key(|s| {
            (
                s.namespace() != namespace,
                &*s.meta.object.kind != "Service",
                s.meta.created_at_seconds,
            )
        })
}
