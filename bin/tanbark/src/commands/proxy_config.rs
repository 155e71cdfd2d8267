//! `tanbark proxy-config KIND POD`: what a proxy was told and holds now, in istioctl's tables.
//!
//! The source is the proxy's own `/config_dump` and `/clusters`; `-f FILE` reads a dump that somebody saved. Field names are read in both
//! spellings, because a control plane's dump uses the other one.

mod chain;
mod cluster_name;
mod clusters;
mod dump;
mod endpoints;
mod listeners;
mod routes;
mod secrets;
mod source;
mod spelling;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::{Value, json};
use wire_envoy::Descriptors;

use crate::admin;
use crate::output::{self, Report, Table};
use crate::scope::Scope;
use crate::session::Session;
use crate::target::find_pod;
use dump::{Dump, nothing};
use source::Source;

/// Shown below the kinds.
const EXAMPLES: &str = "Examples:\n  tanbark proxy-config clusters deploy/productpage-v1 --fqdn reviews\n  tanbark pc routes productpage-v1-abc.default --name 9080 -o json\n  tanbark pc endpoints deploy/productpage-v1 --status unhealthy\n  tanbark pc all --file config_dump.json";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Addresses and what happens to their connections
    #[command(visible_aliases = ["listener", "l"])]
    Listeners(listeners::Args),
    /// Destinations
    #[command(visible_aliases = ["cluster", "c"])]
    Clusters(clusters::Args),
    /// Routes of HTTP requests
    #[command(visible_aliases = ["route", "r"])]
    Routes(routes::Args),
    /// Addresses behind clusters and how they are
    #[command(visible_aliases = ["endpoint", "ep"])]
    Endpoints(endpoints::Args),
    /// Certificates; never keys
    #[command(visible_aliases = ["secrets", "s"])]
    Secret(secrets::Args),
    /// Everything
    #[command(visible_alias = "a")]
    All(Source),
    /// What the proxy was started with
    #[command(visible_alias = "b")]
    Bootstrap(Source),
    /// Show or set levels of the proxy's log
    #[command(visible_alias = "o")]
    Log(Log),
}

#[derive(Debug, clap::Args)]
pub struct Log {
    /// POD, POD.NAMESPACE, or KIND/NAME for one of its pods
    pod: String,
    #[command(flatten)]
    pub scope: Scope,
    /// `debug`, or for some loggers `http:debug,router:trace`
    #[arg(long)]
    level: Option<String>,
    /// Back to the usual level, `warning`
    #[arg(short, long, conflicts_with = "level")]
    reset: bool,
}

/// Where the pod is looked for.
pub fn scope_mut(command: &mut Command) -> &mut Scope {
    match command {
        Command::Listeners(args) => &mut args.source.scope,
        Command::Clusters(args) => &mut args.source.scope,
        Command::Routes(args) => &mut args.source.scope,
        Command::Endpoints(args) => &mut args.source.scope,
        Command::Secret(args) => &mut args.source.scope,
        Command::All(source) | Command::Bootstrap(source) => &mut source.scope,
        Command::Log(args) => &mut args.scope,
    }
}

