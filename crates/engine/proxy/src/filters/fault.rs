//! Fault injection: requests that are held back or refused on purpose.
//!
//! What happens to a request is drawn by [`Fault`]'s shares, delay and abort independently of each
//! other, by the pure [`draw`]; the filter then waits and answers. A delayed request ends when its
//! client leaves, as everything of a request does: its task is dropped. Follows
//! `envoy.extensions.filters.http.fault.v3`; the limit of response rates is not carried out, which
//! the decoder reports.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, StatusCode};
use proxy_config::{
    filter::{
        PerRouteConfig,
        fault::{Abort, AbortKind, Delay, DelayKind, Fault},
    },
    matcher::Fraction,
};
use telemetry::{
    record::ResponseFlags,
    stats::{Counters, Gauges, Scope, Store},
};

use crate::{
    filters::flow::{Flow, Run, per_route},
    headers::{
        names::{GRPC_STATUS, X_ENVOY_DOWNSTREAM_SERVICE_NODE},
        number,
    },
    local_reply::LocalReply,
    request::Request,
};

const ABORT_STATUS: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC_STATUS: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const DELAY_MILLISECONDS: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");

const COUNTERS: &[&str] = &["aborts_injected", "delays_injected", "faults_overflow"];
const ABORTS: usize = 0;
const DELAYS: usize = 1;
const OVERFLOW: usize = 2;
const GAUGES: &[&str] = &["active_faults"];

/// What one filter keeps across requests and workers.
pub struct State {
    counters: Counters,
    gauges: Gauges,
    active: AtomicU32,
    /// Keeps the series alive.
    _scope: Scope,
}

/// A request that a fault was injected into, until it ends.
struct Active(Arc<State>);

/// What is to be done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Drawn {
    delay: Option<Duration>,
    abort: Option<Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Http(StatusCode),
    Grpc(u32),
}

impl State {
    /// `prefix`: `http.<name>.`
    pub fn new(stats: &Store, prefix: &str) -> Self {
        let scope = stats.scope(&format!("{prefix}fault."));
        Self {
            counters: scope.counters(COUNTERS),
            gauges: scope.gauges(GAUGES),
            active: AtomicU32::default(),
            _scope: scope,
        }
    }

    /// Counts a request among those with a fault, unless there are too many.
    fn enter(self: &Arc<Self>, limit: Option<u32>) -> Option<Active> {
        let limit = limit.unwrap_or(u32::MAX);
        let taken = self
            .active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < limit).then_some(n + 1)
            });
        if taken.is_err() {
            self.counters.inc(OVERFLOW);
            return None;
        }
        self.gauges.inc(0);
        Some(Active(self.clone()))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.0.gauges.dec(0);
    }
}

pub async fn on_request(
    run: Run<'_>,
    config: &Fault,
    state: &Arc<State>,
    request: &mut Request,
) -> Flow {
    let of_route = match per_route(request, run.name) {
        Some(PerRouteConfig::Fault(config)) => Some(config.clone()),
        _ => None,
    };
    let config = of_route.as_deref().unwrap_or(config);
    if !applies(config, request) {
        return Flow::Continue;
    }
    let drawn = draw(config, &request.head.headers, run.rng.u64(), run.rng.u64());
    let mut entered = false;
    if let Some(delay) = drawn.delay
        && enter(config, state, request)
    {
        entered = true;
        state.counters.inc(DELAYS);
        request.record.flags.insert(ResponseFlags::DELAY_INJECTED);
        tokio::time::sleep(delay).await;
    }
    match drawn.abort {
        Some(answer) if entered || enter(config, state, request) => {
            state.counters.inc(ABORTS);
            Flow::Respond(abort(request, answer))
        }
        _ => Flow::Continue,
    }
}

/// The place is held until the exchange ends.
fn enter(config: &Fault, state: &Arc<State>, request: &mut Request) -> bool {
    let place = state.enter(config.max_active_faults);
    place
        .map(|place| request.head.extensions.insert(Arc::new(place)))
        .is_some()
}

fn abort(request: &mut Request, answer: Answer) -> LocalReply {
    let (status, grpc) = match answer {
        Answer::Http(status) => (status, None),
        Answer::Grpc(code) => (StatusCode::OK, Some(code)),
    };
    let mut reply = LocalReply::failure(
        request,
        status,
        "fault filter abort",
        ResponseFlags::FAULT_INJECTED,
        "fault_filter_abort",
    );
    if let Some(code) = grpc.filter(|_| request.is_grpc) {
        reply.head.headers.insert(GRPC_STATUS, number(code.into()));
    }
    reply
}

fn applies(config: &Fault, request: &Request) -> bool {
    let cluster = request
        .cluster
        .as_ref()
        .map(|cluster| cluster.name.as_str());
    let node = || {
        request
            .head
            .headers
            .get(X_ENVOY_DOWNSTREAM_SERVICE_NODE)
            .and_then(|node| node.to_str().ok())
    };
    config
        .upstream_cluster
        .as_deref()
        .is_none_or(|wanted| cluster == Some(wanted))
        && (config.downstream_nodes.is_empty()
            || node().is_some_and(|node| {
                config
                    .downstream_nodes
                    .iter()
                    .any(|wanted| **wanted == *node)
            }))
        && config
            .headers
            .iter()
            .all(|header| header.is_match(&request.view()))
}

/// Draws for one request, with a random number for each fault.
fn draw(config: &Fault, headers: &HeaderMap, delay_random: u64, abort_random: u64) -> Drawn {
    Drawn {
        delay: config
            .delay
            .and_then(|delay| draw_delay(delay, headers, delay_random)),
        abort: config
            .abort
            .and_then(|abort| draw_abort(abort, headers, abort_random)),
    }
}

fn draw_delay(
    Delay { kind, fraction }: Delay,
    headers: &HeaderMap,
    random: u64,
) -> Option<Duration> {
    let (delay, fraction) = match kind {
        DelayKind::Fixed(delay) => (delay, fraction),
        DelayKind::Header => (
            Duration::from_millis(integer(headers, &DELAY_MILLISECONDS)?),
            share(headers, &DELAY_SHARE, fraction),
        ),
    };
    (fraction.selects(random) && !delay.is_zero()).then_some(delay)
}

fn draw_abort(Abort { kind, fraction }: Abort, headers: &HeaderMap, random: u64) -> Option<Answer> {
    let (answer, fraction) = match kind {
        AbortKind::Http(status) => (Answer::Http(status), fraction),
        AbortKind::Grpc(code) => (Answer::Grpc(code), fraction),
        AbortKind::Header => {
            let status =
                integer(headers, &ABORT_STATUS).filter(|status| (200..600).contains(status));
            let status = status
                .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
                .map(Answer::Http);
            let grpc = || {
                integer(headers, &ABORT_GRPC_STATUS)
                    .and_then(|code| u32::try_from(code).ok())
                    .map(Answer::Grpc)
            };
            (
                status.or_else(grpc)?,
                share(headers, &ABORT_SHARE, fraction),
            )
        }
    };
    fraction.selects(random).then_some(answer)
}

/// A client may ask for a smaller share than configured, in the configured denominator, never for a
/// larger one.
fn share(headers: &HeaderMap, name: &HeaderName, configured: Fraction) -> Fraction {
    match integer(headers, name) {
        Some(numerator) => configured.at_most(u32::try_from(numerator).unwrap_or(u32::MAX)),
        None => configured,
    }
}

fn integer(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
