//! A control plane's side of one ADS stream.
//!
//! The caller says what the client should have ([`Server::offer`], for every type that a change
//! touches) and then takes responses ([`Server::next`]) until there are none; every event of the
//! stream may make more of them possible. One response per type is in flight at a time: a client
//! that is slow gets the newest state when it is ready, and nothing queues.
//!
//! Make before break: listeners and routes wait until the clusters before them are acknowledged and
//! their endpoints sent; clusters are removed only when no listener or route change is pending or
//! unacknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use wire_envoy::{
    pb::{
        core::Node,
        discovery::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            Resource as WireResource,
        },
    },
    type_url,
};

use crate::{
    Flavour, ProtocolError, Request, Resource, Response,
    order::{is_by_name, push_rank, refers_to_clusters},
};

#[cfg(test)]
mod tests;

/// Resource types that one stream may ask for.
const MAX_TYPES: usize = 64;
/// Resource names that one stream may ask for, by type.
const MAX_NAMES: usize = 100_000;

/// See the module.
#[derive(Debug)]
pub struct Server {
    flavour: Flavour,
    node: Option<Node>,
    watches: BTreeMap<(usize, String), Watch>,
    nonces: u64,
}

/// What a client's request meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerEvent {
    pub type_url: String,
    /// The wanted names changed (or this is the type's first request): offer the type again.
    pub subscription_changed: bool,
    pub acknowledged: Acknowledged,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledged {
    /// Not an answer to a response.
    None,
    Accepted,
    /// The client keeps its last good version.
    Rejected {
        detail: String,
    },
    /// An answer to a response that is no longer the last one. It changed nothing.
    Stale,
}

/// How a client stands with one type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeStatus {
    pub sent_version: String,
    pub sent_nonce: String,
    pub acknowledged_version: String,
    pub acknowledged_nonce: String,
    pub rejected: u64,
    /// Of the last response, when it was rejected.
    pub last_rejection: Option<String>,
    pub resources: usize,
}

#[derive(Debug, Default)]
struct Watch {
    wildcard: bool,
    names: BTreeSet<String>,
    /// What the client should have; `None` until the first offer.
    desired: Option<Desired>,
    /// What it was sent. A body is empty for what it brought from an earlier stream.
    sent: BTreeMap<Arc<str>, Resource>,
    /// Wanted names that it was told do not exist.
    told_absent: BTreeSet<String>,
    /// There may be something to send.
    dirty: bool,
    /// What that is; worked out when it is first asked for, and forgotten with every change of what
    /// is wanted, desired or sent.
    pending: Option<Difference>,
    /// State of the world: the next response is due even if nothing differs.
    answer_due: bool,
    awaiting: Option<InFlight>,
    status: TypeStatus,
}

/// In the order of names.
#[derive(Debug)]
struct Desired {
    version: Arc<str>,
    resources: Arc<[Resource]>,
}

#[derive(Debug)]
struct InFlight {
    nonce: String,
    version: String,
}

/// What a type's next response would hold.
#[derive(Debug, Clone, Default)]
struct Difference {
    set: Vec<Resource>,
    removed: Vec<Arc<str>>,
}

/// What looking once at every type gave.
#[derive(Debug)]
enum Pass {
    Send(Response),
    Settled,
    Idle,
}

