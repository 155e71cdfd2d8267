//! Outlier detection: hosts that answer badly are left out for a while.
//!
//! [`observe`] counts one result of one host, on the worker's path, and ejects the host when a run
//! of failures is long enough; [`tick`] is called at least once a second and does what is due at
//! the end of each interval: ejections end, backoffs shrink, success rates are compared. Both say
//! whether the cluster's hosts changed, and the caller then calls `LiveCluster::refresh`.
//!
//! Ejections end only at an interval's end. The n-th in a row lasts n times the base time (up to
//! the maximum); every interval that a host gets through makes n one less. Whether a further host
//! may go is asked before each ejection: active ones and this one must stay within
//! `max_ejection_percent` of all hosts. Follows Envoy's outlier detection documentation.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use proxy_config::{
    cluster::{Consecutive, OutlierDetection},
    matcher::Percent,
};

use crate::{
    endpoint::LiveEndpoint,
    grpc,
    upstream::{
        cluster::LiveCluster,
        ejection::{HostState, Kind, reaches},
        metrics::{Count, Level},
    },
};

/// What one attempt taught about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered with this status (of a gRPC call that failed in its head: the HTTP
    /// status that the gRPC status means).
    Status(u16),
    /// Connecting failed, timed out, or the connection was reset before an answer.
    LocalOriginFailure,
    /// The route's or the attempt's timeout expired first.
    Timeout,
    /// A connection was made (TCP).
    LocalOriginSuccess,
}

/// The status that a response's head counts as: of a gRPC call that is over already, what its gRPC
/// status means in HTTP (Envoy's mapping).
pub fn status_of(is_grpc: bool, status: StatusCode, headers: &HeaderMap) -> u16 {
    match grpc::status_in(headers).filter(|_| is_grpc) {
        None => status.as_u16(),
        Some(0) => 200,
        Some(1) => 499,
        Some(3 | 9 | 11) => 400,
        Some(4) => 504,
        Some(5) => 404,
        Some(6 | 10) => 409,
        Some(7) => 403,
        Some(8) => 429,
        Some(12) => 501,
        Some(14) => 503,
        Some(16) => 401,
        Some(_) => 500,
    }
}

/// As [`observe`], and refreshes the cluster's hosts when that is due.
pub fn report(cluster: &LiveCluster, endpoint: &LiveEndpoint, outcome: Outcome) {
    let now = cluster.clock.now();
    if observe(cluster, endpoint, outcome, now) {
        cluster.refresh(now);
    }
}

/// Counts one result. `true`: the host was ejected by it, and the cluster's hosts must be
/// refreshed.
pub fn observe(
    cluster: &LiveCluster,
    endpoint: &LiveEndpoint,
    outcome: Outcome,
    now: Instant,
) -> bool {
    let Some(config) = &cluster.config.outlier_detection else {
        return false;
    };
    let state = &endpoint.state.outlier;
    let splits = config.split_external_local_origin_errors;
    let reached = match (outcome, splits) {
        (Outcome::Status(status), _) => {
            if splits {
                state.consecutive_local_origin.store(0, Ordering::Relaxed);
            }
            state.count_status(config, status)
        }
        (Outcome::LocalOriginFailure | Outcome::Timeout, true) => {
            let reached = reaches(
                &state.consecutive_local_origin,
                config.consecutive_local_origin_failure,
            );
            [reached.then_some(Kind::ConsecutiveLocalOrigin), None]
        }
        (Outcome::LocalOriginSuccess, true) => {
            state.consecutive_local_origin.store(0, Ordering::Relaxed);
            [None, None]
        }
        (Outcome::LocalOriginFailure, false) => state.count_status(config, 503),
        (Outcome::Timeout, false) => state.count_status(config, 504),
        (Outcome::LocalOriginSuccess, false) => state.count_status(config, 200),
    };
    let mut ejected = false;
    for kind in reached.into_iter().flatten() {
        ejected |= detected(cluster, endpoint, config, kind, now);
    }
    ejected
}

