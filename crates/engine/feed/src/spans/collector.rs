//! One collector: its connection, and one call for each batch.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri,
    header::{CONTENT_TYPE, HOST, TE},
    uri::{Authority, Scheme},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use proxy::{
    Live,
    balance::{Pick, PickFacts, pick},
    upstream::{cluster::LiveCluster, connect::connect, connected::ConnectOptions},
};
use proxy_config::{cluster::UpstreamProtocol, tracing::TracingProvider};
use telemetry::{
    stats::{Counters, Scope},
    trace::{Span, zipkin_json},
};
use tokio::{sync::mpsc, task::AbortHandle, time::timeout};

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
    link: Option<Link>,
    complained: Option<Instant>,
}

/// A connection to the collector.
struct Link {
    /// The cluster that it was made for.
    cluster: u64,
    sender: Sender,
    driver: AbortHandle,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What is posted, whatever carries it.
struct Call<'a> {
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
    #[error("no healthy endpoint")]
    NoHost,
    #[error("{0}")]
    Connection(String),
    #[error("it answered {0}")]
    Refused(String),
    #[error("no answer in time")]
    Late,
}

impl Failure {
    fn connection(error: impl Display) -> Self {
        Self::Connection(error.to_string())
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
            link: None,
            complained: None,
        }
    }

    /// Sends batches until nobody gives any more.
    pub async fn run(mut self, mut batches: mpsc::Receiver<Vec<Span>>) {
        while let Some(batch) = batches.recv().await {
            let spans = batch.len() as u64;
            let sent = timeout(self.limit(), self.deliver(&batch))
                .await
                .unwrap_or(Err(Failure::Late));
            match sent {
                Ok(()) => {
                    self.count(Count::ReportsSent, 1);
                    self.count(Count::SpansSent, spans);
                }
                Err(failure) => {
                    self.link = None;
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
        let call = call(&provider, spans);
        let name = self.cluster_name();
        let cluster = self
            .live
            .config()
            .cluster(name)
            .cloned()
            .ok_or_else(|| Failure::NoCluster(name.to_owned()))?;
        // A connection that was kept may have been closed by the other side meanwhile: that is
        // worth a second try.
        if let Some(link) = self
            .link
            .take()
            .filter(|link| link.cluster == cluster.id && !link.is_closed())
        {
            match self.send(link, &call, cluster.config.name.as_str()).await {
                Err(Failure::Connection(_)) => {}
                settled => return settled,
            }
        }
        let link = self.connect(&cluster, call.is_grpc).await?;
        self.send(link, &call, cluster.config.name.as_str()).await
    }

    async fn connect(&self, cluster: &Arc<LiveCluster>, is_grpc: bool) -> Result<Link, Failure> {
        let host = match pick(
            &cluster.config,
            &cluster.hosts(),
            &PickFacts::default(),
            &*self.live.rng,
        ) {
            Pick::Host(host) => host,
            Pick::NoHealthyHost => return Err(Failure::NoHost),
        };
        let connected = connect(cluster, &host, &ConnectOptions::default())
            .await
            .map_err(Failure::connection)?;
        let io = TokioIo::new(connected.stream);
        let (sender, driver) = if is_grpc || cluster.config.http.protocol == UpstreamProtocol::Http2
        {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new());
            let (sender, connection) = builder.handshake(io).await.map_err(Failure::connection)?;
            // How it ends, its next call learns.
            (
                Sender::Http2(sender),
                // task: the collector's HTTP/2 connection; aborted with its link
                tokio::spawn(async move { drop(connection.await) }),
            )
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(Failure::connection)?;
            (
                Sender::Http1(sender),
                // task: the collector's HTTP/1.1 connection; aborted with its link
                tokio::spawn(async move { drop(connection.await) }),
            )
        };
        Ok(Link {
            cluster: cluster.id,
            sender,
            driver: driver.abort_handle(),
        })
    }

    async fn send(
        &mut self,
        mut link: Link,
        call: &Call<'_>,
        cluster: &str,
    ) -> Result<(), Failure> {
        let request = call.request(&link.sender, cluster)?;
        let response = match &mut link.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        };
        check(response.map_err(Failure::connection)?, call.is_grpc).await?;
        self.link = Some(link);
        Ok(())
    }
}

impl Link {
    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

fn call<'a>(provider: &'a TracingProvider, spans: &[Span]) -> Call<'a> {
    match provider {
        TracingProvider::Zipkin {
            endpoint,
            hostname,
            shared_span_context,
            ..
        } => Call {
            authority: hostname,
            path: endpoint,
            content_type: "application/json",
            headers: &[],
            body: zipkin_json(spans, *shared_span_context).into(),
            is_grpc: false,
        },
        TracingProvider::OpenTelemetryGrpc { service_name, .. } => Call {
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
        } => Call {
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

impl Call<'_> {
    fn request(&self, sender: &Sender, cluster: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let authority = self.authority(cluster);
        let mut request = Request::post(self.path)
            .body(Full::new(self.body.clone()))
            .map_err(Failure::connection)?;
        match sender {
            Sender::Http1(_) => drop(request.headers_mut().insert(
                HOST,
                HeaderValue::try_from(authority.as_str()).map_err(Failure::connection)?,
            )),
            Sender::Http2(_) => {
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(authority));
                *request.uri_mut() = Uri::from_parts(parts).map_err(Failure::connection)?;
            }
        }
        let headers = request.headers_mut();
        for (name, value) in self.headers {
            headers.append(
                name.clone(),
                HeaderValue::try_from(&**value).map_err(Failure::connection)?,
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

async fn check(response: Response<Incoming>, is_grpc: bool) -> Result<(), Failure> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES)
        .collect()
        .await
        .map_err(Failure::connection)?;
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
        body.trailers()
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