impl Server {
    pub fn new(flavour: Flavour) -> Self {
        Self {
            flavour,
            node: None,
            watches: BTreeMap::new(),
            nonces: 0,
        }
    }

    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The node of the first request that named one.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The types that the client has asked for, in push order.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.watches.keys().map(|(_, type_url)| type_url.as_str())
    }

    /// What of a type is wanted: whether everything, and the names.
    pub fn wanted(&self, type_url: &str) -> Option<(bool, &BTreeSet<String>)> {
        self.watches
            .get(&key(type_url))
            .map(|w| (w.wildcard, &w.names))
    }

    pub fn status(&self, type_url: &str) -> Option<TypeStatus> {
        self.watches.get(&key(type_url)).map(|w| TypeStatus {
            resources: w.sent.len(),
            ..w.status.clone()
        })
    }

    /// Whether every response was answered and nothing waits to be sent.
    pub fn is_settled(&mut self) -> bool {
        let flavour = self.flavour;
        self.watches
            .values_mut()
            .all(|w| w.awaiting.is_none() && !w.has_work(flavour))
    }

    pub fn receive(&mut self, request: Request) -> Result<ServerEvent, ProtocolError> {
        if request.type_url().is_empty() {
            return Err(ProtocolError::NoType);
        }
        let key = key(request.type_url());
        if !self.watches.contains_key(&key) && self.watches.len() >= MAX_TYPES {
            return Err(ProtocolError::TooManyTypes { limit: MAX_TYPES });
        }
        let first = !self.watches.contains_key(&key);
        let watch = self.watches.entry(key).or_default();
        match (self.flavour, request) {
            (Flavour::Delta, Request::Delta(mut request)) => {
                self.node = self.node.take().or(request.node.take());
                watch.delta_request(request, first)
            }
            (Flavour::StateOfTheWorld, Request::StateOfTheWorld(mut request)) => {
                self.node = self.node.take().or(request.node.take());
                watch.world_request(request, first)
            }
            _ => Err(ProtocolError::Flavour),
        }
    }

    /// What the client should have of a type: everything for a wildcard, else those of the wanted
    /// names that exist (others are left out). `version` names the whole. Offer every type that one
    /// change touches before taking responses. A type that the client has not asked for is ignored.
    pub fn offer(&mut self, type_url: &str, version: &Arc<str>, resources: Arc<[Resource]>) {
        if let Some(watch) = self.watches.get_mut(&key(type_url)) {
            watch.desired = Some(Desired {
                version: version.clone(),
                resources: in_order(resources),
            });
            watch.changed();
        }
    }

    /// The next response to send, if one may be sent now.
    pub fn next_response(&mut self) -> Option<Response> {
        loop {
            match self.pass() {
                Pass::Send(response) => return Some(response),
                // A type that turned out to need nothing may have been what another waited for.
                Pass::Settled => {}
                Pass::Idle => return None,
            }
        }
    }

    fn pass(&mut self) -> Pass {
        let flavour = self.flavour;
        let clusters_arrived = self.clusters_arrived();
        let traffic_settled = self.traffic_settled();
        let mut settled = false;
        for ((_, type_url), watch) in &mut self.watches {
            if watch.awaiting.is_some() || (refers_to_clusters(type_url) && !clusters_arrived) {
                continue;
            }
            let keep_removed = type_url == type_url::CLUSTER && !traffic_settled;
            let was_dirty = watch.dirty;
            if let Some((response, set)) =
                watch.next(flavour, type_url, keep_removed, &mut self.nonces)
            {
                if type_url == type_url::CLUSTER {
                    self.send_endpoints_again(&set);
                }
                return Pass::Send(response);
            }
            settled |= was_dirty && !watch.dirty;
        }
        if settled { Pass::Settled } else { Pass::Idle }
    }

    /// Envoy warms a changed cluster until its endpoints come, and does not ask for what it already
    /// subscribes to. It acknowledges the clusters only then. An endpoint resource has its
    /// cluster's name, as Istio's.
    fn send_endpoints_again(&mut self, clusters: &[Resource]) {
        let Some(endpoints) = self.watches.get_mut(&key(type_url::ENDPOINT)) else {
            return;
        };
        for cluster in clusters {
            if endpoints.names.contains(&*cluster.name)
                && endpoints.sent.remove(&cluster.name).is_some()
            {
                endpoints.changed();
            }
        }
    }

    /// Clusters are acknowledged and nothing new of clusters and endpoints waits to be sent.
    fn clusters_arrived(&mut self) -> bool {
        let flavour = self.flavour;
        let clusters = self.watches.get_mut(&key(type_url::CLUSTER));
        let arrived = clusters.is_none_or(|w| w.awaiting.is_none() && !w.has_additions(flavour));
        let endpoints = self.watches.get_mut(&key(type_url::ENDPOINT));
        arrived && endpoints.is_none_or(|w| w.awaiting.is_some() || !w.has_additions(flavour))
    }

    /// No change of listeners or routes is waiting or unacknowledged, so that what they stopped
    /// using may go.
    fn traffic_settled(&mut self) -> bool {
        let flavour = self.flavour;
        self.watches
            .iter_mut()
            .filter(|((_, type_url), _)| refers_to_clusters(type_url))
            .all(|(_, w)| w.awaiting.is_none() && !w.has_work(flavour))
    }
}

impl Watch {
    fn delta_request(
        &mut self,
        request: DeltaDiscoveryRequest,
        first: bool,
    ) -> Result<ServerEvent, ProtocolError> {
        let DeltaDiscoveryRequest {
            type_url,
            resource_names_subscribe,
            resource_names_unsubscribe,
            initial_resource_versions,
            response_nonce,
            error_detail,
            ..
        } = request;
        let acknowledged = self.acknowledge(&response_nonce, error_detail.map(|d| d.message));
        let mut changed = first;
        if first {
            self.wildcard = resource_names_subscribe.is_empty() && !is_by_name(&type_url);
            for (name, version) in initial_resource_versions.into_iter().take(MAX_NAMES) {
                let name: Arc<str> = name.into();
                self.sent.insert(
                    name.clone(),
                    Resource {
                        name,
                        version: version.into(),
                        body: Bytes::new(),
                    },
                );
            }
        }
        changed |= self.subscribe(resource_names_subscribe, first);
        changed |= self.unsubscribe(resource_names_unsubscribe);
        if self.names.len() > MAX_NAMES {
            return Err(ProtocolError::TooManyNames {
                type_url,
                limit: MAX_NAMES,
            });
        }
        if changed {
            self.changed();
        }
        self.answer_due |= first;
        Ok(ServerEvent {
            type_url,
            subscription_changed: changed,
            acknowledged,
        })
    }

