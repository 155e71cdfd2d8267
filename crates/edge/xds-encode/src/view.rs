//! What one client may know of a snapshot: the services, rules and policies in its scope.
//!
//! Made for each client whenever the snapshot changes; it borrows every object by `Arc`. Each generator's inputs are taken from it by the
//! method beside that generator (`View::cluster_inputs` in `clusters.rs`, and so on), which copies only what the output depends on.
//!
//! A gateway sees every service that is exported to its namespace. A sidecar sees what its `Sidecar` resource lists in `egress`, or
//! everything that is exported to its namespace when there is none (rows TM-094, TM-097).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{
    DestinationRule, Host, Port, Service, Sidecar, Snapshot, Telemetry, VirtualService,
    destination_rule::{Algorithm, TrafficPolicy},
    object::Text,
    sidecar::{CaptureMode, Egress, EgressHost, NamespacePattern, OutboundMode},
    virtual_service::{Destination, GatewayRef, HttpAction},
};

use crate::{Client, ClientKind};

/// A client's part of a snapshot.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) client: Arc<Client>,
    pub(crate) snapshot: Snapshot,
    pub(crate) sidecar: Option<Arc<Sidecar>>,
    /// Listeners with a port of their own first, as written; then the catch-all.
    pub(crate) egress: Arc<[EgressScope]>,
    /// Of all scopes together, in host order.
    pub(crate) services: Arc<[Arc<Service>]>,
}

/// What one egress listener of a `Sidecar` lets in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EgressScope {
    pub port: Option<Port>,
    pub bind: Option<Text>,
    pub capture: CaptureMode,
    pub services: Arc<[Arc<Service>]>,
    /// In order of precedence.
    pub virtual_services: Arc<[Arc<VirtualService>]>,
}

/// The only port of services that destinations name without a port.
pub(crate) type SinglePorts = Arc<BTreeMap<Text, u16>>;

/// DestinationRules by the host that destinations name.
pub(crate) type RulesByHost = Arc<BTreeMap<Text, Arc<DestinationRule>>>;

impl View {
    pub fn new(snapshot: &Snapshot, client: &Arc<Client>) -> Self {
        let sidecar = match client.kind {
            ClientKind::Sidecar => snapshot
                .sidecar_of(&client.namespace, &client.labels)
                .cloned(),
            ClientKind::Gateway => None,
        };
        let everything: Vec<Arc<Service>> = snapshot
            .visible_services(&client.namespace)
            .cloned()
            .collect();
        let listed = sidecar
            .as_ref()
            .map(|sidecar| sidecar.egress.as_ref())
            .unwrap_or_default();
        let mesh_rules: Vec<Arc<VirtualService>> = snapshot
            .virtual_services_for(&GatewayRef::Mesh, &client.namespace)
            .into_iter()
            .cloned()
            .collect();
        let mut egress: Vec<EgressScope> = listed
            .iter()
            .map(|listener| scope(listener, &client.namespace, &everything, &mesh_rules))
            .collect();
        if listed.is_empty() {
            egress.push(EgressScope {
                port: None,
                bind: None,
                capture: CaptureMode::Default,
                services: everything.clone().into(),
                virtual_services: mesh_rules.into(),
            });
        }
        egress.sort_by_key(|scope| scope.port.is_none());
        let services = if listed.is_empty() {
            everything
        } else {
            union(&egress, snapshot, &client.namespace)
        };
        Self {
            client: client.clone(),
            snapshot: snapshot.clone(),
            sidecar,
            egress: egress.into(),
            services: services.into(),
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same view of a snapshot that differs in endpoints and other workloads only.
    pub fn with_endpoints_of(&self, snapshot: &Snapshot) -> Self {
        Self {
            snapshot: snapshot.clone(),
            ..self.clone()
        }
    }

    /// Unmatched outbound traffic: the Sidecar's word, else the mesh's.
    pub(crate) fn outbound_mode(&self) -> OutboundMode {
        self.sidecar
            .as_ref()
            .and_then(|sidecar| sidecar.outbound)
            .unwrap_or(self.snapshot.mesh.outbound)
    }

    pub(crate) fn rule_of(&self, service: &Service) -> Option<&Arc<DestinationRule>> {
        self.rule_for(service.host.as_str(), service.namespace())
    }

    fn rule_for(&self, host: &str, namespace: &str) -> Option<&Arc<DestinationRule>> {
        self.snapshot
            .destination_rule(&self.client.namespace, &self.client.labels, host, namespace)
    }

    pub(crate) fn telemetries(&self) -> Arc<[Arc<Telemetry>]> {
        self.snapshot
            .telemetries_of(&self.client.namespace, &self.client.labels)
            .into_iter()
            .cloned()
            .collect()
    }

    pub(crate) fn service(&self, host: &str) -> Option<&Arc<Service>> {
        self.services
            .binary_search_by(|service| service.host.as_str().cmp(host))
            .ok()
            .and_then(|at| self.services.get(at))
    }

    /// The client without what tells it from other pods of its workload.
    pub(crate) fn impersonal_client(&self) -> Arc<Client> {
        Arc::new(Client {
            id: "".into(),
            name: "".into(),
            ..(*self.client).clone()
        })
    }

    /// For the destinations of some rules: the port of every service that has only one.
    pub(crate) fn single_ports<'a>(
        &self,
        rules: impl Iterator<Item = &'a Arc<VirtualService>>,
    ) -> SinglePorts {
        let hosts = rules
            .flat_map(|rule| destinations(rule))
            .filter(|destination| destination.port.is_none())
            .map(|destination| destination.host.shared());
        let only_port = |host: &Text| match self.service(host)?.ports.as_ref() {
            [port] => Some(port.port.number),
            _ => None,
        };
        Arc::new(
            hosts
                .filter_map(|host| only_port(&host).map(|port| (host, port)))
                .collect(),
        )
    }

    /// For the destinations of some rules and for some services: the rules that hash.
    pub(crate) fn hash_rules<'a>(
        &self,
        rules: impl Iterator<Item = &'a Arc<VirtualService>>,
        services: impl Iterator<Item = &'a Arc<Service>>,
    ) -> RulesByHost {
        self.rules_where(rules, services, has_hash)
    }

