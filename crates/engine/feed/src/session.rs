//! The feed's loop: one place that everything which can wake it passes.
//!
//! Connecting and waiting to connect are events like any other, so that warm-ups, DNS answers and
//! deadlines go on while the control plane is away.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use proxy::Live;
use stdx::Drain;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use wire_envoy::{pb::core::Node, type_url};
use xds_protocol::{
    Client, ClientInput, ClientOutput, Delivery, Flavour, Interest, Rejection, Request, Response,
};

use crate::{
    FeedError,
    backoff::Backoff,
    bootstrap::Static,
    certificates::CertificateKeeper,
    decode::{Decoded, decode, kind_of},
    dial::Dialer,
    file_secrets::{self, FileSecret, FileSecrets},
    resolve::{Answer, Resolutions, Resolver},
    settings::Settings,
    status::{ResourceState, Status},
    stream::AdsStream,
    warm::{Change, Kind, Wanted, Warming},
};

#[cfg(test)]
pub(crate) mod tests;

/// DNS answers that may wait to be applied.
const WAITING_ANSWERS: usize = 64;
/// A stream that lasted this long was a good one: the next attempt comes at once.
const GOOD_STREAM: Duration = Duration::from_secs(30);

/// See the module. Made, then run.
pub struct Feed {
    settings: Settings,
    live: Arc<Live>,
    status: Arc<Status>,
    client: Client,
    warming: Warming,
    resolver: Arc<Resolver>,
    resolutions: Resolutions,
    answers: mpsc::Receiver<Answer>,
    file_secrets: FileSecrets,
    files: mpsc::Receiver<file_secrets::Answer>,
    backoff: Backoff,
    received: Received,
    /// What was last asked for.
    asked: Wanted,
    /// Requests made while the stream is being opened.
    queued: Vec<Request>,
}

/// Which of the first responses have come.
#[derive(Debug, Default)]
struct Received {
    clusters: bool,
    listeners: bool,
}

/// Where the connection to the control plane is.
enum Link {
    /// There is no control plane.
    None,
    Waiting(Instant),
    Dialing(BoxFuture<'static, Result<AdsStream, FeedError>>),
    Open {
        stream: Box<AdsStream>,
        since: Instant,
    },
}

/// All that can wake the feed.
enum Event {
    Retry,
    Opened(Result<AdsStream, FeedError>),
    Response(Result<Response, tonic::Status>),
    Ended,
    Resolved(Answer),
    File(file_secrets::Answer),
    Deadline,
    Drain,
}

impl Feed {
    /// `live` is what the workers serve from; its identity handle is the workload's identity.
    pub fn new(settings: Settings, fixed: Static, live: Arc<Live>) -> Self {
        let limits = &settings.limits;
        let resolver = Arc::new(Resolver::from_system(limits.lookups));
        let (sender, answers) = mpsc::channel(WAITING_ANSWERS);
        let (read, files) = mpsc::channel(WAITING_ANSWERS);
        let flavour = settings
            .discovery
            .as_ref()
            .map_or(Flavour::Delta, |d| d.flavour);
        let mut warming = Warming::new(
            limits.warm_timeout,
            limits.retire_grace,
            settings.certificates.is_some(),
        );
        let now = live.clock.now();
        for change in fixed.changes {
            warming.set(change, now);
        }
        Self {
            client: Client::new(flavour, settings.node.clone()),
            warming,
            resolutions: Resolutions::new(resolver.clone(), sender),
            resolver,
            answers,
            file_secrets: FileSecrets::new(read),
            files,
            backoff: Backoff::new(limits.retry_first, limits.retry_limit),
            received: Received::default(),
            asked: Wanted::default(),
            queued: Vec::new(),
            status: Arc::new(Status::default()),
            settings,
            live,
        }
    }

    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    pub fn node(&self) -> &Node {
        &self.settings.node
    }

