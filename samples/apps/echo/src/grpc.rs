//! The gRPC echo (`proto/echo.proto`) and gRPC's health protocol.
//!
//! Bounds: waits of at most ten minutes, 10,000 replies a stream, 1 MiB of padding; a request beyond them gets INVALID_ARGUMENT.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Code, Request, Response, Status, Streaming};

#[allow(clippy::all)]
pub mod pb {
    tonic::include_proto!("tanbark.echo.v1");
}

#[allow(clippy::all)]
mod health_pb {
    tonic::include_proto!("grpc.health.v1");
}

use health_pb::health_check_response::ServingStatus;
use health_pb::health_server::{Health, HealthServer};
use health_pb::{HealthCheckRequest, HealthCheckResponse};
use pb::echo_server::{Echo, EchoServer};
use pb::{EchoReply, EchoRequest};

const MAX_WAIT_MS: u32 = 600_000;
const MAX_REPLIES: u32 = 10_000;
const MAX_PADDING_BYTES: u32 = 1024 * 1024;
/// Services the health protocol knows; the empty name is the whole server.
const KNOWN: [&str; 2] = ["", "tanbark.echo.v1.Echo"];

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct EchoService {
    hostname: Arc<str>,
    version: Arc<str>,
}

struct HealthService;

pub fn service(hostname: Arc<str>, version: Arc<str>) -> EchoServer<impl Echo> {
    EchoServer::new(EchoService { hostname, version })
}

pub fn health() -> HealthServer<impl Health> {
    HealthServer::new(HealthService)
}

#[tonic::async_trait]
impl Echo for EchoService {
    type ServerStreamStream = Replies<EchoReply>;
    type BidirectionalStream = Replies<EchoReply>;

    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let (metadata, _, request) = request.into_parts();
        Ok(Response::new(
            self.template(&metadata).reply(request, 0).await?,
        ))
    }

    async fn server_stream(
        &self,
        request: Request<EchoRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let count = request.count.max(1);
        if count > MAX_REPLIES || request.interval_ms > MAX_WAIT_MS {
            return Err(Status::invalid_argument(format!(
                "count is at most {MAX_REPLIES}, interval_ms at most {MAX_WAIT_MS}"
            )));
        }
        let template = self.template(&metadata);
        let replies = stream::unfold(0, move |sequence| {
            let (template, mut request) = (template.clone(), request.clone());
            async move {
                if sequence >= count {
                    return None;
                }
                if sequence > 0 {
                    request.delay_ms = request.interval_ms;
                }
                Some((template.reply(request, sequence).await, sequence + 1))
            }
        });
        Ok(Response::new(Box::pin(until_error(replies))))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let (mut last, mut count) = (EchoRequest::default(), 0u32);
        while let Some(request) = requests.message().await? {
            last = request;
            count = count.saturating_add(1);
        }
        Ok(Response::new(
            self.template(&metadata).reply(last, count).await?,
        ))
    }

    async fn bidirectional(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Self::BidirectionalStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let template = self.template(&metadata);
        let replies = stream::unfold((requests, 0u32), move |(mut requests, sequence)| {
            let template = template.clone();
            async move {
                let reply = match requests.message().await.transpose()? {
                    Ok(request) => template.reply(request, sequence).await,
                    Err(status) => Err(status),
                };
                Some((reply, (requests, sequence.saturating_add(1))))
            }
        });
        Ok(Response::new(Box::pin(until_error(replies))))
    }
}

/// Nothing follows an error, which ends a gRPC stream.
fn until_error(
    replies: impl Stream<Item = Result<EchoReply, Status>>,
) -> impl Stream<Item = Result<EchoReply, Status>> {
    replies.scan(false, |ended, reply| {
        let now = std::mem::replace(ended, reply.is_err());
        std::future::ready((!now).then_some(reply))
    })
}

impl EchoService {
    /// The parts of a reply that don't depend on the message.
    fn template(&self, metadata: &MetadataMap) -> EchoReply {
        let headers = metadata
            .iter()
            .filter_map(|pair| match pair {
                KeyAndValueRef::Ascii(name, value) => {
                    Some((name.to_string(), value.to_str().ok()?.to_owned()))
                }
                KeyAndValueRef::Binary(..) => None,
            })
            .collect();
        EchoReply {
            hostname: self.hostname.to_string(),
            version: self.version.to_string(),
            headers,
            ..EchoReply::default()
        }
    }
}

impl EchoReply {
    async fn reply(&self, request: EchoRequest, sequence: u32) -> Result<EchoReply, Status> {
        let EchoRequest {
            message,
            delay_ms,
            status,
            status_message,
            count: _,
            interval_ms: _,
            size,
        } = request;
        if delay_ms > MAX_WAIT_MS || size > MAX_PADDING_BYTES {
            return Err(Status::invalid_argument(format!(
                "delay_ms is at most {MAX_WAIT_MS}, size at most {MAX_PADDING_BYTES}"
            )));
        }
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(u64::from(delay_ms))).await;
        }
        if status != 0 {
            let code = i32::try_from(status).map_or(Code::Unknown, Code::from_i32);
            return Err(Status::new(code, status_message));
        }
        Ok(EchoReply {
            message,
            sequence,
            padding: vec![b'x'; size as usize],
            ..self.clone()
        })
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Replies<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if KNOWN.contains(&request.get_ref().service.as_str()) {
            return Ok(Response::new(HealthCheckResponse {
                status: ServingStatus::Serving.into(),
            }));
        }
        Err(Status::not_found("unknown service"))
    }

    /// The status never changes while we serve: said once, then the stream stays open.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = KNOWN.contains(&request.get_ref().service.as_str());
        let status = if known {
            ServingStatus::Serving
        } else {
            ServingStatus::ServiceUnknown
        };
        let first = stream::once(std::future::ready(Ok(HealthCheckResponse {
            status: status.into(),
        })));
        Ok(Response::new(Box::pin(first.chain(stream::pending()))))
    }
}
