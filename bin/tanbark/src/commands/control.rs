//! The hidden command `control`: the control plane in its pod, set up by the runtime through its environment.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use control::{ApiAddress, Listen, Settings};
use identity::TrustDomain;
use tokio::signal::unix::{SignalKind, signal};

/// Lifetime of a certificate whose proxy asks for none.
const WORKLOAD_TTL: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The runtime's local API
    #[arg(long, env = "TANBARK_API_SOCKET")]
    api_socket: PathBuf,
    /// Where the certificate authority's files are kept
    #[arg(long, env = "TANBARK_CONTROL_STATE")]
    folder: PathBuf,
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    #[arg(long, env = "TANBARK_CLUSTER_DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// MeshConfig as a file; a ConfigMap `istio` takes its place
    #[arg(long, env = "TANBARK_MESH_CONFIG")]
    mesh_config: Option<PathBuf>,
    /// Lifetime of workload certificates (`24h`)
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL")]
    workload_ttl: Option<String>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let settings = settings(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        let (trigger, drain) = stdx::drain::channel();
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
        // task: waits for the signal to stop; ends with it or the program
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            trigger.start();
        });
        control::run(settings, drain)
            .await
            .context("the control plane ended")
    })?;
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(ExitCode::SUCCESS)
}

fn settings(args: Args) -> Result<Settings> {
    let Args {
        api_socket,
        folder,
        trust_domain,
        root_namespace,
        cluster_domain,
        mesh_config,
        workload_ttl,
    } = args;
    let ttl = match workload_ttl {
        Some(text) => wire_kube::duration::parse(&text)
            .map_err(|why| anyhow::anyhow!("DEFAULT_WORKLOAD_CERT_TTL: {text} {why}"))?,
        None => WORKLOAD_TTL,
    };
    let mesh = mesh_config.as_deref().map(read_mesh).transpose()?;
    let any = |port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    Ok(Settings {
        api: ApiAddress::UnixSocket(api_socket),
        clock: Arc::new(stdx::SystemClock),
        instance: nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| "istiod".into()),
        ca_directory: folder,
        trust_domain: TrustDomain::parse(&trust_domain).context("TRUST_DOMAIN")?,
        mesh,
        root_namespace,
        cluster_domain,
        listen: Listen {
            secure: any(15_012),
            plaintext: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 15_010))),
            monitoring: any(15_014),
            http: any(8_080),
        },
        workload_ttl: ttl,
    })
}

/// Reads a MeshConfig file; what is wrong with parts of it is told and does not stop the control plane.
fn read_mesh(path: &Path) -> Result<mesh_model::MeshConfig> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: serde_json::Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))?;
    let (mesh, problems) = ingest::parse_mesh(&value);
    for problem in &problems {
        tracing::warn!(file = %path.display(), "{problem}");
    }
    mesh.with_context(|| format!("{} is not a mesh configuration", path.display()))
}
