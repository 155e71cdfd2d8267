//! Retries (rows TM-010, TM-011): those of a rule, of the mesh, or Istio's own two.
//!
//! Where a request was hashed to a host, a retry goes to the same one; otherwise hosts that were tried are avoided.

use mesh_model::{MeshConfig, virtual_service::Retries};
use wire_envoy::pb::{
    envoy::extensions::retry::{
        host::previous_hosts::v3::PreviousHostsPredicate,
        priority::previous_priorities::v3::PreviousPrioritiesConfig,
    },
    route::{
        RetryPolicy,
        retry_policy::{
            RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
        },
    },
};

use crate::{packed, wire};

const DEFAULT_RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const DEFAULT_RETRIES: u32 = 2;
/// Hosts to look at for one that was not tried yet.
const HOST_ATTEMPTS: i64 = 5;

/// Retries where a rule says nothing about them: MeshConfig's, else Istio's two.
pub(super) fn default_retries(mesh: &MeshConfig, hashes: bool) -> Option<RetryPolicy> {
    match &mesh.default_http_retry {
        Some(own) => of_rule(own, hashes),
        None => Some(RetryPolicy {
            retry_on: DEFAULT_RETRY_ON.to_owned(),
            num_retries: Some(wire::number(DEFAULT_RETRIES)),
            retry_host_predicate: if hashes {
                Vec::new()
            } else {
                vec![other_host()]
            },
            host_selection_retry_max_attempts: HOST_ATTEMPTS,
            ..Default::default()
        }),
    }
}

/// Where a request was hashed to a host, a retry goes to the same one.
pub(super) fn of_rule(own: &Retries, hashes: bool) -> Option<RetryPolicy> {
    if own.attempts == 0 {
        return None;
    }
    let (retry_on, codes) = conditions(own.retry_on.as_deref());
    let avoids_tried = own.ignore_previous_hosts && !hashes;
    Some(RetryPolicy {
        retry_on,
        retriable_status_codes: codes,
        num_retries: Some(wire::number(own.attempts)),
        per_try_timeout: own.per_try_timeout.map(wire::duration),
        retry_host_predicate: if avoids_tried {
            vec![other_host()]
        } else {
            Vec::new()
        },
        retry_priority: own.remote_localities.then(other_priority),
        host_selection_retry_max_attempts: HOST_ATTEMPTS,
        retry_back_off: own.back_off.map(|base| RetryBackOff {
            base_interval: Some(wire::duration(base)),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// Words stay; numbers become statuses, for which the word that enables them is added.
fn conditions(written: Option<&str>) -> (String, Vec<u32>) {
    let Some(written) = written else {
        return (DEFAULT_RETRY_ON.to_owned(), Vec::new());
    };
    let (mut words, mut codes) = (Vec::new(), Vec::new());
    for part in written
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => words.push(part),
        }
    }
    if !codes.is_empty() && !words.contains(&"retriable-status-codes") {
        words.push("retriable-status-codes");
    }
    (words.join(","), codes)
}

fn other_host() -> RetryHostPredicate {
    let config = retry_host_predicate::ConfigType::TypedConfig(packed(&PreviousHostsPredicate {}));
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(config),
    }
}

fn other_priority() -> RetryPriority {
    let config = retry_priority::ConfigType::TypedConfig(packed(&PreviousPrioritiesConfig {
        update_frequency: 2,
    }));
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(config),
    }
}

/// Retries of requests that did not reach the application: only for its own sidecar, never for gRPC (row TM-011).
pub(super) fn inbound_retries() -> RetryPolicy {
    RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: Some(wire::number(DEFAULT_RETRIES)),
        ..Default::default()
    }
}
