//! One attempt at an upstream: a connection, the request, the response's head.
//!
//! Time limits run from the end of the downstream's request, as in Envoy. An upgrade is translated
//! where the two sides speak different versions of HTTP: `upgrade` in HTTP/1 is extended CONNECT in
//! HTTP/2 (RFC 8441).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode, Uri, header, uri::Scheme};
use hyper::body::Incoming;
use proxy_config::{
    cluster::{Transport, UpstreamProtocol},
    metadata::Value,
};
use telemetry::record::Protocol;

use crate::{
    body::{Gate, RequestBody, RequestSource},
    endpoint::LiveEndpoint,
    exchange::{
        Exchange,
        plan::Plan,
        reply::{Content, Reply},
    },
    headers::{framing, text},
    report::{STATUS_LINE_BYTES, head_bytes},
    route::without_port,
    upstream::{
        call::{self, Answer, CallError, To},
        cluster::LiveCluster,
        connected::ConnectTimes,
        handshake::HttpVersion,
        metrics::Count,
        pool::{Lease, PoolKey, UpstreamConnection},
        reset::ResetReason,
    },
};

/// How long an upstream may let a client wait that asked `expect: 100-continue`.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// How an attempt failed.
pub(super) enum Failure {
    /// `request_sent`: the head had been written.
    Reset {
        reason: ResetReason,
        request_sent: bool,
    },
    PerTryTimeout,
    /// The route's time is over: no retry.
    RouteTimeout,
    /// The request took longer than any may.
    TooLong,
    /// The attempt took longer than any may at this cluster.
    UpstreamTooLong,
    /// The downstream broke off in its body: nobody waits for an answer.
    Downstream,
}