/// A limit was reached: ejects the host if configuration and its neighbours' state allow it.
fn detected(
    cluster: &LiveCluster,
    endpoint: &LiveEndpoint,
    config: &OutlierDetection,
    kind: Kind,
    now: Instant,
) -> bool {
    let mut interval_end = cluster.outlier.interval_end.lock();
    interval_end.get_or_insert(now + config.interval);
    let state = &endpoint.state.outlier;
    if state.is_ejected() {
        return false;
    }
    let (detected, enforced, chance) = series(config, kind);
    cluster.metrics.count(detected);
    let hosts = cluster.hosts();
    let active = hosts
        .all
        .iter()
        .filter(|host| host.state.outlier.is_ejected())
        .count();
    let may = may_eject(config, active, hosts.all.len());
    if !may {
        cluster.metrics.count(Count::OutlierEjectionsOverflow);
    }
    let ejects = may && cluster.rng.below(100) < u64::from(chance.value());
    if ejects {
        cluster.metrics.count(Count::OutlierEjectionsTotal);
        cluster.metrics.count(enforced);
        eject(state, config, cluster.rng.u64(), now);
        cluster
            .metrics
            .set(Level::OutlierEjectionsActive, active as u64 + 1);
    }
    // The next run begins here, whether or not this one had consequences.
    if let Some(run) = state.run(kind) {
        run.store(0, Ordering::Relaxed);
    }
    ejects
}

fn may_eject(config: &OutlierDetection, active: usize, hosts: usize) -> bool {
    let percent = 100.0 * (active as f64 + 1.0) / hosts as f64;
    percent <= f64::from(config.max_ejection_percent.value())
        || (config.always_eject_one_host && active == 0)
}

fn eject(state: &HostState, config: &OutlierDetection, random: u64, now: Instant) {
    let mut ejection = state.ejection.lock();
    ejection.since = Some(now);
    let jitter = u64::try_from(config.max_ejection_time_jitter.as_millis()).unwrap_or(u64::MAX);
    ejection.jitter = Duration::from_millis(random % jitter.saturating_add(1));
    // Times beyond the maximum would only make the way back longer.
    if config.base_ejection_time.saturating_mul(ejection.times)
        < config
            .max_ejection_time
            .saturating_add(config.base_ejection_time)
    {
        ejection.times += 1;
    }
    state.ejected.store(true, Ordering::Relaxed);
}

/// What is counted, and how likely the ejection is carried out.
fn series(config: &OutlierDetection, kind: Kind) -> (Count, Count, Percent) {
    let of = |limit: Option<Consecutive>| limit.map_or(Percent::ZERO, |limit| limit.enforcing);
    match kind {
        Kind::Consecutive5xx => (
            Count::OutlierEjectionsDetected5xx,
            Count::OutlierEjectionsConsecutive5xx,
            of(config.consecutive_5xx),
        ),
        Kind::ConsecutiveGateway => (
            Count::OutlierDetectedGateway,
            Count::OutlierEnforcedGateway,
            of(config.consecutive_gateway_failure),
        ),
        Kind::ConsecutiveLocalOrigin => (
            Count::OutlierDetectedLocalOrigin,
            Count::OutlierEnforcedLocalOrigin,
            of(config.consecutive_local_origin_failure),
        ),
        Kind::SuccessRate => {
            let chance = config
                .success_rate
                .map_or(Percent::ZERO, |rate| rate.enforcing);
            (
                Count::OutlierDetectedSuccessRate,
                Count::OutlierEnforcedSuccessRate,
                chance,
            )
        }
        Kind::FailurePercentage => {
            let chance = config
                .failure_percentage
                .map_or(Percent::ZERO, |rate| rate.enforcing);
            (
                Count::OutlierDetectedFailurePercentage,
                Count::OutlierEnforcedFailurePercentage,
                chance,
            )
        }
    }
}