    /// Whether anything was asked for.
    fn subscribe(&mut self, names: Vec<String>, first: bool) -> bool {
        let any = !names.is_empty();
        for name in names {
            if name == "*" {
                self.wildcard = true;
                continue;
            }
            // What is subscribed again is sent again; on the first request the client has just said
            // what it holds.
            if !first {
                self.sent.remove(name.as_str());
            }
            self.told_absent.remove(&name);
            self.names.insert(name);
        }
        any
    }

    /// Whether anything was given up.
    fn unsubscribe(&mut self, names: Vec<String>) -> bool {
        let any = !names.is_empty();
        for name in names {
            if name == "*" {
                self.wildcard = false;
                let kept = &self.names;
                self.sent.retain(|name, _| kept.contains(&**name));
                continue;
            }
            self.names.remove(&name);
            self.told_absent.remove(&name);
            if !self.wildcard {
                self.sent.remove(name.as_str());
            }
        }
        any
    }

    fn world_request(
        &mut self,
        request: DiscoveryRequest,
        first: bool,
    ) -> Result<ServerEvent, ProtocolError> {
        let DiscoveryRequest {
            resource_names,
            type_url,
            response_nonce,
            error_detail,
            ..
        } = request;
        if resource_names.len() > MAX_NAMES {
            return Err(ProtocolError::TooManyNames {
                type_url,
                limit: MAX_NAMES,
            });
        }
        // A request without a nonce on a known type starts the type anew.
        let fresh = first || response_nonce.is_empty();
        if !fresh && response_nonce != self.status.sent_nonce {
            return Ok(ServerEvent {
                type_url,
                subscription_changed: false,
                acknowledged: Acknowledged::Stale,
            });
        }
        let acknowledged = self.acknowledge(&response_nonce, error_detail.map(|d| d.message));
        let names: BTreeSet<String> = resource_names.into_iter().filter(|n| n != "*").collect();
        let added = names.difference(&self.names).next().is_some();
        let changed = fresh || names != self.names;
        if fresh {
            self.wildcard = names.is_empty() && !is_by_name(&type_url);
            self.sent.clear();
            self.awaiting = None;
        }
        self.names = names;
        if changed {
            self.changed();
        }
        self.answer_due |= fresh || added;
        Ok(ServerEvent {
            type_url,
            subscription_changed: changed,
            acknowledged,
        })
    }

    fn acknowledge(&mut self, nonce: &str, error: Option<String>) -> Acknowledged {
        if nonce.is_empty() {
            return Acknowledged::None;
        }
        let Some(answered) = self.awaiting.take_if(|f| f.nonce == nonce) else {
            return if nonce == self.status.sent_nonce {
                Acknowledged::None
            } else {
                Acknowledged::Stale
            };
        };
        match error {
            None => {
                self.status.acknowledged_version = answered.version;
                self.status.acknowledged_nonce = answered.nonce;
                self.status.last_rejection = None;
                Acknowledged::Accepted
            }
            Some(detail) => {
                self.status.rejected += 1;
                self.status.last_rejection = Some(detail.clone());
                Acknowledged::Rejected { detail }
            }
        }
    }

    /// What is wanted, desired or sent is another than before.
    fn changed(&mut self) {
        self.dirty = true;
        self.pending = None;
    }

    fn has_work(&mut self, flavour: Flavour) -> bool {
        if !self.dirty {
            return false;
        }
        let is_due = self.is_due(flavour);
        let difference = self.difference();
        is_due || !difference.set.is_empty() || !difference.removed.is_empty()
    }

    fn has_additions(&mut self, flavour: Flavour) -> bool {
        self.dirty && (self.is_due(flavour) || !self.difference().set.is_empty())
    }

    /// A response must come even when it says nothing new.
    fn is_due(&self, flavour: Flavour) -> bool {
        let asked =
            self.wildcard || (flavour == Flavour::StateOfTheWorld && !self.names.is_empty());
        self.answer_due && self.desired.is_some() && asked
    }

    fn difference(&mut self) -> &Difference {
        let known = self.pending.take();
        let difference = known.unwrap_or_else(|| self.compared());
        self.pending.insert(difference)
    }

