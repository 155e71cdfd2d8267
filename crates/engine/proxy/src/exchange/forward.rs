//! A request to its upstream and the response's head back: attempts, timeouts, retries.
//!
//! The loop is here; what it decides is decided by pure functions (`balance::pick`, `retry::decide`, `retry::back_off`). Each attempt picks a
//! host, borrows a connection, sends the request and waits for a head; time limits run from the end of the downstream's request, as in Envoy.
//! `Err` is a reply of the proxy itself. Follows Envoy's router filter documentation.

#![expect(clippy::result_large_err, reason = "a refusal is a reply like any other, made at most once for a request")]

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderValue, Method, StatusCode, Uri, header, uri::Scheme};
use hyper::body::Incoming;
use proxy_config::{
    cluster::{Discovery, Transport, UpstreamProtocol},
    filter::HttpFilterKind,
    metadata::Value,
    route::{Forward, RetryPolicy},
};
use telemetry::record::{Protocol, ResponseFlags};

use super::{
    Exchange,
    body::{Gate, RequestBody, RequestSource},
    grpc, mirror,
    reply::{Content, Reply, record_host},
};
use crate::{
    balance::{self, Pick, PickFacts, hash},
    codec::ResetReason,
    headers::{self, names::*, upstream},
    publish::{LiveCluster, LiveEndpoint},
    route::without_port,
    upstream::{
        breaker::{Guard, Resource},
        metrics::{Count, Level},
        original_destination, outlier,
        pool::{AcquireError, HttpVersion, Lease, PoolKey},
        retry::{self, Decision},
    },
};

/// How long an upstream may let a client wait that asked `expect: 100-continue`.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// How an attempt failed.
enum Failure {
    /// `request_sent`: the head had been written.
    Reset { reason: ResetReason, request_sent: bool },
    PerTryTimeout,
    /// The route's time is over: no retry.
    RouteTimeout,
    /// The downstream broke off in its body: nobody waits for an answer.
    Downstream,
}

/// What stays the same over all attempts.
struct Plan {
    cluster: Arc<LiveCluster>,
    rules: Arc<Forward>,
    retry: Option<Arc<RetryPolicy>>,
    hash: Option<u64>,
    /// Hosts that were tried.
    tried: Vec<u64>,
    retries: u32,
}

/// Forwards the request by these rules.
pub async fn forward(x: &mut Exchange, rules: &Arc<Forward>) -> Result<Reply, Reply> {
    let Some(cluster) = x.cluster.clone() else {
        return Err(Reply::failure(x, rules.cluster_not_found_status, "", ResponseFlags::NO_CLUSTER_FOUND, "cluster_not_found"));
    };
    check_upgrade(x)?;
    x.timeout = timeout(x, rules);
    upstream::prepare(x, rules);
    mirror::start(x, rules);
    let mut plan = plan(x, rules, cluster);
    if plan.retry.is_some() {
        x.body.keep();
    }
    let reply = attempts(x, &mut plan).await;
    x.body.stop_keeping();
    if plan.retries > 0 && reply.as_ref().is_ok_and(|reply| !reply.is_local()) {
        plan.cluster.metrics.count(Count::RqRetrySuccess);
    }
    reply
}

fn plan(x: &Exchange, rules: &Arc<Forward>, cluster: Arc<LiveCluster>) -> Plan {
    let of_host = || x.route.as_ref().and_then(|matched| matched.virtual_host.retry.clone());
    // A connection that was handed over cannot be handed over again.
    let retry = rules.retry.clone().or_else(of_host).filter(|policy| x.upgrade.is_none() && retry::applies(policy, &x.view()));
    Plan { hash: hash::of(&rules.hash_policies, x), cluster, rules: rules.clone(), retry, tried: Vec::new(), retries: 0 }
}

