//! `tanbark get KIND [NAME…]`: objects as kubectl shows them.
//!
//! `KIND` may be several (`pods,services`), a word for several (`all`, `istio-io`), or part of the name (`deploy/a`); `-f` takes kinds and names
//! from files. `-w` prints every change after the list. Columns are those of [`machine::table`]; JSON and YAML are the objects as the API has
//! them. What is not there is told, and does not hide what is.

mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use http::Method;
use machine::store::kinds;
use serde_json::{Value, json};

use crate::api::{Api, Filter, Lines, Payload, is_status};
use crate::jsonpath::Template;
use crate::kind::Kind;
use crate::manifests::{self, Depth};
use crate::object;
use crate::output::{self, Colour, Format};
use crate::scope::Scope;
use crate::session::Session;

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark get pods -A -o wide\n  tanbark get vs,dr,gw -n shop\n  tanbark get istio-io -A\n  tanbark get pod -l app=ratings -o jsonpath='{.items[0].metadata.name}'\n  tanbark get events -w";

#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Kind (`pods`, `po`, `vs,dr`, `all`, `istio-io`) or KIND/NAME
    #[arg(required_unless_present_any = ["files", "raw"], conflicts_with = "files", value_name = "KIND")]
    pub what: Option<String>,
    /// Names; all objects when none is given
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// The objects that files name: a file, a folder, or `-`
    #[arg(short, long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub files: Vec<PathBuf>,
    /// Folders below a folder too
    #[arg(short = 'R', long, requires = "files")]
    pub recursive: bool,
    #[command(flatten)]
    pub scope: Scope,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Label selector (`app=a,version!=v1`)
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Field selector (`status.phase=Running,metadata.name!=a`)
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// One of wide, json, yaml, name, jsonpath=TEMPLATE, custom-columns=TITLE:PATH,…
    #[arg(short, long, value_parser = Format::parse)]
    pub output: Option<Format>,
    /// Print every change until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// Print only changes
    #[arg(long)]
    pub watch_only: bool,
    /// In the order of this field (`.metadata.creationTimestamp`)
    #[arg(long, value_name = "PATH", value_parser = Template::column)]
    pub sort_by: Option<Template>,
    /// Without the line of titles
    #[arg(long)]
    pub no_headers: bool,
    /// Labels as a last column
    #[arg(long)]
    pub show_labels: bool,
    /// These labels as columns of their own
    #[arg(short = 'L', long, value_name = "LABEL", value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// The kind before every name
    #[arg(long)]
    pub show_kind: bool,
    /// An object that does not exist is no failure
    #[arg(long)]
    pub ignore_not_found: bool,
    /// What the local API answers to a GET of this path
    #[arg(long, value_name = "PATH", conflicts_with_all = ["what", "files"])]
    pub raw: Option<String>,
}

