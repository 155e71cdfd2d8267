//! `tanbark apply -f FILE`: makes objects what files say.
//!
//! As kubectl does it: what was applied last is kept in an annotation; what the new text leaves out and the old one had is removed;
//! everything that others have added stays. Nothing is sent while a file has errors.

pub mod merge;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use http::Method;
use machine::store::kinds::Support;
use serde_json::Value;

use crate::api::{Api, Payload, is_status};
use crate::kind::Kind;
use crate::output::{self, Colour, Format};
use crate::session::Session;
use crate::{cli, manifests, object, problems};

/// How often a change is tried again that somebody else's came before.
const CONFLICTS: usize = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File, folder, or `-` for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    scope: cli::Scope,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Apply what has no errors even when other objects have some
    #[arg(long)]
    keep_going: bool,
}

/// What was done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Created,
    Configured,
    Unchanged,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let read = manifests::read(&args.files)?;
    let mut documents = read.documents;
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
        match apply(&api, &document.object, &args.scope.namespace).await {
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

fn report(args: &Args, kind: &Kind, object: &Value, done: Done) -> Result<()> {
    let word = match done {
        Done::Created => "created",
        Done::Configured => "configured",
        Done::Unchanged => "unchanged",
    };
    match args.output {
        Some(Format::Json) => output::emit(&output::json(object)?),
        Some(Format::Yaml) => output::emit(&format!("---\n{}", output::yaml(object)?)),
        Some(Format::Name) => output::say(&format!("{}/{}", kind.singular(), object::name(object))),
        Some(Format::Wide) | None => output::say(&format!(
            "{}/{} {word}",
            kind.singular(),
            object::name(object)
        )),
    }
    Ok(())
}

/// What the mesh consists of now, so that a route to a service that runs already is no mistake.
async fn live(api: &Api) -> Result<Vec<Arc<Value>>> {
    let kinds: Vec<Kind> = machine::store::kinds::ALL
        .iter()
        .filter(|kind| kind.support == Support::Supported)
        .map(Kind::from)
        .collect();
    let lists =
        futures_util::future::try_join_all(kinds.iter().map(|kind| api.list(kind, None, None)))
            .await?;
    Ok(lists.into_iter().flatten().map(Arc::new).collect())
}

async fn apply(api: &Api, written: &Value, namespace: &str) -> Result<(Kind, Value, Done)> {
    let kind = Kind::of_object(
        object::text(written, "/apiVersion"),
        object::text(written, "/kind"),
    )?;
    let mut written = written.clone();
    if kind.namespaced && object::namespace(&written).is_empty() {
        written["metadata"]["namespace"] = namespace.into();
    }
    let namespace = object::namespace(&written).to_owned();
    let name = object::name(&written).to_owned();
    if name.is_empty() {
        bail!("metadata.name is needed to apply an object");
    }
    for _ in 0..CONFLICTS {
        let present = api.find(&kind, &namespace, &name).await?;
        let (method, path, body) = match &present {
            None => (
                Method::POST,
                kind.path(Some(&namespace), None),
                merge::with_last_applied(&written),
            ),
            Some(present) => (
                Method::PUT,
                kind.path(Some(&namespace), Some(&name)),
                merge::merged(present, &written),
            ),
        };
        if present.as_ref().is_some_and(|present| *present == body) {
            return Ok((kind, body, Done::Unchanged));
        }
        let done = if present.is_none() {
            Done::Created
        } else {
            Done::Configured
        };
        match api.json(method, &path, Payload::json(&body)).await {
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