/// The whole loop: until an answer, or until no retry is left.
async fn attempts(x: &mut Exchange, plan: &mut Plan) -> Result<Reply, Reply> {
    let mut retrying: Option<Guard> = None;
    loop {
        let Some(host) = pick(x, plan) else {
            plan.cluster.metrics.count(Count::CxNoneHealthy);
            return Err(Reply::failure(
                x,
                StatusCode::SERVICE_UNAVAILABLE,
                "no healthy upstream",
                ResponseFlags::NO_HEALTHY_UPSTREAM,
                "no_healthy_upstream",
            ));
        };
        plan.tried.push(host.state.id);
        x.record.attempts += 1;
        let attempts = x.record.attempts;
        record_host(x, &host);
        upstream::auto_host(x, &plan.rules, &host.config.hostname);
        upstream::attempt(x, attempts);
        let result = attempt(x, plan, &host).await;
        drop(retrying.take());
        observe(x, &plan.cluster, &host, &result);
        match (after(x, plan, &result), result) {
            (Next::Retry(place), _) => {
                retrying = place;
                wait_before_retry(x, plan).await?;
            }
            (Next::Answer, Ok(reply)) => return Ok(finish_upstream(x, reply)),
            (Next::Answer, Err(failure)) => return Err(refusal(x, failure)),
        }
    }
}

enum Next {
    /// With a place in the breaker for retries.
    Retry(Option<Guard>),
    Answer,
}

/// Whether another attempt follows.
fn after(x: &mut Exchange, plan: &mut Plan, result: &Result<Reply, Failure>) -> Next {
    let Some(policy) = &plan.retry else { return Next::Answer };
    let attempt = match result {
        Ok(reply) => retry::Attempt::Response { status: reply.head.status.as_u16(), headers: &reply.head.headers },
        Err(Failure::Reset { reason, request_sent }) => retry::Attempt::Reset { reason, request_sent: *request_sent },
        Err(Failure::PerTryTimeout) => retry::Attempt::PerTryTimeout,
        Err(Failure::RouteTimeout | Failure::Downstream) => return Next::Answer,
    };
    let metrics = &plan.cluster.metrics;
    match retry::decide(policy, attempt, plan.retries) {
        Decision::No => Next::Answer,
        Decision::LimitExceeded => {
            // A policy of no retries is none that could be exceeded.
            if policy.num_retries > 0 {
                x.record.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                metrics.count(Count::RqRetryLimitExceeded);
            }
            Next::Answer
        }
        Decision::Retry if !x.body.is_replayable() => Next::Answer,
        Decision::Retry => match plan.cluster.breaker(plan.rules.high_priority).enter(Resource::Retries) {
            None => {
                x.record.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
                metrics.count(Count::RqRetryOverflow);
                Next::Answer
            }
            place => {
                plan.retries += 1;
                metrics.count(Count::RqRetry);
                Next::Retry(place)
            }
        },
    }
}

/// Waits; the route's time goes on meanwhile.
async fn wait_before_retry(x: &mut Exchange, plan: &Plan) -> Result<(), Reply> {
    let Some(policy) = &plan.retry else { return Ok(()) };
    let pause = retry::back_off(&policy.back_off, plan.retries, x.worker.live.rng.u64());
    if pause.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = time_is_up(&x.body, x.started, x.timeout) => Err(refusal(x, Failure::RouteTimeout)),
    }
}

fn pick(x: &Exchange, plan: &Plan) -> Option<Arc<LiveEndpoint>> {
    let skip = plan.retry.as_ref().filter(|policy| policy.skip_previous_hosts && !plan.tried.is_empty());
    let facts = PickFacts {
        hash: plan.hash,
        metadata_match: x.weighted_cluster().and_then(|w| w.metadata_match.as_ref()).or(plan.rules.metadata_match.as_ref()),
        tried: if skip.is_some() { &plan.tried } else { &[] },
        selection_attempts: skip.map_or(0, |policy| policy.host_selection_max_attempts),
    };
    if let Discovery::OriginalDst { http_header, port_override } = &plan.cluster.config.discovery {
        let named = http_header.as_ref().map(|name| x.head.headers.get(name));
        return original_destination::pick(&plan.cluster, &x.connection, named, *port_override, &x.worker.live);
    }
    match balance::pick(&plan.cluster.config, &plan.cluster.hosts(), &facts, &*x.worker.live.rng) {
        Pick::Host(host) => Some(host),
        Pick::NoHealthyHost => None,
    }
}

