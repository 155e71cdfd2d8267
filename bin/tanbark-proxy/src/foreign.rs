//! The command lines of those whose place we take: Envoy's (`-c FILE --drain-time-s 45 …`), as
//! Istio's agent and others start it, and Istio's agent's own (`proxy sidecar --domain …`), as
//! injected pods have it.
//!
//! Flags that decide something here are obeyed; those without a meaning for this program (hot
//! restart, flush intervals, formats of Envoy's own log) are taken and have no effect, each for the
//! reason beside it. A flag that is not listed is an error, as is a value that we do not have.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Args, Parser, ValueEnum};
use feed::Role;

use crate::data_plane::DataPlane;

/// Envoy's command line.
#[derive(Debug, Parser)]
#[command(name = "tanbark-proxy", version, args_override_self = true)]
pub struct Envoy {
    /// Bootstrap in YAML or JSON.
    #[arg(short = 'c', long = "config-path")]
    config_path: PathBuf,
    #[arg(long)]
    concurrency: Option<NonZeroUsize>,
    /// trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, default_value = "info")]
    log_level: String,
    /// How long connections of replaced listeners may go on.
    #[arg(long)]
    drain_time_s: Option<u64>,
    /// `validate` reads the bootstrap and ends.
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    mode: Mode,
    #[command(flatten)]
    without_effect: EnvoyWithoutEffect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Serve,
    Validate,
}

/// Taken, so that a command line that is right for Envoy starts us too.
#[derive(Debug, Args)]
struct EnvoyWithoutEffect {
    /// Loggers are not Envoy's components; set them at `/logging`.
    #[arg(long)]
    component_log_level: Option<String>,
    /// There is no restart in place.
    #[arg(long)]
    parent_shutdown_time_s: Option<u64>,
    #[arg(long)]
    restart_epoch: Option<u32>,
    #[arg(long)]
    base_id: Option<u32>,
    #[arg(long)]
    disable_hot_restart: bool,
    /// Connections drain at once; the drain time bounds them.
    #[arg(long)]
    drain_strategy: Option<String>,
    /// Addresses say which family they are of.
    #[arg(long)]
    local_address_ip_version: Option<String>,
    /// Access logs are written as lines come.
    #[arg(long)]
    file_flush_interval_msec: Option<u64>,
    /// The log has a format of its own.
    #[arg(long)]
    log_format: Option<String>,
    #[arg(long)]
    log_format_escaped: bool,
    #[arg(long)]
    skip_deprecated_logs: bool,
    /// Unknown fields of a bootstrap are errors with their place.
    #[arg(long)]
    allow_unknown_static_fields: bool,
    #[arg(long)]
    reject_unknown_dynamic_fields: bool,
    #[arg(long)]
    ignore_unknown_dynamic_fields: bool,
    /// The bootstrap names the node.
    #[arg(long)]
    service_cluster: Option<String>,
    #[arg(long)]
    service_node: Option<String>,
    #[arg(long)]
    service_zone: Option<String>,
    #[arg(long)]
    cpuset_threads: bool,
}

/// `proxy ROLE …`, the command of Istio's agent.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct Istio {
    /// Which kind of proxy.
    #[arg(value_enum, default_value_t = IstioRole::Sidecar)]
    role: IstioRole,
    /// DNS domain of the workload, as in its node id.
    #[arg(long)]
    pub domain: Option<String>,
    #[arg(long)]
    concurrency: Option<NonZeroUsize>,
    /// Level of the proxy's own log, in Envoy's words.
    #[arg(long = "proxyLogLevel", default_value = "info")]
    proxy_log_level: String,
    #[command(flatten)]
    without_effect: IstioWithoutEffect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IstioRole {
    Sidecar,
    Router,
}

