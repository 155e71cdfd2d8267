//! A proxy's side of one ADS session, across reconnects.
//!
//! It remembers, per type, what is wanted and what is held; from that it makes the first requests
//! of a new stream (with the versions held, so that a delta server sends only what changed) and the
//! later changes. Each response becomes a [`Delivery`], which the caller applies and then answers
//! with [`ClientInput::Judged`]; only then the ACK or NACK goes out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wire_envoy::pb::{
    Any,
    core::Node,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    google::rpc::Status,
};

use crate::{
    Flavour, Request, Response,
    message::resource_name,
    order::{is_by_name, is_whole_set, push_rank},
};

#[cfg(test)]
mod tests;

/// gRPC's INVALID_ARGUMENT, in the error detail of a NACK.
const INVALID_ARGUMENT: i32 = 3;
/// A NACK's text is cut here.
const MAX_DETAIL_BYTES: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Client {
    flavour: Flavour,
    node: Node,
    stream: Stream,
    topics: BTreeMap<(usize, String), Topic>,
}

/// What of a type is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Everything that the server has for this node.
    pub wildcard: bool,
    pub names: BTreeSet<String>,
}

#[derive(Debug)]
pub enum ClientInput {
    /// A new stream is open.
    Connected,
    /// The stream is gone. What is held stays.
    Disconnected,
    /// From now on this is wanted of the type.
    Want {
        type_url: String,
        interest: Interest,
    },
    Response(Response),
    /// A delivery was applied, but for what is listed here.
    Judged {
        type_url: String,
        nonce: String,
        rejected: Vec<Rejection>,
    },
}

#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "few of these live at a time, and none is stored"
)]
pub enum ClientOutput {
    Send(Request),
    Deliver(Delivery),
    /// A response that was not asked for; nothing happens.
    Ignored {
        type_url: String,
        why: &'static str,
    },
}

/// What a response brings. To be answered with [`ClientInput::Judged`], with the same type and
/// nonce.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub type_url: String,
    pub nonce: String,
    /// The server's name for the whole version; may be empty.
    pub version: String,
    pub set: Vec<Received>,
    /// Known names that are gone, and wanted names that do not exist.
    pub removed: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub name: String,
    pub version: String,
    /// `None`: the server only confirms what is held.
    pub body: Option<Any>,
}

/// A resource that could not be used, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub name: String,
    pub why: String,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Stream {
    Closed,
    AwaitingFirstRequest,
    Open,
}

#[derive(Debug, Default)]
struct Topic {
    interest: Interest,
    /// What this stream's server was told; `None` before the first request.
    told: Option<Interest>,
    /// Names and versions of what was sent. What was rejected has no version, so that a new
    /// stream's server sends it again, and a later answer without it removes it.
    held: BTreeMap<String, String>,
    /// Last accepted version and last answered nonce, for the state of the world.
    version: String,
    nonce: String,
    unanswered: VecDeque<Unanswered>,
}

/// A delivery that the caller has not judged yet.
#[derive(Debug)]
struct Unanswered {
    nonce: String,
    version: String,
    set: Vec<(String, String)>,
    removed: Vec<String>,
}

impl Interest {
    pub fn all() -> Self {
        Self {
            wildcard: true,
            names: BTreeSet::new(),
        }
    }

    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self {
            wildcard: false,
            names: names.into_iter().map(Into::into).collect(),
        }
    }

    fn is_none(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}

impl Client {
    pub fn new(flavour: Flavour, node: Node) -> Self {
        Self {
            flavour,
            node,
            stream: Stream::Closed,
            topics: BTreeMap::new(),
        }
    }

    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Names and versions of what is held of a type.
    pub fn held(&self, type_url: &str) -> Option<&BTreeMap<String, String>> {
        self.topics.get(&key(type_url)).map(|topic| &topic.held)
    }

    pub fn handle(&mut self, input: ClientInput) -> Vec<ClientOutput> {
        match input {
            ClientInput::Connected => self.connected(),
            ClientInput::Disconnected => {
                self.stream = Stream::Closed;
                self.topics.values_mut().for_each(Topic::forget_stream);
                Vec::new()
            }
            ClientInput::Want { type_url, interest } => {
                self.topics
                    .entry(key(&type_url))
                    .or_default()
                    .want(interest);
                self.tell(&type_url)
                    .into_iter()
                    .map(ClientOutput::Send)
                    .collect()
            }
            ClientInput::Response(response) => vec![self.receive(response)],
            ClientInput::Judged {
                type_url,
                nonce,
                rejected,
            } => self
                .judged(&type_url, &nonce, &rejected)
                .into_iter()
                .map(ClientOutput::Send)
                .collect(),
        }
    }

