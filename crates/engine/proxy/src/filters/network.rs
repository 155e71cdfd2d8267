//! The network filters of a filter chain, judged once for each connection: after its handshake,
//! before its first byte goes anywhere.
//!
//! [`on_connection`] is for the chain's terminal, whatever it is: a refusal closes the connection.
//! Filters that only observe (statistics, metadata exchange) or choose (SNI cluster) act where they
//! are read: in the report and in the TCP proxy.

use std::time::Instant;

use proxy_config::{
    ClusterName,
    filter::{NetworkFilter, local_rate_limit::NetworkLocalRateLimit},
    metadata::Metadata,
};
use stdx::{Clock, Rng};
use telemetry::{
    record::ResponseFlags,
    stats::{Counter, Store},
};

use crate::{
    downstream::Downstream,
    filters::{
        local_rate_limit::Bucket,
        rbac::{self, Facts},
    },
};

/// What the filters decided about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Continue,
    /// Closed at once; what the access log says (`connection_termination_details`).
    Close {
        flags: ResponseFlags,
        details: String,
    },
}

/// What the network filters of a chain keep across connections and workers, in the order of the
/// configuration.
pub struct LiveNetworkFilters(Box<[LiveNetworkFilter]>);

enum LiveNetworkFilter {
    Rbac(rbac::State),
    LocalRateLimit {
        bucket: Bucket,
        rate_limited: Counter,
    },
    Stateless,
}

impl LiveNetworkFilters {
    /// Of a chain without any.
    pub fn none() -> Self {
        Self(Box::default())
    }

    pub fn new(filters: &[NetworkFilter], stats: &Store, now: Instant) -> Self {
        Self(
            filters
                .iter()
                .map(|filter| LiveNetworkFilter::new(filter, stats, now))
                .collect(),
        )
    }
}

impl LiveNetworkFilter {
    fn new(filter: &NetworkFilter, stats: &Store, now: Instant) -> Self {
        match filter {
            NetworkFilter::Rbac(config) => {
                let prefix = config.stat_prefix.trim_end_matches('.');
                let prefix = if prefix.is_empty() {
                    String::new()
                } else {
                    format!("{prefix}.")
                };
                Self::Rbac(rbac::State::new(stats, &prefix, config))
            }
            NetworkFilter::LocalRateLimit(config) => {
                let NetworkLocalRateLimit {
                    stat_prefix,
                    bucket,
                    enabled: _,
                } = &**config;
                let rate_limited =
                    stats.counter(&format!("local_rate_limit.{stat_prefix}.rate_limited"));
                Self::LocalRateLimit {
                    bucket: Bucket::new(*bucket, now),
                    rate_limited,
                }
            }
            NetworkFilter::MetadataExchange
            | NetworkFilter::IstioStats(_)
            | NetworkFilter::SniCluster
            | NetworkFilter::Refused(_) => Self::Stateless,
        }
    }
}

/// What the filters of a chain may look at and use.
pub struct Judged<'a> {
    pub filters: &'a [NetworkFilter],
    pub live: &'a LiveNetworkFilters,
    pub downstream: &'a Downstream,
    pub clock: &'a dyn Clock,
    pub rng: &'a dyn Rng,
}

/// Asks the filters in order; the first refusal counts.
pub fn on_connection(judged: &Judged<'_>) -> Verdict {
    let downstream = judged.downstream;
    let mut metadata = Metadata::default();
    for (filter, state) in judged.filters.iter().zip(&judged.live.0) {
        match (filter, state) {
            (NetworkFilter::Rbac(config), LiveNetworkFilter::Rbac(state)) => {
                let told = metadata.clone();
                let tls = downstream.tls.as_ref().map(|tls| &*tls.info);
                let remote = downstream.facts.source.ip();
                let facts = Facts {
                    head: None,
                    connection: &downstream.facts,
                    remote,
                    tls,
                    metadata: &told,
                };
                if let Err(details) = state.judge_connection(config, &facts, &mut metadata) {
                    return Verdict::Close {
                        flags: ResponseFlags::NONE,
                        details,
                    };
                }
            }
            (
                NetworkFilter::LocalRateLimit(config),
                LiveNetworkFilter::LocalRateLimit {
                    bucket,
                    rate_limited,
                },
            ) => {
                if config.enabled.selects(judged.rng.u64()) && !bucket.take(judged.clock.now()) {
                    rate_limited.inc();
                    return Verdict::Close {
                        flags: ResponseFlags::NONE,
                        details: "local_ratelimit_close_over_limit".to_owned(),
                    };
                }
            }
            (NetworkFilter::Refused(refused), _) => {
                return Verdict::Close {
                    flags: ResponseFlags::NO_FILTER_CONFIG_FOUND,
                    details: refused.details("filter_config_refused"),
                };
            }
            (
                NetworkFilter::MetadataExchange
                | NetworkFilter::IstioStats(_)
                | NetworkFilter::SniCluster,
                _,
            ) => {}
            // The states were made from this very list; if one were not, the connection must not
            // slip past a filter.
            (NetworkFilter::Rbac(_) | NetworkFilter::LocalRateLimit(_), _) => {
                return Verdict::Close {
                    flags: ResponseFlags::NONE,
                    details: "filter_without_state".to_owned(),
                };
            }
        }
    }
    Verdict::Continue
}

/// The cluster that the SNI names, on chains that route so (`outbound_.80_._.host`).
pub fn sni_cluster(filters: &[NetworkFilter], downstream: &Downstream) -> Option<ClusterName> {
    let by_sni = filters
        .iter()
        .any(|filter| matches!(filter, NetworkFilter::SniCluster));
    ClusterName::parse(downstream.facts.server_name.as_deref().filter(|_| by_sni)?).ok()
}