    /// Runs until the drain starts. Owns every task that it starts.
    pub async fn run(mut self, drain: Drain) {
        let mut tasks = JoinSet::new();
        match &self.settings.certificates {
            None => self.status.identity_is_not_needed(),
            Some(certificates) => {
                let keeper = CertificateKeeper {
                    settings: certificates.clone(),
                    limits: self.settings.limits.clone(),
                    dialer: self.dialer(),
                    identity: self.live.tls.identity.clone(),
                    status: self.status.clone(),
                    clock: self.live.clock.clone(),
                    rng: self.live.rng.clone(),
                };
                tasks.spawn(keeper.run());
            }
        }
        let mut link = self.start();
        let mut drain = Box::pin(drain);
        loop {
            let event = tokio::select! {
                () = &mut drain => Event::Drain,
                event = next(&mut link) => event,
                Some(answer) = self.answers.recv() => Event::Resolved(answer),
                Some(answer) = self.files.recv() => Event::File(answer),
                () = until(self.warming.deadline()) => Event::Deadline,
            };
            link = match event {
                Event::Drain => return,
                Event::Retry => self.dial(),
                Event::Opened(Ok(stream)) => {
                    self.status.connected(self.live.clock.now());
                    tracing::info!("connected to the control plane");
                    let queued = std::mem::take(&mut self.queued);
                    self.send(
                        Link::Open {
                            stream: Box::new(stream),
                            since: Instant::now(),
                        },
                        queued,
                    )
                    .await
                }
                Event::Opened(Err(error)) => self.lost(&error.to_string()),
                Event::Response(Ok(response)) => self.receive(response, link).await,
                Event::Response(Err(status)) => {
                    self.ended(link, &format!("{}: {}", status.code(), status.message()))
                }
                Event::Ended => self.ended(link, "the control plane ended the stream"),
                Event::Resolved(answer) => {
                    self.resolved(answer);
                    self.settle(link).await
                }
                Event::File(answer) => {
                    self.file_read(answer);
                    self.settle(link).await
                }
                Event::Deadline => self.settle(link).await,
            };
        }
    }

    fn start(&mut self) -> Link {
        self.publish();
        self.resolutions.follow(&self.warming.wanted().resolved);
        if self.settings.discovery.is_none() {
            self.status.configuration_is_live();
            return Link::None;
        }
        for type_url in [type_url::CLUSTER, type_url::LISTENER] {
            self.client.handle(ClientInput::Want {
                type_url: type_url.into(),
                interest: Interest::all(),
            });
        }
        self.want_named();
        self.dial()
    }

    fn dialer(&self) -> Dialer {
        Dialer {
            identity: self.live.tls.identity.clone(),
            resolver: self.resolver.clone(),
            clock: self.live.clock.clone(),
            connect_timeout: self.settings.limits.connect_timeout,
        }
    }

    fn dial(&mut self) -> Link {
        let Some(discovery) = self.settings.discovery.clone() else {
            return Link::None;
        };
        self.status.connecting();
        self.queued.clear();
        let outputs = self.client.handle(ClientInput::Connected);
        let first: Vec<Request> = outputs.into_iter().filter_map(to_send).collect();
        let (dialer, limits) = (self.dialer(), self.settings.limits.clone());
        Link::Dialing(
            async move { AdsStream::open(&dialer, &discovery, &limits, first).await }.boxed(),
        )
    }

    fn ended(&mut self, link: Link, why: &str) -> Link {
        if let Link::Open { since, .. } = link
            && since.elapsed() >= GOOD_STREAM
        {
            self.backoff.reset();
        }
        self.lost(why)
    }

    /// What is held stays; after a while we try again.
    fn lost(&mut self, why: &str) -> Link {
        self.client.handle(ClientInput::Disconnected);
        self.status.disconnected(why);
        let wait = self.backoff.next(&*self.live.rng);
        tracing::warn!(why, retry_in = ?wait, "no connection to the control plane; the last configuration stays");
        Link::Waiting(Instant::now() + wait)
    }

