//! The control plane's own metrics, under Istio's names where istiod has them (reference 4.7).
//!
//! The page is Prometheus' text format (0.0.4), as istiod's: counters carry their names as they
//! are, because dashboards ask for
//! `pilot_xds_pushes`, not for the `pilot_xds_pushes_total` that OpenMetrics would make of it. Names, labels and bucket bounds are istiod's
//! (`pilot/pkg/xds/monitoring.go` and its neighbours); what has no counterpart there is called
//! `tanbark_…`.

use std::{sync::Arc, time::Instant};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use stdx::Clock;

mod authority;
mod builds;
mod kinds;
mod process;
mod source;
mod streams;

pub use authority::AuthorityMetrics;
pub use builds::{Build, Builds};
use kinds::add;
pub use kinds::type_label;
pub use source::{Event, SourceMetrics};
pub use streams::StreamMetrics;

/// Content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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

#[cfg(test)]
mod tests;
