//! ADS: one task per stream, from requests and snapshots to responses.
//!
//! What wakes a stream: a request of the proxy, a new snapshot, the end of either side, and the
//! drain of the control plane. What is sent and in which order is decided by `session`; what the
//! resources are by `generate`. A proxy is served what its node asks for only after its caller has
//! proved to be of the node's namespace and service account (row CP-007).

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use mesh_model::Snapshot;
use prost::Message as _;
use serde_json::Value;
use stdx::{Clock, Drain};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Code, Request, Response, Status, Streaming};
use wire_envoy::{
    pb::{
        ValueKind,
        core::{ControlPlane, Node},
        discovery::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_server::AggregatedDiscoveryService,
        },
    },
    structs,
};
use xds_encode::{Client, ClientKind};
use xds_protocol as xds;

use crate::{
    authenticate::{Authenticator, Caller},
    authorize::Authorizer,
    generate::Generator,
    metrics::{Metrics, type_label},
    peer::Peer,
    proxies::{Membership, Proxies, ProxyStatus},
    session::Session,
    tools::{self, Tools},
};

/// Responses on their way to one proxy; more wait in the state machine as "newest state", not as a
/// queue.
const OUTBOUND_QUEUE: usize = 16;

/// What all streams share.
pub struct Discovery {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Authorizer,
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    pub generator: Arc<Generator>,
    pub proxies: Arc<Proxies>,
    pub metrics: Metrics,
    pub tools: Tools,
    /// Who answers; in every response.
    pub control_plane: ControlPlane,
    pub clock: Arc<dyn Clock>,
    pub drain: Drain,
}

/// The gRPC face of `Discovery`.
#[derive(Clone)]
pub struct DiscoveryService(pub Arc<Discovery>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let responses = self
            .open(
                request,
                xds::Flavour::StateOfTheWorld,
                xds::Request::StateOfTheWorld,
            )
            .await?;
        let only_world = |response| match response {
            Ok(xds::Response::StateOfTheWorld(response)) => Ok(response),
            Ok(xds::Response::Delta(_)) => Err(Status::internal(
                "a delta response on a state-of-the-world stream",
            )),
            Err(status) => Err(status),
        };
        Ok(Response::new(Box::pin(responses.map(only_world))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let responses = self
            .open(request, xds::Flavour::Delta, xds::Request::Delta)
            .await?;
        let only_delta = |response| match response {
            Ok(xds::Response::Delta(response)) => Ok(response),
            Ok(xds::Response::StateOfTheWorld(_)) => Err(Status::internal(
                "a state-of-the-world response on a delta stream",
            )),
            Err(status) => Err(status),
        };
        Ok(Response::new(Box::pin(responses.map(only_delta))))
    }
}

impl DiscoveryService {
    async fn open<T: Send + 'static>(
        &self,
        request: Request<Streaming<T>>,
        flavour: xds::Flavour,
        wrap: fn(T) -> xds::Request,
    ) -> Result<impl Stream<Item = Result<xds::Response, Status>> + use<T>, Status> {
        let caller = self
            .0
            .authenticator
            .authenticate(&request)
            .await
            .inspect_err(|_| {
                self.0.metrics.authority.authentication_failures.inc();
            })?;
        let address = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.address)
            .or(request.remote_addr());
        let requests = request
            .into_inner()
            .map(move |message| message.map(wrap))
            .boxed();
        let (sender, receiver) = mpsc::channel(OUTBOUND_QUEUE);
        let shared = self.0.clone();
        // task: one ADS stream; ends when either side closes it, or when the control plane drains
        tokio::spawn(async move {
            if let Err(status) = shared
                .serve(caller, address, flavour, requests, &sender)
                .await
            {
                if status.code() == Code::Internal {
                    shared.metrics.streams.internal_errors.inc();
                }
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver))
    }
}

/// One stream: who called, what it is sent, and its place in the list.
struct Line<'a> {
    shared: &'a Discovery,
    caller: &'a Caller,
    session: Session,
    membership: Membership<'a>,
    /// The change that is on its way to the proxy began then; `None`: nothing is.
    converging_since: Option<Instant>,
    /// Something was sent since then.
    has_sent: bool,
}

