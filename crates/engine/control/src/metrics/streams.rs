//! Proxies and what is pushed to them (`pilot_xds…`).

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use wire_envoy::type_url as urls;

use super::kinds::{Buckets, Count, TypeLabel, add, add_made};

const PUSH_SECONDS: Buckets = Buckets(&[0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0]);
const PROXY_SECONDS: Buckets = Buckets(&[0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0]);
/// 4 MB is gRPC's default limit; istiod calls 40 MB the likely upper bound.
const SIZE_BYTES: Buckets = Buckets(&[1.0, 1e4, 1e6, 4e6, 1e7, 4e7]);

/// By type URL; only these types have one.
type RejectsByNode = [(&'static str, Family<RejectLabels, Gauge>); 4];
type Times = Family<TypeLabel, Histogram, Buckets>;

#[derive(Clone)]
pub struct StreamMetrics {
    /// By the proxies' versions.
    connected: Family<VersionLabel, Gauge>,
    pub pushes: Family<TypeLabel, Count>,
    pub rejects: Family<TypeLabel, Count>,
    rejects_by_node: RejectsByNode,
    pub expired_nonces: Family<TypeLabel, Count>,
    pub internal_errors: Count,
    pub push_time: Times,
    pub send_time: Histogram,
    pub queue_time: Histogram,
    pub convergence_time: Histogram,
    pub config_size: Times,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectLabels {
    node: String,
    err: &'static str,
}

/// Counts a connected proxy until it is dropped.
pub struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl StreamMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let times = |registry: &mut Registry, name: &str, help: &str, buckets: Buckets| {
            add_made(registry, name, help, Times::new_with_constructor(buckets))
        };
        let time = |registry: &mut Registry, name: &str, help: &str, buckets: Buckets| {
            let histogram = Histogram::new(buckets.0.iter().copied());
            add_made(registry, name, help, histogram)
        };
        Self {
            connected: add(
                registry,
                "pilot_xds",
                "Proxies that are connected, by their version",
            ),
            pushes: add(
                registry,
                "pilot_xds_pushes",
                "Responses sent to proxies, by type",
            ),
            rejects: add(
                registry,
                "pilot_total_xds_rejects",
                "Responses that a proxy refused",
            ),
            rejects_by_node: rejects_by_node(registry),
            expired_nonces: add(
                registry,
                "pilot_xds_expired_nonce",
                "Requests that answered an older response than the last",
            ),
            internal_errors: add(
                registry,
                "pilot_total_xds_internal_errors",
                "Streams that ended by a fault of the control plane",
            ),
            push_time: times(
                registry,
                "pilot_xds_push_time",
                "Seconds to generate and to send a response, by type",
                PUSH_SECONDS,
            ),
            send_time: time(
                registry,
                "pilot_xds_send_time",
                "Seconds to hand a response to its stream",
                PUSH_SECONDS,
            ),
            queue_time: time(
                registry,
                "pilot_proxy_queue_time",
                "Seconds from a snapshot to its being looked at for a proxy",
                PROXY_SECONDS,
            ),
            convergence_time: time(
                registry,
                "pilot_proxy_convergence_time",
                "Seconds from a change to the proxy's acknowledgement of all that it concerns",
                PROXY_SECONDS,
            ),
            config_size: times(
                registry,
                "pilot_xds_config_size_bytes",
                "Bytes of a response, by type",
                SIZE_BYTES,
            ),
        }
    }

    /// A proxy of this version is connected while the guard lives.
    pub fn connected(&self, version: &str) -> Connected {
        let version = if version.is_empty() {
            "unknown"
        } else {
            version
        };
        let labels = VersionLabel {
            version: version.to_owned(),
        };
        let gauge = self.connected.get_or_create_owned(&labels);
        gauge.inc();
        Connected(gauge)
    }

    /// A proxy refused a response with this gRPC code.
    pub fn rejected(&self, type_url: &str, node: &str, code: i32) {
        self.rejects
            .get_or_create(&super::type_label(type_url))
            .inc();
        let found = self.rejects_by_node.iter().find(|(of, _)| *of == type_url);
        if let Some((_, rejects)) = found {
            let labels = RejectLabels {
                node: node.to_owned(),
                err: code_name(code),
            };
            rejects.get_or_create(&labels).inc();
        }
    }
}

fn rejects_by_node(registry: &mut Registry) -> RejectsByNode {
    [
        (urls::CLUSTER, "cds"),
        (urls::ENDPOINT, "eds"),
        (urls::LISTENER, "lds"),
        (urls::ROUTE, "rds"),
    ]
    .map(|(type_url, short)| {
        let name = format!("pilot_xds_{short}_reject");
        let help = format!("Pilot rejected {} configs", short.to_uppercase());
        (type_url, add(registry, &name, &help))
    })
}

/// Names of gRPC codes as Go prints them.
fn code_name(code: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    usize::try_from(code)
        .ok()
        .and_then(|at| NAMES.get(at))
        .unwrap_or(&"Unknown")
}
