//! The command line: what can be typed. What it means is in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;

/// Hidden first argument of a container's first process; `main` looks for it before anything is parsed.
pub const CONTAINER_EXEC: &str = "container-exec";

/// A service mesh that speaks Istio, on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "tanbark",
    version,
    propagate_version = false,
    max_term_width = 120
)]
pub struct Cli {
    /// State folder of the runtime
    #[arg(long, global = true, value_name = "DIR", env = "TANBARK_STATE")]
    pub state: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a mesh from files of Kubernetes and Istio YAML
    Up(commands::up::Args),
    /// Stop the mesh and remove what is left of it
    Down(commands::down::Args),
    /// Show how the mesh is: control plane, pods, proxies, URLs, problems
    Status(commands::status::Args),
    /// Create or change objects from files
    Apply(commands::apply::Args),
    /// Delete objects by file or by name
    Delete(commands::delete::Args),
    /// Show objects
    Get(commands::get::Args),
    /// Print the output of a pod's container
    Logs(commands::logs::Args),
    /// Run a command in a container
    Exec(commands::exec::Args),
    /// Set the number of pods of a workload
    Scale(commands::scale::Args),
    /// Restart workloads and wait for them
    #[command(subcommand)]
    Rollout(commands::rollout::Command),
    /// Show what a proxy was told
    #[command(visible_alias = "pc", subcommand)]
    ProxyConfig(commands::proxy_config::Command),
    /// Show which proxies have the newest configuration
    #[command(visible_alias = "ps")]
    ProxyStatus(commands::proxy_status::Args),
    /// Print what the control plane would send to a proxy, with nothing running
    Render(commands::render::Args),
    /// Check files and say what is wrong with them
    Validate(commands::validate::Args),
    /// Print the version
    Version(commands::version::Args),
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
    /// First process of the runtime's namespaces.
    #[command(hide = true)]
    MachineInit,
    /// The control plane, in its pod.
    #[command(hide = true)]
    Control(commands::control::Args),
}

/// Where objects are looked for.
#[derive(Debug, Clone, Args)]
pub struct Scope {
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("tanbark").chain(line.split(' ')))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn state_is_taken_everywhere() {
        for line in [
            "--state /s status",
            "status --state /s",
            "get pods -A --state /s",
            "proxy-config listeners a.b --state /s",
            "rollout restart deploy/a --state /s",
            "down --state /s",
        ] {
            assert_eq!(
                parse(line).expect(line).state,
                Some(PathBuf::from("/s")),
                "{line}"
            );
        }
    }

    #[test]
    fn the_command_of_exec_may_look_like_flags() {
        let Command::Exec(exec) = parse("exec deploy/a -c c -n x -- sh -c true")
            .expect("parsed")
            .command
        else {
            panic!("not exec")
        };
        assert_eq!(exec.command, ["sh", "-c", "true"]);
        assert_eq!(exec.container.as_deref(), Some("c"));
    }

    #[test]
    fn what_people_of_istioctl_type_is_understood() {
        for line in [
            "pc l a.b",
            "pc cluster a --fqdn x --direction outbound --port 80",
            "proxy-config secrets a -o json",
            "ps",
            "pc all a -o yaml",
            "pc ep a --cluster c",
            "pc routes a --name 9080",
            "pc log a --level debug",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for line in [
            "get",
            "up",
            "proxy-config listeners",
            "exec a",
            "apply",
            "render samples",
            "scale deploy/a",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