/// Does what is due. `true`: ejections began or ended, or hosts warm up, and the cluster's hosts
/// must be refreshed. Called at least once a second.
pub fn tick(cluster: &LiveCluster, now: Instant) -> bool {
    let hosts = cluster.hosts();
    let warms = hosts.is_warming();
    let Some(config) = &cluster.config.outlier_detection else {
        return warms;
    };
    {
        let mut interval_end = cluster.outlier.interval_end.lock();
        let end = interval_end.get_or_insert(now + config.interval);
        if now < *end {
            return warms;
        }
        *end = now + config.interval;
    }
    let mut changed = false;
    for endpoint in hosts.all.iter() {
        changed |= end_of_interval(&endpoint.state.outlier, config, now);
    }
    let rates = take_rates(&hosts.all);
    for (endpoint, kind) in outliers(config, &rates) {
        changed |= detected(cluster, endpoint, config, kind, now);
    }
    // Hosts may have gone while they were ejected.
    let active = hosts
        .all
        .iter()
        .filter(|host| host.state.outlier.is_ejected())
        .count();
    cluster
        .metrics
        .set(Level::OutlierEjectionsActive, active as u64);
    changed || warms
}

/// `true`: its ejection ended.
fn end_of_interval(state: &HostState, config: &OutlierDetection, now: Instant) -> bool {
    let mut ejection = state.ejection.lock();
    if !state.is_ejected() {
        ejection.times = ejection.times.saturating_sub(1);
        return false;
    }
    let longest = config.max_ejection_time.max(config.base_ejection_time);
    let time = config
        .base_ejection_time
        .saturating_mul(ejection.times)
        .min(longest)
        .saturating_add(ejection.jitter);
    let is_over = ejection
        .since
        .is_none_or(|since| now.saturating_duration_since(since) >= time);
    if is_over {
        ejection.since = None;
        state.forget_runs();
        state.ejected.store(false, Ordering::Relaxed);
    }
    is_over
}

/// A host's answers in the interval that ended.
struct Rate<'h, Host> {
    host: &'h Host,
    requests: u32,
    /// Percent.
    success: f64,
}

/// Of those that are not ejected; begins to count anew for all.
fn take_rates(hosts: &[std::sync::Arc<LiveEndpoint>]) -> Vec<Rate<'_, LiveEndpoint>> {
    let rate = |host: &'_ std::sync::Arc<LiveEndpoint>| {
        let state = &host.state.outlier;
        (
            state.requests.swap(0, Ordering::Relaxed),
            state.successes.swap(0, Ordering::Relaxed),
        )
    };
    let counted = hosts.iter().map(|host| (host, rate(host)));
    counted
        .filter(|(host, (requests, _))| !host.state.outlier.is_ejected() && *requests > 0)
        .map(|(host, (requests, successes))| Rate {
            host: &**host,
            requests,
            success: 100.0 * f64::from(successes) / f64::from(requests),
        })
        .collect()
}

/// Who does much worse than the others, or badly in absolute terms.
fn outliers<'h, Host>(
    config: &OutlierDetection,
    rates: &[Rate<'h, Host>],
) -> Vec<(&'h Host, Kind)> {
    let with = |volume: u32, minimum: u32| {
        let valid: Vec<&Rate<'h, Host>> = rates
            .iter()
            .filter(|rate| rate.requests >= volume)
            .collect();
        (!valid.is_empty() && valid.len() >= minimum as usize).then_some(valid)
    };
    let mut found = Vec::new();
    if let Some(rule) = config.success_rate
        && let Some(valid) = with(rule.request_volume, rule.minimum_hosts)
    {
        let count = valid.len() as f64;
        let mean = valid.iter().map(|rate| rate.success).sum::<f64>() / count;
        let variance = valid
            .iter()
            .map(|rate| (rate.success - mean).powi(2))
            .sum::<f64>()
            / count;
        let threshold = mean - f64::from(rule.stdev_factor) / 1000.0 * variance.sqrt();
        found.extend(
            valid
                .iter()
                .filter(|rate| rate.success < threshold)
                .map(|rate| (rate.host, Kind::SuccessRate)),
        );
    }
    if let Some(rule) = config.failure_percentage
        && let Some(valid) = with(rule.request_volume, rule.minimum_hosts)
    {
        let threshold = f64::from(rule.threshold.value());
        found.extend(
            valid
                .iter()
                .filter(|rate| 100.0 - rate.success >= threshold)
                .map(|rate| (rate.host, Kind::FailurePercentage)),
        );
    }
    found
}

#[cfg(test)]
mod tests;
