//! The control plane: watch → ingest → Snapshot → encode → push, with the certificate authority
//! beside it.
//!
//! One config change, in the order in which it happens: [`watch`] brings an object from the API →
//! [`mesh`] (the single writer) gives it to `ingest`, which keeps its last good version, and
//! publishes a new `Snapshot` → every stream of [`discovery`] offers what that snapshot means to
//! its proxy ([`session`]) → [`generate`] encodes what changed, once for all proxies with equal
//! inputs → the protocol's state machine sends it in an order that breaks nothing → problems become
//! status conditions ([`status`]).
//!
//! Beside that path: [`authority`] and [`certificates`] (who signs, for whom), [`authenticate`] and
//! [`authorize`] (who calls, and what it may read), [`serve`] (ports), [`debug`] (pages). Nothing
//! here reads the environment or the machine's clock; the program hands in [`Settings`].
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests measure and wait in real time"
    )
)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
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
mod error;
pub mod generate;
mod memo;
mod mesh;
mod metrics;
mod peer;
mod proxies;
mod serve;
pub mod session;
mod settings;
mod status;
mod tools;
mod watch;

#[cfg(test)]
mod fake_api;

pub use api::ApiAddress;
pub use error::ControlError;
pub use settings::{Listen, Settings};

/// Runs until `drain` starts.
pub async fn run(settings: Settings, drain: Drain) -> Result<(), ControlError> {
    settings.check()?;
    let client = api::connect(&settings.api)?;
    let metrics = metrics::Metrics::new(settings.clock.clone());
    let mut tasks = JoinSet::new();
    let authority = start_authority(&settings, &client, &metrics, &mut tasks).await?;
    let domain = settings.trust_domain.clone();
    let authenticator = Arc::new(authenticate::Authenticator::new(client.clone(), domain));
    let (publish, snapshots) = channel::channel(None);
    let (publish_objects, objects) = channel::channel(Arc::from([]));
    let proxies = Arc::new(proxies::Proxies::default());
    let generator = Arc::new(generate::Generator::default());

    let writer = mesh::Writer {
        changes: watch::start(&client, &mut tasks),
        publish,
        objects: publish_objects,
        generator: generator.clone(),
        metrics: metrics.clone(),
        reporter: start_reporter(&settings, &client, &mut tasks),
        changed: Default::default(),
    };
    let mut writing = JoinSet::new();
    writing.spawn(writer.run(&settings));
    let (root, seen) = (authority.load().bundle().to_pem(), snapshots.clone());
    tasks.spawn(authority::keep_roots_published(client.clone(), root, seen));

    let pages = debug::Pages {
        proxies: proxies.clone(),
        metrics: metrics.clone(),
        snapshots: snapshots.clone(),
        objects,
        generator: generator.clone(),
    };
    let discovery = discovery::DiscoveryService(Arc::new(discovery::Discovery {
        authenticator: authenticator.clone(),
        authorizer: authorize::Authorizer::new(client),
        snapshots,
        generator,
        proxies,
        metrics: metrics.clone(),
        tools: tools::Tools::new(pages.clone(), &settings.root_namespace),
        control_plane: tools::control_plane(&settings.instance),
        clock: settings.clock.clone(),
        drain: drain.clone(),
    }));
    let faces = Faces {
        own: start_own_certificate(&settings, &authority, &mut tasks)?,
        certificates: certificates::CertificateService {
            authority,
            authenticator,
            default_ttl: settings.workload_ttl,
            clock: settings.clock.clone(),
            metrics,
        },
        discovery,
        pages,
    };
    let result = tokio::select! {
        served = serve_all(&settings.listen, faces, &mut tasks, drain) => served,
        // Without its writer the mesh would stand still and look healthy.
        _ = writing.join_next() => Err(ControlError::Bug("the snapshot writer ended")),
    };
    tasks.shutdown().await;
    writing.shutdown().await;
    result
}

/// The certificate authority; a task looks for a newer one.
async fn start_authority(
    settings: &Settings,
    client: &kube::Client,
    metrics: &metrics::Metrics,
    tasks: &mut JoinSet<()>,
) -> Result<authority::Current, ControlError> {
    let place = authority::Place {
        client: client.clone(),
        root_namespace: settings.root_namespace.clone(),
        directory: settings.ca_directory.clone(),
    };
    let authority = authority::load(&place, &settings.trust_domain, settings.clock.wall()).await?;
    authority::show_ends(&authority, &metrics.authority)?;
    let current = Arc::new(ArcSwap::from_pointee(authority));
    let metrics = metrics.authority.clone();
    tasks.spawn(authority::keep_plugged(place, current.clone(), metrics));
    Ok(current)
}

/// The reporter of problems; a task writes what it leaves.
fn start_reporter(
    settings: &Settings,
    client: &kube::Client,
    tasks: &mut JoinSet<()>,
) -> status::reporter::Reporter {
    let wishes = Arc::new(status::reporter::Wishes::default());
    let clock = settings.clock.clone();
    tasks.spawn(status::writer::run(client.clone(), clock, wishes.clone()));
    status::reporter::Reporter::new(wishes)
}

/// The certificate of the TLS port; a task renews it.
fn start_own_certificate(
    settings: &Settings,
    authority: &authority::Current,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<serve::ServerCertificate>, ControlError> {
    let own = serve::ServerCertificate::issue(
        authority.clone(),
        serve::server_names(&settings.root_namespace, &settings.cluster_domain),
        settings.clock.clone(),
    )?;
    tasks.spawn(own.clone().keep_fresh());
    Ok(own)
}

/// What the ports show, and the certificate of those with TLS.
struct Faces {
    own: Arc<serve::ServerCertificate>,
    certificates: certificates::CertificateService,
    discovery: discovery::DiscoveryService,
    pages: debug::Pages,
}

async fn serve_all(
    listen: &Listen,
    faces: Faces,
    tasks: &mut JoinSet<()>,
    drain: Drain,
) -> Result<(), ControlError> {
    let Faces {
        own,
        certificates,
        discovery,
        pages,
    } = faces;
    for address in [listen.monitoring, listen.http] {
        let listener = bind(address).await?;
        let app = debug::router(pages.clone()).into_make_service_with_connect_info::<SocketAddr>();
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, %address, "the HTTP server ended");
            }
        });
    }
    let discovery = AggregatedDiscoveryServiceServer::new(discovery);
    if let Some(address) = listen.plaintext {
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
    let incoming = serve::accept_tls(bind(listen.secure).await?, own);
    tracing::info!(address = %listen.secure, "the control plane is listening");
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
