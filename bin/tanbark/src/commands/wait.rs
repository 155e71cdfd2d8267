//! `tanbark wait --for=WHAT KIND/NAME…`: waits until objects are as they are wanted, as kubectl
//! does.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::api::{Api, Filter};
use crate::jsonpath::Template;
use crate::kind::Kind;
use crate::object;
use crate::output;
use crate::scope::Scope;
use crate::session::Session;

/// How often an object is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// kubectl's meaning of a negative time.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark wait --for=condition=Ready pod -l app=reviews --timeout=60s\n  tanbark wait --for=delete pod/a\n  tanbark wait --for=jsonpath='{.status.readyReplicas}'=2 deploy/a";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// KIND/NAME…, or KIND NAME…, or KIND with -l or --all
    #[arg(required = true, value_name = "KIND/NAME")]
    what: Vec<String>,
    /// condition=NAME[=VALUE], delete, create, or jsonpath={PATH}[=VALUE]
    #[arg(long = "for", value_name = "WHAT", value_parser = Wanted::parse)]
    wanted: Wanted,
    #[command(flatten)]
    pub scope: Scope,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Objects by label
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// All objects of the kind
    #[arg(long)]
    all: bool,
    /// How long to wait; 0 looks once, a negative time means a week
    #[arg(
        long,
        default_value = "30s",
        value_name = "DURATION",
        allow_hyphen_values = true
    )]
    timeout: String,
}

/// What an object is to be.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Condition {
        name: String,
        value: String,
    },
    Delete,
    Create,
    /// A path and its value; without one anything.
    Path(Template, Option<String>),
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("condition=") {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "True"));
            if name.is_empty() {
                return Err("write the condition's name after it: condition=Ready".into());
            }
            return Ok(Self::Condition {
                name: name.into(),
                value: value.into(),
            });
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let end = rest.rfind('}').map_or(rest.len(), |at| at + 1);
            let (path, value) = match rest.split_at(end) {
                (path, "") => (path, None),
                (path, value) => (path, value.strip_prefix('=')),
            };
            if end < rest.len() && value.is_none_or(str::is_empty) {
                return Err("write jsonpath={PATH}=VALUE".into());
            }
            return Ok(Self::Path(
                Template::column(path)?,
                value.map(str::to_owned),
            ));
        }
        match text {
            "delete" => Ok(Self::Delete),
            "create" => Ok(Self::Create),
            _ => Err(
                "condition=NAME[=VALUE], delete, create and jsonpath={PATH}[=VALUE] are supported"
                    .into(),
            ),
        }
    }

    /// Is it so? `None` is an object that is not there.
    fn met(&self, found: Option<&Value>) -> Result<bool> {
        let Some(found) = found else {
            return Ok(*self == Self::Delete);
        };
        Ok(match self {
            Self::Delete => false,
            Self::Create => true,
            Self::Condition { name, value } => {
                let generation = object::number(found, "/metadata/generation");
                let mut conditions = object::list(found, "/status/conditions").iter();
                conditions
                    .find(|each| object::text(each, "/type").eq_ignore_ascii_case(name))
                    .is_some_and(|each| {
                        let seen = each.get("observedGeneration").and_then(Value::as_i64);
                        seen.is_none_or(|seen| seen >= generation)
                            && object::text(each, "/status").eq_ignore_ascii_case(value)
                    })
            }
            // An index that is not there yet may come.
            Self::Path(path, value) => match (path.fill(found), value) {
                (Err(_), _) => false,
                (Ok(found), None) => !found.is_empty(),
                (Ok(found), Some(value)) => found == *value,
            },
        })
    }
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let timeout = match args.timeout.strip_prefix('-') {
        Some(_) => WEEK,
        None => wire_kube::duration::parse(&args.timeout)
            .map_err(|why| anyhow::anyhow!("--timeout: {} {why}", args.timeout))?,
    };
    let deadline = Instant::now() + timeout;
    let objects = objects(&api, &args).await?;
    if objects.is_empty() && args.wanted != Wanted::Delete {
        bail!("no matching resources found");
    }
    let mut failed = false;
    for (kind, namespace, name) in objects {
        loop {
            let found = api.find(&kind, &namespace, &name).await?;
            if args.wanted.met(found.as_ref())? {
                output::say(&format!("{}/{name} condition met", kind.singular()));
                break;
            }
            let waits = matches!(args.wanted, Wanted::Create | Wanted::Delete);
            if found.is_none() && !waits {
                output::note(&format!(
                    "Error from server (NotFound): {} \"{name}\" not found",
                    kind.plural
                ));
                failed = true;
                break;
            }
            if Instant::now() >= deadline {
                output::note(&format!(
                    "error: timed out waiting for the condition on {}/{name}",
                    kind.plural
                ));
                failed = true;
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Kind, namespace and name of what is waited for.
async fn objects(api: &Api, args: &Args) -> Result<Vec<(Kind, String, String)>> {
    let by_query = args.selector.is_some() || args.all;
    let [kind] = args.what.as_slice() else {
        return named(args);
    };
    if kind.contains('/') {
        return named(args);
    }
    if !by_query {
        bail!("name some objects of {kind}, or pass -l SELECTOR or --all");
    }
    let kind = Kind::typed(kind)?;
    let filter = Filter {
        labels: args.selector.as_deref(),
        fields: None,
    };
    let namespace = (!args.all_namespaces).then_some(args.scope.namespace());
    let found = api.list(&kind, namespace, filter).await?;
    let place = |each: &Value| {
        let (namespace, name) = (object::namespace(each), object::name(each));
        (kind.clone(), namespace.to_owned(), name.to_owned())
    };
    Ok(found.iter().map(place).collect())
}

fn named(args: &Args) -> Result<Vec<(Kind, String, String)>> {
    if args.selector.is_some() || args.all || args.all_namespaces {
        bail!("names cannot be given together with -l, --all or -A");
    }
    let named = super::scale::named(&args.what)?;
    let place = |(kind, name)| (kind, args.scope.namespace().to_owned(), name);
    Ok(named.into_iter().map(place).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_is_seen_in_the_object() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}]}});
        for (wanted, met) in [
            ("condition=ready", true),
            ("condition=Ready=false", false),
            ("condition=Old", false),
            ("condition=Other", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath={.status.phase}=Failed", false),
            ("jsonpath={.status.phase}", true),
            ("jsonpath={.status.none}", false),
            ("jsonpath={.status.conditions[9].type}", false),
            (
                "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True",
                true,
            ),
            ("delete", false),
            ("create", true),
        ] {
            let found = Wanted::parse(wanted).expect(wanted).met(Some(&pod));
            assert_eq!(found.expect(wanted), met, "{wanted}");
        }
        assert!(Wanted::Delete.met(None).expect("judged"));
        assert!(!Wanted::Create.met(None).expect("judged"));
        for text in [
            "ready",
            "condition=",
            "jsonpath={.a}=",
            "jsonpath={.a",
            "jsonpath={.a}b",
        ] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }
}
