//! Local rate limits: token buckets of this proxy, shared by all workers.
//!
//! A bucket fills continuously at `tokens_per_fill / fill_interval`, as Envoy's atomic token bucket
//! does, and is one atomic number: the time since which it has been filling. A [`Limiter`] has the
//! buckets of one configuration; [`Registry`] finds it by the configuration's identity, so that it
//! is the same for all workers, tables and versions that share the configuration, and ends with it.
//! With `per_connection` each downstream connection has buckets of its own. Follows
//! `envoy.extensions.filters.http.local_ratelimit.v3`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use foldhash::fast::RandomState;
use http::{HeaderName, response::Parts};
use parking_lot::{Mutex, RwLock};
use proxy_config::{
    filter::{
        PerRouteConfig,
        local_rate_limit::{Descriptor, DescriptorAction, LocalRateLimit, TokenBucket},
    },
    matcher::HeaderView,
};
use telemetry::{
    record::ResponseFlags,
    stats::{Counters, Scope, Store},
};

use crate::{
    downstream::Downstream,
    filters::flow::{Flow, Run, per_route},
    headers::{number, operations},
    local_reply::LocalReply,
    request::Request,
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const COUNTERS: &[&str] = &["enabled", "ok", "rate_limited", "enforced"];
const ENABLED: usize = 0;
const OK: usize = 1;
const RATE_LIMITED: usize = 2;
const ENFORCED: usize = 3;

type Entry = (Arc<str>, Arc<str>);
type ByConnection = HashMap<u64, (Weak<Downstream>, Arc<Buckets>), RandomState>;

/// Limiters by the identity of their configuration.
pub struct Registry {
    limiters: RwLock<HashMap<usize, Arc<Limiter>, RandomState>>,
    stats: Store,
}

/// The buckets and counters of one configuration.
pub struct Limiter {
    config: Arc<LocalRateLimit>,
    buckets: Option<Arc<Buckets>>,
    /// By connection, with `per_connection`.
    of_connections: Mutex<ByConnection>,
    counters: Counters,
    /// Keeps the series alive.
    _scope: Scope,
}

struct Buckets {
    default: Bucket,
    descriptors: Box<[Bucket]>,
}

/// One token bucket.
#[derive(Debug)]
pub struct Bucket {
    max_tokens: f64,
    tokens_per_second: f64,
    origin: Instant,
    /// Since when it has been filling from nothing: seconds from `origin`, bits of an `f64`.
    filling_since: AtomicU64,
}

/// How a request stands to the bucket that decided about it; for the response's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    limit: u64,
    remaining: u64,
    reset_seconds: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rules: TokenBucket, now: Instant) -> Self {
        let max_tokens = f64::from(rules.max_tokens);
        let tokens_per_second = f64::from(rules.tokens_per_fill)
            / rules.fill_interval.as_secs_f64().max(f64::MIN_POSITIVE);
        let filling_since = AtomicU64::new((-max_tokens / tokens_per_second).to_bits());
        Self {
            max_tokens,
            tokens_per_second,
            origin: now,
            filling_since,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: Instant) -> bool {
        let now = self.seconds(now);
        let taken =
            self.filling_since
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |since| {
                    let tokens = self.tokens_at(now, f64::from_bits(since));
                    // Sums of fractions fall short of the whole by a little.
                    (tokens >= 1.0 - 1e-9)
                        .then(|| (now - (tokens - 1.0) / self.tokens_per_second).to_bits())
                });
        taken.is_ok()
    }

    fn tokens(&self, now: Instant) -> f64 {
        self.tokens_at(
            self.seconds(now),
            f64::from_bits(self.filling_since.load(Ordering::Relaxed)),
        )
    }

    fn tokens_at(&self, now: f64, since: f64) -> f64 {
        ((now - since) * self.tokens_per_second).clamp(0.0, self.max_tokens)
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.origin).as_secs_f64()
    }

    fn standing(&self, now: Instant) -> Standing {
        let tokens = self.tokens(now);
        let wait = if tokens >= 1.0 {
            0.0
        } else {
            (1.0 - tokens) / self.tokens_per_second
        };
        Standing {
            limit: self.max_tokens as u64,
            remaining: (tokens + 1e-9) as u64,
            reset_seconds: (wait - 1e-6).ceil().max(0.0) as u64,
        }
    }
}

