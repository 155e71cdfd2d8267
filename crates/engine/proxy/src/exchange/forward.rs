//! A request to its upstream and the response's head back: attempts, timeouts, retries.
//!
//! The loop is here; what it decides is decided by pure functions (`balance::pick`,
//! `retry::decide`, `retry::back_off`). Each attempt picks a host, borrows a connection, sends the
//! request and waits for a head; time limits run from the end of the downstream's request, as in
//! Envoy.
//! `Err` is a reply of the proxy itself. Follows Envoy's router filter documentation.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is a reply like any other, made at most once for a request"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use proxy_config::{
    cluster::Discovery,
    route::{Forward, RetryPolicy},
};
use telemetry::record::{Attempted, ResponseFlags};

use crate::{
    balance::{Pick, PickFacts, hash},
    endpoint::LiveEndpoint,
    exchange::{
        Exchange,
        attempt::{Failure, attempt, time_is_up},
        mirror,
        plan::Plan,
        refusal::refusal,
        reply::{Reply, record_host},
    },
    grpc,
    headers::{self, names::*, upstream},
    report::downstream::HttpCount,
    upstream::{
        breaker::{Guard, Resource},
        cluster::{LiveCluster, MILLION},
        dynamic_forward,
        metrics::Count,
        original_destination, outlier,
        reset::ResetReason,
        retry::{self, Decision},
    },
};

/// Forwards the request by these rules.
pub async fn forward(x: &mut Exchange, rules: &Arc<Forward>) -> Result<Reply, Reply> {
    let Some(cluster) = x.cluster.clone() else {
        return Err(Reply::failure(
            x,
            rules.cluster_not_found_status,
            "",
            ResponseFlags::NO_CLUSTER_FOUND,
            "cluster_not_found",
        ));
    };
    drop_overload(x, &cluster)?;
    check_upgrade(x)?;
    x.request.routed = x.worker.live.clock.now();
    let asked = asked(x);
    x.request.timeout = timeout(x, rules, asked.timeout);
    x.request.longest = longest(x, rules);
    let policy = route_policy(x, rules);
    x.request.per_try_timeout = per_try_timeout(x, policy.as_deref(), asked.per_try_timeout);
    upstream::prepare(&mut x.request, rules);
    let mut plan = plan(x, rules, policy, cluster);
    upstream::expected_timeout(&mut x.request, 1, Duration::ZERO);
    mirror::start(x, rules);
    if plan.retry.is_some() {
        x.request.body.keep();
    }
    let reply = attempts(x, &mut plan).await;
    x.request.body.stop_keeping();
    let gave_up = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED | ResponseFlags::UPSTREAM_OVERFLOW;
    let succeeded = reply.as_ref().is_ok_and(|reply| !reply.is_local());
    if plan.retries > 0 && succeeded && !x.request.record.flags.intersects(gave_up) {
        plan.cluster.metrics.count(Count::RqRetrySuccess);
    }
    reply
}

/// The route's policy of retries, else its virtual host's.
fn route_policy(x: &Exchange, rules: &Forward) -> Option<Arc<RetryPolicy>> {
    rules
        .retry
        .clone()
        .or_else(|| x.request.route.as_ref()?.virtual_host.retry.clone())
}

fn plan(
    x: &mut Exchange,
    rules: &Arc<Forward>,
    policy: Option<Arc<RetryPolicy>>,
    cluster: Arc<LiveCluster>,
) -> Plan {
    let retry = retry::asked_for(policy, &mut x.request.head.headers)
        .filter(|policy| retry::applies(policy, &x.request.view()));
    Plan {
        hash: hash::of(&rules.hash_policies, &mut x.request),
        cluster,
        rules: rules.clone(),
        retry,
        tried: Vec::new(),
        retries: 0,
    }
}

