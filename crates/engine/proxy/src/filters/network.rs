//! Network filters: what decides about a connection before its terminal filter sees a byte.

use proxy_config::{ClusterName, filter::NetworkFilter};
use telemetry::record::ResponseFlags;

use crate::{connection::Connection, worker::Worker};

/// What the filters decided about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Continue,
    /// Closed at once; what the access log says.
    Close { flags: ResponseFlags, details: String },
}

/// Runs the chain's network filters in order.
pub fn on_connection(connection: &Connection, _worker: &Worker) -> Verdict {
    for filter in connection.chain.config.network_filters.iter() {
        let verdict = match filter {
            NetworkFilter::Rbac(config) if config.rules.is_some() => {
                Verdict::Close { flags: ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE, details: "rbac_not_supported".to_owned() }
            }
            NetworkFilter::Rbac(_) => Verdict::Continue,
            NetworkFilter::LocalRateLimit(_) => Verdict::Continue,
            // Done by the TCP proxy and the report.
            NetworkFilter::MetadataExchange | NetworkFilter::IstioStats(_) | NetworkFilter::SniCluster => Verdict::Continue,
        };
        if verdict != Verdict::Continue {
            return verdict;
        }
    }
    Verdict::Continue
}

/// The cluster that the SNI names, on chains that route so (`outbound_.80_._.host`).
pub fn sni_cluster(connection: &Connection) -> Option<ClusterName> {
    let by_sni = connection.chain.config.network_filters.iter().any(|filter| matches!(filter, NetworkFilter::SniCluster));
    ClusterName::parse(connection.facts.server_name.as_deref().filter(|_| by_sni)?).ok()
}
