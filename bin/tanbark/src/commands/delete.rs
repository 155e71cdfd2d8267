//! `tanbark delete -f FILE` and `tanbark delete KIND NAME…`: removes objects, and waits until they are gone.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;
use machine::store::kinds;

use super::apply::DryRun;
use crate::api::{Api, Filter, Payload, is_status};
use crate::kind::Kind;
use crate::manifests::{self, Depth};
use crate::object;
use crate::output::{self, Format};
use crate::scope::Scope;
use crate::session::Session;

/// How often a deleted object is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark delete -f reviews.yaml\n  tanbark delete vs reviews\n  tanbark delete pod -l app=reviews --now";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Kind, several kinds (`pods,services`), or KIND/NAME
    #[arg(value_name = "KIND", required_unless_present_any = ["files", "kustomize"])]
    kind: Option<String>,
    /// Names; with -l or --all none
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Objects in a file, a folder, or `-`
    #[arg(
        short,
        long = "filename",
        value_name = "FILE",
        value_delimiter = ',',
        conflicts_with = "kind"
    )]
    files: Vec<PathBuf>,
    /// Folders below a folder too
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,
    #[command(flatten)]
    pub scope: Scope,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Objects by label
    #[arg(short = 'l', long, conflicts_with = "files")]
    selector: Option<String>,
    /// Objects by field
    #[arg(long, value_name = "SELECTOR", conflicts_with = "files")]
    field_selector: Option<String>,
    /// All objects of the kind
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// An object that does not exist is no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// Seconds that a pod gets to end; 0 ends it at once
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    grace_period: Option<i64>,
    /// As --grace-period=1
    #[arg(long, conflicts_with = "grace_period")]
    now: bool,
    /// As --grace-period=0, without waiting
    #[arg(long)]
    force: bool,
    /// What happens to what the object owns: `orphan` leaves it
    #[arg(long, value_enum, default_value_t = Cascade::Background, num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    cascade: Cascade,
    /// Say what would be deleted: `server` has the runtime check it too
    #[arg(long, value_enum, default_value_t = DryRun::None, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// `name` prints KIND/NAME only
    #[arg(short, long, value_parser = Format::parse)]
    output: Option<Format>,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    wait: bool,
    /// How long to wait
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    timeout: String,
    #[arg(short, long, hide = true)]
    kustomize: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

impl Args {
    fn grace(&self) -> Option<i64> {
        match (self.grace_period, self.force, self.now) {
            (Some(seconds), _, _) if seconds >= 0 => Some(seconds),
            (_, true, _) => Some(0),
            (_, _, true) => Some(1),
            _ => None,
        }
    }

    /// What the path of a deletion gets.
    fn query(&self) -> String {
        let policy = match self.cascade {
            Cascade::Background => "Background",
            Cascade::Foreground => "Foreground",
            Cascade::Orphan => "Orphan",
        };
        let mut query = format!("?propagationPolicy={policy}");
        if let Some(seconds) = self.grace() {
            query.push_str(&format!("&gracePeriodSeconds={seconds}"));
        }
        if self.dry_run == DryRun::Server {
            query.push('&');
            query.push_str(self.dry_run.query());
        }
        query
    }
}