/// The whole loop: until an answer, or until no retry is left.
async fn attempts(x: &mut Exchange, plan: &mut Plan) -> Result<Reply, Reply> {
    let mut retrying: Option<Guard> = None;
    loop {
        let found = tokio::select! {
            biased;
            found = pick(x, plan) => found,
            () = time_is_up(&x.request.body, x.request.routed, x.request.timeout) => {
                plan.cluster.metrics.count(Count::RqTimeout);
                return Err(refusal(x, Failure::RouteTimeout));
            }
        };
        remember_attempt(x);
        x.request.record.attempts += 1;
        let Some(host) = found else {
            return Err(no_host(x, plan));
        };
        plan.tried.push(host.state.id);
        let attempts = x.request.record.attempts;
        record_host(x, &host);
        upstream::auto_host(&mut x.request, &plan.rules, &host.config.hostname);
        let elapsed = x.elapsed();
        upstream::attempt(&mut x.request, attempts, elapsed);
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

/// The attempt before this one, if there was one, is no longer the last.
fn remember_attempt(x: &mut Exchange) {
    let record = &mut x.request.record;
    if record.attempts > 0 {
        record.earlier_attempts.push(Attempted {
            host: record.upstream_host.take(),
            host_name: record.upstream_host_name.take(),
            connection_id: std::mem::take(&mut record.upstream_connection_id),
        });
    }
}

enum Next {
    /// With a place in the breaker for retries.
    Retry(Option<Guard>),
    Answer,
}

/// Whether another attempt follows.
fn after(x: &mut Exchange, plan: &mut Plan, result: &Result<Reply, Failure>) -> Next {
    let Some(policy) = &plan.retry else {
        return Next::Answer;
    };
    let attempt = match result {
        Ok(reply) => retry::Attempt::Response {
            status: reply.head.status.as_u16(),
            headers: &reply.head.headers,
        },
        Err(Failure::Reset {
            reason,
            request_sent,
        }) => retry::Attempt::Reset {
            reason,
            request_sent: *request_sent,
        },
        Err(Failure::PerTryTimeout) => retry::Attempt::PerTryTimeout,
        Err(
            Failure::RouteTimeout
            | Failure::TooLong
            | Failure::UpstreamTooLong
            | Failure::Downstream,
        ) => return Next::Answer,
    };
    let cluster = plan.cluster.clone();
    let metrics = &cluster.metrics;
    match retry::decide(policy, attempt, plan.retries) {
        Decision::No => Next::Answer,
        Decision::LimitExceeded => {
            x.request
                .record
                .flags
                .insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            metrics.count(Count::RqRetryLimitExceeded);
            Next::Answer
        }
        Decision::Retry if !x.request.body.is_replayable() => Next::Answer,
        Decision::Retry => match plan
            .cluster
            .breaker(plan.rules.high_priority)
            .enter(Resource::Retries)
        {
            None => {
                x.request
                    .record
                    .flags
                    .insert(ResponseFlags::UPSTREAM_OVERFLOW);
                metrics.count(Count::RqRetryOverflow);
                Next::Answer
            }
            place => {
                plan.retries += 1;
                metrics.count(Count::RqRetry);
                metrics.count(Count::RqRetryBackoffExponential);
                Next::Retry(place)
            }
        },
    }
}

/// Waits; the route's time goes on meanwhile.
async fn wait_before_retry(x: &mut Exchange, plan: &Plan) -> Result<(), Reply> {
    let Some(policy) = &plan.retry else {
        return Ok(());
    };
    let pause = retry::back_off(&policy.back_off, plan.retries, x.worker.live.rng.u64());
    if pause.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = time_is_up(&x.request.body, x.request.routed, x.request.timeout) => Err(refusal(x, Failure::RouteTimeout)),
    }
}

/// No host was found: none is usable, or the name does not resolve.
fn no_host(x: &mut Exchange, plan: &Plan) -> Reply {
    const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    plan.cluster.metrics.count(Count::CxNoneHealthy);
    plan.cluster.metrics.answered(UNAVAILABLE.as_u16());
    if matches!(
        plan.cluster.config.discovery,
        Discovery::DynamicForward { .. }
    ) {
        let flag = ResponseFlags::DNS_RESOLUTION_FAILED;
        return Reply::failure(
            x,
            UNAVAILABLE,
            "DNS resolution failure",
            flag,
            "dns_resolution_failure",
        );
    }
    Reply::failure(
        x,
        UNAVAILABLE,
        "no healthy upstream",
        ResponseFlags::NO_HEALTHY_UPSTREAM,
        "no_healthy_upstream",
    )
}

async fn pick(x: &Exchange, plan: &Plan) -> Option<Arc<LiveEndpoint>> {
    let skip = plan
        .retry
        .as_ref()
        .filter(|policy| policy.skip_previous_hosts && !plan.tried.is_empty());
    let facts = PickFacts {
        hash: plan.hash,
        metadata_match: x
            .request
            .weighted_cluster()
            .and_then(|w| w.metadata_match.as_ref())
            .or(plan.rules.metadata_match.as_ref()),
        tried: if skip.is_some() { &plan.tried } else { &[] },
        selection_attempts: skip.map_or(0, |policy| policy.host_selection_max_attempts),
    };
    if let Discovery::OriginalDst {
        http_header,
        port_override,
    } = &plan.cluster.config.discovery
    {
        let named = http_header
            .as_ref()
            .map(|name| x.request.head.headers.get(name));
        return original_destination::pick(
            &plan.cluster,
            &x.request.downstream,
            named,
            *port_override,
        );
    }
    if let Discovery::DynamicForward { refresh } = &plan.cluster.config.discovery {
        let authority = x.request.authority.to_str().unwrap_or_default();
        return dynamic_forward::resolve(&plan.cluster, authority, x.request.scheme, refresh).await;
    }
    match plan.cluster.pick(&facts, &*x.worker.live.rng) {
        Pick::Host(host) => Some(host),
        Pick::NoHealthyHost => None,
    }
}

/// Time limits that a trusted client asks for by headers.
#[derive(Default)]
struct Asked {
    timeout: Option<Duration>,
    per_try_timeout: Option<Duration>,
}

/// Reads and removes them.
fn asked(x: &mut Exchange) -> Asked {
    if !headers::has_envoy_headers(&x.request.head.headers) {
        return Asked::default();
    }
    let alternative = X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE;
    x.request.is_timeout_empty = x.request.head.headers.remove(alternative).is_some();
    x.request
        .head
        .headers
        .remove(X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT);
    Asked {
        timeout: milliseconds(x, X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS),
        per_try_timeout: milliseconds(x, X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS),
    }
}

/// What is asked for, else a gRPC call's own limit where the route heeds it, else the route's.
fn timeout(x: &Exchange, rules: &Forward, asked: Option<Duration>) -> Option<Duration> {
    match asked {
        Some(asked) => Some(asked).filter(|limit| !limit.is_zero()),
        None => route_timeout(x, rules),
    }
}

/// The header's number; the header goes.
fn milliseconds(x: &mut Exchange, name: HeaderName) -> Option<Duration> {
    let value = x.request.head.headers.remove(name)?;
    value.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// One that is no shorter than the whole request's is none.
fn per_try_timeout(
    x: &Exchange,
    policy: Option<&RetryPolicy>,
    asked: Option<Duration>,
) -> Option<Duration> {
    asked
        .or(policy.and_then(|policy| policy.per_try_timeout))
        .filter(|limit| !limit.is_zero() && x.request.timeout.is_none_or(|whole| *limit < whole))
}

fn route_timeout(x: &Exchange, rules: &Forward) -> Option<Duration> {
    let Some(call) = rules.grpc_timeout.filter(|_| x.request.is_grpc) else {
        return rules.timeout;
    };
    let limit = match grpc::timeout_in(&x.request.head.headers) {
        Some(asked) => grpc::capped(asked, call.max, call.offset),
        None => call.max,
    };
    Some(limit).filter(|limit| !limit.is_zero())
}

/// The share of requests that the control plane wants dropped (`drop_overloads`) gets no further.
fn drop_overload(x: &mut Exchange, cluster: &LiveCluster) -> Result<(), Reply> {
    let Some(share) = cluster.is_dropped(x.worker.live.rng.u64()) else {
        return Ok(());
    };
    let (body, flag, details, header) = if share >= MILLION {
        (
            "unconditional drop overload",
            ResponseFlags::UNCONDITIONAL_DROP_OVERLOAD,
            "unconditional_drop_overload",
            X_ENVOY_UNCONDITIONAL_DROP_OVERLOAD,
        )
    } else {
        (
            "drop overload",
            ResponseFlags::DROP_OVERLOAD,
            "drop_overload",
            X_ENVOY_DROP_OVERLOAD,
        )
    };
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut reply = Reply::failure(x, status, body, flag, details);
    reply
        .head
        .headers
        .insert(header, HeaderValue::from_static("true"));
    cluster.metrics.answered(status.as_u16());
    Err(reply)
}

/// Notes what the request wants to become, if that is allowed.
fn check_upgrade(x: &mut Exchange) -> Result<(), Reply> {
    let protocol = x
        .request
        .head
        .extensions
        .get::<hyper::ext::Protocol>()
        .map(|protocol| Arc::from(protocol.as_str()));
    let header = x
        .request
        .head
        .headers
        .get(header::UPGRADE)
        .and_then(|kind| kind.to_str().ok())
        .map(Arc::from);
    let kind: Arc<str> = match (
        protocol.or(header),
        x.request.head.method == Method::CONNECT,
    ) {
        (Some(kind), _) if x.request.upgrade.is_some() => {
            x.request.upgrade_kind = Some(kind);
            x.request.upgrade_kind.clone().unwrap_or_default()
        }
        (_, true) => Arc::from("CONNECT"),
        _ => return Ok(()),
    };
    if x.request.allows_upgrade(&kind) {
        x.http.metrics.count(HttpCount::Upgrades);
        Ok(())
    } else {
        Err(Reply::local(x, StatusCode::FORBIDDEN, "", "upgrade_failed"))
    }
}

/// The limit that counts from the request's beginning: what a call asks for where the route heeds
/// that, else the route's, else the connection manager's.
fn longest(x: &Exchange, rules: &Forward) -> Option<Instant> {
    let duration = &rules.max_stream_duration;
    let asked = duration.grpc_timeout_header_max.and_then(|max| {
        let asked = grpc::timeout_in(&x.request.head.headers)?;
        Some(grpc::capped(
            asked,
            max,
            duration.grpc_timeout_header_offset,
        ))
    });
    asked
        .or(duration.max)
        .or(x.http.config.timeouts.max_stream_duration)
        .filter(|limit| !limit.is_zero())
        .map(|limit| x.request.started + limit)
}

/// What the result teaches about the host.
fn observe(
    x: &Exchange,
    cluster: &Arc<LiveCluster>,
    host: &LiveEndpoint,
    result: &Result<Reply, Failure>,
) {
    let outcome = match result {
        Ok(reply) => outlier::Outcome::Status(outlier::status_of(
            x.request.is_grpc,
            reply.head.status,
            &reply.head.headers,
        )),
        Err(
            Failure::Reset {
                reason: ResetReason::Overflow,
                ..
            }
            | Failure::Downstream,
        ) => return,
        Err(Failure::Reset { .. }) => outlier::Outcome::LocalOriginFailure,
        Err(
            Failure::PerTryTimeout
            | Failure::RouteTimeout
            | Failure::TooLong
            | Failure::UpstreamTooLong,
        ) => outlier::Outcome::Timeout,
    };
    outlier::report(cluster, host, outcome);
}

/// The upstream's answer, with what the router adds.
fn finish_upstream(x: &mut Exchange, mut reply: Reply) -> Reply {
    if let Some(cluster) = &x.cluster {
        cluster.metrics.answered(reply.head.status.as_u16());
    }
    x.request.record.response_code_details = Some("via_upstream".into());
    headers::operations::on_response(&mut x.request, &mut reply.head);
    // Of an answer that came before the request's end, or that opens a tunnel, it would mean
    // nothing.
    let is_whole = x.request.upgrade.is_none() && x.request.body.ended(x.request.started).is_some();
    if is_whole
        && !x.request.suppresses_envoy_headers
        && let Some(time) = x.request.record.timings.upstream_service_time()
    {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        reply
            .head
            .headers
            .insert(X_ENVOY_UPSTREAM_SERVICE_TIME, headers::number(milliseconds));
    }
    hash::set_cookies(&x.request, &mut reply.head.headers);
    headers::response::attempt_count(&x.request, &mut reply.head);
    reply
}
