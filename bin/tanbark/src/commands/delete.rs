//! `tanbark delete -f FILE` and `tanbark delete KIND NAME…`: removes objects, and waits until they are gone.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;

use crate::api::{Api, Payload, is_status};
use crate::kind::Kind;
use crate::session::Session;
use crate::{cli, manifests, object, output};

/// How often a deleted object is looked for.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind, or KIND/NAME
    #[arg(value_name = "KIND", required_unless_present = "files")]
    kind: Option<String>,
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Objects in a file, a folder, or `-`
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "kind")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    scope: cli::Scope,
    /// Objects by label
    #[arg(short = 'l', long, conflicts_with = "files")]
    selector: Option<String>,
    /// All objects of the kind
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// An object that does not exist is no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// Seconds that a pod gets to end; 0 ends it at once
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Do not wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    wait: bool,
    /// How long to wait
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    timeout: String,
}

/// One object.
struct Victim {
    kind: Kind,
    namespace: String,
    name: String,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let timeout = wire_kube::duration::parse(&args.timeout)
        .map_err(|why| anyhow::anyhow!("--timeout: {} {why}", args.timeout))?;
    let victims = victims(&api, &args).await?;
    if victims.is_empty() {
        output::note("No resources found");
    }
    let mut begun = Vec::new();
    let mut failed = false;
    for victim in victims {
        let Victim {
            kind,
            namespace,
            name,
        } = &victim;
        let grace = args
            .grace_period
            .map(|seconds| format!("?gracePeriodSeconds={seconds}"))
            .unwrap_or_default();
        let path = format!("{}{grace}", kind.path(Some(namespace), Some(name)));
        match api.json(Method::DELETE, &path, Payload::none()).await {
            Ok(object) => {
                output::say(&format!("{} \"{name}\" deleted", kind.singular()));
                begun.push((victim, object::text(&object, "/metadata/uid").to_owned()));
            }
            Err(error) if is_status(&error, 404) && args.ignore_not_found => {}
            Err(error) => {
                output::note(&format!("{error:#}"));
                failed = true;
            }
        }
    }
    if args.wait {
        wait_for_end(&api, &begun, timeout).await?;
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn victims(api: &Api, args: &Args) -> Result<Vec<Victim>> {
    let Some(word) = &args.kind else {
        return from_files(args);
    };
    let place = |kind: &Kind, name: &str| Victim {
        kind: kind.clone(),
        namespace: args.scope.namespace.clone(),
        name: name.into(),
    };
    if word.contains('/') {
        let all = std::iter::once(word).chain(&args.names);
        return all
            .map(|one| match one.split_once('/') {
                Some((kind, name)) => Ok(place(&Kind::typed(kind)?, name)),
                None => bail!("{one} is not KIND/NAME"),
            })
            .collect();
    }
    let kind = Kind::typed(word)?;
    match (args.names.is_empty(), &args.selector, args.all) {
        (false, None, false) => Ok(args.names.iter().map(|name| place(&kind, name)).collect()),
        (true, None, false) => bail!(
            "resource(s) were provided, but no name was specified; name some, or pass -l SELECTOR or --all"
        ),
        (false, _, _) => bail!("name cannot be provided when a selector or --all is specified"),
        (true, selector, _) => {
            let objects = api
                .list(&kind, Some(&args.scope.namespace), selector.as_deref())
                .await?;
            Ok(objects
                .iter()
                .map(|each| Victim {
                    kind: kind.clone(),
                    namespace: object::namespace(each).into(),
                    name: object::name(each).into(),
                })
                .collect())
        }
    }
}

/// In the reverse order of the files, so that what others refer to goes last.
fn from_files(args: &Args) -> Result<Vec<Victim>> {
    let read = manifests::read(&args.files)?;
    if let Some(broken) = read.broken.first() {
        bail!("{broken}");
    }
    let mut victims = Vec::new();
    for document in read.documents.iter().rev() {
        let (api_version, kind) = document.type_meta().unwrap_or_default();
        let kind = Kind::of_object(api_version, kind)
            .map_err(|error| anyhow::anyhow!("{}: {error}", document.place("kind")))?;
        let namespace = match object::namespace(&document.object) {
            "" => args.scope.namespace.clone(),
            own => own.to_owned(),
        };
        victims.push(Victim {
            kind,
            namespace,
            name: object::name(&document.object).into(),
        });
    }
    Ok(victims)
}

/// Gone means: no object, or another one of the same name.
async fn wait_for_end(api: &Api, begun: &[(Victim, String)], timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    for (
        Victim {
            kind,
            namespace,
            name,
        },
        uid,
    ) in begun
    {
        while api
            .find(kind, namespace, name)
            .await?
            .is_some_and(|object| object::text(&object, "/metadata/uid") == uid)
        {
            if Instant::now() > deadline {
                bail!(
                    "timed out waiting for {}/{name} to be gone",
                    kind.singular()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}
