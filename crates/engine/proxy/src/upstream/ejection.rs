//! What outlier detection remembers: the counters of a host, its ejection, and the interval of a
//! cluster.
//!
//! State without decisions: `outlier` counts into it, ejects and ends ejections; balancing only
//! asks whether a host is ejected.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proxy_config::cluster::{Consecutive, OutlierDetection};

/// Counters of one host.
#[derive(Debug, Default)]
pub struct HostState {
    pub(super) ejected: AtomicBool,
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    pub(super) consecutive_local_origin: AtomicU32,
    /// In this interval.
    pub(super) requests: AtomicU32,
    pub(super) successes: AtomicU32,
    pub(super) ejection: Mutex<Ejection>,
}

#[derive(Debug, Default)]
pub(super) struct Ejection {
    pub(super) since: Option<Instant>,
    /// How many base times the ejection lasts, or the last one lasted less what healthy intervals
    /// took off.
    pub(super) times: u32,
    pub(super) jitter: Duration,
}

/// What is kept for one cluster.
#[derive(Debug, Default)]
pub struct ClusterState {
    /// When the interval ends. Also makes one ejection wait for another, so that together they stay
    /// within their share.
    pub(super) interval_end: Mutex<Option<Instant>>,
}

/// Why a host is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Consecutive5xx,
    ConsecutiveGateway,
    ConsecutiveLocalOrigin,
    SuccessRate,
    FailurePercentage,
}

impl HostState {
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Counts a status; gives back the limits that were reached just now.
    pub(super) fn count_status(&self, config: &OutlierDetection, status: u16) -> [Option<Kind>; 2] {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let status = reported(config.error_statuses.as_deref(), status);
        if status < 500 {
            self.successes.fetch_add(1, Ordering::Relaxed);
            self.consecutive_5xx.store(0, Ordering::Relaxed);
            self.consecutive_gateway.store(0, Ordering::Relaxed);
            return [None, None];
        }
        let gateway = if (502..=504).contains(&status) {
            reaches(
                &self.consecutive_gateway,
                config.consecutive_gateway_failure,
            )
            .then_some(Kind::ConsecutiveGateway)
        } else {
            self.consecutive_gateway.store(0, Ordering::Relaxed);
            None
        };
        let any =
            reaches(&self.consecutive_5xx, config.consecutive_5xx).then_some(Kind::Consecutive5xx);
        [gateway, any]
    }

    pub(super) fn forget_runs(&self) {
        for counter in [
            &self.consecutive_5xx,
            &self.consecutive_gateway,
            &self.consecutive_local_origin,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn run(&self, kind: Kind) -> Option<&AtomicU32> {
        match kind {
            Kind::Consecutive5xx => Some(&self.consecutive_5xx),
            Kind::ConsecutiveGateway => Some(&self.consecutive_gateway),
            Kind::ConsecutiveLocalOrigin => Some(&self.consecutive_local_origin),
            Kind::SuccessRate | Kind::FailurePercentage => None,
        }
    }
}

/// With a list of errors, those are 500 and everything else is a success.
fn reported(errors: Option<&[Range<u16>]>, status: u16) -> u16 {
    match errors {
        None => status,
        Some(errors) if errors.iter().any(|range| range.contains(&status)) => 500,
        Some(_) => 200,
    }
}

/// Adds one to a run; whether it is exactly as long as the limit now.
pub(super) fn reaches(run: &AtomicU32, limit: Option<Consecutive>) -> bool {
    let length = run.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    limit.is_some_and(|limit| length == limit.count)
}
