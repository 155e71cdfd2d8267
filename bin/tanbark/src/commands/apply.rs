//! `tanbark apply -f FILE`: makes objects what files say.
//!
//! As kubectl does it: what was applied last is kept in an annotation; what the new text leaves out and the old one had is removed;
//! everything that others have added stays. Nothing is sent while a file has errors.

pub mod merge;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use http::Method;
use machine::store::kinds::Support;
use serde_json::Value;

use crate::api::{Api, Filter, Payload, is_status};
use crate::kind::Kind;
use crate::manifests::{self, Depth};
use crate::output::{self, Colour, Format};
use crate::scope::Scope;
use crate::session::Session;
use crate::{object, problems};

/// How often a change is tried again that somebody else's came before.
const CONFLICTS: usize = 5;

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark apply -f reviews.yaml\n  kubectl kustomize overlays/test | tanbark apply -f -\n  tanbark apply -R -f mesh/ --dry-run=server";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File, folder, or `-` for standard input
    #[arg(
        short,
        long = "filename",
        required_unless_present = "kustomize",
        value_name = "FILE",
        value_delimiter = ','
    )]
    files: Vec<PathBuf>,
    /// Folders below a folder too
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    pub scope: Scope,
    /// One of json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_parser = Format::parse)]
    output: Option<Format>,
    /// Say what would be done: `client` compares, `server` has the runtime check it too
    #[arg(long, value_enum, default_value_t = DryRun::None, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// Apply what has no errors even when other objects have some
    #[arg(long)]
    keep_going: bool,
    #[arg(short, long, hide = true)]
    kustomize: Option<PathBuf>,
    #[arg(long, hide = true)]
    server_side: bool,
}

/// What is not to be done in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    None,
    Client,
    Server,
}

impl DryRun {
    /// What kubectl adds to a line about what was not done.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }

    /// What the path of a request gets.
    pub fn query(self) -> &'static str {
        match self {
            Self::None | Self::Client => "",
            Self::Server => "dryRun=All",
        }
    }
}

