//! Whose configuration is shown, and in which form: the arguments that all kinds share.

use std::path::PathBuf;

use crate::output::Report;
use crate::scope::Scope;

/// Whose configuration.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// POD, POD.NAMESPACE, or KIND/NAME[.NAMESPACE] for one of its pods
    #[arg(required_unless_present = "file")]
    pub pod: Option<String>,
    #[command(flatten)]
    pub scope: Scope,
    /// A saved `/config_dump` instead of a pod; for endpoints also `/clusters?format=json`
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[arg(short, long, value_enum)]
    pub output: Option<Report>,
}