impl Buckets {
    /// `None`: the configuration limits nothing.
    fn new(config: &LocalRateLimit, now: Instant) -> Option<Self> {
        let default = Bucket::new(config.bucket?, now);
        Some(Self {
            default,
            descriptors: config
                .descriptors
                .iter()
                .map(|d| Bucket::new(d.bucket, now))
                .collect(),
        })
    }

    /// Takes a token of each bucket that applies; the strictest first, so that a request that it
    /// refuses costs the others nothing.
    fn take(
        &self,
        config: &LocalRateLimit,
        request: &[Vec<Entry>],
        now: Instant,
    ) -> (bool, Standing) {
        let is_asked = |descriptor: &Descriptor| {
            request
                .iter()
                .any(|entries| **entries == *descriptor.entries)
        };
        let pairs = config.descriptors.iter().zip(&self.descriptors);
        let mut matched: Vec<&Bucket> = pairs
            .filter(|(descriptor, _)| is_asked(descriptor))
            .map(|(_, bucket)| bucket)
            .collect();
        matched.sort_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
        let told = matched.first().copied().unwrap_or(&self.default);
        // The default bucket counts every request.
        for bucket in matched.into_iter().chain([&self.default]) {
            if !bucket.take(now) {
                return (false, bucket.standing(now));
            }
        }
        (true, told.standing(now))
    }
}

impl Limiter {
    fn new(config: &Arc<LocalRateLimit>, stats: &Store, now: Instant) -> Self {
        let scope = stats.scope(&format!(
            "{}.http_local_rate_limit.",
            config.stat_prefix.trim_end_matches('.')
        ));
        Self {
            buckets: Buckets::new(config, now).map(Arc::new),
            config: config.clone(),
            of_connections: Mutex::default(),
            counters: scope.counters(COUNTERS),
            _scope: scope,
        }
    }

    fn buckets(&self, connection: &Arc<Downstream>, now: Instant) -> Option<Arc<Buckets>> {
        if !self.config.per_connection {
            return self.buckets.clone();
        }
        let mut known = self.of_connections.lock();
        if let Some((_, buckets)) = known.get(&connection.id) {
            return Some(buckets.clone());
        }
        if known.len() == known.capacity() {
            known.retain(|_, (connection, _)| connection.strong_count() > 0);
        }
        let buckets = Arc::new(Buckets::new(&self.config, now)?);
        known.insert(connection.id, (Arc::downgrade(connection), buckets.clone()));
        Some(buckets)
    }
}

impl Registry {
    pub fn new(stats: Store) -> Self {
        Self {
            limiters: RwLock::default(),
            stats,
        }
    }

    /// The limiter of a configuration, made when it is new.
    pub fn limiter(&self, config: &Arc<LocalRateLimit>, now: Instant) -> Arc<Limiter> {
        // The limiter holds the configuration, so its address belongs to no other as long as the
        // entry is there.
        let key = Arc::as_ptr(config) as usize;
        if let Some(limiter) = self.limiters.read().get(&key) {
            return limiter.clone();
        }
        let mut limiters = self.limiters.write();
        limiters.retain(|_, limiter| Arc::strong_count(&limiter.config) > 1);
        limiters
            .entry(key)
            .or_insert_with(|| Arc::new(Limiter::new(config, &self.stats, now)))
            .clone()
    }
}

