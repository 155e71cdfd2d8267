//! `tanbark logs POD|KIND/NAME`: what a container printed.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::api::{Api, Lines, Payload, escape};
use crate::kind::Kind;
use crate::session::Session;
use crate::target::{choose_container, containers, find_pod};
use crate::{cli, object, output};

/// Lines of several followed containers that wait to be printed.
const QUEUE: usize = 256;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// POD, or KIND/NAME for one of its pods
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pod: Option<String>,
    /// Container by position, as kubectl takes it
    #[arg(value_name = "CONTAINER", conflicts_with = "container", hide = true)]
    container_position: Option<String>,
    #[command(flatten)]
    scope: cli::Scope,
    /// Container
    #[arg(short, long)]
    container: Option<String>,
    /// All containers of the pod
    #[arg(long, conflicts_with = "container")]
    all_containers: bool,
    /// Pods by label
    #[arg(short = 'l', long, conflicts_with = "pod")]
    selector: Option<String>,
    /// Go on printing
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<i64>,
    /// Of the container's last run
    #[arg(short, long)]
    previous: bool,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    /// Only what is newer than this (`30s`, `5m`, `1h`)
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Begin each line with pod and container
    #[arg(long)]
    prefix: bool,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let query = query(&args)?;
    let sources = sources(&api, &args).await?;
    let prefix = |source: &Source| {
        if args.prefix {
            format!("[pod/{}/{}] ", source.pod, source.container)
        } else {
            String::new()
        }
    };
    if args.follow && sources.len() > 1 {
        return follow_all(
            &api,
            sources
                .iter()
                .map(|source| (source.path(&query), prefix(source)))
                .collect(),
        )
        .await;
    }
    for source in &sources {
        let lines = Lines::of(
            api.send(Method::GET, &source.path(&query), Payload::none())
                .await?,
        );
        copy(lines, &prefix(source)).await?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Source {
    namespace: String,
    pod: String,
    container: String,
}

impl Source {
    fn path(&self, query: &str) -> String {
        let Self {
            namespace,
            pod,
            container,
        } = self;
        format!(
            "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={}{query}",
            escape(container)
        )
    }
}

async fn sources(api: &Api, args: &Args) -> Result<Vec<Source>> {
    let pods = match (&args.pod, &args.selector) {
        (Some(pod), _) => vec![find_pod(api, &args.scope.namespace, pod).await?],
        (None, selector) => {
            api.list(
                &Kind::pods(),
                Some(&args.scope.namespace),
                selector.as_deref(),
            )
            .await?
        }
    };
    if pods.is_empty() {
        output::note(&format!(
            "No resources found in {} namespace.",
            args.scope.namespace
        ));
    }
    let named = args
        .container
        .as_deref()
        .or(args.container_position.as_deref());
    let mut sources = Vec::new();
    for pod in &pods {
        let names = if args.all_containers {
            containers(pod)
        } else {
            vec![choose_container(pod, named)?]
        };
        sources.extend(names.into_iter().map(|container| source(pod, container)));
    }
    Ok(sources)
}

fn source(pod: &Value, container: String) -> Source {
    Source {
        namespace: object::namespace(pod).into(),
        pod: object::name(pod).into(),
        container,
    }
}

fn query(args: &Args) -> Result<String> {
    let mut query = String::new();
    for (given, text) in [
        (args.follow, "&follow=true"),
        (args.previous, "&previous=true"),
        (args.timestamps, "&timestamps=true"),
    ] {
        if given {
            query.push_str(text);
        }
    }
    if let Some(lines) = args.tail.filter(|lines| *lines >= 0) {
        query.push_str(&format!("&tailLines={lines}"));
    }
    if let Some(since) = &args.since {
        let duration = wire_kube::duration::parse(since)
            .ok()
            .filter(|duration| !duration.is_zero());
        let Some(duration) = duration else {
            bail!("--since {since}: not a duration such as 30s, 5m or 1h")
        };
        query.push_str(&format!("&sinceSeconds={}", duration.as_secs().max(1)));
    }
    Ok(query)
}

async fn copy(mut lines: Lines, prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        while let Some(piece) = lines.piece().await? {
            output::emit_bytes(&piece);
        }
        return Ok(());
    }
    while let Some(line) = lines.next().await? {
        output::emit_bytes(&[prefix.as_bytes(), &line, b"\n"].concat());
    }
    Ok(())
}

/// Follows several containers at once, line by line.
async fn follow_all(api: &Api, paths: Vec<(String, String)>) -> Result<ExitCode> {
    let (sender, mut printed) = mpsc::channel::<Result<Vec<u8>>>(QUEUE);
    for (path, prefix) in paths {
        let (api, sender) = (api.clone(), sender.clone());
        tokio::spawn(async move {
            let result = async {
                let mut lines = Lines::of(api.send(Method::GET, &path, Payload::none()).await?);
                while let Some(line) = lines.next().await? {
                    if sender
                        .send(Ok([prefix.as_bytes(), &line, b"\n"].concat()))
                        .await
                        .is_err()
                    {
                        break;
                    }
                }
                anyhow::Ok(())
            };
            if let Err(error) = result.await {
                let _ = sender.send(Err(error)).await;
            }
        });
    }
    drop(sender);
    while let Some(line) = printed.recv().await {
        output::emit_bytes(&line.context("a container's log broke off")?);
    }
    Ok(ExitCode::SUCCESS)
}