    /// For the destinations of some rules and for some services: the rules that change how connections are forwarded.
    pub(crate) fn connection_rules<'a>(
        &self,
        rules: impl Iterator<Item = &'a Arc<VirtualService>>,
        services: impl Iterator<Item = &'a Arc<Service>>,
    ) -> RulesByHost {
        self.rules_where(rules, services, |rule| {
            has_hash(rule)
                || levels(rule)
                    .any(|policy| policy.tunnel.is_some() || policy.connection_pool.is_some())
        })
    }

    fn rules_where<'a>(
        &self,
        rules: impl Iterator<Item = &'a Arc<VirtualService>>,
        services: impl Iterator<Item = &'a Arc<Service>>,
        wanted: impl Fn(&DestinationRule) -> bool,
    ) -> RulesByHost {
        if self.snapshot.destination_rules.is_empty() {
            return RulesByHost::default();
        }
        let hosts: BTreeSet<Text> = rules
            .flat_map(|rule| destinations(rule))
            .map(|destination| destination.host.shared())
            .chain(services.map(|service| service.host.shared()))
            .collect();
        let chosen = |host: Text| {
            let namespace = self
                .service(&host)
                .map(|service| service.meta.object.namespace.clone())
                .unwrap_or_else(|| self.client.namespace.clone());
            let rule = self.rule_for(&host, &namespace)?;
            wanted(rule).then(|| (host, rule.clone()))
        };
        Arc::new(hosts.into_iter().filter_map(chosen).collect())
    }
}

/// Every policy in a rule.
fn levels(rule: &DestinationRule) -> impl Iterator<Item = &TrafficPolicy> {
    let policies =
        std::iter::once(&rule.policy).chain(rule.subsets.iter().map(|subset| &subset.policy));
    policies.flat_map(|policy| {
        std::iter::once(policy).chain(policy.port_level.iter().map(|(_, at_port)| at_port))
    })
}

fn has_hash(rule: &DestinationRule) -> bool {
    levels(rule)
        .filter_map(|policy| policy.load_balancer.as_ref())
        .any(|balancer| matches!(balancer.algorithm, Algorithm::ConsistentHash { .. }))
}

