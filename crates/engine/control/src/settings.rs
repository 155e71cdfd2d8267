//! What the program hands to the control plane: addresses, places, names, lifetimes and the clock.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use identity::TrustDomain;
use stdx::Clock;

use crate::{api::ApiAddress, error::ControlError};

/// What a control plane needs to know before it can ask.
#[derive(Debug, Clone)]
pub struct Settings {
    pub api: ApiAddress,
    pub clock: Arc<dyn Clock>,
    /// Name of this instance, as `proxy-status` shows it; the pod's.
    pub instance: String,
    /// Where the certificate authority's files are kept.
    pub ca_directory: PathBuf,
    pub trust_domain: TrustDomain,
    /// The mesh configuration where no ConfigMap `istio` says otherwise; `None`: Istio's defaults.
    pub mesh: Option<mesh_model::MeshConfig>,
    pub root_namespace: String,
    pub cluster_domain: String,
    pub listen: Listen,
    /// Lifetime of a workload certificate that asks for none; above zero and at most
    /// [`identity::MAX_TTL`].
    pub workload_ttl: Duration,
}

/// Addresses, Istio's ports by default.
#[derive(Debug, Clone)]
pub struct Listen {
    /// gRPC over TLS, 15012.
    pub secure: SocketAddr,
    /// gRPC in plaintext, 15010; loopback only unless asked.
    pub plaintext: Option<SocketAddr>,
    /// Metrics and debug pages, 15014.
    pub monitoring: SocketAddr,
    /// Readiness, 8080.
    pub http: SocketAddr,
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), ControlError> {
        let maximum = identity::MAX_TTL;
        if self.workload_ttl.is_zero() || self.workload_ttl > maximum {
            return Err(ControlError::WorkloadLifetime {
                seconds: self.workload_ttl.as_secs(),
                maximum: maximum.as_secs(),
            });
        }
        Ok(())
    }
}