impl Discovery {
    async fn serve(
        &self,
        caller: Caller,
        address: Option<SocketAddr>,
        flavour: xds::Flavour,
        mut requests: BoxStream<'static, Result<xds::Request, Status>>,
        responses: &mpsc::Sender<Result<xds::Response, Status>>,
    ) -> Result<(), Status> {
        let Some(first) = requests.next().await.transpose()? else {
            return Ok(());
        };
        if tools::is_question(first.type_url()) {
            return self.answer(&caller, first, requests, responses).await;
        }
        let mut snapshots = self.snapshots.clone();
        let mut drain = self.drain.clone();
        let mut line = tokio::select! {
            line = self.begin(&caller, address, flavour, &first, &mut snapshots) => line?,
            () = &mut drain => return Err(Status::unavailable("the control plane stops")),
        };
        let version = line.session.client().version.clone();
        let _connected = self.metrics.streams.connected(&version);
        line.request(first).await?;
        line.flush(responses).await?;
        loop {
            tokio::select! {
                request = requests.next() => match request.transpose()? {
                    Some(request) => line.request(request).await?,
                    None => return Ok(()),
                },
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the control plane stops"));
                    }
                    let newest = snapshots.borrow_and_update().clone();
                    if let Some(snapshot) = newest {
                        line.renew(snapshot);
                        line.authorize(None).await;
                    }
                }
                () = responses.closed() => return Ok(()),
                // Streams have no end of their own: without this a graceful stop would wait for the
                // last proxy.
                () = &mut drain => return Err(Status::unavailable("the control plane stops")),
            }
            line.flush(responses).await?;
        }
    }

    /// A stream of a tool: each question is answered once.
    async fn answer(
        &self,
        caller: &Caller,
        first: xds::Request,
        mut requests: BoxStream<'static, Result<xds::Request, Status>>,
        responses: &mpsc::Sender<Result<xds::Response, Status>>,
    ) -> Result<(), Status> {
        let mut drain = self.drain.clone();
        let mut next = Some(first);
        let mut number: u64 = 0;
        while let Some(request) = next {
            let xds::Request::StateOfTheWorld(question) = request else {
                let why = "questions of tools are answered on state-of-the-world streams only";
                return Err(Status::unimplemented(why));
            };
            // What acknowledges an answer asks nothing.
            if question.response_nonce.is_empty() {
                let (type_url, names) = (question.type_url, question.resource_names);
                number += 1;
                let response = DiscoveryResponse {
                    version_info: number.to_string(),
                    resources: self.tools.answer(caller, &type_url, &names).await?,
                    type_url,
                    nonce: number.to_string(),
                    control_plane: Some(self.control_plane.clone()),
                    ..DiscoveryResponse::default()
                };
                let sent = responses.send(Ok(xds::Response::StateOfTheWorld(response)));
                if sent.await.is_err() {
                    return Ok(());
                }
            }
            next = tokio::select! {
                request = requests.next() => request.transpose()?,
                () = responses.closed() => return Ok(()),
                () = &mut drain => return Err(Status::unavailable("the control plane stops")),
            };
        }
        Ok(())
    }

    /// With who answers.
    fn signed(&self, mut response: xds::Response) -> xds::Response {
        let control_plane = Some(self.control_plane.clone());
        match &mut response {
            xds::Response::StateOfTheWorld(response) => response.control_plane = control_plane,
            xds::Response::Delta(response) => response.control_plane = control_plane,
        }
        response
    }

    async fn begin<'a>(
        &'a self,
        caller: &'a Caller,
        address: Option<SocketAddr>,
        flavour: xds::Flavour,
        first: &xds::Request,
        snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>,
    ) -> Result<Line<'a>, Status> {
        let node = node_of(first)
            .ok_or_else(|| Status::invalid_argument("the first request names no node"))?;
        if generator_of(node) == Some("grpc") {
            return Err(Status::unimplemented(
                "proxyless gRPC (GENERATOR grpc) is not supported: clients need a sidecar",
            ));
        }
        let client = Arc::new(
            Client::from_node(node).map_err(|error| Status::invalid_argument(error.to_string()))?,
        );
        if &*client.namespace != caller.account.namespace() {
            return Err(Status::permission_denied(format!(
                "{} may not speak for a proxy of namespace {}",
                caller.id, client.namespace
            )));
        }
        let told = node
            .metadata
            .as_ref()
            .is_some_and(|metadata| metadata.fields.contains_key("SERVICE_ACCOUNT"));
        if told && &*client.service_account != caller.account.name() {
            return Err(Status::permission_denied(format!(
                "{} may not speak for a proxy of service account {}",
                caller.id, client.service_account
            )));
        }
        // Before the first listing is complete there is nothing true to say.
        let stops = |_| Status::unavailable("the control plane stops");
        let snapshot = snapshots
            .wait_for(Option::is_some)
            .await
            .map_err(stops)?
            .clone()
            .ok_or_else(|| Status::unavailable("no configuration yet"))?;
        let status = ProxyStatus {
            name: format!("{}.{}", client.name, client.namespace),
            client: client.clone(),
            metadata: node
                .metadata
                .as_ref()
                .map_or_else(Value::default, structs::to_json),
            address,
            connected_at: self.clock.wall(),
            types: Default::default(),
            watches: Default::default(),
        };
        tracing::info!(proxy = %client.id, caller = %caller.id, "a proxy connected");
        Ok(Line {
            shared: self,
            caller,
            session: Session::new(self.generator.clone(), flavour, client, snapshot),
            membership: self.proxies.join(status),
            converging_since: None,
            has_sent: false,
        })
    }
}

