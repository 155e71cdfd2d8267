//! The command line: what can be typed. What it means is in `commands`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::commands::{self, proxy_config, rollout};
use crate::output;
use crate::scope::Scope;

/// Hidden first argument of a container's first process; `main` looks for it before anything is parsed.
pub const CONTAINER_EXEC: &str = "container-exec";

/// The first lines of `--help`.
const ABOUT: &str = "A service mesh that speaks Istio, on one machine.

First steps:
  tanbark up samples/demo --images samples/images.yaml   runs a mesh; Ctrl-C stops it
  tanbark status                                         in another terminal: pods, proxies, problems, and the URL to open
  tanbark get pods -A                                    and apply, delete, logs, exec, as kubectl has them
  tanbark proxy                                          for kubectl itself, k9s and istioctl, with `tanbark kubeconfig`";

#[derive(Debug, Parser)]
#[command(
    name = "tanbark",
    about = ABOUT,
    version,
    propagate_version = false,
    max_term_width = 120
)]
pub struct Cli {
    /// State folder of the runtime (default: tanbark/default in $XDG_STATE_HOME, else in ~/.local/state)
    #[arg(long, global = true, value_name = "DIR", env = "TANBARK_STATE")]
    pub state: Option<PathBuf>,
    /// Namespace, for commands that look in one; it may also follow the command's name
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a mesh from files of Kubernetes and Istio YAML
    Up(commands::up::args::Args),
    /// Stop the mesh and remove what is left of it
    Down(commands::down::Args),
    /// Show how the mesh is: control plane, pods, proxies, URLs, problems
    Status(commands::status::Args),
    /// Create or change objects from files
    Apply(commands::apply::Args),
    /// Create objects from files; those that exist are a failure
    Create(commands::create::Args),
    /// Delete objects by file or by name
    Delete(commands::delete::Args),
    /// Show objects
    Get(commands::get::Args),
    /// Show objects in words, with what happened to them
    #[command(visible_alias = "desc")]
    Describe(commands::describe::Args),
    /// Show what happened
    Events(commands::events::Args),
    /// Wait until objects are as they are wanted
    Wait(commands::wait::Args),
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
    /// Serve the local API on a loopback port, for kubectl, k9s and istioctl
    Proxy(commands::proxy::Args),
    /// Print a kubeconfig that leads to `tanbark proxy`
    Kubeconfig(commands::kubeconfig::Args),
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

impl Command {
    /// Where the command looks; `None` for those that are about files or the whole mesh.
    pub fn scope_mut(&mut self) -> Option<&mut Scope> {
        match self {
            Self::Apply(args) => Some(&mut args.scope),
            Self::Create(args) => Some(&mut args.scope),
            Self::Describe(args) => Some(&mut args.scope),
            Self::Events(args) => Some(&mut args.scope),
            Self::Wait(args) => Some(&mut args.scope),
            Self::Delete(args) => Some(&mut args.scope),
            Self::Get(args) => Some(&mut args.scope),
            Self::Logs(args) => Some(&mut args.scope),
            Self::Exec(args) => Some(&mut args.scope),
            Self::Scale(args) => Some(&mut args.scope),
            Self::Rollout(command) => Some(rollout::scope_mut(command)),
            Self::ProxyConfig(command) => Some(proxy_config::scope_mut(command)),
            Self::ProxyStatus(args) => Some(&mut args.scope),
            Self::Render(args) => Some(&mut args.scope),
            Self::Kubeconfig(args) => Some(&mut args.scope),
            Self::Up(_)
            | Self::Down(_)
            | Self::Status(_)
            | Self::Validate(_)
            | Self::Proxy(_)
            | Self::Version(_)
            | Self::Completions(_)
            | Self::MachineInit
            | Self::Control(_) => None,
        }
    }
}

/// Tells a mistake on the command line, or what was asked for (`--help`, `--version`); the exit code is kubectl's.
pub fn explain(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(advice) = elsewhere(word)
    {
        output::note(&format!("\n{word}: {advice}"));
    }
    ExitCode::FAILURE
}

/// What does here what a command of kubectl or istioctl does there.
fn elsewhere(word: &str) -> Option<&'static str> {
    Some(match word {
        "port-forward" | "dashboard" => {
            "gateways and Services of type LoadBalancer or NodePort are on 127.0.0.1 already (`tanbark status` lists them); `tanbark exec POD -- curl …` asks from within the mesh"
        }
        "edit" | "patch" | "replace" | "label" | "annotate" | "set" | "run" | "expose" => {
            "change the file (`tanbark up` sees it within a second), or `tanbark apply -f FILE`"
        }
        "diff" => "`tanbark apply -f FILE --dry-run=client` says what would change",
        "cp" => "`tanbark exec -i POD -- tar xf - < files.tar`, or a mounted ConfigMap",
        "attach" | "debug" => "`tanbark exec -it POD -- sh`, and `tanbark logs -f POD`",
        "top" | "autoscale" => {
            "there are no resource metrics of pods; `tanbark up` on a terminal shows the traffic"
        }
        "api-resources" | "explain" => {
            "`tanbark get --raw /apis` lists the groups, and the names of kinds are kubectl's and Istio's"
        }
        "cluster-info" | "config" | "context" => {
            "the mesh is chosen by its state folder (--state DIR); `tanbark status` tells about it, `tanbark kubeconfig` prints the configuration of kubectl"
        }
        "analyze" | "precheck" => "`tanbark validate DIR`",
        "install" | "upgrade" | "uninstall" | "manifest" | "operator" => {
            "there is nothing to install: `tanbark up DIR` runs control plane and proxies"
        }
        "kube-inject"
        | "tag"
        | "waypoint"
        | "ztunnel-config"
        | "zc"
        | "remote-clusters"
        | "create-remote-secret" => {
            "not a part of a mesh on one machine; proxies are injected where a namespace is labelled istio-injection=enabled"
        }
        "bug-report" => "`tanbark status -o yaml` and the state folder's runtime.log",
        _ => return None,
    })
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
    fn help_begins_with_the_first_steps() {
        let help = Cli::command().render_help().to_string();
        let steps = help.split("Usage:").next().expect("a beginning");
        for step in [
            "First steps:",
            "  tanbark up samples/demo",
            "  tanbark status",
        ] {
            assert!(steps.contains(step), "{step}: {help}");
        }
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
    fn a_namespace_may_precede_the_command() {
        let namespace = |line: &str| {
            let Cli {
                namespace,
                mut command,
                ..
            } = parse(line).expect(line);
            let scope = command.scope_mut().expect(line);
            namespace
                .into_iter()
                .for_each(|name| scope.fall_back_to(name));
            scope.namespace().to_owned()
        };
        for (line, expected) in [
            ("-n shop get pods", "shop"),
            ("get pods -n shop", "shop"),
            ("-n a logs x -n b", "b"),
            ("--namespace=shop proxy-config routes a", "shop"),
            ("rollout status deploy/a -n shop", "shop"),
            ("get pods", "default"),
        ] {
            assert_eq!(namespace(line), expected, "{line}");
        }
        assert!(
            parse("-n a status")
                .expect("parsed")
                .command
                .scope_mut()
                .is_none()
        );
    }

    #[test]
    fn what_kubectl_has_and_this_has_not_is_told_with_what_does_the_same() {
        for word in ["port-forward", "edit", "diff", "analyze"] {
            assert!(elsewhere(word).is_some() && parse(word).is_err(), "{word}");
        }
        assert_eq!(elsewhere("frobnicate"), None);
    }

    #[test]
    fn every_argument_and_command_is_explained() {
        fn look(command: &clap::Command, bare: &mut Vec<String>) {
            if command.get_about().is_none() {
                bare.push(command.get_name().to_owned());
            }
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
            {
                let told = argument.get_help().is_some() || argument.get_id() == "output";
                if !told && argument.get_id() != "help" {
                    bare.push(format!("{} {}", command.get_name(), argument.get_id()));
                }
            }
            for inner in command
                .get_subcommands()
                .filter(|inner| !inner.is_hide_set())
            {
                look(inner, bare);
            }
        }
        let mut bare = Vec::new();
        look(&Cli::command(), &mut bare);
        assert_eq!(bare, Vec::<String>::new());
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
