//! Istio's standard metrics.

use std::sync::Arc;

use proxy_config::filter::istio_stats::{IstioStats, MetricOverride, Reporter};
use wire_envoy::pb::istio::stats::{MetricConfig, PluginConfig, Reporter as Wire};

use crate::{
    context::Cx,
    judgement::{enumerated, take},
    reject::{Refusal, each},
    scalar,
};

pub(crate) fn stats(cx: &mut Cx, value: PluginConfig) -> Result<IstioStats, Refusal> {
    take!(cx, value => PluginConfig {
        read {
            disable_host_header_fallback, tcp_reporting_duration, metrics, reporter,
        }
        ignore "series that nothing touches are forgotten after a time of the process" { rescoping_duration, scope_grace_period_duration }
        reject "metrics of one's own are not supported" { definitions }
    });
    Ok(IstioStats {
        reporter: match enumerated!(reporter => Wire, "reporter")? {
            Wire::Unspecified => Reporter::Unspecified,
            Wire::ServerGateway => Reporter::ServerGateway,
        },
        disable_host_header_fallback,
        tcp_reporting_interval: scalar::limit(
            "tcp_reporting_duration",
            tcp_reporting_duration,
            None,
        )?,
        overrides: each("metrics", metrics, |m| metric(cx, m))?,
    })
}

fn metric(cx: &mut Cx, value: MetricConfig) -> Result<MetricOverride, Refusal> {
    take!(cx, value => MetricConfig {
        read { dimensions, name, tags_to_remove, drop }
        ignore "Istio's own filter does not read it either" { r#match }
    });
    Ok(MetricOverride {
        metric: scalar::text(name),
        drop,
        tags_to_remove: scalar::texts(tags_to_remove),
        dimensions: dimensions
            .into_iter()
            .map(|(tag, expression)| (Arc::from(tag), Arc::from(expression)))
            .collect(),
    })
}