/// One attempt: a connection, the request, the response's head.
async fn attempt(x: &mut Exchange, plan: &Plan, host: &Arc<LiveEndpoint>) -> Result<Reply, Failure> {
    let metrics = &plan.cluster.metrics;
    let overflow = Failure::Reset { reason: ResetReason::Overflow, request_sent: false };
    let Some(place) = plan.cluster.breaker(plan.rules.high_priority).enter(Resource::Requests) else {
        metrics.count(Count::RqPendingOverflow);
        return Err(overflow);
    };
    metrics.count(Count::RqTotal);
    let in_flight = InFlight::new(&plan.cluster, host, place);
    let per_try = plan.retry.as_ref().and_then(|policy| policy.per_try_timeout);
    let (body, started, limit) = (x.body.clone(), x.worker.live.clock.now(), x.timeout);
    let begun = x.started;
    tokio::select! {
        biased;
        result = converse(x, plan, host, in_flight) => result,
        () = time_is_up(&body, begun, limit) => {
            metrics.count(Count::RqTimeout);
            Err(Failure::RouteTimeout)
        }
        () = time_is_up(&body, started, per_try) => {
            metrics.count(Count::RqPerTryTimeout);
            Err(Failure::PerTryTimeout)
        }
    }
}

/// Resolves when `limit` has passed since the request was read whole, but not before `from`; never without a limit.
async fn time_is_up(body: &RequestSource, from: std::time::Instant, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    body.complete().await;
    let ended = body.ended(from).map_or(from, |ended| ended.max(from));
    tokio::time::sleep_until((ended + limit).into()).await;
}

async fn converse(x: &mut Exchange, plan: &Plan, host: &Arc<LiveEndpoint>, in_flight: InFlight) -> Result<Reply, Failure> {
    let pool = x.worker.pools.pool(&plan.cluster, host, pool_key(x, plan, host));
    let gate = gate(x);
    // A connection that closes just as it is lent gives the request back unsent; each such round uses up one idle connection.
    loop {
        let mut lease = pool.acquire().await.map_err(|error| match error {
            AcquireError::Overflow => {
                plan.cluster.metrics.count(Count::RqPendingOverflow);
                Failure::Reset { reason: ResetReason::Overflow, request_sent: false }
            }
            AcquireError::Connect(error) => {
                x.record.upstream_transport_failure_reason = Some(error.reason.clone()).filter(|reason| !reason.is_empty());
                Failure::Reset { reason: error.into(), request_sent: false }
            }
        })?;
        record_connection(x, &lease);
        let request = request(x, &lease, x.body.attempt(gate.clone()));
        let sent = lease.send(watch_continue(request, gate.as_ref()));
        let result = match &gate {
            None => sent.await,
            Some(gate) => with_patience(sent, gate).await,
        };
        match result {
            Ok(response) => {
                x.record.timings.first_upstream_rx = Some(x.elapsed());
                lease.hold(in_flight);
                return Ok(received(response, lease, &x.head.method));
            }
            Err(_) if x.body.has_failed() => return Err(Failure::Downstream),
            Err(error) if error.unsent.is_some() && x.body.is_replayable() => continue,
            Err(error) => {
                plan.cluster.metrics.count(Count::RqRxReset);
                return Err(Failure::Reset { reason: error.reset, request_sent: error.unsent.is_none() });
            }
        }
    }
}

fn received(mut response: http::Response<Incoming>, lease: Lease, method: &Method) -> Reply {
    let status = response.status();
    let tunnels = status == StatusCode::SWITCHING_PROTOCOLS || (*method == Method::CONNECT && status.is_success());
    if !tunnels {
        return Reply::upstream(response, lease);
    }
    let upstream = hyper::upgrade::on(&mut response);
    let (head, _) = response.into_parts();
    Reply { head, content: Content::Tunnel { upstream, lease } }
}

/// Lets the body pass when the upstream asks for it, answers, or says nothing for a while.
async fn with_patience<T>(sent: impl Future<Output = T>, gate: &Gate) -> T {
    tokio::pin!(sent);
    tokio::select! {
        biased;
        result = &mut sent => {
            gate.open();
            return result;
        }
        () = tokio::time::sleep(CONTINUE_WAIT) => gate.open(),
    }
    sent.await
}

fn gate(x: &mut Exchange) -> Option<Gate> {
    let expects = x.head.headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !expects || x.body.is_empty() {
        return None;
    }
    if !x.http.config.proxy_100_continue {
        // We answer for the upstream: hyper does when the body is first read.
        x.head.headers.remove(header::EXPECT);
        return None;
    }
    Some(Gate::default())
}

