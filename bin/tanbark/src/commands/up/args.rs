//! What `tanbark up` takes from the command line.

use std::path::PathBuf;

use clap::ValueEnum;

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark up samples/demo --images samples/images.yaml\n  tanbark up mesh/ --detach --state /tmp/shop\n  tanbark up mesh/ --proxy envoy";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Files and folders of YAML; edits take effect while the mesh runs
    #[arg(required = true, value_name = "DIR")]
    pub sources: Vec<PathBuf>,
    /// Image map: which local command stands for a container image (default: images.yaml in a DIR, if there is one)
    #[arg(long, value_name = "FILE")]
    pub images: Option<PathBuf>,
    /// Which proxy stands beside the pods
    #[arg(long, value_enum, default_value_t = Proxy::Tanbark)]
    pub proxy: Proxy,
    /// Envoy's program, for `--proxy envoy` (default: `envoy` beside tanbark or on PATH)
    #[arg(long, value_name = "FILE", env = "TANBARK_ENVOY")]
    pub envoy: Option<PathBuf>,
    /// MeshConfig as a file
    #[arg(long, value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
    /// The mesh's trust domain
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: String,
    /// Pods reach nothing outside of the mesh by TCP (names are still looked up)
    #[arg(long)]
    pub no_egress: bool,
    /// Run in the background; `tanbark down` stops it
    #[arg(short, long)]
    pub detach: bool,
    /// No live table, only lines
    #[arg(long)]
    pub plain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Proxy {
    Tanbark,
    Envoy,
}