/// One kind to be shown, the names that were given, and their namespace where a file says it.
#[derive(Debug)]
struct Request {
    kind: Kind,
    names: Vec<String>,
    namespace: Option<String>,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    if let Some(path) = &args.raw {
        output::emit_bytes(&api.bytes(Method::GET, path, Payload::none()).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let requests = match &args.what {
        Some(what) => requests(what, &args.names)?,
        None => from_files(&args)?,
    };
    if args.watch || args.watch_only {
        return watch(&api, &args, &requests).await;
    }
    let several = args.show_kind
        || requests
            .iter()
            .any(|request| request.kind != requests[0].kind);
    let mut found: Vec<(Kind, Vec<Value>)> = Vec::new();
    let mut failed = false;
    for request in requests {
        let objects = fetch(&api, &args, &request, &mut failed).await?;
        match found.last_mut().filter(|(kind, _)| *kind == request.kind) {
            Some((_, present)) => present.extend(objects),
            None => found.push((request.kind, objects)),
        }
    }
    if found.len() > 1 {
        found.retain(|(_, objects)| !objects.is_empty());
    }
    print(&args, &found, several, failed)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The kinds that a word means.
fn kinds_of(word: &str) -> Result<Vec<Kind>> {
    let category = kinds::by_category(word);
    if category.is_empty() {
        return Ok(vec![Kind::typed(word)?]);
    }
    Ok(category.into_iter().map(Kind::from).collect())
}

fn requests(what: &str, names: &[String]) -> Result<Vec<Request>> {
    if what.contains('/') {
        // `deploy/a svc/b`
        let all = std::iter::once(what).chain(names.iter().map(String::as_str));
        return all
            .map(|one| match one.split_once('/') {
                Some((kind, name)) if !name.is_empty() => Ok(Request { kind: Kind::typed(kind)?, names: vec![name.into()], namespace: None }),
                Some(_) => bail!("`{one}` names no object: write KIND/NAME"),
                None => bail!("there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'tanbark get resource/<resource_name>' instead of 'tanbark get resource resource/<resource_name>')"),
            })
            .collect();
    }
    let mut requests = Vec::new();
    for word in what.split(',') {
        for kind in kinds_of(word)? {
            requests.push(Request {
                kind,
                names: names.to_vec(),
                namespace: None,
            });
        }
    }
    Ok(requests)
}

fn from_files(args: &Args) -> Result<Vec<Request>> {
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
        bail!("these files hold no objects");
    }
    read.documents
        .iter()
        .map(|document| {
            let (api_version, kind) = document.type_meta().unwrap_or_default();
            let kind = Kind::of_object(api_version, kind)
                .map_err(|error| anyhow::anyhow!("{}: {error}", document.place("kind")))?;
            let own = object::namespace(&document.object);
            Ok(Request {
                kind,
                names: vec![object::name(&document.object).to_owned()],
                namespace: (!own.is_empty()).then(|| own.to_owned()),
            })
        })
        .collect()
}

async fn fetch(api: &Api, args: &Args, request: &Request, failed: &mut bool) -> Result<Vec<Value>> {
    let Request {
        kind,
        names,
        namespace: own,
    } = request;
    if names.is_empty() {
        let mut objects = api.list(kind, namespace(args), filter(args)).await?;
        if kind.kind == "Event" {
            object::sort_events(&mut objects);
        }
        if let Some(path) = &args.sort_by {
            rows::sort(&mut objects, path);
        }
        return Ok(objects);
    }
    if args.all_namespaces {
        bail!("a resource cannot be retrieved by name across all namespaces");
    }
    if args.selector.is_some() || args.field_selector.is_some() {
        bail!("name cannot be provided when a selector is specified");
    }
    let namespace = own.as_deref().unwrap_or(args.scope.namespace());
    let mut objects = Vec::with_capacity(names.len());
    for name in names {
        match api.get(kind, namespace, name).await {
            Ok(object) => objects.push(object),
            Err(error) if is_status(&error, 404) => {
                if !args.ignore_not_found {
                    output::note(&output::failure(&error));
                    *failed = true;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(objects)
}

fn namespace(args: &Args) -> Option<&str> {
    (!args.all_namespaces).then_some(args.scope.namespace())
}

fn filter(args: &Args) -> Filter<'_> {
    Filter {
        labels: args.selector.as_deref(),
        fields: args.field_selector.as_deref(),
    }
}

fn print(args: &Args, found: &[(Kind, Vec<Value>)], several: bool, failed: bool) -> Result<()> {
    let empty = found.iter().all(|(_, objects)| objects.is_empty());
    if empty && failed {
        return Ok(());
    }
    match &args.output {
        Some(Format::Json) if !silent(args, empty) => {
            output::emit(&output::json(&as_one(args, found))?)
        }
        Some(Format::Yaml) if !silent(args, empty) => {
            output::emit(&output::yaml(&as_one(args, found))?)
        }
        Some(Format::Json | Format::Yaml) => {}
        Some(Format::JsonPath(template)) => {
            let text = template.fill(&as_one(args, found));
            output::emit(&text.map_err(anyhow::Error::msg)?);
        }
        Some(Format::Name) => {
            for (kind, objects) in found {
                for each in objects {
                    output::say(&format!("{}/{}", kind.singular(), object::name(each)));
                }
            }
        }
        Some(Format::CustomColumns(columns)) => {
            let mut table = output::Table::default();
            if !args.no_headers {
                table = output::Table::new(columns.titles());
            }
            for each in found.iter().flat_map(|(_, objects)| objects) {
                table.row(columns.row(each));
            }
            table.print();
        }
        Some(Format::Wide) | None => print_tables(args, found, several),
    }
    Ok(())
}

/// Is nothing to be printed of nothing, since it was asked for by name?
fn silent(args: &Args, empty: bool) -> bool {
    empty && args.ignore_not_found && by_name(args)
}

fn by_name(args: &Args) -> bool {
    !args.names.is_empty()
        || args.what.as_deref().is_some_and(|what| what.contains('/'))
        || !args.files.is_empty()
}

/// One object when it was asked for by name, else a list.
fn as_one(args: &Args, found: &[(Kind, Vec<Value>)]) -> Value {
    let objects: Vec<&Value> = found.iter().flat_map(|(_, objects)| objects).collect();
    match (by_name(args), objects.as_slice()) {
        (true, [one]) => (*one).clone(),
        _ => {
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
        }
    }
}

fn print_tables(args: &Args, found: &[(Kind, Vec<Value>)], several: bool) {
    if found.iter().all(|(_, objects)| objects.is_empty()) {
        if args.ignore_not_found && by_name(args) {
            return;
        }
        let namespaced = found.is_empty() || found.iter().any(|(kind, _)| kind.namespaced);
        output::note(&if args.all_namespaces || !namespaced {
            "No resources found".to_owned()
        } else {
            format!(
                "No resources found in {} namespace.",
                args.scope.namespace()
            )
        });
        return;
    }
    for (at, (kind, objects)) in found.iter().enumerate() {
        if at > 0 {
            output::say("");
        }
        let mut table = rows::titled(args, kind);
        for each in objects {
            table.row(rows::of(args, kind, each, several));
        }
        table.print();
    }
}

async fn watch(api: &Api, args: &Args, requests: &[Request]) -> Result<ExitCode> {
    let [
        Request {
            kind,
            names,
            namespace: own,
        },
    ] = requests
    else {
        bail!("you may only watch a single resource or type of resource at a time")
    };
    let namespace = own.as_deref().or(namespace(args));
    if let (Some(namespace), [name]) = (namespace, names.as_slice()) {
        // What is not there is an error, as without -w.
        if !args.ignore_not_found {
            api.get(kind, namespace, name).await?;
        }
    }
    let list = api.list_object(kind, namespace, filter(args)).await?;
    let wanted =
        |each: &Value| names.is_empty() || names.iter().any(|name| name == object::name(each));
    let present: Vec<Value> = object::list(&list, "/items")
        .iter()
        .filter(|each| wanted(each))
        .cloned()
        .collect();
    let mut printer = Printer::default();
    if !args.watch_only {
        printer.print(args, kind, &present)?;
    }
    let path = format!(
        "{}?watch=true&resourceVersion={}{}",
        kind.path(namespace, None),
        object::text(&list, "/metadata/resourceVersion"),
        filter(args).query("&")
    );
    let mut lines = Lines::of(api.send(Method::GET, &path, Payload::none()).await?);
    while let Some(line) = lines.next().await? {
        let event: Value = serde_json::from_slice(&line)?;
        let each = event.get("object").cloned().unwrap_or_default();
        match object::text(&event, "/type") {
            "ERROR" => bail!("{}", object::text(&each, "/message")),
            "BOOKMARK" => {}
            _ if wanted(&each) => printer.print(args, kind, &[each])?,
            _ => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints rows one by one under titles that were printed once.
#[derive(Default)]
struct Printer {
    titled: bool,
    widths: Vec<usize>,
}

impl Printer {
    fn print(&mut self, args: &Args, kind: &Kind, objects: &[Value]) -> Result<()> {
        match &args.output {
            None | Some(Format::Wide) => {}
            Some(format) => {
                for each in objects {
                    output::emit(&output::one_of_many(format, kind, each)?);
                }
                return Ok(());
            }
        }
        if objects.is_empty() {
            return Ok(());
        }
        let mut table = rows::titled(args, kind);
        for each in objects {
            table.row(rows::of(args, kind, each, args.show_kind));
        }
        // Later rows stand under the titles of the first ones, which are cut off again.
        let text = table.render_at_least(&mut self.widths, Colour::of(&std::io::stdout()));
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
        assert!(shown("all", &[]).starts_with(&[
            ("Pod".to_owned(), Vec::new()),
            ("Service".to_owned(), Vec::new())
        ]));
        assert!(shown("istio-io", &[]).len() > 10);
        assert!(requests("deploy/", &[]).is_err());
        assert!(requests("deploy/a", &["b".into()]).is_err());
        assert!(requests("nothing", &[]).is_err());
    }
}