impl Line<'_> {
    async fn request(&mut self, request: xds::Request) -> Result<(), Status> {
        self.authorize(Some(&request)).await;
        let code = error_code(&request);
        let event = self
            .session
            .receive(request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let metrics = &self.shared.metrics;
        match &event.acknowledged {
            xds::Acknowledged::Rejected { detail } => {
                let id = &self.session.client().id;
                metrics.streams.rejected(&event.type_url, id, code);
                tracing::warn!(proxy = %id, type_url = event.type_url, detail, "the proxy refused a configuration and keeps its last good one");
            }
            xds::Acknowledged::Stale => {
                metrics
                    .streams
                    .expired_nonces
                    .get_or_create(&type_label(&event.type_url))
                    .inc();
            }
            xds::Acknowledged::None | xds::Acknowledged::Accepted => {}
        }
        if event.subscription_changed {
            metrics.source.trigger("proxyrequest");
            self.membership
                .watch(&event.type_url, self.session.wanted(&event.type_url));
        }
        Ok(())
    }

    fn renew(&mut self, snapshot: Arc<Snapshot>) {
        if let Some(build) = self.shared.metrics.builds.of(snapshot.version) {
            let waited = build.published.elapsed();
            self.shared
                .metrics
                .streams
                .queue_time
                .observe(waited.as_secs_f64());
            // A change that overtakes another one: the proxy has been behind since the first.
            self.converging_since.get_or_insert(build.began);
        }
        self.session.renew(snapshot);
    }

    /// Asks once per stream, and again with each snapshot while the answer is no: what allows it
    /// may be on its way.
    async fn authorize(&mut self, request: Option<&xds::Request>) {
        let is_gateway = self.session.client().kind == ClientKind::Gateway;
        if is_gateway
            && self.session.wants_secrets(request)
            && self
                .shared
                .authorizer
                .may_read_secrets(&self.caller.account)
                .await
        {
            self.session.allow_secrets();
        }
    }

    async fn flush(
        &mut self,
        responses: &mpsc::Sender<Result<xds::Response, Status>>,
    ) -> Result<(), Status> {
        let metrics = &self.shared.metrics.streams;
        while let Some(response) = self.session.next_response() {
            let label = type_label(response.type_url());
            metrics.pushes.get_or_create(&label).inc();
            metrics
                .config_size
                .get_or_create(&label)
                .observe(size_of(&response) as f64);
            tracing::debug!(proxy = %self.session.client().id, type_url = response.type_url(), nonce = response.nonce(), "push");
            let generated = self.session.generation_time(response.type_url());
            let began = Instant::now();
            let response = self.shared.signed(response);
            if responses.send(Ok(response)).await.is_err() {
                return Err(Status::cancelled("the proxy left"));
            }
            let sending = began.elapsed();
            metrics.send_time.observe(sending.as_secs_f64());
            metrics
                .push_time
                .get_or_create(&label)
                .observe((generated + sending).as_secs_f64());
            self.has_sent = true;
        }
        self.note_convergence();
        self.membership.update(self.session.statuses());
        Ok(())
    }

    /// A change has arrived when the proxy has answered for all of it; one that did not concern the
    /// proxy counts for nothing.
    fn note_convergence(&mut self) {
        if !self.session.is_settled() {
            return;
        }
        let since = self.converging_since.take();
        if let Some(since) = since.filter(|_| self.has_sent) {
            let delay = since.elapsed().as_secs_f64();
            self.shared.metrics.streams.convergence_time.observe(delay);
        }
        self.has_sent = false;
    }
}

/// Bytes on the wire, before compression.
fn size_of(response: &xds::Response) -> usize {
    match response {
        xds::Response::StateOfTheWorld(response) => response.encoded_len(),
        xds::Response::Delta(response) => response.encoded_len(),
    }
}

/// The gRPC code of a refusal; 0 where there is none.
fn error_code(request: &xds::Request) -> i32 {
    let detail = match request {
        xds::Request::StateOfTheWorld(request) => request.error_detail.as_ref(),
        xds::Request::Delta(request) => request.error_detail.as_ref(),
    };
    detail.map_or(0, |status| status.code)
}

/// The node's wish for another kind of resources than Envoy's.
fn generator_of(node: &Node) -> Option<&str> {
    let value = node.metadata.as_ref()?.fields.get("GENERATOR")?;
    match value.kind.as_ref()? {
        ValueKind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn node_of(request: &xds::Request) -> Option<&Node> {
    match request {
        xds::Request::StateOfTheWorld(request) => request.node.as_ref(),
        xds::Request::Delta(request) => request.node.as_ref(),
    }
}

#[cfg(test)]
mod tests;