/// One object.
#[derive(Debug, PartialEq, Eq)]
struct Victim {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Victim {
    /// kubectl's line.
    fn told(&self, args: &Args) -> String {
        let Self {
            kind,
            namespace,
            name,
        } = self;
        let word = if args.force {
            "force deleted"
        } else {
            "deleted"
        };
        let place = if kind.namespaced {
            format!(" from {namespace} namespace")
        } else {
            String::new()
        };
        format!(
            "{} \"{name}\" {word}{place}{}",
            kind.singular(),
            args.dry_run.suffix()
        )
    }
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    if let Some(folder) = &args.kustomize {
        bail!(
            "kustomize is not built in: `kubectl kustomize {} | tanbark delete -f -`",
            folder.display()
        );
    }
    if !matches!(args.output, None | Some(Format::Name)) {
        bail!("-o of delete takes only `name`");
    }
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
        match delete(&api, &args, &victim).await {
            Ok(uid) => {
                output::say(&match args.output {
                    Some(_) => format!("{}/{}", victim.kind.singular(), victim.name),
                    None => victim.told(&args),
                });
                begun.push((victim, uid));
            }
            Err(error) if is_status(&error, 404) && args.ignore_not_found => {}
            Err(error) => {
                output::note(&output::failure(&error));
                failed = true;
            }
        }
    }
    if args.wait && !args.force && args.dry_run == DryRun::None {
        wait_for_end(&api, &begun, timeout).await?;
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Begins a deletion; the object's uid.
async fn delete(api: &Api, args: &Args, victim: &Victim) -> Result<String> {
    let Victim {
        kind,
        namespace,
        name,
    } = victim;
    let object = if args.dry_run == DryRun::Client {
        api.get(kind, namespace, name).await?
    } else {
        let path = format!("{}{}", kind.path(Some(namespace), Some(name)), args.query());
        api.json(Method::DELETE, &path, Payload::none()).await?
    };
    Ok(object::text(&object, "/metadata/uid").to_owned())
}

async fn victims(api: &Api, args: &Args) -> Result<Vec<Victim>> {
    let Some(word) = &args.kind else {
        return from_files(args);
    };
    let place = |kind: &Kind, name: &str| Victim {
        kind: kind.clone(),
        namespace: args.scope.namespace().to_owned(),
        name: name.into(),
    };
    if word.contains('/') {
        let all = std::iter::once(word).chain(&args.names);
        return all
            .map(|one| match one.split_once('/') {
                Some((kind, name)) if !name.is_empty() => Ok(place(&Kind::typed(kind)?, name)),
                _ => bail!("{one} is not KIND/NAME"),
            })
            .collect();
    }
    let kinds = kinds_of(word)?;
    let by_query = args.selector.is_some() || args.field_selector.is_some() || args.all;
    match (args.names.is_empty(), by_query) {
        (false, false) if args.all_namespaces => {
            bail!("a resource cannot be deleted by name across all namespaces")
        }
        (false, false) => Ok(kinds
            .iter()
            .flat_map(|kind| args.names.iter().map(|name| place(kind, name)))
            .collect()),
        (true, false) => bail!(
            "resource(s) were provided, but no name was specified; name some, or pass -l SELECTOR or --all"
        ),
        (false, true) => bail!("name cannot be provided when a selector or --all is specified"),
        (true, true) => listed(api, args, &kinds).await,
    }
}

/// The kinds that a word means.
fn kinds_of(word: &str) -> Result<Vec<Kind>> {
    let mut found = Vec::new();
    for word in word.split(',') {
        let category = kinds::by_category(word);
        if category.is_empty() {
            found.push(Kind::typed(word)?);
        }
        found.extend(category.into_iter().map(Kind::from));
    }
    Ok(found)
}

async fn listed(api: &Api, args: &Args, kinds: &[Kind]) -> Result<Vec<Victim>> {
    let filter = Filter {
        labels: args.selector.as_deref(),
        fields: args.field_selector.as_deref(),
    };
    let namespace = (!args.all_namespaces).then_some(args.scope.namespace());
    let mut victims = Vec::new();
    for kind in kinds {
        let objects = api.list(kind, namespace, filter).await?;
        victims.extend(objects.iter().map(|each| Victim {
            kind: kind.clone(),
            namespace: object::namespace(each).into(),
            name: object::name(each).into(),
        }));
    }
    Ok(victims)
}

/// In the reverse order of the files, so that what others refer to goes last.
fn from_files(args: &Args) -> Result<Vec<Victim>> {
    let depth = if args.recursive {
        Depth::Below
    } else {
        Depth::Folder
    };
    let read = manifests::read(&args.files, depth)?;
    if let Some(broken) = read.broken.first() {
        bail!("{broken}");
    }
    let mut victims = Vec::new();
    for document in read.documents.iter().rev() {
        let (api_version, kind) = document.type_meta().unwrap_or_default();
        let kind = Kind::of_object(api_version, kind)
            .map_err(|error| anyhow::anyhow!("{}: {error}", document.place("kind")))?;
        let namespace = match object::namespace(&document.object) {
            "" => args.scope.namespace().to_owned(),
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::parse_from(std::iter::once("delete").chain(line.split(' '))).args
    }

    #[test]
    fn kubectls_ways_to_say_how_are_understood() {
        for (line, query) in [
            ("pod a", "?propagationPolicy=Background"),
            (
                "pod a --now",
                "?propagationPolicy=Background&gracePeriodSeconds=1",
            ),
            (
                "pod a --force --grace-period=0",
                "?propagationPolicy=Background&gracePeriodSeconds=0",
            ),
            ("pod a --grace-period=-1", "?propagationPolicy=Background"),
            ("deploy a --cascade=orphan", "?propagationPolicy=Orphan"),
            (
                "pod a --dry-run=server",
                "?propagationPolicy=Background&dryRun=All",
            ),
            ("pod a --dry-run", "?propagationPolicy=Background"),
        ] {
            assert_eq!(args(line).query(), query, "{line}");
        }
        assert!(!args("pod a --wait=false").wait);
    }

    #[test]
    fn the_line_is_kubectls() {
        let victim = |kind: &str| Victim {
            kind: Kind::typed(kind).expect("known"),
            namespace: "shop".into(),
            name: "a".into(),
        };
        assert_eq!(
            victim("deploy").told(&args("deploy a")),
            "deployment.apps \"a\" deleted from shop namespace"
        );
        assert_eq!(victim("ns").told(&args("ns a")), "namespace \"a\" deleted");
        assert_eq!(
            victim("pod").told(&args("pod a --dry-run=client")),
            "pod \"a\" deleted from shop namespace (dry run)"
        );
    }

    #[test]
    fn several_kinds_are_named_by_a_comma_or_a_word() {
        assert_eq!(kinds_of("pods,svc").expect("known").len(), 2);
        assert!(kinds_of("all").expect("known").len() > 5);
        assert!(kinds_of("pods,nothing").is_err());
    }
}
