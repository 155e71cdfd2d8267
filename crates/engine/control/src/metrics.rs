//! The control plane's own metrics, under Istio's names where istiod has them (reference 4.7).
//!
//! The page is Prometheus' text format (0.0.4), as istiod's: counters carry their names as they
//! are, because dashboards ask for
//! `pilot_xds_pushes`, not for the `pilot_xds_pushes_total` that OpenMetrics would make of it. Names, labels and bucket bounds are istiod's
//! (`pilot/pkg/xds/monitoring.go` and its neighbours); what has no counterpart there is called
//! `tanbark_…`.

use std::{fmt, sync::Arc, time::Instant};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, text::encode},
    metrics::{
        MetricType, TypedMetric,
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Metric, Registry},
};
use stdx::Clock;

mod authority;
mod builds;
mod process;
mod source;
mod streams;

pub use authority::AuthorityMetrics;
pub use builds::{Build, Builds};
pub use source::{Event, SourceMetrics};
pub use streams::StreamMetrics;

/// Content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A counter without OpenMetrics' suffix.
#[derive(Debug, Clone, Default)]
pub struct Count(Counter);

impl Count {
    pub fn inc(&self) {
        self.0.inc();
    }

    #[cfg(test)]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl TypedMetric for Count {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Count {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        // The only sample form that writes the bare name.
        encoder.encode_gauge(&i64::try_from(self.0.get()).unwrap_or(i64::MAX))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Handles; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    pub authority: AuthorityMetrics,
    pub source: SourceMetrics,
    pub streams: StreamMetrics,
    /// When the snapshots that are being served were made.
    pub builds: Builds,
    uptime: Gauge,
    clock: Arc<dyn Clock>,
    started: Instant,
}

/// What kind of resource, of change, of reason: istiod's label `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    pub r#type: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    component: &'static str,
    tag: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterTypeLabel {
    cluster_type: &'static str,
}

impl Metrics {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let mut registry = Registry::default();
        let version = env!("CARGO_PKG_VERSION");
        let build = add::<Family<BuildLabels, Gauge>>(
            &mut registry,
            "istio_build",
            "What this program is; always 1",
        );
        build
            .get_or_create(&BuildLabels {
                component: "pilot",
                tag: version,
            })
            .set(1);
        add::<Family<VersionLabel, Gauge>>(
            &mut registry,
            "pilot_info",
            "Which version of the control plane this is; always 1",
        )
        .get_or_create(&VersionLabel { version })
        .set(1);
        add::<Family<ClusterTypeLabel, Gauge>>(
            &mut registry,
            "istiod_managed_clusters",
            "Clusters whose objects are watched",
        )
        .get_or_create(&ClusterTypeLabel {
            cluster_type: "local",
        })
        .set(1);
        Self {
            uptime: add(
                &mut registry,
                "istiod_uptime_seconds",
                "Seconds since the control plane began",
            ),
            authority: AuthorityMetrics::new(&mut registry),
            source: SourceMetrics::new(&mut registry),
            streams: StreamMetrics::new(&mut registry),
            builds: Builds::default(),
            started: clock.now(),
            clock,
            registry: Arc::new(registry),
        }
    }

    /// Prometheus text.
    pub fn text(&self) -> String {
        let uptime = self.clock.now().saturating_duration_since(self.started);
        self.uptime
            .set(i64::try_from(uptime.as_secs()).unwrap_or(i64::MAX));
        self.authority.refresh(self.clock.wall());
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        // The end mark of OpenMetrics has no place in the middle.
        if let Some(body) = text.strip_suffix("# EOF\n") {
            text.truncate(body.len());
        }
        process::append(&mut text);
        text
    }
}

/// Registers a metric and hands out its handle.
fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    add_made(registry, name, help, M::default())
}

fn add_made<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Makes the histograms of a family.
#[derive(Debug, Clone, Copy)]
pub struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Envoy's short name of a resource type, for labels.
pub fn type_label(type_url: &str) -> TypeLabel {
    use wire_envoy::type_url as urls;
    let short = match type_url {
        urls::CLUSTER => "cds",
        urls::ENDPOINT => "eds",
        urls::LISTENER => "lds",
        urls::ROUTE => "rds",
        urls::SECRET => "sds",
        urls::EXTENSION_CONFIG => "ecds",
        urls::NAME_TABLE => "nds",
        _ => "other",
    };
    TypeLabel { r#type: short }
}

#[cfg(test)]
mod tests;
