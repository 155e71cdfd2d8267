//! Envoy's ADS stream, carried to the control plane as it is. When either side ends, so does the
//! other: Envoy reconnects by itself.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tokio::net::UnixListener;
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status as Code, Streaming};
use wire_envoy::pb::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    },
};

use crate::{
    dial::Dialer,
    settings::{Limits, Server},
    status::Status,
};

/// Everything that a stream of Envoy's needs.
pub(super) struct Relay {
    pub dialer: Dialer,
    pub server: Server,
    pub limits: Limits,
    pub status: Arc<Status>,
}

pub(super) async fn serve(listener: UnixListener, relay: Relay) {
    let limit = relay.limits.message_bytes;
    let service = AggregatedDiscoveryServiceServer::new(relay)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let served = tonic::transport::Server::builder().add_service(service);
    if let Err(error) = served
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
    {
        tracing::error!(%error, "the relay to the control plane has ended");
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Code>> + Send>>;

impl Relay {
    async fn client(
        &self,
    ) -> Result<
        (
            AggregatedDiscoveryServiceClient<tonic::transport::Channel>,
            tonic::metadata::MetadataMap,
        ),
        Code,
    > {
        self.status.connecting();
        let dialed = self.dialer.dial(&self.server).await.map_err(|error| {
            self.status.disconnected(&error.to_string());
            tracing::warn!(%error, "no connection to the control plane");
            Code::unavailable(error.to_string())
        })?;
        self.status.connected(self.dialer.clock.now());
        let mut metadata = tonic::metadata::MetadataMap::new();
        if let Some(authorization) = dialed.authorization {
            metadata.insert("authorization", authorization);
        }
        let client = AggregatedDiscoveryServiceClient::new(dialed.channel)
            .max_decoding_message_size(self.limits.message_bytes)
            .max_encoding_message_size(self.limits.message_bytes);
        Ok((client, metadata))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Relay {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Code> {
        let (mut client, metadata) = self.client().await?;
        // A broken stream of Envoy's ends the one to the control plane.
        let mut upward = Request::new(request.into_inner().map_while(Result::ok));
        *upward.metadata_mut() = metadata;
        let downward = client
            .stream_aggregated_resources(upward)
            .await?
            .into_inner();
        Ok(Response::new(Box::pin(downward)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Code> {
        let (mut client, metadata) = self.client().await?;
        let mut upward = Request::new(request.into_inner().map_while(Result::ok));
        *upward.metadata_mut() = metadata;
        let downward = client
            .delta_aggregated_resources(upward)
            .await?
            .into_inner();
        Ok(Response::new(Box::pin(downward)))
    }
}