/// Every destination that a rule names, mirrors included.
pub(crate) fn destinations(rule: &VirtualService) -> Vec<&Destination> {
    let http = rule.http.iter().flat_map(|route| {
        let routed = match &route.action {
            HttpAction::Route(targets) => {
                targets.iter().map(|target| &target.destination).collect()
            }
            _ => Vec::new(),
        };
        routed
            .into_iter()
            .chain(route.mirrors.iter().map(|mirror| &mirror.destination))
    });
    let tcp = rule.tcp.iter().flat_map(|route| route.route.iter());
    let tls = rule.tls.iter().flat_map(|route| route.route.iter());
    http.chain(tcp.chain(tls).map(|target| &target.destination))
        .collect()
}

fn scope(
    listener: &Egress,
    own: &str,
    everything: &[Arc<Service>],
    rules: &[Arc<VirtualService>],
) -> EgressScope {
    let nothing = listener
        .hosts
        .iter()
        .any(|host| host.namespace == NamespacePattern::None);
    let hosts: &[EgressHost] = if nothing { &[] } else { &listener.hosts };
    let wanted = everything.iter().filter(|service| {
        hosts.iter().any(|pattern| {
            in_namespace(pattern, service.namespace(), own)
                && pattern.host.covers(service.host.as_str())
        })
    });
    let services = match &listener.port {
        None => wanted.cloned().collect(),
        Some(port) => wanted
            .filter_map(|service| narrowed(service, port.number))
            .collect(),
    };
    let touches = |pattern: &EgressHost, host: &Host| {
        pattern.host.covers(host.as_str()) || host.covers(pattern.host.as_str())
    };
    let selected = rules.iter().filter(|rule| {
        hosts.iter().any(|pattern| {
            in_namespace(pattern, rule.meta.namespace(), own)
                && rule.hosts.iter().any(|host| touches(pattern, host))
        })
    });
    EgressScope {
        port: listener.port.clone(),
        bind: listener.bind.clone(),
        capture: listener.capture,
        services,
        virtual_services: selected.cloned().collect(),
    }
}

fn in_namespace(pattern: &EgressHost, namespace: &str, own: &str) -> bool {
    match &pattern.namespace {
        NamespacePattern::Any => true,
        NamespacePattern::Own => namespace == own,
        NamespacePattern::None => false,
        NamespacePattern::Named(name) => &**name == namespace,
    }
}

/// The service with only one of its ports; none if it does not have that port.
fn narrowed(service: &Arc<Service>, port: u16) -> Option<Arc<Service>> {
    let kept = service.port(port)?;
    if service.ports.len() == 1 {
        return Some(service.clone());
    }
    Some(Arc::new(Service {
        ports: Arc::new([kept.clone()]),
        ..(**service).clone()
    }))
}

/// Services of every scope, and those that rules in scope send requests to.
fn union(egress: &[EgressScope], snapshot: &Snapshot, namespace: &str) -> Vec<Arc<Service>> {
    let mut by_host: BTreeMap<Text, Arc<Service>> = BTreeMap::new();
    for service in egress.iter().flat_map(|scope| scope.services.iter()) {
        by_host
            .entry(service.host.shared())
            .and_modify(|known| *known = joined(known, service))
            .or_insert_with(|| service.clone());
    }
    for rule in egress
        .iter()
        .flat_map(|scope| scope.virtual_services.iter())
    {
        for destination in destinations(rule) {
            let host = destination.host.shared();
            if let (false, Some(service)) = (
                by_host.contains_key(&host),
                snapshot.service(&host, namespace),
            ) {
                by_host.insert(service.host.shared(), service.clone());
            }
        }
    }
    by_host.into_values().collect()
}

/// The ports of both.
fn joined(a: &Arc<Service>, b: &Arc<Service>) -> Arc<Service> {
    if Arc::ptr_eq(a, b) || b.ports.iter().all(|port| a.ports.contains(port)) {
        return a.clone();
    }
    let more = b.ports.iter().filter(|port| !a.ports.contains(port));
    Arc::new(Service {
        ports: a.ports.iter().chain(more).cloned().collect(),
        ..(**a).clone()
    })
}
