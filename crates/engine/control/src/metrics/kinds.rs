//! Kinds of metrics as istiod's page has them, and how they are registered.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{
        MetricType, TypedMetric, counter::Counter, family::MetricConstructor, histogram::Histogram,
    },
    registry::{Metric, Registry},
};

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

/// What kind of resource, of change, of reason: istiod's label `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    pub r#type: &'static str,
}

/// Registers a metric and hands out its handle.
pub(super) fn add<M: Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> M {
    add_made(registry, name, help, M::default())
}

pub(super) fn add_made<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Makes the histograms of a family.
#[derive(Debug, Clone, Copy)]
pub struct Buckets(pub(super) &'static [f64]);

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
