//! The agent beside a stock Envoy: it holds the workload's key, serves secrets to Envoy over a Unix
//! socket, carries Envoy's ADS to the control plane, writes its bootstrap, and starts, drains and
//! ends it.
//!
//! What `Feed` does for our own data path this does for Envoy: the same certificate keeper, the
//! same way to the control plane. The key goes to Envoy over a socket in a directory that only its
//! owner may enter, and nowhere else.

mod envoy;
mod health;
mod relay;
mod secrets;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitStatus, sync::Arc, time::Duration};

use identity::IdentityHandle;
use stdx::{Clock, Drain, Rng};
use tokio::task::JoinSet;

use crate::{
    FeedError, certificates::CertificateKeeper, dial::Dialer, resolve::Resolver,
    settings::Settings, status::Status,
};

pub use envoy::bootstrap;

/// What the agent is told, beside the settings of the feed.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    pub feed: Settings,
    /// The Envoy program.
    pub envoy: PathBuf,
    /// Directory for sockets and the bootstrap; made with mode 0700.
    pub directory: PathBuf,
    /// Envoy's `--concurrency`; `None`: Envoy decides.
    pub concurrency: Option<u32>,
    pub log_level: String,
    /// After SIGTERM connections have this long to end.
    pub termination_drain: Duration,
    /// Envoy's own drain time (`--drain-time-s`).
    pub drain: Duration,
    pub ports: Ports,
}

/// Istio's ports.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Envoy's admin page, on loopback.
    pub admin: u16,
    /// The agent's health and merged statistics.
    pub status: u16,
    /// Envoy's readiness listener.
    pub ready: u16,
    /// Envoy's Prometheus listener.
    pub prometheus: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            admin: 15000,
            status: 15020,
            ready: 15021,
            prometheus: 15090,
        }
    }
}

impl AgentSettings {
    pub(crate) fn ads_socket(&self) -> PathBuf {
        self.directory.join("XDS")
    }

    pub(crate) fn sds_socket(&self) -> PathBuf {
        self.directory.join("SDS")
    }

    pub(crate) fn bootstrap_file(&self) -> PathBuf {
        self.directory.join("envoy.json")
    }
}

/// Runs until Envoy ends: by itself, or after the drain that `drain` starts.
pub async fn run(
    settings: AgentSettings,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    drain: Drain,
) -> Result<ExitStatus, FeedError> {
    make_directory(&settings.directory)?;
    let identity = IdentityHandle::new();
    let status = Arc::new(Status::default());
    let dialer = Dialer {
        identity: identity.clone(),
        resolver: Arc::new(Resolver::from_system(settings.feed.limits.lookups)),
        clock: clock.clone(),
        connect_timeout: settings.feed.limits.connect_timeout,
    };
    let mut tasks = JoinSet::new();
    if let Some(certificates) = &settings.feed.certificates {
        let keeper = CertificateKeeper {
            settings: certificates.clone(),
            limits: settings.feed.limits.clone(),
            dialer: dialer.clone(),
            identity: identity.clone(),
            status: status.clone(),
            clock: clock.clone(),
            rng,
        };
        tasks.spawn(keeper.run());
    }
    tasks.spawn(secrets::serve(
        secrets::listen(&settings.sds_socket())?,
        identity,
        status.clone(),
    ));
    if let Some(discovery) = &settings.feed.discovery {
        let relay = relay::Relay {
            dialer,
            server: discovery.server.clone(),
            limits: settings.feed.limits.clone(),
            status: status.clone(),
        };
        tasks.spawn(relay::serve(
            secrets::listen(&settings.ads_socket())?,
            relay,
        ));
    }
    let health = health::Health {
        admin_port: settings.ports.admin,
        status,
        clock,
    };
    tasks.spawn(health::serve(
        health::listen(settings.ports.status)?,
        health,
    ));
    envoy::supervise(&settings, drain).await
}

fn make_directory(path: &std::path::Path) -> Result<(), FeedError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let failed = |error| FeedError::File {
        path: path.display().to_string(),
        error,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}
