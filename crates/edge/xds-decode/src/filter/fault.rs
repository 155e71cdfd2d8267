//! Fault injection.

use proxy_config::{
    filter::fault::{Abort, AbortKind, Delay, DelayKind, Fault},
    matcher::Fraction,
};
use wire_envoy::pb::{
    self,
    envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
    http_filters::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
};

use crate::{
    context::Cx,
    judgement::take,
    matcher,
    reject::{Refusal, Within},
    scalar,
};

pub(crate) fn fault(cx: &mut Cx, value: HttpFault) -> Result<Fault, Refusal> {
    take!(cx, value => HttpFault {
        read { delay, abort, upstream_cluster, headers, downstream_nodes, max_active_faults }
        ignore "there is no runtime layer, so the values given hold" {
            delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime,
            max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime,
        }
        ignore "responses are not slowed down" { response_rate_limit }
        ignore "statistics only" { disable_downstream_cluster_stats }
        ignore "no log or tag of Istio reads it" { filter_metadata }
    });
    Ok(Fault {
        delay: delay.map(self::delay).transpose().within("delay")?,
        abort: abort
            .map(|a| self::abort(cx, a))
            .transpose()
            .within("abort")?,
        upstream_cluster: scalar::text(upstream_cluster),
        headers: matcher::headers("headers", headers)?,
        downstream_nodes: scalar::texts(downstream_nodes),
        max_active_faults: scalar::count(max_active_faults),
    })
}

fn share(value: Option<pb::kind::FractionalPercent>) -> Result<Fraction, Refusal> {
    value
        .map_or(Ok(Fraction::NONE), scalar::fraction)
        .within("percentage")
}

fn delay(value: FaultDelay) -> Result<Delay, Refusal> {
    let FaultDelay {
        percentage,
        fault_delay_secifier,
    } = value;
    let kind = match fault_delay_secifier.ok_or_else(|| Refusal::missing("fixed_delay"))? {
        FaultDelaySecifier::FixedDelay(delay) => {
            DelayKind::Fixed(scalar::duration(delay).within("fixed_delay")?)
        }
        FaultDelaySecifier::HeaderDelay(_) => DelayKind::Header,
    };
    Ok(Delay {
        kind,
        fraction: share(percentage)?,
    })
}

fn abort(cx: &mut Cx, value: FaultAbort) -> Result<Abort, Refusal> {
    take!(cx, value => FaultAbort {
        read { percentage, error_type }
        reject "the body of an abort is fixed" { response_body }
    });
    let kind = match error_type.ok_or_else(|| Refusal::missing("error_type"))? {
        ErrorType::HttpStatus(code) => AbortKind::Http(scalar::status("http_status", code)?),
        ErrorType::GrpcStatus(code) if code <= 16 => AbortKind::Grpc(code),
        ErrorType::GrpcStatus(code) => {
            return Err(Refusal::at(
                "grpc_status",
                format!("{code} is no gRPC status"),
            ));
        }
        ErrorType::HeaderAbort(_) => AbortKind::Header,
    };
    Ok(Abort {
        kind,
        fraction: share(percentage)?,
    })
}
