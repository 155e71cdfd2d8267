//! `tanbark get KIND [NAME…]`: objects as kubectl shows them.
//!
//! `KIND` may be several (`pods,services`), `all`, or part of the name (`deploy/a`). `-w` prints every change after the list. Columns are
//! in [`columns`]; JSON and YAML are the objects as the API has them.

mod columns;

use std::process::ExitCode;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};

use crate::api::{Api, Lines, Payload, escape};
use crate::kind::Kind;
use crate::output::{self, Colour, Format, Table};
use crate::session::Session;
use crate::{cli, object};

/// What `all` means to kubectl.
const ALL: &str = "pods,services,daemonsets,deployments,replicasets,statefulsets,jobs";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind (`pods`, `po`, `vs,dr`, `all`) or KIND/NAME
    #[arg(required = true, value_name = "KIND")]
    what: String,
    /// Names; all objects when none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    scope: cli::Scope,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Label selector (`app=a,version!=v1`)
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Print every change until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Without the line of titles
    #[arg(long)]
    no_headers: bool,
    /// Labels as a last column
    #[arg(long)]
    show_labels: bool,
}

/// One kind to be shown and the names that were given.
#[derive(Debug)]
struct Request {
    kind: Kind,
    names: Vec<String>,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let requests = requests(&args.what, &args.names)?;
    if args.watch {
        return watch(&api, &args, &requests).await;
    }
    let several = requests.len() > 1;
    let mut found: Vec<(Kind, Vec<Value>)> = Vec::new();
    for Request { kind, names } in requests {
        let objects = fetch(&api, &args, &kind, &names).await?;
        if !objects.is_empty() || !several {
            found.push((kind, objects));
        }
    }
    print(&args, &found, several)?;
    Ok(ExitCode::SUCCESS)
}

fn requests(what: &str, names: &[String]) -> Result<Vec<Request>> {
    let what = if what == "all" { ALL } else { what };
    if what.contains('/') {
        // `deploy/a svc/b`
        let all = std::iter::once(what).chain(names.iter().map(String::as_str));
        return all
            .map(|one| match one.split_once('/') {
                Some((kind, name)) => Ok(Request { kind: Kind::typed(kind)?, names: vec![name.into()] }),
                None => bail!("there is no need to specify a resource type as a separate argument when passing arguments in resource/name form"),
            })
            .collect();
    }
    what.split(',')
        .map(|word| {
            Ok(Request {
                kind: Kind::typed(word)?,
                names: names.to_vec(),
            })
        })
        .collect()
}

async fn fetch(api: &Api, args: &Args, kind: &Kind, names: &[String]) -> Result<Vec<Value>> {
    if names.is_empty() {
        let mut objects = api
            .list(kind, namespace(args), args.selector.as_deref())
            .await?;
        if kind.kind == "Event" {
            object::sort_events(&mut objects);
        }
        return Ok(objects);
    }
    if args.all_namespaces {
        bail!("a resource cannot be retrieved by name across all namespaces");
    }
    let mut objects = Vec::with_capacity(names.len());
    for name in names {
        objects.push(api.get(kind, &args.scope.namespace, name).await?);
    }
    Ok(objects)
}

fn namespace(args: &Args) -> Option<&str> {
    (!args.all_namespaces).then_some(args.scope.namespace.as_str())
}

fn print(args: &Args, found: &[(Kind, Vec<Value>)], several: bool) -> Result<()> {
    match args.output {
        Some(Format::Json) => output::emit(&output::json(&as_one(args, found))?),
        Some(Format::Yaml) => output::emit(&output::yaml(&as_one(args, found))?),
        Some(Format::Name) => {
            for (kind, objects) in found {
                for each in objects {
                    output::say(&format!("{}/{}", kind.singular(), object::name(each)));
                }
            }
        }
        Some(Format::Wide) | None => print_tables(args, found, several),
    }
    Ok(())
}

/// One object when it was asked for by name, else a list.
fn as_one(args: &Args, found: &[(Kind, Vec<Value>)]) -> Value {
    let objects: Vec<&Value> = found.iter().flat_map(|(_, objects)| objects).collect();
    let by_name = !args.names.is_empty() || args.what.contains('/');
    match (by_name, objects.as_slice()) {
        (true, [one]) => (*one).clone(),
        _ => {
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
        }
    }
}

fn print_tables(args: &Args, found: &[(Kind, Vec<Value>)], several: bool) {
    if found.iter().all(|(_, objects)| objects.is_empty()) {
        let namespaced = found.iter().any(|(kind, _)| kind.namespaced);
        output::note(&if args.all_namespaces || !namespaced {
            "No resources found".to_owned()
        } else {
            format!("No resources found in {} namespace.", args.scope.namespace)
        });
        return;
    }
    for (at, (kind, objects)) in found.iter().enumerate() {
        if at > 0 {
            output::say("");
        }
        let mut table = new_table(args, kind);
        for each in objects {
            table.row(row(args, kind, each, several));
        }
        table.print();
    }
}