    fn connected(&mut self) -> Vec<ClientOutput> {
        self.stream = Stream::AwaitingFirstRequest;
        self.topics.values_mut().for_each(Topic::forget_stream);
        let types: Vec<String> = self
            .topics
            .keys()
            .map(|(_, type_url)| type_url.clone())
            .collect();
        types
            .iter()
            .filter_map(|type_url| self.tell(type_url))
            .map(ClientOutput::Send)
            .collect()
    }

    /// The request that brings the server's idea of our interest up to date, when it is not.
    fn tell(&mut self, type_url: &str) -> Option<Request> {
        if self.stream == Stream::Closed {
            return None;
        }
        let topic = self.topics.get_mut(&key(type_url))?;
        let request = match self.flavour {
            Flavour::Delta => Request::Delta(topic.tell_delta(type_url)?),
            Flavour::StateOfTheWorld => Request::StateOfTheWorld(topic.tell_world(type_url)?),
        };
        Some(self.signed(request))
    }

    /// The node goes with the first request of a stream only.
    fn signed(&mut self, mut request: Request) -> Request {
        if self.stream == Stream::AwaitingFirstRequest {
            self.stream = Stream::Open;
            match &mut request {
                Request::StateOfTheWorld(request) => request.node = Some(self.node.clone()),
                Request::Delta(request) => request.node = Some(self.node.clone()),
            }
        }
        request
    }

    fn receive(&mut self, response: Response) -> ClientOutput {
        let type_url = response.type_url().to_owned();
        let ignored = |why| ClientOutput::Ignored {
            type_url: type_url.clone(),
            why,
        };
        let Some(topic) = self
            .topics
            .get_mut(&key(&type_url))
            .filter(|topic| topic.told.is_some())
        else {
            return ignored("nothing of this type was asked for");
        };
        let delivery = match (self.flavour, response) {
            (Flavour::Delta, Response::Delta(response)) => topic.delta(response),
            (Flavour::StateOfTheWorld, Response::StateOfTheWorld(response)) => {
                topic.world(response)
            }
            _ => return ignored("it is of the other flavour than the stream"),
        };
        topic.unanswered.push_back(Unanswered {
            nonce: delivery.nonce.clone(),
            version: delivery.version.clone(),
            set: delivery
                .set
                .iter()
                .map(|r| (r.name.clone(), r.version.clone()))
                .collect(),
            removed: delivery.removed.clone(),
        });
        ClientOutput::Deliver(delivery)
    }

    fn judged(&mut self, type_url: &str, nonce: &str, rejected: &[Rejection]) -> Option<Request> {
        let topic = self.topics.get_mut(&key(type_url))?;
        let at = topic.unanswered.iter().position(|u| u.nonce == nonce)?;
        let answered = topic.unanswered.remove(at)?;
        topic.settle(&answered, rejected);
        if self.stream == Stream::Closed {
            return None;
        }
        let error_detail = (!rejected.is_empty()).then(|| detail(rejected));
        let request = match self.flavour {
            Flavour::Delta => Request::Delta(DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                response_nonce: answered.nonce,
                error_detail,
                ..DeltaDiscoveryRequest::default()
            }),
            Flavour::StateOfTheWorld => {
                topic.told = Some(topic.interest.clone());
                Request::StateOfTheWorld(DiscoveryRequest {
                    error_detail,
                    ..topic.world_request(type_url)
                })
            }
        };
        Some(self.signed(request))
    }
}

impl Topic {
    fn forget_stream(&mut self) {
        self.told = None;
        self.nonce.clear();
        self.unanswered.clear();
    }

    fn want(&mut self, interest: Interest) {
        self.held.retain(|name, _| interest.covers(name));
        self.interest = interest;
    }

