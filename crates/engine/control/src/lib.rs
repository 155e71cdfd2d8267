//! The control plane: watch → ingest → Snapshot → encode → push, with the certificate authority beside it.
//!
//! One config change, in the order in which it happens:
//! [`watch`] brings an object from the API → [`mesh`] (the single writer) gives it to `ingest`, which keeps its last good version, and publishes
//! a new `Snapshot` → every stream of [`discovery`] offers what that snapshot means to its proxy ([`session`]) → [`generate`] encodes what changed, once for
//! all proxies with equal inputs → the protocol's state machine sends it in an order that breaks nothing → problems become status conditions ([`status`]).
//!
//! Beside that path: [`authority`] and [`certificates`] (who signs, for whom), [`authenticate`] and [`authorize`] (who calls, and what it may read),
//! [`serve`] (ports), [`debug`] (pages).
//! Nothing here reads the environment or wall-clock configuration; the program hands in [`Settings`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use identity::{IdentityError, TrustDomain};
use stdx::Drain;
use tokio::{net::TcpListener, sync::watch as channel, task::JoinSet};
use tonic::transport::Server;
use wire_envoy::pb::{
    discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
    istio::auth::istio_certificate_service_server::IstioCertificateServiceServer,
};

pub mod api;
mod authenticate;
mod authority;
mod authorize;
mod certificates;
pub mod change;
mod debug;
mod discovery;
pub mod generate;
mod memo;
mod mesh;
mod metrics;
mod proxies;
mod serve;
pub mod session;
mod status;
mod watch;

#[cfg(test)]
mod fake_api;

pub use api::ApiAddress;

/// What a control plane needs to know before it can ask.
#[derive(Debug, Clone)]
pub struct Settings {
    pub api: ApiAddress,
    /// Where the certificate authority's files are kept.
    pub ca_directory: PathBuf,
    pub trust_domain: TrustDomain,
    /// The mesh configuration where no ConfigMap `istio` says otherwise; `None`: Istio's defaults.
    pub mesh: Option<mesh_model::MeshConfig>,
    pub root_namespace: String,
    pub cluster_domain: String,
    pub listen: Listen,
    /// Lifetime of a workload certificate that asks for none; above zero and at most [`identity::MAX_TTL`].
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

/// Why a control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    #[error("certificate authority: {0}")]
    Authority(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("a server ended: {0}")]
    Server(#[from] tonic::transport::Error),
    #[error(
        "the lifetime of workload certificates is {seconds} s: it must be between 1 and {maximum} s"
    )]
    WorkloadLifetime { seconds: u64, maximum: u64 },
    #[error("bug: {0}")]
    Bug(&'static str),
}

impl Settings {
    fn check(&self) -> Result<(), ControlError> {
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

/// Runs until `drain` starts.
pub async fn run(settings: Settings, drain: Drain) -> Result<(), ControlError> {
    settings.check()?;
    let client = api::connect(&settings.api)?;
    let metrics = metrics::Metrics::default();
    let (place, authority) = authority_of(&settings, &client, &metrics.authority).await?;
    let authenticator = Arc::new(authenticate::Authenticator::new(
        client.clone(),
        settings.trust_domain.clone(),
    ));
    let (publish, snapshots) = channel::channel(None);
    let (publish_objects, objects) = channel::channel(Arc::from([]));
    let proxies = Arc::new(proxies::Proxies::default());
    let generator = Arc::new(generate::Generator::default());

    let mut tasks = JoinSet::new();
    let changes = watch::start(&client, &mut tasks);
    let reporter = status::Reporter::start(client.clone(), &mut tasks);
    let writer = mesh::Writer {
        changes,
        publish,
        objects: publish_objects,
        generator: generator.clone(),
        metrics: metrics.clone(),
        reporter,
        changed: Default::default(),
    };
    let mut writing = JoinSet::new();
    writing.spawn(writer.run(&settings));
    tasks.spawn(authority::keep_roots_published(
        client.clone(),
        authority.load().bundle().to_pem(),
        snapshots.clone(),
    ));
    tasks.spawn(authority::keep_plugged(
        place,
        authority.clone(),
        metrics.authority.clone(),
    ));

    let certificates = certificates::CertificateService {
        authority: authority.clone(),
        authenticator: authenticator.clone(),
        default_ttl: settings.workload_ttl,
        metrics: metrics.clone(),
    };
    let discovery = discovery::DiscoveryService(Arc::new(discovery::Discovery {
        authenticator,
        authorizer: authorize::Authorizer::new(client.clone()),
        snapshots: snapshots.clone(),
        generator: generator.clone(),
        proxies: proxies.clone(),
        metrics: metrics.clone(),
        drain: drain.clone(),
    }));
    let pages = debug::Pages {
        proxies,
        metrics,
        snapshots,
        objects,
        generator,
    };
    let result = tokio::select! {
        served = serve_all(&settings, &authority, certificates, discovery, pages, &mut tasks, drain) => served,
        // Without its writer the mesh would stand still and look healthy.
        _ = writing.join_next() => Err(ControlError::Bug("the snapshot writer ended")),
    };
    tasks.shutdown().await;
    writing.shutdown().await;
    result
}

/// The certificate authority, and where a newer one would be found.
async fn authority_of(
    settings: &Settings,
    client: &kube::Client,
    metrics: &metrics::AuthorityMetrics,
) -> Result<(authority::Place, authority::Current), ControlError> {
    let place = authority::Place {
        client: client.clone(),
        root_namespace: settings.root_namespace.clone(),
        directory: settings.ca_directory.clone(),
    };
    let authority = authority::load(&place, &settings.trust_domain).await?;
    authority::show_ends(&authority, metrics)?;
    Ok((place, Arc::new(ArcSwap::from_pointee(authority))))
}

async fn serve_all(
    settings: &Settings,
    authority: &authority::Current,
    certificates: certificates::CertificateService,
    discovery: discovery::DiscoveryService,
    pages: debug::Pages,
    tasks: &mut JoinSet<()>,
    drain: Drain,
) -> Result<(), ControlError> {
    for address in [settings.listen.monitoring, settings.listen.http] {
        let listener = bind(address).await?;
        let app = debug::router(pages.clone()).into_make_service_with_connect_info::<SocketAddr>();
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, %address, "the HTTP server ended");
            }
        });
    }
    let own = serve::ServerCertificate::issue(
        authority.clone(),
        serve::server_names(&settings.root_namespace, &settings.cluster_domain),
    )?;
    tasks.spawn(own.clone().keep_fresh());
    let discovery = AggregatedDiscoveryServiceServer::new(discovery);
    if let Some(address) = settings.listen.plaintext {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(bind(address).await?);
        let plain = grpc_server()
            .add_service(discovery.clone())
            .serve_with_incoming(incoming);
        tasks.spawn(async move {
            if let Err(error) = plain.await {
                tracing::error!(%error, "the plaintext gRPC server ended");
            }
        });
    }
    let incoming = serve::accept_tls(bind(settings.listen.secure).await?, own);
    tracing::info!(address = %settings.listen.secure, "the control plane is listening");
    let certificates = IstioCertificateServiceServer::new(certificates);
    grpc_server()
        .add_service(discovery)
        .add_service(certificates)
        .serve_with_incoming_shutdown(incoming, drain)
        .await?;
    Ok(())
}

/// Keep-alives find proxies that vanished without a word; the limits are istiod's.
fn grpc_server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(100_000))
        .initial_stream_window_size(Some(1 << 20))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ControlError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ControlError::Listen { address, source })
}
