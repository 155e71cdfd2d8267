//! One collector: one call for each batch, by the data path's way to a cluster.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{CONTENT_TYPE, HOST, TE},
    uri::{Authority, Scheme},
};
use prost::Message;
use proxy::{
    Live,
    body::RequestBody,
    upstream::{
        call::{Call, CallError, Keep, Whole, call},
        handshake::HttpVersion,
        pool::{PoolKey, Pools},
    },
};
use proxy_config::{cluster::UpstreamProtocol, tracing::TracingProvider};
use telemetry::{
    record::Protocol,
    stats::{Counters, Scope},
    trace::{Span, zipkin_json},
};
use tokio::sync::mpsc;

use super::{Count, otlp};

/// A call that takes longer has failed, where the configuration names no time.
const CALL: Duration = Duration::from_secs(5);
/// An answer's body is read so far.
const ANSWER_BYTES: usize = 64 << 10;
/// Complaints come no more often.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

pub(super) struct Collector {
    live: Arc<Live>,
    provider: Arc<TracingProvider>,
    counters: Counters,
    /// Keeps the counters shown.
    _scope: Scope,
    pools: Pools,
    complained: Option<Instant>,
}

/// What is posted, whatever carries it.
struct Batch<'a> {
    authority: &'a str,
    path: &'a str,
    content_type: &'static str,
    headers: &'a [(HeaderName, Arc<str>)],
    body: Bytes,
    is_grpc: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cluster {0} is not known")]
    NoCluster(String),
    #[error("the request cannot be made: {0}")]
    Invalid(String),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it answered {0}")]
    Refused(String),
}

impl Failure {
    fn invalid(error: impl Display) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl Collector {
    pub fn new(
        live: Arc<Live>,
        provider: Arc<TracingProvider>,
        counters: Counters,
        scope: Scope,
    ) -> Self {
        Self {
            live,
            provider,
            counters,
            _scope: scope,
            pools: Pools::default(),
            complained: None,
        }
    }

    /// Sends batches until nobody gives any more.
    pub async fn run(mut self, mut batches: mpsc::Receiver<Vec<Span>>) {
        while let Some(batch) = batches.recv().await {
            let spans = batch.len() as u64;
            match self.deliver(&batch).await {
                Ok(()) => {
                    self.count(Count::ReportsSent, 1);
                    self.count(Count::SpansSent, spans);
                }
                Err(failure) => {
                    let what = if matches!(failure, Failure::NoCluster(_)) {
                        Count::NoCluster
                    } else {
                        Count::ReportsFailed
                    };
                    self.count(what, 1);
                    self.count(Count::SpansDropped, spans);
                    self.complain(&failure);
                }
            }
        }
    }

    fn count(&self, what: Count, amount: u64) {
        self.counters.add(what as usize, amount);
    }

    fn complain(&mut self, failure: &Failure) {
        let now = self.live.clock.now();
        if self
            .complained
            .is_none_or(|last| now.saturating_duration_since(last) >= COMPLAINT_PAUSE)
        {
            self.complained = Some(now);
            tracing::warn!(cluster = self.cluster_name(), %failure, "spans cannot be sent to their collector and are dropped");
        }
    }

    fn limit(&self) -> Duration {
        let configured = match &*self.provider {
            TracingProvider::Zipkin { .. } => None,
            TracingProvider::OpenTelemetryGrpc { timeout, .. }
            | TracingProvider::OpenTelemetryHttp { timeout, .. } => *timeout,
        };
        configured.filter(|limit| !limit.is_zero()).unwrap_or(CALL)
    }

    fn cluster_name(&self) -> &str {
        match &*self.provider {
            TracingProvider::Zipkin { cluster, .. }
            | TracingProvider::OpenTelemetryGrpc { cluster, .. }
            | TracingProvider::OpenTelemetryHttp { cluster, .. } => cluster.as_str(),
        }
    }

    async fn deliver(&mut self, spans: &[Span]) -> Result<(), Failure> {
        let provider = self.provider.clone();
        let batch = batch(&provider, spans);
        let name = self.cluster_name();
        let config = self.live.config();
        let cluster = config
            .cluster(name)
            .ok_or_else(|| Failure::NoCluster(name.to_owned()))?;
        self.pools.sweep(self.live.clock.now(), |cluster, host| {
            config.has(cluster, host)
        });
        let version = match cluster.config.http.protocol {
            _ if batch.is_grpc => HttpVersion::Http2,
            UpstreamProtocol::Http2 => HttpVersion::Http2,
            UpstreamProtocol::Alpn => HttpVersion::Negotiated,
            UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => HttpVersion::Http1,
        };
        let to = Call {
            pools: &self.pools,
            cluster,
            rng: &*self.live.rng,
            key: PoolKey::new(version),
            limit: self.limit(),
            is_grpc: batch.is_grpc,
        };
        let mut invalid = None;
        let answer = call(to, Keep::UpTo(ANSWER_BYTES), |connection| {
            batch
                .request(connection.protocol, name)
                .map_err(|failure| invalid = Some(failure))
                .ok()
        })
        .await;
        match invalid {
            Some(failure) => Err(failure),
            None => check(&answer?, batch.is_grpc),
        }
    }
}

fn batch<'a>(provider: &'a TracingProvider, spans: &[Span]) -> Batch<'a> {
    match provider {
        TracingProvider::Zipkin {
            endpoint,
            hostname,
            shared_span_context,
            ..
        } => Batch {
            authority: hostname,
            path: endpoint,
            content_type: "application/json",
            headers: &[],
            body: zipkin_json(spans, *shared_span_context).into(),
            is_grpc: false,
        },
        TracingProvider::OpenTelemetryGrpc { service_name, .. } => Batch {
            authority: "",
            path: EXPORT,
            content_type: "application/grpc",
            headers: &[],
            body: grpc_frame(&otlp::request(spans, service_name)),
            is_grpc: true,
        },
        TracingProvider::OpenTelemetryHttp {
            authority,
            path,
            service_name,
            headers,
            ..
        } => Batch {
            authority,
            path,
            content_type: "application/x-protobuf",
            headers,
            body: otlp::request(spans, service_name).encode_to_vec().into(),
            is_grpc: false,
        },
    }
}