    async fn receive(&mut self, response: Response, link: Link) -> Link {
        let control_plane = match &response {
            Response::StateOfTheWorld(response) => &response.control_plane,
            Response::Delta(response) => &response.control_plane,
        };
        if let Some(control_plane) = control_plane {
            self.status.identified(&control_plane.identifier);
        }
        let mut requests = Vec::new();
        for output in self.client.handle(ClientInput::Response(response)) {
            match output {
                ClientOutput::Send(request) => requests.push(request),
                ClientOutput::Deliver(delivery) => requests.extend(self.deliver(delivery)),
                ClientOutput::Ignored { type_url, why } => {
                    tracing::warn!(type_url, why, "a response was ignored")
                }
            }
        }
        self.backoff.reset();
        let link = self.send(link, requests).await;
        self.settle(link).await
    }

    /// Applies what came and says which of it cannot be used.
    fn deliver(&mut self, delivery: Delivery) -> Vec<Request> {
        let now = self.live.clock.now();
        let Delivery {
            type_url,
            nonce,
            version,
            set,
            removed,
        } = delivery;
        let (received, mut rejected) = (set.len(), Vec::new());
        let wall = self.live.clock.wall();
        // Lives for one delivery: what it may have to load is large.
        let mut decoder = xds_decode::Decoder::new(self.settings.environment.clone());
        for resource in set {
            rejected.extend(self.take(&type_url, &mut decoder, resource).err());
        }
        if let Some(kind) = kind_of(&type_url) {
            removed
                .iter()
                .for_each(|name| self.warming.remove(kind, name, now));
        }
        tracing::debug!(
            type_url,
            version,
            received,
            removed = removed.len(),
            rejected = rejected.len(),
            "update"
        );
        self.status.with_type(&type_url, |t| {
            t.delivered(version, wall, &removed, &rejected)
        });
        self.received.clusters |= type_url == type_url::CLUSTER;
        self.received.listeners |= type_url == type_url::LISTENER;
        self.client
            .handle(ClientInput::Judged {
                type_url,
                nonce,
                rejected,
            })
            .into_iter()
            .filter_map(to_send)
            .collect()
    }

    /// Applies one resource as far as it can be obeyed. What of it cannot refuses traffic; no
    /// older, laxer version stays in use.
    fn take(
        &mut self,
        type_url: &str,
        decoder: &mut xds_decode::Decoder,
        resource: xds_protocol::Received,
    ) -> Result<(), Rejection> {
        let xds_protocol::Received {
            name,
            version,
            body,
        } = resource;
        let Some(body) = body else { return Ok(()) };
        let (now, wall) = (self.live.clock.now(), self.live.clock.wall());
        let Decoded { change, refused } = decode(decoder, &body);
        if let Some(why) = &refused {
            let cost = if change.is_some() { "in part" } else { "whole" };
            tracing::warn!(type_url, name, cost, why, "a resource was refused");
        }
        match (change, kind_of(type_url)) {
            (Some(change), _) => {
                self.warming.set(change, now);
                let state = ResourceState {
                    version,
                    updated: wall,
                    body,
                };
                self.status.with_type(type_url, |t| {
                    t.resources.insert(name.clone(), state);
                });
            }
            (None, Some(kind)) => {
                self.warming.refuse(kind, &name, now);
                if kind != Kind::Endpoints {
                    self.status.with_type(type_url, |t| {
                        t.resources.remove(&name);
                    });
                }
            }
            (None, None) => {}
        }
        self.status
            .with_type(type_url, |t| t.judged(&name, refused.as_deref(), wall));
        match refused {
            None => Ok(()),
            Some(why) => Err(Rejection { name, why }),
        }
    }

    fn resolved(&mut self, answer: Answer) {
        let now = self.live.clock.now();
        match answer.endpoints {
            Some(endpoints) => self.warming.set(Change::Endpoints(endpoints), now),
            None => self
                .warming
                .remove(Kind::Endpoints, answer.cluster.as_str(), now),
        }
    }

