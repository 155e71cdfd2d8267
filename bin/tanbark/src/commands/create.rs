//! `tanbark create -f FILE`: makes objects that are not there yet; one that is there is a failure.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use http::Method;

use super::apply::{DryRun, live, merge, placed};
use crate::api::{Api, Payload};
use crate::kind::Kind;
use crate::manifests::{self, Depth};
use crate::output::{self, Colour, Format};
use crate::scope::Scope;
use crate::session::Session;
use crate::{object, problems};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// kubectl's `create KIND …` is not supported: objects come from files
    #[arg(
        value_name = "KIND",
        hide = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
    /// File, folder, or `-` for standard input
    #[arg(short, long = "filename", value_name = "FILE", value_delimiter = ',')]
    files: Vec<PathBuf>,
    /// Folders below a folder too
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    pub scope: Scope,
    /// One of json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_parser = Format::parse)]
    output: Option<Format>,
    /// Say what would be created: `server` has the runtime check it too
    #[arg(long, value_enum, default_value_t = DryRun::None, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// Keep what was written, so that a later `apply` knows it
    #[arg(long)]
    save_config: bool,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    if let Some(word) = args.words.first() {
        bail!(
            "`create {word}` is not supported: write the object to a file, and `tanbark create -f FILE`"
        );
    }
    if args.files.is_empty() {
        bail!("must specify one of -f: `tanbark create -f FILE`");
    }
    let depth = if args.recursive {
        Depth::Below
    } else {
        Depth::Folder
    };
    let read = manifests::read(&args.files, depth)?;
    if let Some(broken) = read.broken.first() {
        bail!("{broken}");
    }
    if read.documents.is_empty() {
        bail!("no objects passed to create");
    }
    let api = session.api()?;
    let findings = problems::check_among(&read.documents, &live(&api).await?);
    for finding in &findings {
        output::note(&finding.line(Colour::of(&std::io::stderr())));
    }
    if problems::has_errors(&findings) {
        bail!("nothing was created: mend the errors above");
    }
    let mut failed = false;
    for document in &read.documents {
        if let Err(error) = create(&api, &document.object, &args).await {
            output::note(&format!(
                "{}: {}",
                document.place(""),
                output::failure(&error)
            ));
            failed = true;
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn create(api: &Api, written: &serde_json::Value, args: &Args) -> Result<()> {
    let (version, kind) = (
        object::text(written, "/apiVersion"),
        object::text(written, "/kind"),
    );
    let kind = Kind::of_object(version, kind)?;
    let mut object = placed(&kind, written, &args.scope)?;
    if args.save_config {
        object = merge::with_last_applied(&object);
    }
    if args.dry_run != DryRun::Client {
        let path = kind.path(Some(object::namespace(&object)), None);
        let path = format!("{path}?{}", args.dry_run.query());
        object = api
            .json(Method::POST, &path, Payload::json(&object))
            .await?;
    }
    match &args.output {
        None => output::say(&format!(
            "{}/{} created{}",
            kind.singular(),
            object::name(&object),
            args.dry_run.suffix()
        )),
        Some(format) => output::emit(&output::one_of_many(format, &kind, &object)?),
    }
    Ok(())
}
