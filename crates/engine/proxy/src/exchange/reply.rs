//! What answers a request, whoever made it, and its body on the way to the downstream.
//!
//! A [`Reply`] is a head and its [`Content`]; answers of the proxy itself are made of a
//! [`LocalReply`]. [`Reply::into_response`] ties the exchange to the body: when the body ends, the
//! request is reported as complete; when it is dropped before, as abandoned; when the upstream
//! breaks off, as reset.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode, header::CONNECTION, response::Parts};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use telemetry::record::{Protocol, ResponseFlags};
use tokio::time::Sleep;

use crate::{
    body::BodyError,
    codec::session::Ended,
    exchange::{Exchange, upgrade},
    grpc,
    headers::{self},
    local_reply::LocalReply,
    report::{STATUS_LINE_BYTES, downstream::HttpCount, head_bytes},
    request::Request,
    upstream::{
        metrics::Count,
        pool::Lease,
        reset::{ResetReason, body_reset_reason},
    },
};

/// An answer, not yet sent.
pub struct Reply {
    pub head: Parts,
    pub content: Content,
}

pub enum Content {
    Empty,
    Full(Bytes),
    /// What the upstream sends.
    Upstream {
        body: Incoming,
        lease: Lease,
    },
    /// The connection becomes a tunnel to this upstream connection.
    Tunnel {
        upstream: OnUpgrade,
        lease: Lease,
    },
}

impl Content {
    /// Whether its length is known only when it ends.
    fn is_open_ended(&self) -> bool {
        match self {
            Self::Upstream { body, .. } => {
                !body.is_end_stream() && body.size_hint().exact().is_none()
            }
            Self::Empty | Self::Full(_) | Self::Tunnel { .. } => false,
        }
    }
}

impl Reply {
    /// An answer of the proxy itself, as [`LocalReply::new`].
    pub fn local(
        x: &mut Exchange,
        status: StatusCode,
        body: impl Into<Bytes>,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        LocalReply::new(&mut x.request, status, body, details).into()
    }

    /// As [`Reply::local`], with a flag.
    pub fn failure(
        x: &mut Exchange,
        status: StatusCode,
        body: impl Into<Bytes>,
        flag: ResponseFlags,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        LocalReply::failure(&mut x.request, status, body, flag, details).into()
    }

    /// The upstream's answer.
    pub fn upstream(response: Response<Incoming>, lease: Lease) -> Self {
        let (head, body) = response.into_parts();
        Self {
            head,
            content: Content::Upstream { body, lease },
        }
    }

    /// Whether the proxy made it.
    pub fn is_local(&self) -> bool {
        matches!(self.content, Content::Empty | Content::Full(_))
    }