/// What was done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Created,
    Configured,
    Unchanged,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    refuse_unsupported(&args)?;
    let depth = if args.recursive {
        Depth::Below
    } else {
        Depth::Folder
    };
    let read = manifests::read(&args.files, depth)?;
    let mut documents = read.documents;
    if documents.is_empty() && read.broken.is_empty() {
        bail!("no objects passed to apply");
    }
    let api = session.api()?;
    let findings = problems::check_among(&documents, &live(&api).await?);
    for line in &read.broken {
        output::note(line);
    }
    for finding in &findings {
        output::note(&finding.line(Colour::of(&std::io::stderr())));
    }
    if (!read.broken.is_empty() || problems::has_errors(&findings)) && !args.keep_going {
        bail!("nothing was applied: mend the errors above, or pass --keep-going to apply the rest");
    }
    // A namespace must be there before what lives in it.
    documents.sort_by_key(|document| {
        document
            .type_meta()
            .is_none_or(|(_, kind)| kind != "Namespace")
    });
    let mut failed = !read.broken.is_empty();
    for document in &documents {
        match apply(&api, &document.object, &args).await {
            Ok((kind, object, done)) => report(&args, &kind, &object, done)?,
            Err(error) => {
                output::note(&format!("{}: {error:#}", document.place("")));
                failed = true;
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn refuse_unsupported(args: &Args) -> Result<()> {
    if let Some(folder) = &args.kustomize {
        bail!(
            "kustomize is not built in: `kubectl kustomize {} | tanbark apply -f -`",
            folder.display()
        );
    }
    if args.server_side {
        bail!(
            "--server-side is not supported, since fields have no owners here: leave it out, and what was applied last is compared as kubectl does it by default"
        );
    }
    Ok(())
}

fn report(args: &Args, kind: &Kind, object: &Value, done: Done) -> Result<()> {
    let word = match done {
        Done::Created => "created",
        Done::Configured => "configured",
        Done::Unchanged => "unchanged",
    };
    match &args.output {
        None => output::say(&format!(
            "{}/{} {word}{}",
            kind.singular(),
            object::name(object),
            args.dry_run.suffix()
        )),
        Some(format) => output::emit(&output::one_of_many(format, kind, object)?),
    }
    Ok(())
}

/// What the mesh consists of now, so that a route to a service that runs already is no mistake.
pub async fn live(api: &Api) -> Result<Vec<Arc<Value>>> {
    let kinds: Vec<Kind> = machine::store::kinds::ALL
        .iter()
        .filter(|kind| kind.support == Support::Supported)
        .map(Kind::from)
        .collect();
    let lists = futures_util::future::try_join_all(
        kinds
            .iter()
            .map(|kind| api.list(kind, None, Filter::default())),
    )
    .await?;
    Ok(lists.into_iter().flatten().map(Arc::new).collect())
}

async fn apply(api: &Api, written: &Value, args: &Args) -> Result<(Kind, Value, Done)> {
    let kind = Kind::of_object(
        object::text(written, "/apiVersion"),
        object::text(written, "/kind"),
    )?;
    let written = placed(&kind, written, &args.scope)?;
    let (namespace, name) = (object::namespace(&written), object::name(&written));
    if name.is_empty() {
        bail!("metadata.name is needed to apply an object");
    }
    for _ in 0..CONFLICTS {
        let present = api.find(&kind, namespace, name).await?;
        let (method, path, body) = match &present {
            None => (
                Method::POST,
                kind.path(Some(namespace), None),
                merge::with_last_applied(&written),
            ),
            Some(present) => (
                Method::PUT,
                kind.path(Some(namespace), Some(name)),
                merge::merged(present, &written),
            ),
        };
        let done = match &present {
            Some(present) if *present == body => return Ok((kind, body, Done::Unchanged)),
            Some(_) => Done::Configured,
            None => Done::Created,
        };
        if args.dry_run == DryRun::Client {
            return Ok((kind, body, done));
        }
        let path = format!("{path}?{}", args.dry_run.query());
        match api.json(method, &path, Payload::json(&body)).await {
            Ok(object) if present.as_ref() == Some(&object) => {
                return Ok((kind, object, Done::Unchanged));
            }
            Ok(object) => return Ok((kind, object, done)),
            Err(error) if is_status(&error, 409) => {}
            Err(error) => return Err(error).with_context(|| format!("{}/{name}", kind.singular())),
        }
    }
    bail!(
        "{}/{name} was changed by somebody else each time; try again",
        kind.singular()
    )
}

/// The object in its own namespace, else in the one that was chosen; both may not contradict each other.
pub fn placed(kind: &Kind, written: &Value, scope: &Scope) -> Result<Value> {
    let mut written = written.clone();
    if !kind.namespaced {
        return Ok(written);
    }
    let own = object::namespace(&written);
    if own.is_empty() {
        written["metadata"]["namespace"] = scope.namespace().into();
    } else if let Some(chosen) = scope.chosen().filter(|chosen| *chosen != own) {
        bail!(
            "the namespace from the provided object \"{own}\" does not match the namespace \"{chosen}\". You must pass '--namespace={own}' to perform this operation."
        );
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_namespace_on_the_command_line_must_not_contradict_the_file() {
        let kind = Kind::typed("cm").expect("known");
        let scope = |chosen: Option<&str>| {
            let mut scope = Scope::default();
            chosen
                .into_iter()
                .for_each(|name| scope.fall_back_to(name.into()));
            scope
        };
        let placed_in = |own: Option<&str>, chosen: Option<&str>| {
            let object = json!({"metadata": {"name": "a", "namespace": own.unwrap_or_default()}});
            placed(&kind, &object, &scope(chosen))
                .map(|object| object::namespace(&object).to_owned())
                .map_err(|error| error.to_string())
        };
        assert_eq!(placed_in(None, None).as_deref(), Ok("default"));
        assert_eq!(placed_in(None, Some("shop")).as_deref(), Ok("shop"));
        assert_eq!(placed_in(Some("shop"), Some("shop")).as_deref(), Ok("shop"));
        let error = placed_in(Some("shop"), Some("other")).expect_err("a contradiction");
        assert!(
            error.contains("does not match the namespace \"other\""),
            "{error}"
        );
    }
}
