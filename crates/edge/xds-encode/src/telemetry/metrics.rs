//! Istio's standard metrics: the `istio.stats` filter and its overrides (reference 4.1, 4.2).
//!
//! Without a Prometheus provider (MeshConfig's default, or a Telemetry resource's) a proxy has no such filter.

use std::{collections::BTreeMap, time::Duration};

use mesh_model::{
    mesh_config::ProviderKind,
    object::Text,
    telemetry::{MetricOverride, TagOverride},
};
use wire_envoy::pb::istio::stats::{MetricConfig, PluginConfig};

use super::{Reports, Side, provider};
use crate::wire;

/// All standard metrics, by name without `istio_`.
const ALL: [&str; 10] = [
    "requests_total",
    "request_duration_milliseconds",
    "request_bytes",
    "response_bytes",
    "tcp_connections_opened_total",
    "tcp_connections_closed_total",
    "tcp_sent_bytes_total",
    "tcp_received_bytes_total",
    "request_messages_total",
    "response_messages_total",
];

/// Overrides of one metric.
#[derive(Default)]
struct Changes {
    dropped: bool,
    added: BTreeMap<Text, Text>,
    removed: Vec<Text>,
}

impl Reports<'_> {
    /// Configuration of the filter; `None` where no metrics are wanted or the proxy has no such filter.
    pub fn metrics(&self) -> Option<PluginConfig> {
        if self.client.is_envoy_without_istio_filters {
            return None;
        }
        let mut providers = self.mesh.default_providers.metrics.to_vec();
        let mut interval: Option<Duration> = None;
        let mut order: Vec<&str> = Vec::new();
        let mut changes: BTreeMap<&str, Changes> = BTreeMap::new();
        for block in self
            .telemetries
            .iter()
            .flat_map(|telemetry| telemetry.metrics.iter())
        {
            if !block.providers.is_empty() {
                providers = block.providers.to_vec();
            }
            interval = block.reporting_interval.or(interval);
            for change in block
                .overrides
                .iter()
                .filter(|change| self.side.takes(change.mode))
            {
                for metric in about(change) {
                    if !order.contains(&metric) {
                        order.push(metric);
                    }
                    apply(changes.entry(metric).or_default(), change);
                }
            }
        }
        providers
            .iter()
            .any(|name| provider(self.mesh, name) == Some(ProviderKind::Prometheus))
            .then_some(())?;
        let metrics = order
            .iter()
            .filter_map(|name| metric(name, changes.get(name)?))
            .collect();
        Some(PluginConfig {
            disable_host_header_fallback: self.side != Side::Outbound,
            tcp_reporting_duration: interval.map(wire::duration),
            metrics,
            ..Default::default()
        })
    }
}

fn about(change: &MetricOverride) -> Vec<&str> {
    match &change.metric {
        Some(name) => vec![name],
        None => ALL.to_vec(),
    }
}

/// A narrower override changes what it names and leaves the rest.
fn apply(known: &mut Changes, change: &MetricOverride) {
    known.dropped = change.disabled.unwrap_or(known.dropped);
    for (tag, tag_override) in change.tags.iter() {
        known.removed.retain(|removed| removed != tag);
        known.added.remove(tag);
        match tag_override {
            TagOverride::Remove => known.removed.push(tag.clone()),
            TagOverride::Upsert(expression) => {
                drop(known.added.insert(tag.clone(), expression.clone()))
            }
        }
    }
    known.removed.sort_unstable();
}

fn metric(name: &str, changes: &Changes) -> Option<MetricConfig> {
    if changes.dropped {
        return Some(MetricConfig {
            name: name.to_owned(),
            drop: true,
            ..Default::default()
        });
    }
    let changed = !changes.added.is_empty() || !changes.removed.is_empty();
    changed.then(|| MetricConfig {
        name: name.to_owned(),
        dimensions: changes
            .added
            .iter()
            .map(|(tag, expression)| (tag.to_string(), expression.to_string()))
            .collect(),
        tags_to_remove: changes.removed.iter().map(Text::to_string).collect(),
        ..Default::default()
    })
}
