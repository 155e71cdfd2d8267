//! `tanbark-proxy`: the data plane, or the agent beside a stock Envoy. Wiring only: reads arguments, environment and files, starts threads.

mod data_plane;
mod envoy_agent;
mod logging;
mod signals;

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
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
    /// Hold a workload's key and run a stock Envoy for it.
    Agent,
}

#[derive(Debug, clap::Args)]
struct DataPlane {
    /// An Envoy bootstrap in YAML or JSON, instead of the environment that an injector sets.
    #[arg(short = 'c', long = "config")]
    bootstrap: Option<PathBuf>,
    /// Worker threads; one per core unless said here or, without a bootstrap, by the environment.
    #[arg(long)]
    concurrency: Option<NonZeroUsize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let levels = match logging::start(&arguments.log) {
        Ok(levels) => levels,
        Err(error) => {
            eprintln!("tanbark-proxy: --log: {error}");
            return ExitCode::from(2);
        }
    };
    let ended = match arguments.command {
        Command::Sidecar(options) => data_plane::run(Role::Sidecar, &options, levels),
        Command::Gateway(options) => data_plane::run(Role::Gateway, &options, levels),
        Command::Agent => envoy_agent::run(),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("tanbark-proxy: {error:#}");
        ExitCode::FAILURE
    })
}
