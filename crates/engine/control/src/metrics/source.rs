//! What comes from the API and what becomes of it: events, validation, snapshots and their
//! contents.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use ingest::{Problem, Severity};
use mesh_model::{
    Snapshot,
    port::Protocol,
    service::{Resolution, TargetPort},
    workload::Readiness,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use wire_kube::kinds::Kind;

use super::kinds::{Buckets, Count, TypeLabel, add, add_made};

const DEBOUNCE_SECONDS: Buckets = Buckets(&[0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0]);
const BUILD_SECONDS: Buckets = Buckets(&[0.01, 0.1, 0.5, 1.0, 3.0, 5.0]);

#[derive(Clone)]
pub struct SourceMetrics {
    config_events: Family<EventLabels, Count>,
    registry_events: Family<EventLabels, Count>,
    inbound_updates: Family<TypeLabel, Count>,
    triggers: Family<TypeLabel, Count>,
    passed: Family<ResourceLabels, Count>,
    failed: Family<FailureLabels, Count>,
    rejected: Family<ObjectLabels, Count>,
    pub debounce: Histogram,
    pub build: Histogram,
    pub snapshot_version: Gauge,
    pub cached_generations: Gauge,
    contents: Contents,
}

/// What the snapshot that is served holds.
#[derive(Clone)]
struct Contents {
    services: Gauge,
    virtual_services: Gauge,
    clusters_without_endpoints: Gauge,
    endpoints_not_ready: Gauge,
    inbound_conflicts: Gauge,
    outbound_tcp_conflicts: Gauge,
    duplicate_domains: Gauge,
}

/// What an event did to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Add,
    Update,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    r#type: &'static str,
    event: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    group: &'static str,
    version: String,
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    group: &'static str,
    version: String,
    resource: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    r#type: &'static str,
    name: String,
}