/// One attempt: a connection, the request, the response's head.
pub(super) async fn attempt(
    x: &mut Exchange,
    plan: &Plan,
    host: &Arc<LiveEndpoint>,
) -> Result<Reply, Failure> {
    let metrics = &plan.cluster.metrics;
    let per_try = x.request.per_try_timeout;
    let (body, started, limit) = (
        x.request.body.clone(),
        x.worker.live.clock.now(),
        x.request.timeout,
    );
    let (begun, longest) = (x.request.routed, x.request.longest);
    let of_cluster = plan.cluster.config.http.max_stream_duration;
    let upstream_longest = of_cluster.map(|limit| started + limit);
    tokio::select! {
        biased;
        result = converse(x, plan, host) => result,
        () = time_is_up(&body, begun, limit) => {
            metrics.count(Count::RqTimeout);
            Err(Failure::RouteTimeout)
        }
        () = time_is_up(&body, started, per_try) => {
            metrics.count(Count::RqPerTryTimeout);
            Err(Failure::PerTryTimeout)
        }
        () = until(longest) => Err(Failure::TooLong),
        () = until(upstream_longest) => {
            metrics.count(Count::RqMaxDurationReached);
            Err(Failure::UpstreamTooLong)
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves when `limit` has passed since the request was read whole, but not before `from`; never
/// without a limit.
pub(super) async fn time_is_up(
    body: &RequestSource,
    from: std::time::Instant,
    limit: Option<Duration>,
) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    body.complete().await;
    let ended = body.ended(from).map_or(from, |ended| ended.max(from));
    tokio::time::sleep_until((ended + limit).into()).await;
}

async fn converse(
    x: &mut Exchange,
    plan: &Plan,
    host: &Arc<LiveEndpoint>,
) -> Result<Reply, Failure> {
    let gate = gate(x);
    let worker = x.worker.clone();
    let to = To {
        pools: &worker.pools,
        cluster: &plan.cluster,
        host,
        key: pool_key(x, plan, host),
    };
    let mut asked = x.elapsed();
    let mut is_first = true;
    let sent = call::send(&to, |connection| {
        if !std::mem::take(&mut is_first) && !x.request.body.is_replayable() {
            return None;
        }
        record_connection(x, connection);
        let now = x.elapsed();
        let waited = now.saturating_sub(std::mem::replace(&mut asked, now));
        x.request.record.timings.upstream_pool = Some(waited);
        let request = request(x, connection, x.request.body.attempt(gate.clone()));
        Some(watch_continue(request, gate.as_ref()))
    })
    .await;
    if let Some(gate) = gate {
        gate.open();
    }
    match sent {
        Ok(Answer { response, lease }) if is_unasked(x, &response, &lease) => Err(Failure::Reset {
            reason: ResetReason::ProtocolError,
            request_sent: true,
        }),
        Ok(Answer { response, lease }) => {
            x.request.record.timings.first_upstream_rx = Some(x.elapsed());
            x.request.record.bytes.upstream_header_received =
                head_bytes(response.headers(), STATUS_LINE_BYTES);
            Ok(received(x, response, lease))
        }
        Err(CallError::Reset { .. }) if x.request.body.has_failed() => Err(Failure::Downstream),
        Err(error) => Err(failed(x, error)),
    }
}

/// Notes why there is no answer.
fn failed(x: &mut Exchange, error: CallError) -> Failure {
    let (reason, request_sent) = match error {
        CallError::Reset { reason, sent } => (reason, sent),
        CallError::Connect(error) => {
            x.request.record.upstream_transport_failure_reason =
                Some(error.reason.clone()).filter(|reason| !reason.is_empty());
            (error.into(), false)
        }
        CallError::Overflow => {
            // Nobody was asked.
            x.request.record.upstream_host = None;
            x.request.record.upstream_host_name = None;
            x.host = None;
            (ResetReason::Overflow, false)
        }
        // `send` neither picks hosts, nor keeps times, nor reads bodies.
        CallError::TooManyRequests
        | CallError::NoHost
        | CallError::Late
        | CallError::TooLong(_) => (ResetReason::Overflow, false),
    };
    Failure::Reset {
        reason,
        request_sent,
    }
}

/// Whether it switches to what nobody asked for.
fn is_unasked(x: &Exchange, response: &http::Response<Incoming>, lease: &Lease) -> bool {
    let is_http1 = matches!(
        lease.connection.protocol,
        Protocol::Http10 | Protocol::Http11
    );
    is_http1 && response.status() == StatusCode::SWITCHING_PROTOCOLS && x.request.upgrade.is_none()
}

/// The answer; one that switches protocols takes its connection along, in the words of the
/// downstream's HTTP version.
fn received(x: &Exchange, mut response: http::Response<Incoming>, lease: Lease) -> Reply {
    let status = response.status();
    let wanted = x.request.upgrade.is_some();
    let switches = match lease.connection.protocol {
        Protocol::Http2 | Protocol::Http3 => wanted && status.is_success(),
        Protocol::Http10 | Protocol::Http11 => {
            status == StatusCode::SWITCHING_PROTOCOLS
                || (x.request.head.method == Method::CONNECT
                    && !is_extended_connect(x)
                    && status.is_success())
        }
    };
    if !switches {
        return Reply::upstream(response, lease);
    }
    let upstream = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    match (&x.request.upgrade_kind, x.request.protocol()) {
        (Some(_), Protocol::Http2 | Protocol::Http3) => {
            head.status = StatusCode::OK;
            head.headers.remove(header::CONNECTION);
            head.headers.remove(header::UPGRADE);
        }
        (Some(kind), Protocol::Http10 | Protocol::Http11) => {
            head.status = StatusCode::SWITCHING_PROTOCOLS;
            head.headers
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, text(kind));
        }
        (None, _) => {}
    }
    Reply {
        head,
        content: Content::Tunnel { upstream, lease },
    }
}

fn is_extended_connect(x: &Exchange) -> bool {
    x.request
        .head
        .extensions
        .get::<hyper::ext::Protocol>()
        .is_some()
}

/// Lets the body pass when the upstream asks for it, answers, or says nothing for a while.
fn gate(x: &mut Exchange) -> Option<Gate> {
    let expects = x
        .request
        .head
        .headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !expects || x.request.body.is_empty() {
        return None;
    }
    if !x.http.config.proxy_100_continue {
        // We answer for the upstream: hyper does when the body is first read.
        x.request.head.headers.remove(header::EXPECT);
        return None;
    }
    Some(Gate::new(CONTINUE_WAIT))
}

fn watch_continue(
    mut request: http::Request<RequestBody>,
    gate: Option<&Gate>,
) -> http::Request<RequestBody> {
    if let Some(gate) = gate.cloned() {
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                gate.open();
            }
        });
    }
    request
}

/// The head for this connection's HTTP version.
fn request(
    x: &Exchange,
    connection: &UpstreamConnection,
    body: RequestBody,
) -> http::Request<RequestBody> {
    let mut request = http::Request::new(body);
    *request.method_mut() = x.request.head.method.clone();
    *request.headers_mut() = x.request.head.headers.clone();
    if x.http.config.preserve_header_case {
        // Among them how the client wrote its headers' names.
        *request.extensions_mut() = x.request.head.extensions.clone();
    }
    if connection.protocol == Protocol::Http2 {
        http2_request(x, &mut request);
    } else {
        http1_request(x, &mut request);
    }
    request
}

