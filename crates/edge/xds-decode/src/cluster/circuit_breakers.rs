//! Circuit breakers by priority, with Envoy's defaults where nothing is said.

use proxy_config::cluster::{CircuitBreakers, RetryBudget, Thresholds};
use wire_envoy::pb::{self, core::RoutingPriority};

use crate::{
    context::Cx,
    judgement::{enumerated, take},
    reject::{Refusal, Within},
    scalar,
};

const DEFAULT: Thresholds = Thresholds {
    max_connections: 1024,
    max_pending_requests: 1024,
    max_requests: 1024,
    max_retries: 3,
    retry_budget: None,
    max_connection_pools: None,
    track_remaining: false,
};
const BUDGET_PERCENT: f64 = 20.0;
const BUDGET_MINIMUM: u32 = 3;

pub(super) fn circuit_breakers(
    cx: &mut Cx,
    value: Option<pb::cluster::CircuitBreakers>,
) -> Result<CircuitBreakers, Refusal> {
    let value = value.unwrap_or_default();
    take!(cx, value => pb::cluster::CircuitBreakers {
        read { thresholds }
        reject "limits by host are not supported" { per_host_thresholds }
    });
    let mut breakers = CircuitBreakers {
        default: DEFAULT,
        high: DEFAULT,
    };
    for (index, value) in thresholds.into_iter().enumerate() {
        let (priority, found) = thresholds_of(cx, value).within_item("thresholds", index)?;
        match priority {
            RoutingPriority::Default => breakers.default = found,
            RoutingPriority::High => breakers.high = found,
        }
    }
    Ok(breakers)
}

fn thresholds_of(
    cx: &mut Cx,
    value: pb::cluster::circuit_breakers::Thresholds,
) -> Result<(RoutingPriority, Thresholds), Refusal> {
    take!(cx, value => pb::cluster::circuit_breakers::Thresholds {
        read {
            priority, max_connections, max_pending_requests, max_requests, max_retries, retry_budget, track_remaining,
            max_connection_pools,
        }
    });
    let thresholds = Thresholds {
        max_connections: scalar::count_or(max_connections, DEFAULT.max_connections),
        max_pending_requests: scalar::count_or(max_pending_requests, DEFAULT.max_pending_requests),
        max_requests: scalar::count_or(max_requests, DEFAULT.max_requests),
        max_retries: scalar::count_or(max_retries, DEFAULT.max_retries),
        retry_budget: retry_budget
            .map(|b| budget(cx, b))
            .transpose()
            .within("retry_budget")?,
        max_connection_pools: scalar::count(max_connection_pools),
        track_remaining,
    };
    Ok((
        enumerated!(priority => RoutingPriority, "priority")?,
        thresholds,
    ))
}

fn budget(
    cx: &mut Cx,
    value: pb::cluster::circuit_breakers::thresholds::RetryBudget,
) -> Result<RetryBudget, Refusal> {
    take!(cx, value => pb::cluster::circuit_breakers::thresholds::RetryBudget {
        read { budget_percent, min_retry_concurrency }
        ignore "the budget is counted over active requests" { budget_interval }
    });
    Ok(RetryBudget {
        percent: match budget_percent {
            Some(percent) => scalar::percentage("budget_percent", percent)?,
            None => BUDGET_PERCENT,
        },
        min_retry_concurrency: scalar::count_or(min_retry_concurrency, BUDGET_MINIMUM),
    })
}
