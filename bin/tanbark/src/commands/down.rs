//! `tanbark down`: stops the runtime, and cleans up after one that was killed.

use std::process::ExitCode;

use anyhow::Result;
use machine::Error;
use serde_json::json;

use crate::output::{self, Report};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum)]
    output: Option<Report>,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let state = session.state()?;
    let ran = match machine::down(state.root()).await {
        Ok(()) => true,
        // The goal is reached.
        Err(Error::NotRunning { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    let report = json!({"state": state.root(), "stopped": ran});
    match args.output {
        Some(Report::Json) => output::emit(&output::json(&report)?),
        Some(Report::Yaml) => output::emit(&output::yaml(&report)?),
        Some(Report::Table) | None if ran => output::note("stopped"),
        Some(Report::Table) | None => {
            output::note(&format!("no mesh is running at {}", state.root().display()))
        }
    }
    Ok(ExitCode::SUCCESS)
}