#[derive(Debug, Args)]
struct IstioWithoutEffect {
    /// Loggers are not Envoy's components; set them at `/logging`.
    #[arg(long = "proxyComponentLogLevel")]
    proxy_component_log_level: Option<String>,
    /// Agent and proxy are one process with one log.
    #[arg(long = "log_output_level")]
    log_output_level: Option<String>,
    #[arg(long = "log_as_json")]
    log_as_json: bool,
    #[arg(long = "log_target")]
    log_target: Option<String>,
    #[arg(long = "log_caller")]
    log_caller: Option<String>,
    #[arg(long = "log_stacktrace_level")]
    log_stacktrace_level: Option<String>,
    #[arg(long = "vklog")]
    vklog: Option<String>,
    /// Ejections are in the statistics and in `/clusters`.
    #[arg(long = "outlierLogPath")]
    outlier_log_path: Option<String>,
    /// There is no Go profiler.
    #[arg(long)]
    profiling: bool,
}

impl Envoy {
    /// Is this a command line of Envoy's? It begins with a flag, and the bootstrap's is among them;
    /// ours may begin with `--log`, which Envoy has not.
    pub fn recognise(arguments: &[String]) -> bool {
        let mut arguments = arguments.iter().skip(1);
        let is_ours = |a: &String| a == "--log" || a.starts_with("--log=");
        let mut first = arguments.clone().take(1);
        let flags_first = first.any(|a| a.starts_with('-') && !is_ours(a));
        let is_config = |a: &String| {
            a.starts_with("-c") || a == "--config-path" || a.starts_with("--config-path=")
        };
        flags_first && arguments.any(is_config)
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn log(&self) -> Result<&'static str, String> {
        level(&self.log_level)
    }

    pub fn data_plane(self) -> DataPlane {
        DataPlane {
            bootstrap: Some(self.config_path),
            concurrency: self.concurrency,
            drain_time: self.drain_time_s.map(Duration::from_secs),
            domain: None,
        }
    }
}

impl Istio {
    pub fn role(&self) -> Role {
        match self.role {
            IstioRole::Sidecar => Role::Sidecar,
            IstioRole::Router => Role::Gateway,
        }
    }

    pub fn log(&self) -> Result<&'static str, String> {
        level(&self.proxy_log_level)
    }

    pub fn data_plane(self) -> DataPlane {
        DataPlane {
            bootstrap: None,
            concurrency: self.concurrency,
            drain_time: None,
            domain: self.domain,
        }
    }
}

/// Envoy's word for a level in ours.
fn level(name: &str) -> Result<&'static str, String> {
    Ok(match name {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "err" | "critical" => "error",
        "off" => "off",
        other => {
            return Err(format!(
                "{other} is no level: trace, debug, info, warning, error, critical or off"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_command_line_that_istios_agent_starts_envoy_with_is_taken() {
        let line = words(
            "envoy -c etc/istio/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate \
             --local-address-ip-version v4 --file-flush-interval-msec 1000 --disable-hot-restart \
             --allow-unknown-static-fields -l warning --component-log-level misc:error --concurrency 2",
        );
        assert!(Envoy::recognise(&line));
        let envoy = Envoy::try_parse_from(&line).expect("taken");
        assert_eq!(envoy.log(), Ok("warn"));
        let plan = envoy.data_plane();
        assert_eq!(
            plan.bootstrap,
            Some("etc/istio/proxy/envoy-rev.json".into())
        );
        assert_eq!(plan.drain_time, Some(Duration::from_secs(45)));
        assert_eq!(plan.concurrency.map(NonZeroUsize::get), Some(2));
    }

    #[test]
    fn our_own_command_line_is_not_taken_for_envoys() {
        for line in [
            "tanbark-proxy sidecar -c file",
            "tanbark-proxy --help",
            "tanbark-proxy --log debug gateway",
            "tanbark-proxy --log error sidecar -c file",
            "tanbark-proxy",
        ] {
            assert!(!Envoy::recognise(&words(line)), "{line}");
        }
    }

    #[test]
    fn a_flag_that_nobody_knows_is_an_error() {
        let line = words("envoy -c file --no-such-flag");
        assert!(Envoy::try_parse_from(&line).is_err());
        let line = words("envoy -c file -l loud");
        let envoy = Envoy::try_parse_from(&line).expect("flags are known");
        assert!(envoy.log().is_err_and(|why| why.starts_with("loud")));
    }
}
