//! Retry policies.

use std::time::Duration;

use proxy_config::route::{BackOff, RetryOn, RetryPolicy};
use wire_envoy::pb::{
    self,
    envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
    route::retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate},
};

use crate::{
    context::Cx,
    extension::Extension,
    judgement::take,
    matcher,
    reject::{Refusal, Within, each},
    scalar,
};

/// Envoy's default base; the maximum is ten times the base.
const BASE: Duration = Duration::from_millis(25);

pub(super) fn policy(cx: &mut Cx, value: pb::route::RetryPolicy) -> Result<RetryPolicy, Refusal> {
    take!(cx, value => pb::route::RetryPolicy {
        read {
            retry_on, num_retries, per_try_timeout, retry_host_predicate, host_selection_retry_max_attempts,
            retriable_status_codes, retry_back_off, retriable_headers,
            retriable_request_headers,
        }
        ignore "an attempt ends by per_try_timeout or the stream's idle time" { per_try_idle_timeout }
        ignore "retries choose among priorities as first attempts do" { retry_priority }
        ignore "the back-off does not read the upstream's headers" { rate_limited_retry_back_off }
        reject "is not supported" { retry_options_predicates, refresh_cluster_on_retry }
    });
    let (on, unknown) = RetryOn::parse(&retry_on);
    for word in unknown {
        cx.note_text(
            "envoy.config.route.v3.RetryPolicy",
            format!("retry_on: {word}"),
        );
    }
    let predicates: Vec<()> = each("retry_host_predicate", retry_host_predicate, |p| {
        previous_hosts(cx, p)
    })?;
    Ok(RetryPolicy {
        on,
        num_retries: scalar::count_or(num_retries, 1),
        per_try_timeout: scalar::limit("per_try_timeout", per_try_timeout, None)?,
        retriable_status_codes: each("retriable_status_codes", retriable_status_codes, |code| {
            scalar::status("code", code).map(|s| s.as_u16())
        })?,
        retriable_headers: matcher::headers("retriable_headers", retriable_headers)?,
        retriable_request_headers: matcher::headers(
            "retriable_request_headers",
            retriable_request_headers,
        )?,
        skip_previous_hosts: !predicates.is_empty(),
        host_selection_max_attempts: u32::try_from(host_selection_retry_max_attempts.max(1))
            .map_err(|_| Refusal::at("host_selection_retry_max_attempts", "is too large"))?,
        back_off: back_off(retry_back_off).within("retry_back_off")?,
    })
}

fn previous_hosts(cx: &mut Cx, value: RetryHostPredicate) -> Result<(), Refusal> {
    let RetryHostPredicate { name, config_type } = value;
    let Some(retry_host_predicate::ConfigType::TypedConfig(any)) = config_type else {
        return match name.as_str() {
            "envoy.retry_host_predicates.previous_hosts" => Ok(()),
            other => Err(Refusal::at("name", format!("{other} is not supported"))),
        };
    };
    let extension = Extension::open(&any).within("typed_config")?;
    if !extension.is::<PreviousHostsPredicate>() {
        return Err(extension
            .unknown("as a retry host predicate")
            .under("typed_config"));
    }
    let message: PreviousHostsPredicate = extension.message(cx).within("typed_config")?;
    take!(cx, message => PreviousHostsPredicate {});
    Ok(())
}

fn back_off(value: Option<RetryBackOff>) -> Result<BackOff, Refusal> {
    let Some(RetryBackOff {
        base_interval,
        max_interval,
    }) = value
    else {
        return Ok(BackOff {
            base: BASE,
            max: BASE * 10,
        });
    };
    let base =
        scalar::duration_or("base_interval", base_interval, BASE)?.max(Duration::from_millis(1));
    let max = scalar::duration_or("max_interval", max_interval, base * 10)?;
    if max < base {
        return Err(Refusal::at("max_interval", "is below the base interval"));
    }
    Ok(BackOff { base, max })
}