fn new_table(args: &Args, kind: &Kind) -> Table {
    if args.no_headers {
        return Table::default();
    }
    let mut header = columns::header(kind, args.output == Some(Format::Wide));
    if args.all_namespaces && kind.namespaced {
        header.insert(0, "NAMESPACE");
    }
    if args.show_labels {
        header.push("LABELS");
    }
    Table::new(header)
}

fn row(args: &Args, kind: &Kind, each: &Value, several: bool) -> Vec<output::Cell> {
    let mut cells = columns::row(
        kind,
        each,
        args.output == Some(Format::Wide),
        jiff::Timestamp::now(),
    );
    if several
        && let Some(column) = columns::header(kind, false)
            .iter()
            .position(|title| *title == "NAME")
    {
        cells[column] = format!("{}/{}", kind.singular(), object::name(each)).into();
    }
    if args.all_namespaces && kind.namespaced {
        cells.insert(0, object::namespace(each).into());
    }
    if args.show_labels {
        cells.push(object::pairs(each.pointer("/metadata/labels")).into());
    }
    cells
}

async fn watch(api: &Api, args: &Args, requests: &[Request]) -> Result<ExitCode> {
    let [Request { kind, names }] = requests else {
        bail!("you may only watch a single resource or type of resource at a time")
    };
    let list = api
        .list_object(kind, namespace(args), args.selector.as_deref())
        .await?;
    let wanted =
        |each: &Value| names.is_empty() || names.iter().any(|name| name == object::name(each));
    let present: Vec<Value> = object::list(&list, "/items")
        .iter()
        .filter(|each| wanted(each))
        .cloned()
        .collect();
    let mut columns = Columns::default();
    columns.print(args, kind, &present)?;
    let mut path = format!(
        "{}?watch=true&resourceVersion={}",
        kind.path(namespace(args), None),
        object::text(&list, "/metadata/resourceVersion")
    );
    if let Some(selector) = &args.selector {
        path.push_str("&labelSelector=");
        path.push_str(&escape(selector));
    }
    let mut lines = Lines::of(api.send(Method::GET, &path, Payload::none()).await?);
    while let Some(line) = lines.next().await? {
        let event: Value = serde_json::from_slice(&line)?;
        let each = event.get("object").cloned().unwrap_or_default();
        match object::text(&event, "/type") {
            "ERROR" => bail!("{}", object::text(&each, "/message")),
            "BOOKMARK" => {}
            _ if wanted(&each) => columns.print(args, kind, &[each])?,
            _ => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints rows one by one under titles that were printed once.
#[derive(Default)]
struct Columns {
    titled: bool,
}

impl Columns {
    fn print(&mut self, args: &Args, kind: &Kind, objects: &[Value]) -> Result<()> {
        if let Some(Format::Json | Format::Yaml | Format::Name) = args.output {
            for each in objects {
                output::emit(&match args.output {
                    Some(Format::Json) => output::json(each)?,
                    Some(Format::Yaml) => format!("---\n{}", output::yaml(each)?),
                    _ => format!("{}/{}\n", kind.singular(), object::name(each)),
                });
            }
            return Ok(());
        }
        if objects.is_empty() {
            return Ok(());
        }
        // The titles keep later rows about as wide as the first ones, and are cut off again.
        let mut table = new_table(args, kind);
        for each in objects {
            table.row(row(args, kind, each, false));
        }
        let text = table.render(Colour::of(&std::io::stdout()));
        let skip = usize::from(self.titled && !args.no_headers);
        self.titled = true;
        output::emit(&text.split_inclusive('\n').skip(skip).collect::<String>());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_come_in_all_of_kubectls_forms() {
        let shown = |what: &str, names: &[&str]| -> Vec<(String, Vec<String>)> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            requests(what, &names)
                .expect("understood")
                .into_iter()
                .map(|request| (request.kind.kind, request.names))
                .collect()
        };
        assert_eq!(
            shown("po", &["a"]),
            [("Pod".to_owned(), vec!["a".to_owned()])]
        );
        assert_eq!(shown("vs,dr", &[]).len(), 2);
        assert_eq!(
            shown("deploy/a", &["svc/b"]),
            [
                ("Deployment".to_owned(), vec!["a".to_owned()]),
                ("Service".to_owned(), vec!["b".to_owned()])
            ]
        );
        assert_eq!(shown("all", &[]).len(), 7);
        assert!(requests("deploy/a", &["b".into()]).is_err());
        assert!(requests("nothing", &[]).is_err());
    }
}
