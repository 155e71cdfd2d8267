//! Outlier detection with Envoy's defaults (documentation page "Outlier detection").

use std::time::Duration;

use proxy_config::cluster::{Consecutive, FailurePercentage, OutlierDetection, SuccessRate};
use wire_envoy::pb;

use super::http_options::ErrorStatuses;
use crate::{context::Cx, judgement::take, reject::Refusal, scalar};

/// Envoy's default of `interval`.
const INTERVAL: Duration = Duration::from_secs(10);
/// Envoy's default of `base_ejection_time`.
const BASE_EJECTION: Duration = Duration::from_secs(30);
/// Envoy's default of `max_ejection_time`.
const MAX_EJECTION: Duration = Duration::from_secs(300);
const CONSECUTIVE: u32 = 5;

pub(super) fn outlier(
    cx: &mut Cx,
    value: pb::cluster::OutlierDetection,
    error_statuses: Option<ErrorStatuses>,
) -> Result<OutlierDetection, Refusal> {
    take!(cx, value => pb::cluster::OutlierDetection {
        read {
            consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx,
            enforcing_success_rate, success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
            consecutive_gateway_failure, enforcing_consecutive_gateway_failure, split_external_local_origin_errors,
            consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure, failure_percentage_threshold,
            enforcing_failure_percentage, failure_percentage_minimum_hosts, failure_percentage_request_volume,
            max_ejection_time, max_ejection_time_jitter, always_eject_one_host,
        }
        ignore "success rates are counted over all origins" { enforcing_local_origin_success_rate }
        ignore "there are no active health checks" { successful_active_health_check_uneject_host }
        ignore "hosts are ejected, not degraded" { detect_degraded_hosts }
        reject "failure percentages of local origin are not enforced" { enforcing_failure_percentage_local_origin }
        reject "monitors as extensions are not supported" { monitors }
    });
    let base_ejection_time =
        scalar::duration_or("base_ejection_time", base_ejection_time, BASE_EJECTION)?;
    let hundred = |field, value| scalar::percent(field, scalar::count_or(value, 100));
    let none = |field, value| scalar::percent(field, scalar::count_or(value, 0));
    let minimum_rate_hosts = scalar::count_or(success_rate_minimum_hosts, 5);
    let rate_enforcing = hundred("enforcing_success_rate", enforcing_success_rate)?;
    let failure_enforcing = none("enforcing_failure_percentage", enforcing_failure_percentage)?;
    let found = OutlierDetection {
        interval: scalar::duration_or("interval", interval, INTERVAL)?,
        base_ejection_time,
        max_ejection_time: scalar::duration_or(
            "max_ejection_time",
            max_ejection_time,
            MAX_EJECTION.max(base_ejection_time),
        )?,
        max_ejection_time_jitter: scalar::duration_or(
            "max_ejection_time_jitter",
            max_ejection_time_jitter,
            Duration::ZERO,
        )?,
        max_ejection_percent: scalar::percent(
            "max_ejection_percent",
            scalar::count_or(max_ejection_percent, 10),
        )?,
        always_eject_one_host: scalar::flag_or(always_eject_one_host, false),
        consecutive_5xx: consecutive(
            consecutive_5xx,
            hundred("enforcing_consecutive_5xx", enforcing_consecutive_5xx)?,
        ),
        consecutive_gateway_failure: consecutive(
            consecutive_gateway_failure,
            none(
                "enforcing_consecutive_gateway_failure",
                enforcing_consecutive_gateway_failure,
            )?,
        ),
        consecutive_local_origin_failure: consecutive(
            consecutive_local_origin_failure,
            hundred(
                "enforcing_consecutive_local_origin_failure",
                enforcing_consecutive_local_origin_failure,
            )?,
        ),
        split_external_local_origin_errors,
        success_rate: (rate_enforcing.value() > 0).then(|| SuccessRate {
            minimum_hosts: minimum_rate_hosts,
            request_volume: scalar::count_or(success_rate_request_volume, 100),
            stdev_factor: scalar::count_or(success_rate_stdev_factor, 1900),
            enforcing: rate_enforcing,
        }),
        failure_percentage: match failure_enforcing.value() {
            0 => None,
            _ => Some(FailurePercentage {
                threshold: scalar::percent(
                    "failure_percentage_threshold",
                    scalar::count_or(failure_percentage_threshold, 85),
                )?,
                minimum_hosts: scalar::count_or(failure_percentage_minimum_hosts, 5),
                request_volume: scalar::count_or(failure_percentage_request_volume, 50),
                enforcing: failure_enforcing,
            }),
        },
        error_statuses,
    };
    if found.interval.is_zero() || found.base_ejection_time.is_zero() {
        return Err(Refusal::at(
            "interval",
            "interval and base_ejection_time must be above 0",
        ));
    }
    Ok(found)
}

/// Never enforced means never counted; Envoy takes a count of zero as "at once", so it is one.
fn consecutive(
    count: Option<pb::UInt32Value>,
    enforcing: proxy_config::matcher::Percent,
) -> Option<Consecutive> {
    (enforcing.value() > 0).then(|| Consecutive {
        count: scalar::count_or(count, CONSECUTIVE).max(1),
        enforcing,
    })
}