/// One uncompressed gRPC message: a flag, its length, itself.
fn grpc_frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(length + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message.encode_to_vec());
    frame.freeze()
}

impl Batch<'_> {
    fn request(&self, protocol: Protocol, cluster: &str) -> Result<Request<RequestBody>, Failure> {
        let authority = self.authority(cluster);
        let mut request = Request::post(self.path)
            .body(RequestBody::Full(Some(self.body.clone())))
            .map_err(Failure::invalid)?;
        match protocol {
            Protocol::Http10 | Protocol::Http11 => drop(request.headers_mut().insert(
                HOST,
                HeaderValue::try_from(authority.as_str()).map_err(Failure::invalid)?,
            )),
            Protocol::Http2 | Protocol::Http3 => {
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(authority));
                *request.uri_mut() = Uri::from_parts(parts).map_err(Failure::invalid)?;
            }
        }
        let headers = request.headers_mut();
        for (name, value) in self.headers {
            headers.append(
                name.clone(),
                HeaderValue::try_from(&**value).map_err(Failure::invalid)?,
            );
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if self.is_grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        Ok(request)
    }

    /// What the configuration says, else the host in the cluster's name
    /// (`outbound|9411||zipkin.istio-system.svc.cluster.local`).
    fn authority(&self, cluster: &str) -> Authority {
        let host = cluster.rsplit('|').next().unwrap_or_default();
        let parse = |text: &str| text.parse::<Authority>().ok();
        parse(self.authority)
            .or_else(|| parse(host))
            .unwrap_or_else(|| Authority::from_static("collector"))
    }
}

fn check(answer: &Whole, is_grpc: bool) -> Result<(), Failure> {
    let Whole {
        head,
        body: _,
        trailers,
    } = answer;
    if !head.status.is_success() {
        return Err(Failure::Refused(head.status.to_string()));
    }
    if !is_grpc {
        return Ok(());
    }
    let told = |headers: &HeaderMap, name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let find = |name: &str| {
        trailers
            .as_ref()
            .and_then(|trailers| told(trailers, name))
            .or_else(|| told(&head.headers, name))
    };
    match find("grpc-status").as_deref() {
        Some("0") => Ok(()),
        status => Err(Failure::Refused(format!(
            "gRPC status {} {}",
            status.unwrap_or("(none)"),
            find("grpc-message").unwrap_or_default()
        ))),
    }
}
