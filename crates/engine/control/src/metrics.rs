//! The control plane's own metrics, under Istio's names where istiod has them (reference 4.7).
//!
//! The page is Prometheus' text format (0.0.4), as istiod's: counters carry their names as they are, because dashboards ask for
//! `pilot_xds_pushes`, not for the `pilot_xds_pushes_total` that OpenMetrics would make of it.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, text::encode},
    metrics::{MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

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
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
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
    pub csr_count: Count,
    pub success_cert_issuance: Count,
    pub authentication_failures: Count,
    pub connected_proxies: Gauge,
    pub pushes: Family<TypeLabel, Count>,
    pub rejects: Family<TypeLabel, Count>,
    pub snapshot_version: Gauge,
    pub cached_generations: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    pub r#type: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let csr_count = Count::default();
        registry.register(
            "citadel_server_csr_count",
            "CSRs received",
            csr_count.clone(),
        );
        let success_cert_issuance = Count::default();
        registry.register(
            "citadel_server_success_cert_issuance_count",
            "Certificates issued",
            success_cert_issuance.clone(),
        );
        let authentication_failures = Count::default();
        registry.register(
            "citadel_server_authentication_failure_count",
            "Callers that could not be authenticated",
            authentication_failures.clone(),
        );
        let connected_proxies = Gauge::default();
        registry.register(
            "pilot_xds",
            "Proxies connected by xDS",
            connected_proxies.clone(),
        );
        let pushes = Family::default();
        registry.register("pilot_xds_pushes", "xDS responses sent", pushes.clone());
        let rejects = Family::default();
        registry.register(
            "pilot_total_xds_rejects",
            "xDS responses that a proxy refused",
            rejects.clone(),
        );
        let snapshot_version = Gauge::default();
        registry.register(
            "tanbark_snapshot_version",
            "Version of the configuration snapshot that is served",
            snapshot_version.clone(),
        );
        let cached_generations = Gauge::default();
        registry.register(
            "xds_cache_size",
            "Generated resource sets that are kept",
            cached_generations.clone(),
        );
        Self {
            registry: Arc::new(registry),
            csr_count,
            success_cert_issuance,
            authentication_failures,
            connected_proxies,
            pushes,
            rejects,
            snapshot_version,
            cached_generations,
        }
    }
}

impl Metrics {
    /// Prometheus text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
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
