//! `tanbark validate DIR…`: what is wrong with files, without a mesh. Exit code 1 when something is an error.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::manifests::{self, Depth};
use crate::output::{self, Colour, Report};
use crate::problems;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files or folders, or `-`
    #[arg(required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,
    #[arg(short, long, value_enum)]
    output: Option<Report>,
    /// Warnings are failures too
    #[arg(long)]
    strict: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let read = manifests::read(&args.paths, Depth::Below)?;
    let findings = problems::check(&read.documents);
    let errors = read.broken.len()
        + findings
            .iter()
            .filter(|finding| finding.severity == ingest::Severity::Error)
            .count();
    let warnings = findings
        .iter()
        .filter(|finding| finding.severity == ingest::Severity::Warning)
        .count();
    match args.output {
        Some(Report::Json) => output::emit(&output::json(&report(&read.broken, &findings))?),
        Some(Report::Yaml) => output::emit(&output::yaml(&report(&read.broken, &findings))?),
        Some(Report::Table) | None => {
            let colour = Colour::of(&std::io::stdout());
            for line in &read.broken {
                output::say(line);
            }
            for finding in &findings {
                output::say(&finding.line(colour));
            }
            output::note(&format!(
                "{} in {}: {}, {}",
                output::count(read.documents.len(), "object"),
                output::count(read.files.len().max(1), "file"),
                output::count(errors, "error"),
                output::count(warnings, "warning")
            ));
        }
    }
    let failed = errors > 0 || (args.strict && warnings > 0);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn report(broken: &[String], findings: &[problems::Finding]) -> Value {
    let files = broken
        .iter()
        .map(|text| json!({"level": "Error", "code": ingest::code::INVALID, "message": text}));
    Value::Array(
        files
            .chain(findings.iter().map(problems::Finding::json))
            .collect(),
    )
}