fn watch_continue(mut request: http::Request<RequestBody>, gate: Option<&Gate>) -> http::Request<RequestBody> {
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
fn request(x: &Exchange, lease: &Lease, body: RequestBody) -> http::Request<RequestBody> {
    let mut request = http::Request::new(body);
    *request.method_mut() = x.head.method.clone();
    *request.headers_mut() = x.head.headers.clone();
    let is_connect = x.head.method == Method::CONNECT;
    if lease.connection.protocol == Protocol::Http2 {
        let mut parts = http::uri::Parts::default();
        parts.authority = x.authority.to_str().ok().and_then(|authority| authority.parse().ok());
        if !is_connect {
            parts.scheme = Some(if x.scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
            parts.path_and_query = x.head.uri.path_and_query().cloned();
        }
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| x.head.uri.clone());
        *request.version_mut() = http::Version::HTTP_2;
    } else {
        *request.uri_mut() = x.head.uri.clone();
        request.headers_mut().insert(header::HOST, x.authority.clone());
    }
    request
}

fn record_connection(x: &mut Exchange, lease: &Lease) {
    let connection = &lease.connection;
    x.record.upstream_connection_id = connection.id;
    x.record.upstream_local = connection.local.map(Into::into);
    x.record.upstream_remote = connection.remote.map(Into::into);
    x.record.upstream_tls = connection.tls.clone();
    x.record.upstream_protocol = Some(connection.protocol);
    x.record.upstream_transport_failure_reason = None;
    x.record.timings.first_upstream_tx = Some(x.elapsed());
}

fn pool_key(x: &Exchange, plan: &Plan, host: &LiveEndpoint) -> PoolKey {
    let config = &plan.cluster.config;
    let version = match config.http.protocol {
        UpstreamProtocol::Http1 => HttpVersion::Http1,
        UpstreamProtocol::Http2 => HttpVersion::Http2,
        UpstreamProtocol::Downstream if x.protocol() == Protocol::Http2 => HttpVersion::Http2,
        UpstreamProtocol::Downstream => HttpVersion::Http1,
        UpstreamProtocol::Alpn => HttpVersion::Negotiated,
    };
    let tls = host.transport.tls();
    let auto_sni = tls.is_some_and(|tls| tls.config().auto_sni || config.http.auto_sni);
    PoolKey {
        version,
        alpn: tls.and_then(|_| alpn_override(x, &plan.cluster, version)),
        server_name: auto_sni.then(|| Arc::from(without_port(x.authority.to_str().unwrap_or_default()))),
        high_priority: plan.rules.high_priority,
        downstream: matches!(config.transport, Transport::ProxyProtocol { .. })
            .then_some((x.connection.facts.source, x.connection.facts.destination)),
    }
}

/// What Istio's ALPN filter offers to an upstream that speaks this version.
fn alpn_override(x: &Exchange, cluster: &LiveCluster, version: HttpVersion) -> Option<Arc<[Arc<str>]>> {
    if cluster.config.metadata.lookup("istio", &["alpn_override"]).and_then(Value::as_str) == Some("false") {
        return None;
    }
    let alpn = x.http.config.filters.iter().find_map(|filter| match &filter.kind {
        HttpFilterKind::Alpn(alpn) if !filter.disabled => Some(alpn),
        _ => None,
    })?;
    let offered = match version {
        HttpVersion::Http1 if x.protocol() == Protocol::Http10 => &alpn.http10,
        HttpVersion::Http1 => &alpn.http11,
        HttpVersion::Http2 => &alpn.http2,
        HttpVersion::Negotiated => return None,
    };
    (!offered.is_empty()).then(|| offered.clone())
}

/// A gRPC call's own limit where the route heeds it, else the route's.
fn timeout(x: &Exchange, rules: &Forward) -> Option<Duration> {
    let duration = &rules.max_stream_duration;
    if let (true, Some(cap)) = (x.is_grpc, duration.grpc_timeout_header_max) {
        let cap = Some(cap).filter(|cap| !cap.is_zero());
        let asked = grpc::timeout_in(&x.head.headers).map(|t| t.saturating_sub(duration.grpc_timeout_header_offset.unwrap_or_default()));
        return match (asked, cap) {
            (Some(asked), Some(cap)) => Some(asked.min(cap)),
            (asked, cap) => asked.or(cap),
        };
    }
    rules.timeout
}

fn check_upgrade(x: &mut Exchange) -> Result<(), Reply> {
    let kind = match (x.head.method == Method::CONNECT, x.head.headers.get(header::UPGRADE)) {
        (true, _) => "CONNECT".to_owned(),
        (false, Some(kind)) if x.upgrade.is_some() => kind.to_str().unwrap_or_default().to_owned(),
        _ => return Ok(()),
    };
    if x.allows_upgrade(&kind) { Ok(()) } else { Err(Reply::local(x, StatusCode::FORBIDDEN, "", "upgrade_failed")) }
}

/// What the result teaches about the host.
fn observe(x: &Exchange, cluster: &Arc<LiveCluster>, host: &LiveEndpoint, result: &Result<Reply, Failure>) {
    let outcome = match result {
        Ok(reply) => outlier::Outcome::Status(reply.head.status.as_u16()),
        Err(Failure::Reset { reason: ResetReason::Overflow, .. } | Failure::Downstream) => return,
        Err(Failure::Reset { .. }) => outlier::Outcome::LocalOriginFailure,
        Err(Failure::PerTryTimeout | Failure::RouteTimeout) => outlier::Outcome::Timeout,
    };
    let now = x.worker.live.clock.now();
    if outlier::observe(cluster, host, outcome, now) {
        cluster.refresh(now);
    }
}

/// The upstream's answer, with what the router adds.
fn finish_upstream(x: &mut Exchange, mut reply: Reply) -> Reply {
    if let Some(cluster) = &x.cluster {
        cluster.metrics.answered(reply.head.status.as_u16());
    }
    x.record.response_code_details = Some("via_upstream".into());
    headers::operations::on_response(x, &mut reply.head.headers);
    if !upstream::suppresses_envoy_headers(x)
        && let Some(time) = x.record.timings.upstream_service_time()
    {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        reply.head.headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, headers::number(milliseconds));
    }
    attempt_count(x, &mut reply);
    reply
}

