//! What one proxy is sent: its view of the newest snapshot, put through the protocol's state
//! machine. Without IO.
//!
//! A new snapshot costs what it changes: parts that are the same `Arc` as in the snapshot before
//! are not looked at, and while nothing but endpoints changed, only those of the clusters concerned
//! are made again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_model::{Selector, Service, Snapshot, object::Text};
use tokio::time::Instant;
use wire_envoy::type_url as urls;
use xds_encode::{Client, OutboundName, View};
use xds_protocol::{self as xds, Resource};

use crate::{
    change::{Change, Moved},
    generate::{Generator, version_of},
};

/// One stream's state.
pub struct Session {
    generator: Arc<Generator>,
    protocol: xds::Server,
    client: Arc<Client>,
    snapshot: Arc<Snapshot>,
    view: View,
    /// As they were offered last.
    endpoints: Arc<[Resource]>,
    /// What generating the pending resources of a type took.
    generated: BTreeMap<String, Duration>,
    /// Private keys of its namespace's Secrets are for callers that may read those.
    reads_secrets: bool,
}

impl Session {
    pub fn new(
        generator: Arc<Generator>,
        flavour: xds::Flavour,
        client: Arc<Client>,
        snapshot: Arc<Snapshot>,
    ) -> Self {
        Self {
            generator,
            protocol: xds::Server::new(flavour),
            view: View::new(&snapshot, &client),
            client,
            snapshot,
            endpoints: Arc::default(),
            generated: BTreeMap::new(),
            reads_secrets: false,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Does the proxy ask for Secrets whose keys it has not been allowed yet?
    pub fn wants_secrets(&self, request: Option<&xds::Request>) -> bool {
        let asks = request.is_some_and(|request| request.type_url() == urls::SECRET);
        !self.reads_secrets && (asks || self.protocol.types().any(|t| t == urls::SECRET))
    }

    /// The caller may read the Secrets of its namespace.
    pub fn allow_secrets(&mut self) {
        self.reads_secrets = true;
        self.offer(urls::SECRET);
    }

    pub fn receive(
        &mut self,
        request: xds::Request,
    ) -> Result<xds::ServerEvent, xds::ProtocolError> {
        let event = self.protocol.receive(request)?;
        if event.subscription_changed {
            self.offer(&event.type_url);
        }
        Ok(event)
    }

    /// Takes a newer snapshot.
    pub fn renew(&mut self, snapshot: Arc<Snapshot>) {
        let change = self.generator.change(&self.snapshot, &snapshot);
        let own = |snapshot: &Snapshot| snapshot.workload_at(self.client.address()).cloned();
        let is_moved = own(&self.snapshot) != own(&snapshot);
        self.snapshot = snapshot;
        match &*change {
            Change::Endpoints(moved) if !is_moved => {
                self.view = self.view.with_endpoints_of(&self.snapshot);
                self.offer_moved(moved);
            }
            Change::Endpoints(_) | Change::Everything => {
                self.view = View::new(&self.snapshot, &self.client);
                self.offer_all();
            }
        }
    }

    fn offer_moved(&mut self, moved: &BTreeMap<Text, Moved>) {
        let serves = |service: &Arc<Service>| {
            let selects = |selector: &Selector| selector.selects(&self.client.labels);
            *service.namespace() == *self.client.namespace
                && service.selector.as_ref().is_some_and(selects)
        };
        let concerns_more =
            |moved: &Moved| moved.beyond_endpoints || moved.services.iter().any(serves);
        if moved.values().any(concerns_more) {
            self.offer_all();
        } else if !moved.is_empty() {
            self.offer_endpoints(moved);
        }
    }

    /// Endpoints of clusters whose host is among those; the others as they are.
    fn offer_endpoints(&mut self, moved: &BTreeMap<Text, Moved>) {
        let began = Instant::now();
        let mut set: Vec<Resource> = Vec::with_capacity(self.endpoints.len());
        for known in self.endpoints.iter() {
            let is_moved = OutboundName::parse(&known.name)
                .is_some_and(|(name, _)| moved.contains_key(&name.host));
            if !is_moved {
                set.push(known.clone());
                continue;
            }
            set.extend(
                self.generator
                    .endpoints_of(&known.name, self.snapshot.version, &self.view),
            );
        }
        self.endpoints = set.into();
        let version = version_of(&self.endpoints);
        self.protocol
            .offer(urls::ENDPOINT, &version, self.endpoints.clone());
        self.generated
            .insert(urls::ENDPOINT.to_owned(), began.elapsed());
    }

    fn offer_all(&mut self) {
        let types: Vec<String> = self.protocol.types().map(str::to_owned).collect();
        for type_url in types {
            self.offer(&type_url);
        }
    }

    /// The next response, if one may be sent now.
    pub fn next_response(&mut self) -> Option<xds::Response> {
        self.protocol.next_response()
    }

    /// What it took to generate a response that is about to be sent; asked once per response.
    pub fn generation_time(&mut self, type_url: &str) -> Duration {
        self.generated.remove(type_url).unwrap_or_default()
    }

    /// Has the proxy answered for everything that is meant for it?
    pub fn is_settled(&mut self) -> bool {
        self.protocol.is_settled()
    }

    /// The names that the proxy asks for, of a type.
    pub fn wanted(&self, type_url: &str) -> Vec<String> {
        let names = self.protocol.wanted(type_url);
        names.map_or_else(Vec::new, |(_, names)| names.iter().cloned().collect())
    }

    /// How the proxy stands, by type.
    pub fn statuses(&self) -> BTreeMap<String, xds::TypeStatus> {
        self.protocol
            .types()
            .filter_map(|type_url| Some((type_url.to_owned(), self.protocol.status(type_url)?)))
            .collect()
    }

    fn offer(&mut self, type_url: &str) {
        let began = Instant::now();
        let empty = BTreeSet::new();
        let names = self
            .protocol
            .wanted(type_url)
            .map_or(&empty, |(_, names)| names);
        let set = match type_url {
            urls::SECRET => {
                self.generator
                    .secrets(names, &self.snapshot, &self.client, self.reads_secrets)
            }
            _ => self
                .generator
                .resources(type_url, names, self.snapshot.version, &self.view),
        };
        if type_url == urls::ENDPOINT {
            self.endpoints = set.clone();
        }
        self.protocol.offer(type_url, &version_of(&set), set);
        self.generated.insert(type_url.to_owned(), began.elapsed());
    }
}
