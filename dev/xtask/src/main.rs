//! Chores of the repository.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

const USAGE: &str = "usage: cargo xtask COMMAND
  tidy         check the structure of the repository; --tighten: shorten the lists of what exceeds a limit, renew docs/limits.md
  limits       write docs/limits.md
  wrap PLACE   break comments at 100 columns in the Rust files at or below PLACE
  circles      print the files that need each other, with who needs whom
  descriptors  renew the copy of Envoy's descriptors from the package envoy-types";

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(std::env::args().nth(2).as_deref()),
        Some("limits") => limits(),
        Some("wrap") => wrap(std::env::args().nth(2).as_deref()),
        Some("circles") => circles(),
        Some("descriptors") => descriptors(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn tidy(option: Option<&str>) -> Result<ExitCode> {
    match option {
        None => {}
        Some("--tighten") => xtask::tidy::tighten(&xtask::root())?,
        Some(other) => anyhow::bail!("tidy: unknown option `{other}`"),
    }
    let faults = xtask::tidy::check(&xtask::root())?;
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    eprintln!("{} faults", faults.len());
    Ok(ExitCode::FAILURE)
}

fn limits() -> Result<ExitCode> {
    println!("{}", xtask::limits::renew(&xtask::root())?);
    Ok(ExitCode::SUCCESS)
}

fn wrap(place: Option<&str>) -> Result<ExitCode> {
    let place = place.context("wrap: which file or folder?")?;
    for file in xtask::wrap::wrap(&xtask::root(), place.trim_end_matches('/'))? {
        println!("{file}");
    }
    Ok(ExitCode::SUCCESS)
}

fn circles() -> Result<ExitCode> {
    print!("{}", xtask::tidy::describe_circles(&xtask::root())?);
    Ok(ExitCode::SUCCESS)
}

fn descriptors() -> Result<ExitCode> {
    let written = xtask::descriptors::renew(&xtask::root())?;
    println!("{}", written.display());
    Ok(ExitCode::SUCCESS)
}