pub async fn run(command: Command, session: &Session) -> Result<ExitCode> {
    match command {
        Command::Listeners(args) => {
            let dump = fetch(&args.source, session).await?;
            print(
                &args.source,
                listeners::select(&dump, &args),
                listeners::table,
            )
        }
        Command::Clusters(args) => {
            let dump = fetch(&args.source, session).await?;
            print(
                &args.source,
                clusters::select(&dump, &args),
                clusters::table,
            )
        }
        Command::Routes(args) => {
            let dump = fetch(&args.source, session).await?;
            print(&args.source, routes::select(&dump, &args), |found| {
                routes::table(found)
            })
        }
        Command::Endpoints(args) => endpoints_of(&args, session).await,
        Command::Secret(args) => {
            let dump = fetch(&args.source, session).await?;
            match args.source.output {
                Some(format @ (Report::Json | Report::Yaml)) => {
                    let section = dump.secrets_section().unwrap_or_else(nothing);
                    emit(format, &spelling::keys(&Descriptors::load()?, section))?;
                }
                Some(Report::Table) | None => {
                    secrets::table(&dump.secrets(), jiff::Timestamp::now()).print();
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::All(source) => all(&source, session).await,
        Command::Bootstrap(source) => {
            let dump = fetch(&source, session).await?;
            let bootstrap = dump.bootstrap().context("the dump holds no bootstrap")?;
            match source.output {
                Some(Report::Table) => output::emit(&dump::versions(&bootstrap)),
                format => {
                    let respelt = spelling::keys(&Descriptors::load()?, bootstrap);
                    emit(
                        format.unwrap_or(Report::Json),
                        &json!({"bootstrap": respelt}),
                    )?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Log(args) => log(&args, session).await,
    }
}

async fn fetch(source: &Source, session: &Session) -> Result<Dump> {
    let value = match (&source.file, &source.pod) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not JSON", file.display()))?
        }
        (None, Some(pod)) => {
            let api = session.api()?;
            let pod = find_pod(&api, source.scope.namespace(), pod).await?;
            admin::json_page(&api, &pod, "/config_dump?include_eds").await?
        }
        (None, None) => bail!("which pod?"),
    };
    Ok(Dump::new(value))
}

fn print(
    source: &Source,
    found: Vec<Value>,
    table: impl Fn(&[Value]) -> Table,
) -> Result<ExitCode> {
    match source.output {
        Some(format @ (Report::Json | Report::Yaml)) => {
            let descriptors = Descriptors::load()?;
            let respelt = |value: Value| match value.get("@type") {
                Some(_) => spelling::resource(&descriptors, value),
                None => spelling::keys(&descriptors, value),
            };
            emit(format, &found.into_iter().map(respelt).collect())?;
        }
        Some(Report::Table) | None => table(&found).print(),
    }
    Ok(ExitCode::SUCCESS)
}

fn emit(format: Report, value: &Value) -> Result<()> {
    output::emit(&match format {
        Report::Yaml => output::yaml(value)?,
        Report::Json | Report::Table => output::json(value)?,
    });
    Ok(())
}

async fn endpoints_of(args: &endpoints::Args, session: &Session) -> Result<ExitCode> {
    let statuses = match (&args.source.file, &args.source.pod) {
        (None, Some(pod)) => {
            let api = session.api()?;
            let pod = find_pod(&api, args.source.scope.namespace(), pod).await?;
            admin::json_page(&api, &pod, "/clusters?format=json").await?
        }
        _ => {
            let dump = fetch(&args.source, session).await?;
            // A saved page of `/clusters?format=json`, as istioctl takes it, or a dump.
            match dump::field(dump.whole(), "cluster_statuses") {
                Some(_) => dump.whole().clone(),
                None => endpoints::statuses_of(&dump),
            }
        }
    };
    print(
        &args.source,
        endpoints::select(&statuses, args),
        endpoints::table,
    )
}

async fn all(source: &Source, session: &Session) -> Result<ExitCode> {
    let dump = fetch(source, session).await?;
    if let Some(Report::Json | Report::Yaml) = source.output {
        let whole = dump.whole();
        output::emit(&if source.output == Some(Report::Yaml) {
            output::yaml(whole)?
        } else {
            output::json(whole)?
        });
        return Ok(ExitCode::SUCCESS);
    }
    let parts = [
        ("CLUSTERS", clusters::table(&dump.clusters())),
        ("LISTENERS", listeners::table(&dump.listeners())),
        ("ROUTES", routes::table(&dump.routes())),
        (
            "SECRETS",
            secrets::table(&dump.secrets(), jiff::Timestamp::now()),
        ),
    ];
    for (title, table) in parts.iter().filter(|(_, table)| !table.is_empty()) {
        output::say(&format!("{title}\n"));
        table.print();
        output::say("");
    }
    Ok(ExitCode::SUCCESS)
}

async fn log(args: &Log, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let pod = find_pod(&api, args.scope.namespace(), &args.pod).await?;
    let usual = args.reset.then_some("warning");
    let queries: Vec<String> = match args.level.as_deref().or(usual) {
        None => vec![String::new()],
        Some(levels) => levels
            .split(',')
            .map(|level| match level.split_once(':') {
                Some((logger, level)) => format!(
                    "?{}={}",
                    crate::api::escape(logger),
                    crate::api::escape(level)
                ),
                None => format!("?level={}", crate::api::escape(level)),
            })
            .collect(),
    };
    let mut text = String::new();
    for query in &queries {
        text = admin::page(&api, &pod, Method::POST, &format!("/logging{query}")).await?;
    }
    output::emit(&text);
    Ok(ExitCode::SUCCESS)
}