fn attempt_count(x: &Exchange, reply: &mut Reply) {
    if x.route.as_ref().is_some_and(|matched| matched.virtual_host.include_attempt_count_in_response) {
        reply.head.headers.insert(X_ENVOY_ATTEMPT_COUNT, headers::number(x.record.attempts.into()));
    }
}

/// The proxy's own answer for a failure, in Envoy's words.
fn refusal(x: &mut Exchange, failure: Failure) -> Reply {
    const TIMEOUT: ResponseFlags = ResponseFlags::UPSTREAM_REQUEST_TIMEOUT;
    let mut reply = match failure {
        Failure::RouteTimeout => {
            Reply::failure(x, StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", TIMEOUT, "response_timeout")
        }
        Failure::PerTryTimeout => {
            Reply::failure(x, StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", TIMEOUT, "upstream_per_try_timeout")
        }
        Failure::Downstream => {
            let flag = ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;
            Reply::failure(x, StatusCode::BAD_REQUEST, "", flag, "downstream_remote_disconnect")
        }
        Failure::Reset { reason, .. } => reset(x, &reason),
    };
    if let Some(cluster) = &x.cluster {
        cluster.metrics.answered(reply.head.status.as_u16());
    }
    attempt_count(x, &mut reply);
    reply
}

fn reset(x: &mut Exchange, reason: &ResetReason) -> Reply {
    let why = reason.transport_failure();
    let retried = if x.record.attempts > 1 { "retried and the latest " } else { "" };
    let transport = why.map(|why| format!(", transport failure reason: {why}")).unwrap_or_default();
    let body =
        format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {}{transport}", reason.as_str());
    let detail = why.map(|why| format!("|{why}")).unwrap_or_default();
    let details = format!("upstream_reset_before_response_started{{{}{detail}}}", reason.as_str()).replace(' ', "_");
    x.record.upstream_transport_failure_reason = why.cloned();
    let mut reply = Reply::failure(x, StatusCode::SERVICE_UNAVAILABLE, body, reason.flag(), details);
    if *reason == ResetReason::Overflow && !upstream::suppresses_envoy_headers(x) {
        reply.head.headers.insert(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
    }
    reply
}

/// A request under way at a host, until its response has ended.
pub(crate) struct InFlight {
    cluster: Arc<LiveCluster>,
    host: Arc<LiveEndpoint>,
    _place: Guard,
}

impl InFlight {
    pub(crate) fn new(cluster: &Arc<LiveCluster>, host: &Arc<LiveEndpoint>, place: Guard) -> Self {
        cluster.metrics.raise(Level::RqActive);
        host.state.active_requests.fetch_add(1, Ordering::Relaxed);
        Self { cluster: cluster.clone(), host: host.clone(), _place: place }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.cluster.metrics.lower(Level::RqActive);
        self.host.state.active_requests.fetch_sub(1, Ordering::Relaxed);
    }
}
