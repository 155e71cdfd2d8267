//! `tanbark version`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use crate::output::{self, Report};

/// The release of Istio whose configuration and behaviour this follows.
pub const ISTIO: &str = "1.31.0";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum)]
    output: Option<Report>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let report =
        json!({"clientVersion": {"version": version, "istio": ISTIO, "platform": platform}});
    match args.output {
        Some(Report::Json) => output::emit(&output::json(&report)?),
        Some(Report::Yaml) => output::emit(&output::yaml(&report)?),
        Some(Report::Table) | None => {
            output::say(&format!("tanbark {version} (Istio {ISTIO}, {platform})"))
        }
    }
    Ok(ExitCode::SUCCESS)
}
