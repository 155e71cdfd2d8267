//! Mirrored requests.

use std::sync::Arc;

use proxy_config::{
    matcher::Fraction,
    route::{MirrorPolicy, Target},
};
use wire_envoy::pb::route::route_action::RequestMirrorPolicy;

use super::target;
use crate::{
    context::Cx,
    judgement::take,
    reject::{Refusal, Within, each},
    scalar,
};

pub(super) fn mirrors(
    cx: &mut Cx,
    values: Vec<RequestMirrorPolicy>,
) -> Result<Arc<[MirrorPolicy]>, Refusal> {
    each("request_mirror_policies", values, |v| mirror(cx, v))
}

fn mirror(cx: &mut Cx, value: RequestMirrorPolicy) -> Result<MirrorPolicy, Refusal> {
    take!(cx, value => RequestMirrorPolicy {
        read { cluster, cluster_header, runtime_fraction, disable_shadow_host_suffix_append }
        ignore "a mirrored request is traced as its original" { trace_sampled }
        reject "a mirrored request is the request" { request_headers_mutations, host_rewrite_literal }
    });
    let target = match (cluster.is_empty(), cluster_header.is_empty()) {
        (false, true) => target::named("cluster", cluster)?,
        (true, false) => {
            Target::ClusterHeader(scalar::header_name("cluster_header", &cluster_header)?)
        }
        _ => {
            return Err(Refusal::at(
                "cluster",
                "exactly one of cluster and cluster_header must be set",
            ));
        }
    };
    Ok(MirrorPolicy {
        target,
        fraction: runtime_fraction
            .map_or(Ok(Fraction::ALL), |f| scalar::runtime_fraction(cx, f))
            .within("runtime_fraction")?,
        disable_shadow_host_suffix: disable_shadow_host_suffix_append,
    })
}