pub fn on_request(
    run: Run<'_>,
    config: &Arc<LocalRateLimit>,
    limits: &Registry,
    request: &mut Request,
) -> Flow {
    let config = match per_route(request, run.name) {
        Some(PerRouteConfig::LocalRateLimit(config)) => config.clone(),
        _ => config.clone(),
    };
    if config.bucket.is_none() || !config.enabled.selects(run.rng.u64()) {
        return Flow::Continue;
    }
    let now = run.now;
    let limiter = limits.limiter(&config, now);
    let Some(buckets) = limiter.buckets(&request.downstream, now) else {
        return Flow::Continue;
    };
    limiter.counters.inc(ENABLED);
    let remote = request
        .record
        .downstream_remote
        .as_ref()
        .map(|remote| match remote {
            telemetry::record::Address::Socket(address) => address.ip().to_canonical().to_string(),
            other => other.to_string(),
        });
    let asked = descriptors(&config, &request.view(), remote.as_deref());
    let (allowed, standing) = buckets.take(&config, &asked, now);
    if config.x_ratelimit_headers {
        request.head.extensions.insert(standing);
    }
    if allowed {
        limiter.counters.inc(OK);
        return Flow::Continue;
    }
    limiter.counters.inc(RATE_LIMITED);
    if !config.enforced.selects(run.rng.u64()) {
        return Flow::Continue;
    }
    limiter.counters.inc(ENFORCED);
    let mut reply = LocalReply::failure(
        request,
        config.status,
        "local_rate_limited",
        ResponseFlags::RATE_LIMITED,
        "local_rate_limited",
    );
    operations::apply(
        &config.response_headers,
        &mut reply.head.headers,
        &request.record,
    );
    Flow::Respond(reply)
}

pub fn on_response(request: &Request, head: &mut Parts) {
    let Some(Standing {
        limit,
        remaining,
        reset_seconds,
    }) = request.head.extensions.get::<Standing>()
    else {
        return;
    };
    let headers = &mut head.headers;
    headers.insert(LIMIT, number(*limit));
    headers.insert(REMAINING, number(*remaining));
    headers.insert(RESET, number(*reset_seconds));
}

/// The descriptors that a request yields: one for each list of actions all of which apply.
fn descriptors(
    config: &LocalRateLimit,
    head: &HeaderView<'_>,
    remote: Option<&str>,
) -> Vec<Vec<Entry>> {
    if config.descriptors.is_empty() {
        return Vec::new();
    }
    let yielded = config.actions.iter().filter_map(|actions| {
        let mut entries = Vec::with_capacity(actions.0.len());
        for action in actions.0.iter() {
            match entry(action, head, remote) {
                Yield::Entry(key, value) => entries.push((key, value)),
                Yield::Nothing => {}
                Yield::NoDescriptor => return None,
            }
        }
        Some(entries).filter(|entries| !entries.is_empty())
    });
    yielded.collect()
}

enum Yield {
    Entry(Arc<str>, Arc<str>),
    Nothing,
    NoDescriptor,
}

fn entry(action: &DescriptorAction, head: &HeaderView<'_>, remote: Option<&str>) -> Yield {
    match action {
        DescriptorAction::RequestHeader {
            header,
            key,
            skip_if_absent,
        } => match head.value(header).filter(|value| !value.is_empty()) {
            Some(value) => Yield::Entry(key.clone(), Arc::from(&*value)),
            None if *skip_if_absent => Yield::Nothing,
            None => Yield::NoDescriptor,
        },
        DescriptorAction::GenericKey { key, value } => Yield::Entry(key.clone(), value.clone()),
        DescriptorAction::RemoteAddress => match remote {
            Some(remote) => Yield::Entry(Arc::from("remote_address"), Arc::from(remote)),
            None => Yield::NoDescriptor,
        },
        DescriptorAction::HeaderValueMatch {
            key,
            value,
            expect,
            headers,
        } => {
            let matches = headers.iter().all(|header| header.is_match(head));
            if matches == *expect {
                Yield::Entry(key.clone(), value.clone())
            } else {
                Yield::NoDescriptor
            }
        }
    }
}

#[cfg(test)]
mod tests;