fn http1_request(x: &Exchange, request: &mut http::Request<RequestBody>) {
    *request.uri_mut() = x.request.head.uri.clone();
    let headers = request.headers_mut();
    headers.insert(header::HOST, x.request.authority.clone());
    if !x.request.body.is_empty() {
        framing::announce_http1_body(headers);
    } else if may_have_body(&x.request.head.method) && x.request.upgrade_kind.is_none() {
        headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from_static("0"));
    }
    if let (Some(kind), true) = (&x.request.upgrade_kind, is_extended_connect(x)) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, text(kind));
        *request.method_mut() = Method::GET;
    }
}

/// Whether a server would otherwise have to guess that there is no body (RFC 9110 §8.6).
fn may_have_body(method: &Method) -> bool {
    ![
        Method::GET,
        Method::HEAD,
        Method::DELETE,
        Method::TRACE,
        Method::CONNECT,
    ]
    .contains(method)
}

fn http2_request(x: &Exchange, request: &mut http::Request<RequestBody>) {
    let plain_connect = x.request.head.method == Method::CONNECT && !is_extended_connect(x);
    let mut parts = http::uri::Parts::default();
    parts.authority = x
        .request
        .authority
        .to_str()
        .ok()
        .and_then(|authority| authority.parse().ok());
    if !plain_connect {
        parts.scheme = Some(if x.request.scheme == "https" {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        });
        parts.path_and_query = x.request.head.uri.path_and_query().cloned();
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| x.request.head.uri.clone());
    *request.version_mut() = http::Version::HTTP_2;
    let Some(kind) = &x.request.upgrade_kind else {
        return;
    };
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().remove(header::UPGRADE);
    request
        .extensions_mut()
        .insert(hyper::ext::Protocol::from(&**kind));
    *request.method_mut() = Method::CONNECT;
}

fn record_connection(x: &mut Exchange, connection: &UpstreamConnection) {
    x.request.record.upstream_connection_id = connection.id;
    x.request.record.upstream_local = connection.local.map(Into::into);
    x.request.record.upstream_remote = connection.remote.map(Into::into);
    x.request.record.upstream_tls = connection.tls.clone();
    x.request.record.upstream_protocol = Some(connection.protocol);
    x.request.record.upstream_transport_failure_reason = None;
    let ConnectTimes {
        began,
        connected,
        secured,
    } = connection.times;
    let timings = &mut x.request.record.timings;
    timings.upstream_connect_start = began.checked_duration_since(x.request.started);
    timings.upstream_connect_complete = connected.checked_duration_since(x.request.started);
    timings.upstream_connect = Some(connected.saturating_duration_since(began));
    timings.upstream_handshake = secured.map(|done| done.saturating_duration_since(connected));
    x.request.record.timings.first_upstream_tx = Some(x.elapsed());
}

fn pool_key(x: &Exchange, plan: &Plan, host: &LiveEndpoint) -> PoolKey {
    let config = &plan.cluster.config;
    let version = match config.http.protocol {
        UpstreamProtocol::Http1 => HttpVersion::Http1,
        UpstreamProtocol::Http2 => HttpVersion::Http2,
        UpstreamProtocol::Downstream if x.request.protocol() == Protocol::Http2 => {
            HttpVersion::Http2
        }
        UpstreamProtocol::Downstream => HttpVersion::Http1,
        UpstreamProtocol::Alpn => HttpVersion::Negotiated,
    };
    let tls = host.transport.tls();
    let auto_sni = tls.is_some_and(|tls| tls.config().auto_sni || config.http.auto_sni);
    PoolKey {
        version,
        alpn: tls.and_then(|_| alpn_override(x, &plan.cluster, version)),
        server_name: auto_sni.then(|| {
            Arc::from(without_port(
                x.request.authority.to_str().unwrap_or_default(),
            ))
        }),
        high_priority: plan.rules.high_priority,
        downstream: matches!(config.transport, Transport::ProxyProtocol { .. }).then_some((
            x.connection.downstream.facts.source,
            x.connection.downstream.facts.destination,
        )),
    }
}

/// What Istio's ALPN filter offers to an upstream that speaks this version.
fn alpn_override(
    x: &Exchange,
    cluster: &LiveCluster,
    version: HttpVersion,
) -> Option<Arc<[Arc<str>]>> {
    if cluster
        .config
        .metadata
        .lookup("istio", &["alpn_override"])
        .and_then(Value::as_str)
        == Some("false")
    {
        return None;
    }
    let alpn = x.http.alpn.as_ref()?;
    let offered = match version {
        HttpVersion::Http1 if x.request.protocol() == Protocol::Http10 => &alpn.http10,
        HttpVersion::Http1 => &alpn.http11,
        HttpVersion::Http2 => &alpn.http2,
        HttpVersion::Negotiated => return None,
    };
    (!offered.is_empty()).then(|| offered.clone())
}
