//! One ADS stream over gRPC, in either flavour, behind one pair of types.

use std::time::Duration;

use futures_util::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use wire_envoy::pb::discovery::{
    DeltaDiscoveryRequest, DiscoveryRequest,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use xds_protocol::{Flavour, Request, Response};

use crate::{
    FeedError,
    dial::Dialer,
    settings::{Discovery, Limits},
};

/// Requests that may wait for the network. Each response makes one and each change of interest at
/// most one.
const WAITING_REQUESTS: usize = 256;
/// The server's first sign of life after the stream was asked for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// An open stream.
pub struct AdsStream {
    pub responses: BoxStream<'static, Result<Response, tonic::Status>>,
    requests: Requests,
}

enum Requests {
    World(mpsc::Sender<DiscoveryRequest>),
    Delta(mpsc::Sender<DeltaDiscoveryRequest>),
}

impl AdsStream {
    /// Connects, and opens the stream with its first requests: some servers answer nothing before
    /// they have read one.
    pub async fn open(
        dialer: &Dialer,
        discovery: &Discovery,
        limits: &Limits,
        first: Vec<Request>,
    ) -> Result<Self, FeedError> {
        let server = &discovery.server;
        let dialed = dialer.dial(server).await?;
        let mut client = AggregatedDiscoveryServiceClient::new(dialed.channel)
            .max_decoding_message_size(limits.message_bytes)
            .max_encoding_message_size(limits.message_bytes);
        let failed = |status: tonic::Status| FeedError::Call {
            server: server.address.to_string(),
            status: format!("{}: {}", status.code(), status.message()),
        };
        let (world, world_receiver) = mpsc::channel(WAITING_REQUESTS);
        let (delta, delta_receiver) = mpsc::channel(WAITING_REQUESTS);
        let requests = match discovery.flavour {
            Flavour::StateOfTheWorld => Requests::World(world),
            Flavour::Delta => Requests::Delta(delta),
        };
        for request in first {
            requests.send(request).await.map_err(failed)?;
        }
        let with_token = |mut metadata: tonic::metadata::MetadataMap| {
            if let Some(authorization) = &dialed.authorization {
                metadata.insert("authorization", authorization.clone());
            }
            metadata
        };
        let opened = async {
            Ok(match discovery.flavour {
                Flavour::StateOfTheWorld => {
                    let mut request = tonic::Request::new(ReceiverStream::new(world_receiver));
                    *request.metadata_mut() = with_token(Default::default());
                    let stream = client
                        .stream_aggregated_resources(request)
                        .await?
                        .into_inner();
                    stream.map(|r| r.map(Response::StateOfTheWorld)).boxed()
                }
                Flavour::Delta => {
                    let mut request = tonic::Request::new(ReceiverStream::new(delta_receiver));
                    *request.metadata_mut() = with_token(Default::default());
                    let stream = client
                        .delta_aggregated_resources(request)
                        .await?
                        .into_inner();
                    stream.map(|r| r.map(Response::Delta)).boxed()
                }
            })
        };
        let responses = match tokio::time::timeout(OPEN_TIMEOUT, opened).await {
            Ok(opened) => opened.map_err(failed)?,
            Err(_) => {
                return Err(failed(tonic::Status::deadline_exceeded(
                    "the stream was not opened in time",
                )));
            }
        };
        Ok(Self {
            responses,
            requests,
        })
    }

    pub async fn send(&mut self, request: Request) -> Result<(), tonic::Status> {
        self.requests.send(request).await
    }
}

impl Requests {
    async fn send(&self, request: Request) -> Result<(), tonic::Status> {
        let gone = || tonic::Status::unavailable("the stream has ended");
        match (self, request) {
            (Self::World(sender), Request::StateOfTheWorld(request)) => {
                sender.send(request).await.map_err(|_| gone())
            }
            (Self::Delta(sender), Request::Delta(request)) => {
                sender.send(request).await.map_err(|_| gone())
            }
            _ => Err(tonic::Status::internal("a request of the other flavour")),
        }
    }
}