    /// A secret out of files. What was good and can no longer be read stays.
    fn file_read(&mut self, answer: file_secrets::Answer) {
        let (now, wall) = (self.live.clock.now(), self.live.clock.wall());
        let file_secrets::Answer { name, secret } = answer;
        let refused = secret
            .as_ref()
            .err()
            .map(|why| format!("secret {name}: {why}"));
        match secret {
            Ok(secret) => self.warming.set(Change::Secret(secret), now),
            Err(_) if self.warming.has_secret(&name) => {
                tracing::warn!(
                    name,
                    ?refused,
                    "a file cannot be read; its last value stays"
                );
            }
            Err(_) => {
                tracing::warn!(
                    name,
                    ?refused,
                    "a file cannot be read; what needs it is refused"
                );
                self.warming.remove(Kind::Secret, &name, now);
            }
        }
        self.status.with_type(type_url::SECRET, |t| {
            t.judged(&name, refused.as_deref(), wall);
        });
    }

    /// Publishes what has become usable and asks for what is now referred to.
    async fn settle(&mut self, link: Link) -> Link {
        self.publish();
        self.resolutions.follow(&self.warming.wanted().resolved);
        let requests = self.want_named();
        // As with Istio's agent: a proxy whose first clusters or listeners are refused is not
        // ready; what is refused later is told on the admin pages and leaves readiness alone.
        let refused = || {
            self.status
                .has_refusals(&[type_url::CLUSTER, type_url::LISTENER])
        };
        let received = self.received.clusters && self.received.listeners;
        if received && self.warming.waiting() == 0 && !refused() {
            self.status.configuration_is_live();
        }
        self.send(link, requests).await
    }

    fn publish(&mut self) {
        let update = self.warming.settle(self.live.clock.now());
        for missing in self.warming.given_up() {
            tracing::warn!(missing, "has not come in time; what needs it is refused");
        }
        if update.is_empty() {
            return;
        }
        let waits = self.warming.waiting() > 0;
        for problem in self.live.publish(update) {
            // A secret that is still on its way is no problem yet.
            if waits {
                tracing::debug!(%problem, "configuration that is waited for");
            } else {
                tracing::warn!(%problem, "configuration that refuses traffic");
            }
        }
    }

    fn want_named(&mut self) -> Vec<Request> {
        let wanted = self.warming.wanted();
        if self.asked == *wanted {
            return Vec::new();
        }
        self.asked = wanted.clone();
        self.file_secrets.follow(&wanted.secrets);
        let (_, sent): (BTreeSet<String>, BTreeSet<String>) = wanted
            .secrets
            .iter()
            .cloned()
            .partition(|name| FileSecret::parse(name).is_some());
        let kept = wanted.secrets.clone();
        let named = [
            (type_url::ENDPOINT, wanted.endpoints.clone()),
            (type_url::ROUTE, wanted.routes.clone()),
            (type_url::SECRET, sent),
        ];
        let mut requests = Vec::new();
        for (type_url, names) in named {
            self.status.with_type(type_url, |t| {
                t.resources.retain(|name, _| names.contains(name));
                t.refusals
                    .retain(|name, _| names.contains(name) || kept.contains(name));
            });
            let input = ClientInput::Want {
                type_url: type_url.into(),
                interest: Interest {
                    wildcard: false,
                    names,
                },
            };
            requests.extend(self.client.handle(input).into_iter().filter_map(to_send));
        }
        requests
    }

    /// Requests made while a stream is being opened wait for it.
    async fn send(&mut self, link: Link, requests: Vec<Request>) -> Link {
        let Link::Open { mut stream, since } = link else {
            self.queued.extend(requests);
            return link;
        };
        for request in requests {
            if let Err(status) = stream.send(request).await {
                return self.ended(Link::Open { stream, since }, status.message());
            }
        }
        Link::Open { stream, since }
    }
}

async fn next(link: &mut Link) -> Event {
    match link {
        Link::None => std::future::pending().await,
        Link::Waiting(until) => {
            sleep_until(*until).await;
            Event::Retry
        }
        Link::Dialing(dialing) => Event::Opened(dialing.await),
        Link::Open { stream, .. } => match stream.responses.next().await {
            Some(response) => Event::Response(response),
            None => Event::Ended,
        },
    }
}

async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn to_send(output: ClientOutput) -> Option<Request> {
    match output {
        ClientOutput::Send(request) => Some(request),
        ClientOutput::Deliver(_) | ClientOutput::Ignored { .. } => None,
    }
}