    fn tell_delta(&mut self, type_url: &str) -> Option<DeltaDiscoveryRequest> {
        let first = self.told.is_none();
        if first && self.interest.is_none() {
            return None;
        }
        let told = self.told.replace(self.interest.clone()).unwrap_or_default();
        let mut subscribe: Vec<String> = self
            .interest
            .names
            .difference(&told.names)
            .cloned()
            .collect();
        let mut unsubscribe: Vec<String> = told
            .names
            .difference(&self.interest.names)
            .cloned()
            .collect();
        // An empty first request means everything, so a wildcard is spelt out only beside names or
        // later.
        if self.interest.wildcard && !told.wildcard && !(first && subscribe.is_empty()) {
            subscribe.insert(0, "*".into());
        }
        if told.wildcard && !self.interest.wildcard {
            unsubscribe.insert(0, "*".into());
        }
        if !first && subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        let initial = if first {
            self.held.clone().into_iter().collect()
        } else {
            Default::default()
        };
        Some(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: initial,
            ..DeltaDiscoveryRequest::default()
        })
    }

    fn tell_world(&mut self, type_url: &str) -> Option<DiscoveryRequest> {
        if self.told.as_ref() == Some(&self.interest)
            || (self.told.is_none() && self.interest.is_none())
        {
            return None;
        }
        self.told = Some(self.interest.clone());
        Some(self.world_request(type_url))
    }

    fn world_request(&self, type_url: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: self.version.clone(),
            resource_names: self.interest.names.iter().cloned().collect(),
            type_url: type_url.to_owned(),
            response_nonce: self.nonce.clone(),
            ..DiscoveryRequest::default()
        }
    }

    fn delta(&self, response: DeltaDiscoveryResponse) -> Delivery {
        let set = response
            .resources
            .into_iter()
            .filter(|r| self.interest.covers(&r.name));
        let known = |name: &String| self.interest.covers(name) || self.held.contains_key(name);
        Delivery {
            type_url: response.type_url,
            nonce: response.nonce,
            version: response.system_version_info,
            set: set
                .map(|r| Received {
                    name: r.name,
                    version: r.version,
                    body: r.resource,
                })
                .collect(),
            removed: response
                .removed_resources
                .into_iter()
                .filter(known)
                .collect(),
        }
    }

    fn world(&self, response: DiscoveryResponse) -> Delivery {
        let DiscoveryResponse {
            version_info: version,
            resources,
            type_url,
            nonce,
            ..
        } = response;
        let set: Vec<Received> = resources
            .into_iter()
            .map(|any| {
                // A body without a readable name still has to be judged: decoding will refuse it.
                let name = resource_name(&type_url, &any).unwrap_or_default();
                Received {
                    name,
                    version: version.clone(),
                    body: Some(any),
                }
            })
            .filter(|received| !is_by_name(&type_url) || self.interest.covers(&received.name))
            .collect();
        let present: BTreeSet<&str> = set.iter().map(|r| r.name.as_str()).collect();
        let mut removed = Vec::new();
        if is_whole_set(&type_url) {
            removed.extend(
                self.held
                    .keys()
                    .filter(|name| !present.contains(name.as_str()))
                    .cloned(),
            );
        }
        Delivery {
            type_url,
            nonce,
            version,
            set,
            removed,
        }
    }

    fn settle(&mut self, answered: &Unanswered, rejected: &[Rejection]) {
        for (name, version) in &answered.set {
            if self.interest.covers(name) {
                let accepted = !rejected.iter().any(|r| r.name == *name);
                let version = if accepted { version.as_str() } else { "" };
                self.held.insert(name.clone(), version.to_owned());
            }
        }
        for name in &answered.removed {
            self.held.remove(name);
        }
        self.nonce.clone_from(&answered.nonce);
        if rejected.is_empty() {
            self.version.clone_from(&answered.version);
        }
    }
}

/// Topics are kept in push order, so that the requests of a new stream go out in it.
fn key(type_url: &str) -> (usize, String) {
    (push_rank(type_url), type_url.to_owned())
}

fn detail(rejected: &[Rejection]) -> Status {
    let mut message = String::new();
    for Rejection { name, why } in rejected {
        if message.len() > MAX_DETAIL_BYTES {
            message.push_str("; …");
            break;
        }
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(name);
        message.push_str(": ");
        message.push_str(why);
    }
    Status {
        code: INVALID_ARGUMENT,
        message,
        details: Vec::new(),
    }
}