impl SourceMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            config_events: add(
                registry,
                "pilot_k8s_cfg_events",
                "Objects of Istio's kinds that came, changed or went",
            ),
            registry_events: add(
                registry,
                "pilot_k8s_reg_events",
                "Kubernetes objects that came, changed or went",
            ),
            inbound_updates: add(
                registry,
                "pilot_inbound_updates",
                "Changes taken in, by what they are about",
            ),
            triggers: add(
                registry,
                "pilot_push_triggers",
                "Reasons to look for what proxies must be sent anew",
            ),
            passed: add(
                registry,
                "galley_validation_passed",
                "Objects that were read without an error",
            ),
            failed: add(
                registry,
                "galley_validation_failed",
                "Objects that have an error and are not obeyed as written",
            ),
            rejected: add(
                registry,
                "pilot_total_rejected_configs",
                "Objects that are refused now",
            ),
            debounce: add_made(
                registry,
                "pilot_debounce_time",
                "Seconds from the first of several changes to the one snapshot that holds them all",
                Histogram::new(DEBOUNCE_SECONDS.0.iter().copied()),
            ),
            build: add_made(
                registry,
                "pilot_pushcontext_init_seconds",
                "Seconds that building a snapshot takes",
                Histogram::new(BUILD_SECONDS.0.iter().copied()),
            ),
            snapshot_version: add(
                registry,
                "tanbark_snapshot_version",
                "Version of the configuration snapshot that is served",
            ),
            cached_generations: add(
                registry,
                "xds_cache_size",
                "Generated resources that are kept for the next proxy",
            ),
            contents: Contents::new(registry),
        }
    }

    /// An object was added, changed or deleted.
    pub fn event(&self, kind: Kind, event: Event) {
        let word = match event {
            Event::Add => "add",
            Event::Update => "update",
            Event::Delete => "delete",
        };
        let labels = EventLabels {
            r#type: registry_type(kind).unwrap_or(kind.name()),
            event: word,
        };
        let (events, update) = match (registry_type(kind), event) {
            (None, _) => (&self.config_events, "config"),
            (Some("Services"), Event::Delete) => (&self.registry_events, "svcdelete"),
            (Some("Services"), _) => (&self.registry_events, "svc"),
            (Some(_), _) => (&self.registry_events, "eds"),
        };
        events.get_or_create(&labels).inc();
        self.inbound_updates
            .get_or_create(&TypeLabel { r#type: update })
            .inc();
    }

    /// A new snapshot goes out because of these kinds.
    pub fn triggered(&self, kinds: &BTreeSet<Kind>) {
        let reasons: BTreeSet<&'static str> = kinds.iter().map(|kind| reason(*kind)).collect();
        for reason in reasons {
            self.trigger(reason);
        }
    }

    /// A push for this reason (istiod's names: `config`, `service`, `endpoint`, `secret`, `global`,
    /// `proxyrequest`, …).
    pub fn trigger(&self, reason: &'static str) {
        self.triggers
            .get_or_create(&TypeLabel { r#type: reason })
            .inc();
    }

    /// What reading an object of Istio's kinds gave. Validation happens where objects are read,
    /// with the same rules as at admission.
    pub fn validated(&self, kind: Kind, name: &str, api_version: &str, problems: &[Problem]) {
        let info = kind.info();
        if !info.group.ends_with("istio.io") {
            return;
        }
        let version = api_version.rsplit('/').next().unwrap_or_default();
        if problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
        {
            let labels = FailureLabels {
                group: info.group,
                version: version.to_owned(),
                resource: info.plural,
                reason: "invalid_resource",
            };
            self.failed.get_or_create(&labels).inc();
            let labels = ObjectLabels {
                r#type: info.kind,
                name: name.to_owned(),
            };
            self.rejected.get_or_create(&labels).inc();
        } else {
            let labels = ResourceLabels {
                group: info.group,
                version: version.to_owned(),
                resource: info.plural,
            };
            self.passed.get_or_create(&labels).inc();
        }
    }

    /// A snapshot is published that took `build` to make, `debounce` after the first of its
    /// changes.
    pub fn published(&self, snapshot: &Snapshot, debounce: Duration, build: Duration) {
        self.snapshot_version
            .set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        self.debounce.observe(debounce.as_secs_f64());
        self.build.observe(build.as_secs_f64());
        self.contents.set(snapshot);
    }

    /// How many VirtualServices claim a host that an older one has.
    pub fn duplicate_domains(&self, number: usize) {
        self.contents.duplicate_domains.set(count(number));
    }
}

impl Contents {
    fn new(registry: &mut Registry) -> Self {
        let mut gauge = |name: &str, help: &str| add(registry, name, help);
        Self {
            services: gauge("pilot_services", "Services of the mesh"),
            virtual_services: gauge("pilot_virt_services", "VirtualServices that are obeyed"),
            clusters_without_endpoints: gauge(
                "pilot_eds_no_instances",
                "Service ports that nobody serves",
            ),
            endpoints_not_ready: gauge("pilot_endpoint_not_ready", "Endpoints that are not ready"),
            inbound_conflicts: gauge(
                "pilot_conflict_inbound_listener",
                "Ports of workloads that two Services want to be of different protocols",
            ),
            outbound_tcp_conflicts: gauge(
                "pilot_conflict_outbound_listener_tcp_over_current_tcp",
                "TCP ports that two Services want for themselves at one address",
            ),
            duplicate_domains: gauge(
                "pilot_vservice_dup_domain",
                "VirtualServices with a host that an older one has",
            ),
        }
    }

    fn set(&self, snapshot: &Snapshot) {
        let services = || {
            snapshot
                .services
                .values()
                .flat_map(|declared| declared.iter())
        };
        self.services.set(count(services().count()));
        let rules = snapshot.virtual_services.values().map(|list| list.len());
        self.virtual_services.set(count(rules.sum()));
        let (mut empty, mut not_ready) = (0, 0);
        for service in services().filter(|s| s.resolution == Resolution::ClientSide) {
            let endpoints = snapshot.endpoints_of(service);
            for port in service.ports.iter() {
                let of_port = endpoints.and_then(|all| all.ports.get(&port.port.number));
                let listed = of_port.map_or(&[][..], |list| list);
                empty += usize::from(listed.is_empty());
                not_ready += listed
                    .iter()
                    .filter(|endpoint| endpoint.ready == Readiness::NotReady)
                    .count();
            }
        }
        self.clusters_without_endpoints.set(count(empty));
        self.endpoints_not_ready.set(count(not_ready));
        self.inbound_conflicts
            .set(count(inbound_conflicts(snapshot)));
        self.outbound_tcp_conflicts
            .set(count(outbound_tcp_conflicts(snapshot)));
    }
}

/// Ports of workloads that services with the same selector declare with different protocols: one of
/// them wins.
fn inbound_conflicts(snapshot: &Snapshot) -> usize {
    let mut declared: HashMap<_, BTreeSet<&'static str>> = HashMap::new();
    for service in snapshot.services.values().flat_map(|list| list.iter()) {
        let Some(selector) = service.selector.as_ref().filter(|s| !s.0.is_empty()) else {
            continue;
        };
        for port in service.ports.iter() {
            let target = match &port.target {
                TargetPort::Number(number) => number.to_string(),
                TargetPort::Named(name) => name.to_string(),
            };
            declared
                .entry((service.namespace(), &selector.0, target))
                .or_default()
                .insert(port.port.protocol.as_str());
        }
    }
    declared.values().filter(|kinds| kinds.len() > 1).count()
}

/// TCP ports of services without an address of their own, beyond the first of each number: they
/// would all listen on `0.0.0.0`.
fn outbound_tcp_conflicts(snapshot: &Snapshot) -> usize {
    let mut claimed: BTreeMap<u16, usize> = BTreeMap::new();
    for service in snapshot.services.values().flat_map(|list| list.iter()) {
        if service.vips().next().is_some() || service.resolution == Resolution::Passthrough {
            continue;
        }
        for port in service.ports.iter() {
            let protocol = port.port.protocol;
            if protocol.is_tcp() && protocol != Protocol::Udp {
                *claimed.entry(port.port.number).or_default() += 1;
            }
        }
    }
    claimed.values().map(|claims| claims - 1).sum()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// istiod's names of what its service registry watches; `None`: configuration.
fn registry_type(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Service => Some("Services"),
        Kind::Pod => Some("Pods"),
        Kind::Node => Some("Nodes"),
        Kind::EndpointSlice => Some("EndpointSlice"),
        Kind::Namespace => Some("Namespaces"),
        _ => None,
    }
}

fn reason(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "service",
        Kind::Pod | Kind::EndpointSlice => "endpoint",
        Kind::Secret => "secret",
        Kind::Node | Kind::Namespace | Kind::ConfigMap => "global",
        _ => "config",
    }
}