    /// The response as the codec takes it. The exchange ends with its body.
    pub fn into_response(self, mut x: Box<Exchange>) -> Response<ReplyBody> {
        let Self { mut head, content } = self;
        // HTTP/1.0 has no chunks: only the connection's end tells that of an answer whose length is
        // not known.
        x.request.closes |=
            x.request.head.version == http::Version::HTTP_10 && content.is_open_ended();
        headers::response::finish(&x.request, &x.http.server_name, &mut head);
        status_line(&x.request, &mut head);
        // A client that went away gets no answer.
        let elapsed = x.elapsed();
        let record = &mut x.request.record;
        let flags = record.flags;
        let gone = flags.contains(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
        record.status = Some(head.status.as_u16()).filter(|_| !gone);
        let told = record.grpc_status;
        record.grpc_status = told.or_else(|| grpc::status_in(&head.headers));
        record.response_headers = x.http.needs.keep_response(&head.headers);
        record.bytes.downstream_header_sent = head_bytes(&head.headers, STATUS_LINE_BYTES);
        record.timings.first_downstream_tx = Some(elapsed);
        let mut body = ReplyBody {
            x: None,
            content: Passing::Empty,
            complete: true,
            failed: None,
            timer: None,
            messages: grpc::Messages::default(),
            held: None,
        };
        match content {
            Content::Empty => {}
            Content::Full(_) if is_bodiless(&x.request.head.method, head.status) => {}
            Content::Full(bytes) => {
                body.content = Passing::Full(Some(bytes));
                body.complete = false;
            }
            Content::Upstream {
                body: incoming,
                lease,
            } => {
                body.complete = incoming.is_end_stream();
                body.timer = Timer::new(&x);
                body.content = Passing::Upstream {
                    body: incoming,
                    is_http2: lease.connection.protocol == Protocol::Http2,
                    lease: Some(lease),
                };
                if body.complete {
                    x.request.record.timings.last_upstream_rx = Some(x.elapsed());
                    body.release(&x);
                }
            }
            Content::Tunnel { upstream, lease } => {
                if x.request
                    .head
                    .extensions
                    .get::<hyper::ext::Protocol>()
                    .is_some()
                {
                    // Told in the words of HTTP/1, as everywhere in Envoy but on the wire.
                    x.request.record.status = Some(StatusCode::SWITCHING_PROTOCOLS.as_u16());
                }
                upgrade::tunnel(x, upstream, lease);
                return Response::from_parts(head, body);
            }
        }
        body.x = Some(x);
        Response::from_parts(head, body)
    }
}

impl From<LocalReply> for Reply {
    fn from(LocalReply { head, body }: LocalReply) -> Self {
        let content = if body.is_empty() {
            Content::Empty
        } else {
            Content::Full(body)
        };
        Self { head, content }
    }
}

/// hyper takes the version from the connection, and the phrase from the status. To an answer of
/// HTTP/1.1 it would add that an old client's connection stays.
fn status_line(request: &Request, head: &mut Parts) {
    let closes = head
        .headers
        .get(CONNECTION)
        .is_some_and(|value| value == "close");
    head.version = match request.head.version == http::Version::HTTP_10 && closes {
        true => http::Version::HTTP_10,
        false => http::Version::HTTP_11,
    };
    head.extensions.remove::<hyper::ext::ReasonPhrase>();
    if head.status.canonical_reason().is_none() || NAMELESS.contains(&head.status) {
        let unknown = hyper::ext::ReasonPhrase::from_static(b"Unknown");
        head.extensions.insert(unknown);
    }
}

/// Statuses that Envoy has no phrase for.
const NAMELESS: [StatusCode; 2] = [
    StatusCode::IM_A_TEAPOT,
    StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
];

/// Whether an answer has no body, whatever its head says (RFC 9112 §6.3).
fn is_bodiless(method: &http::Method, status: StatusCode) -> bool {
    *method == http::Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// A response's body on its way to the downstream's codec.
pub struct ReplyBody {
    x: Option<Box<Exchange>>,
    content: Passing,
    /// Nothing more will come.
    complete: bool,
    /// How it failed; told when the codec has had its turn to send what came before.
    failed: Option<BodyError>,
    timer: Option<Box<Timer>>,
    messages: grpc::Messages,
    /// Counts the request as under way on its connection.
    held: Option<Ended>,
}

enum Passing {
    Empty,
    Full(Option<Bytes>),
    /// The lease goes back when the body ends.
    Upstream {
        body: Incoming,
        lease: Option<Lease>,
        /// The codec reports a stream that was reset without an error as one that ended.
        is_http2: bool,
    },
}

/// What may cut a response short.
struct Timer {
    /// From the request's end; the sleep exists once that is known.
    route: Option<(Duration, Option<Pin<Box<Sleep>>>)>,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    longest: Option<Pin<Box<Sleep>>>,
    seen_bytes: u64,
}

/// Why a response was cut short.
enum TimeOver {
    Route,
    Idle,
    Longest,
}

impl Timer {
    fn new(x: &Exchange) -> Option<Box<Self>> {
        let idle = x.request.stream_idle_timeout();
        if x.request.timeout.is_none() && idle.is_none() && x.request.longest.is_none() {
            return None;
        }
        Some(Box::new(Self {
            route: x.request.timeout.map(|limit| (limit, None)),
            idle: idle.map(|limit| (limit, Box::pin(tokio::time::sleep(limit)))),
            longest: x
                .request
                .longest
                .map(|instant| Box::pin(tokio::time::sleep_until(instant.into()))),
            seen_bytes: x.request.body.bytes(),
        }))
    }

    /// Ready when time is up.
    fn poll(&mut self, x: &Exchange, cx: &mut Context<'_>) -> Poll<TimeOver> {
        if self
            .longest
            .as_mut()
            .is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(TimeOver::Longest);
        }
        if let Some((limit, sleep)) = &mut self.route {
            if sleep.is_none() && x.request.body.poll_complete(cx).is_ready() {
                let ended = x
                    .request
                    .body
                    .ended(x.request.started)
                    .map_or(x.request.routed, |ended| ended.max(x.request.routed));
                *sleep = Some(Box::pin(tokio::time::sleep_until((ended + *limit).into())));
            }
            if sleep
                .as_mut()
                .is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
            {
                return Poll::Ready(TimeOver::Route);
            }
        }
        let Some((limit, sleep)) = &mut self.idle else {
            return Poll::Pending;
        };
        while sleep.as_mut().poll(cx).is_ready() {
            // Bytes that go up keep a stream from being idle, too.
            let bytes = x.request.body.bytes();
            if bytes == std::mem::replace(&mut self.seen_bytes, bytes) {
                return Poll::Ready(TimeOver::Idle);
            }
            sleep.as_mut().reset(tokio::time::Instant::now() + *limit);
        }
        Poll::Pending
    }

    fn active(&mut self) {
        if let Some((limit, sleep)) = &mut self.idle {
            sleep.as_mut().reset(tokio::time::Instant::now() + *limit);
        }
    }
}

impl ReplyBody {
    /// Keeps this until the body's end.
    pub(crate) fn hold(&mut self, ended: Ended) {
        self.held = Some(ended);
    }

    /// The upstream's connection may take another request, if the request was sent whole.
    fn release(&mut self, x: &Exchange) {
        let Passing::Upstream { lease, .. } = &mut self.content else {
            return;
        };
        let is_sent = x.request.body.ended(x.request.started).is_some();
        match lease.take() {
            Some(lease) if is_sent => lease.release(),
            _ => x.request.body.abandon(),
        }
    }

