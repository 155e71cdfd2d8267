//! `tanbark completions SHELL`: a script for the shell to load.

use std::process::ExitCode;

use anyhow::Result;
use clap_complete::Shell;

use crate::output;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// For instance: `source <(tanbark completions bash)`
    #[arg(value_enum)]
    shell: Shell,
}

/// `command` is the whole command line.
pub fn run(args: Args, mut command: clap::Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tanbark", &mut script);
    output::emit_bytes(&script);
    Ok(ExitCode::SUCCESS)
}
