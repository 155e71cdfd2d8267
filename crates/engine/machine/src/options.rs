//! What the person at the terminal chose, resolved: no defaults to be looked up later, no
//! environment to be read.
//!
//! The outer process hands it to the inner one as JSON, so both see the same.

use std::net::SocketAddr;
use std::path::PathBuf;

use inject::ProxyKind;
use serde::{Deserialize, Serialize};

/// Everything `up` needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// Files and folders of YAML, absolute paths; watched.
    pub sources: Vec<PathBuf>,
    /// The image map, if any.
    pub images: Option<PathBuf>,
    /// The state folder, absolute.
    pub state: PathBuf,
    /// The proxy beside the pods.
    pub proxy: ProxyKind,
    /// The `tanbark-proxy` program, absolute.
    pub proxy_program: PathBuf,
    /// Envoy, when [`ProxyKind::Envoy`].
    pub envoy_program: Option<PathBuf>,
    /// The control plane's command line, `["/…/tanbark", "control"]`; empty runs none.
    pub control_command: Vec<String>,
    /// MeshConfig as a file, handed to the control plane.
    pub mesh_config: Option<PathBuf>,
    /// Hidden subcommand that ends in [`crate::init::main`].
    pub init_arguments: Vec<String>,
    /// Hidden subcommand that ends in [`crate::container::exec_main`].
    pub container_arguments: Vec<String>,
    /// The program that holds both, usually `/proc/self/exe`.
    pub program: PathBuf,
    /// Where commands of the image map are looked for last; `PATH` as the shell has it.
    pub search_path: String,
    /// Further variables for the inner process (`RUST_LOG`), and its helpers' `PATH` and `HOME`.
    pub environment: Vec<(String, String)>,
    /// The machine's resolvers, port included; empty when it has none.
    pub resolvers: Vec<SocketAddr>,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// Whether pods may open TCP connections to the world outside of the mesh.
    pub egress: bool,
}

impl Options {
    /// Options for these sources and this state folder, everything else as by default.
    pub fn new(sources: Vec<PathBuf>, state: PathBuf) -> Self {
        Self {
            sources,
            images: None,
            state,
            proxy: ProxyKind::Tanbark,
            proxy_program: PathBuf::from("tanbark-proxy"),
            envoy_program: None,
            control_command: Vec::new(),
            mesh_config: None,
            init_arguments: vec!["machine-init".into()],
            container_arguments: vec!["container-exec".into()],
            program: PathBuf::from("/proc/self/exe"),
            search_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            environment: Vec::new(),
            resolvers: Vec::new(),
            trust_domain: "cluster.local".into(),
            egress: true,
        }
    }
}

/// The resolvers of a `resolv.conf`'s text; what does not parse is skipped, at most three as in the
/// C library.
pub fn resolvers_of(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<std::net::IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_in_order_and_at_most_three() {
        let text = "# none\nsearch a b\nnameserver 10.0.0.1\nnameserver ::1\nnameserver what\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n";
        let found: Vec<String> = resolvers_of(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[::1]:53", "1.1.1.1:53"]);
    }
}
