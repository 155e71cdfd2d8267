//! `tanbark down`: stops the runtime, and cleans up after one that was killed.

use std::process::ExitCode;

use anyhow::Result;
use machine::Error;

use crate::output;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let Args {} = args;
    let state = session.state()?;
    match machine::down(state.root()).await {
        Ok(()) => output::note("stopped"),
        // The goal is reached.
        Err(Error::NotRunning { state }) => {
            output::note(&format!("nothing runs with state {}", state.display()))
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}