    /// Goes once through what is desired, sent and wanted, all in the order of names.
    fn compared(&self) -> Difference {
        let Some(desired) = &self.desired else {
            return Difference::default();
        };
        let mut difference = Difference::default();
        let mut sent = self.sent.iter().peekable();
        let mut names = self.names.iter().peekable();
        let mut absent: Vec<&String> = Vec::new();
        for resource in desired.resources.iter() {
            let name = &*resource.name;
            while let Some(missing) = names.next_if(|n| n.as_str() < name) {
                absent.push(missing);
            }
            let is_named = names.next_if(|n| n.as_str() == name).is_some();
            if !is_named && !self.wildcard {
                continue;
            }
            while let Some((gone, _)) = sent.next_if(|(n, _)| &***n < name) {
                difference.removed.push(gone.clone());
            }
            let held = sent.next_if(|(n, _)| &***n == name);
            if held.is_none_or(|(_, held)| held.version != resource.version) {
                difference.set.push(resource.clone());
            }
        }
        absent.extend(names);
        difference
            .removed
            .extend(sent.map(|(gone, _)| gone.clone()));
        let untold = absent.into_iter().filter(|name| {
            !self.told_absent.contains(*name) && !self.sent.contains_key(name.as_str())
        });
        difference
            .removed
            .extend(untold.map(|name| Arc::from(name.as_str())));
        difference
    }

    /// The next response, and what of it is new to the client.
    fn next(
        &mut self,
        flavour: Flavour,
        type_url: &str,
        keep_removed: bool,
        nonces: &mut u64,
    ) -> Option<(Response, Vec<Resource>)> {
        if !self.dirty || self.desired.is_none() {
            return None;
        }
        let mut difference = self.difference().clone();
        let postponed = keep_removed && !difference.removed.is_empty();
        if postponed {
            difference.removed.clear();
        }
        let due = self.is_due(flavour);
        if difference.set.is_empty() && difference.removed.is_empty() && !due {
            self.dirty = postponed;
            return None;
        }
        let world_is_unchanged = |d: &Difference| {
            d.set.is_empty() && d.removed.iter().all(|n| !self.sent.contains_key(n))
        };
        if flavour == Flavour::StateOfTheWorld && !due && world_is_unchanged(&difference) {
            // Names that do not exist cannot be told in this flavour.
            self.told_absent
                .extend(difference.removed.iter().map(|n| n.to_string()));
            self.pending = None;
            self.dirty = postponed;
            return None;
        }
        self.apply(&difference);
        self.answer_due = false;
        self.dirty = postponed;
        *nonces += 1;
        let response = self.response(flavour, type_url, &difference, nonces.to_string());
        Some((response, difference.set))
    }

    fn apply(&mut self, difference: &Difference) {
        self.pending = None;
        for resource in &difference.set {
            self.told_absent.remove(&*resource.name);
            self.sent.insert(resource.name.clone(), resource.clone());
        }
        for name in &difference.removed {
            self.sent.remove(name);
            if self.names.contains(&**name) {
                self.told_absent.insert(name.to_string());
            }
        }
    }

    fn response(
        &mut self,
        flavour: Flavour,
        type_url: &str,
        difference: &Difference,
        nonce: String,
    ) -> Response {
        let version = self
            .desired
            .as_ref()
            .map(|d| d.version.to_string())
            .unwrap_or_default();
        self.status.sent_version.clone_from(&version);
        self.status.sent_nonce.clone_from(&nonce);
        self.awaiting = Some(InFlight {
            nonce: nonce.clone(),
            version: version.clone(),
        });
        match flavour {
            Flavour::Delta => Response::Delta(DeltaDiscoveryResponse {
                system_version_info: version,
                resources: difference.set.iter().map(|r| wire(r, type_url)).collect(),
                type_url: type_url.to_owned(),
                removed_resources: difference.removed.iter().map(|n| n.to_string()).collect(),
                nonce,
                ..DeltaDiscoveryResponse::default()
            }),
            Flavour::StateOfTheWorld => Response::StateOfTheWorld(DiscoveryResponse {
                version_info: version,
                resources: self.sent.values().map(|r| r.to_any(type_url)).collect(),
                type_url: type_url.to_owned(),
                nonce,
                ..DiscoveryResponse::default()
            }),
        }
    }
}

/// Sets are made in this order; others are put into it.
fn in_order(resources: Arc<[Resource]>) -> Arc<[Resource]> {
    if resources.is_sorted_by(|a, b| a.name <= b.name) {
        return resources;
    }
    let mut sorted = resources.to_vec();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted.into()
}

fn key(type_url: &str) -> (usize, String) {
    (push_rank(type_url), type_url.to_owned())
}

fn wire(resource: &Resource, type_url: &str) -> WireResource {
    WireResource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(resource.to_any(type_url)),
        ..WireResource::default()
    }
}