    fn end(&mut self) {
        self.complete = true;
        if let Some(mut x) = self.x.take() {
            x.request.record.timings.last_upstream_rx = Some(x.elapsed());
            self.release(&x);
            self.report(x);
        }
    }

    fn report(&self, mut x: Box<Exchange>) {
        x.request.record.response_messages = self.messages.count();
        x.request.record.timings.last_downstream_tx = Some(x.elapsed());
        x.report();
    }

    /// The response cannot be completed; the codec resets the stream or closes the connection.
    fn fail(&mut self, flag: ResponseFlags, details: String) -> BodyError {
        let message = details.clone();
        if let Some(mut x) = self.x.take() {
            x.request.record.flags.insert(flag);
            x.request.record.response_code_details = Some(details.into());
            self.report(x);
        }
        self.content = Passing::Empty;
        message.into()
    }

    /// The upstream's stream ended without a whole answer.
    fn reset(&mut self, reason: &ResetReason) -> BodyError {
        if let (ResetReason::RemoteReset, Some(cluster)) =
            (reason, self.x.as_ref().and_then(|x| x.cluster.as_ref()))
        {
            cluster.metrics.count(Count::RqRxReset);
        }
        let details = format!(
            "upstream_reset_after_response_started{{{}}}",
            reason.as_str().replace(' ', "_")
        );
        self.fail(reason.flag(), details)
    }

    /// The codec polls a body before it sends the head, and an error makes it drop what it holds:
    /// so it gets a turn to send first.
    fn fail_after_a_turn(
        &mut self,
        error: BodyError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.failed = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn took(&mut self, frame: &Frame<Bytes>) {
        let Some(x) = &mut self.x else { return };
        if let Some(data) = frame.data_ref() {
            let began = x.elapsed();
            x.request
                .record
                .timings
                .first_upstream_body_rx
                .get_or_insert(began);
            x.request.record.bytes.sent += data.len() as u64;
            x.request.record.bytes.upstream_body_received += data.len() as u64;
            if x.request.is_grpc {
                self.messages.feed(data);
            }
        }
        if let Some(trailers) = frame.trailers_ref() {
            x.request.record.grpc_status =
                grpc::status_in(trailers).or(x.request.record.grpc_status);
            x.request.record.response_trailers = x.http.needs.keep_trailers(trailers);
        }
        if let Some(timer) = &mut self.timer {
            timer.active();
        }
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let (Some(timer), Some(x)) = (&mut self.timer, &self.x) else {
            return Poll::Pending;
        };
        let over = ready!(timer.poll(x, cx));
        let (flag, details) = match over {
            TimeOver::Route => {
                if let Some(cluster) = &x.cluster {
                    cluster.metrics.count(Count::RqTimeout);
                }
                (ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout")
            }
            TimeOver::Idle => (ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
            TimeOver::Longest => {
                x.http.metrics.count(HttpCount::TooLong);
                (ResponseFlags::NONE, "max_duration_timeout")
            }
        };
        Poll::Ready(self.fail(flag, details.to_owned()))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let next = match &mut this.content {
            Passing::Empty => return Poll::Ready(None),
            Passing::Full(bytes) => {
                let bytes = bytes.take();
                if let (Some(bytes), Some(x)) = (&bytes, &mut this.x) {
                    x.request.record.bytes.sent += bytes.len() as u64;
                }
                this.complete = true;
                return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
            }
            Passing::Upstream { body, is_http2, .. } => match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => None,
                Poll::Ready(None) if *is_http2 && !body.is_end_stream() => {
                    let error = this.reset(&ResetReason::RemoteReset);
                    return this.fail_after_a_turn(error, cx);
                }
                Poll::Ready(next) => Some((next, body.is_end_stream())),
            },
        };
        match next {
            None => {
                let error = ready!(this.poll_time(cx));
                this.fail_after_a_turn(error, cx)
            }
            Some((Some(Ok(frame)), last)) => {
                this.took(&frame);
                // Nothing comes after trailers, and the codec does not ask.
                if last || frame.is_trailers() {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some((Some(Err(error)), _)) => {
                let error = this.reset(&body_reset_reason(&error));
                this.fail_after_a_turn(error, cx)
            }
            Some((None, _)) => {
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.complete
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Passing::Empty => SizeHint::with_exact(0),
            Passing::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Passing::Upstream { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        // A local answer was handed over whole; an upstream's that did not end was abandoned, which
        // the exchange's own drop says.
        if self.complete
            && let Some(x) = self.x.take()
        {
            self.report(x);
        }
    }
}

/// The host of the record for an endpoint.
pub fn record_host(x: &mut Exchange, host: &Arc<crate::endpoint::LiveEndpoint>) {
    x.request.record.upstream_host = host.record_address();
    x.request.record.upstream_host_name =
        Some(host.config.hostname.clone()).filter(|name| !name.is_empty());
    x.host = Some(host.clone());
    x.request.record.upstream_peer = crate::peers::of_endpoint(&host.config.metadata);
}
