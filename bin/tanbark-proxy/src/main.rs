//! `tanbark-proxy`: the data plane, or the agent beside a stock Envoy. Wiring only: reads
//! arguments, environment and files, starts threads.

mod data_plane;
mod envoy_agent;
mod foreign;
mod logging;
mod signals;

use std::{env, process::ExitCode};

use clap::{Parser, Subcommand};
use data_plane::DataPlane;
use feed::Role;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[used]
#[unsafe(link_section = ".init_array.00001")]
static BEFORE_MAIN: extern "C" fn() = stdx::huge_pages::refuse;

/// The Tanbark proxy.
#[derive(Debug, Parser)]
#[command(name = "tanbark-proxy", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Log level, or directives such as `info,feed=debug`.
    #[arg(long, global = true, env = "TANBARK_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one workload, beside it.
    Sidecar(DataPlane),
    /// Serve at the edge.
    Gateway(DataPlane),
    /// Serve as Istio's agent is told to (`proxy sidecar --domain …`).
    Proxy(foreign::Istio),
    /// Hold a workload's key and run a stock Envoy for it.
    Agent,
}

fn main() -> ExitCode {
    let line: Vec<String> = env::args().collect();
    if foreign::Envoy::recognise(&line) {
        let envoy = foreign::Envoy::parse_from(line);
        let mode = envoy.mode();
        return with_log(envoy.log(), |levels| match mode {
            foreign::Mode::Serve => data_plane::run(Role::Sidecar, &envoy.data_plane(), levels),
            foreign::Mode::Validate => data_plane::validate(&envoy.data_plane()),
        });
    }
    let arguments = Arguments::parse();
    let log = match &arguments.command {
        Command::Proxy(istio) => istio.log(),
        _ => Ok(arguments.log.as_str()),
    };
    with_log(log, |levels| match arguments.command {
        Command::Sidecar(options) => data_plane::run(Role::Sidecar, &options, levels),
        Command::Gateway(options) => data_plane::run(Role::Gateway, &options, levels),
        Command::Proxy(istio) => data_plane::run(istio.role(), &istio.data_plane(), levels),
        Command::Agent => envoy_agent::run(),
    })
}

/// Runs with the log as it was asked for.
fn with_log(
    directives: Result<&str, String>,
    run: impl FnOnce(logging::Levels) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    let started =
        directives.and_then(|directives| logging::start(directives).map_err(|e| e.to_string()));
    let levels = match started {
        Ok(levels) => levels,
        Err(error) => {
            eprintln!("tanbark-proxy: log level: {error}");
            return ExitCode::from(2);
        }
    };
    let ended = run(levels);
    ended.unwrap_or_else(|error| {
        eprintln!("tanbark-proxy: {error:#}");
        ExitCode::FAILURE
    })
}
