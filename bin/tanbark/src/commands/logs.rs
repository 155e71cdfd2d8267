//! `tanbark logs POD|KIND/NAME`: what a container printed.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::api::{Api, Filter, Lines, Payload, escape};
use crate::kind::Kind;
use crate::scope::Scope;
use crate::session::Session;
use crate::target::{Target, choose_container, containers, find_pod, find_pod_among, pods_of};
use crate::{object, output};

/// Lines of several followed containers that wait to be printed.
const QUEUE: usize = 256;
/// Lines of each container when pods are chosen by label, as kubectl has it.
const TAIL_BY_LABEL: i64 = 10;

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark logs deploy/reviews-v1 -c istio-proxy -f\n  tanbark logs -l app=reviews --all-containers --prefix --tail=5";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// POD, or KIND/NAME for one of its pods
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pod: Option<String>,
    /// Container by position, as kubectl takes it
    #[arg(value_name = "CONTAINER", conflicts_with = "container", hide = true)]
    container_position: Option<String>,
    #[command(flatten)]
    pub scope: Scope,
    /// Container
    #[arg(short, long)]
    container: Option<String>,
    /// All containers of the pod
    #[arg(long, conflicts_with = "container")]
    all_containers: bool,
    /// All pods of the workload or Service
    #[arg(long, conflicts_with = "selector")]
    all_pods: bool,
    /// Pods by label
    #[arg(short = 'l', long, conflicts_with = "pod")]
    selector: Option<String>,
    /// Go on printing
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines; -1 for all, which is the default but for pods by label (10)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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
    /// Only what is newer than this time (`2026-01-02T15:04:05Z`)
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<jiff::Timestamp>,
    /// No more than so many bytes of each container
    #[arg(long, value_name = "N")]
    limit_bytes: Option<u64>,
    /// Begin each line with pod and container
    #[arg(long)]
    prefix: bool,
    /// Tell what fails and go on with the others
    #[arg(long)]
    ignore_errors: bool,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let query = query(&args)?;
    let sources = sources(&api, &args).await?;
    let prefix = |source: &Source| {
        if args.prefix || (args.all_pods && sources.len() > 1) {
            format!("[pod/{}/{}] ", source.pod, source.container)
        } else {
            String::new()
        }
    };
    if args.follow && sources.len() > 1 {
        let all = sources
            .iter()
            .map(|source| (source.path(&query), prefix(source)))
            .collect();
        return follow_all(&api, all, args.ignore_errors).await;
    }
    for source in &sources {
        let copied = async {
            let path = source.path(&query);
            let answer = api.send(Method::GET, &path, Payload::none()).await?;
            copy(Lines::of(answer), &prefix(source)).await
        };
        match copied.await {
            Err(error) if args.ignore_errors => output::note(&output::failure(&error)),
            result => result?,
        }
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
    let namespace = args.scope.namespace();
    let pods = match (&args.pod, &args.selector) {
        (Some(pod), _) if args.all_pods => match Target::parse(pod)? {
            Target::Owner { kind, name } => pods_of(api, &kind, namespace, &name).await?,
            Target::Pod(_) => vec![find_pod(api, namespace, pod).await?],
        },
        (Some(pod), _) => {
            let (pod, count) = find_pod_among(api, namespace, pod).await?;
            if count > 1 {
                output::note(&format!(
                    "Found {count} pods, using pod/{}",
                    object::name(&pod)
                ));
            }
            vec![pod]
        }
        (None, selector) => {
            let filter = Filter {
                labels: selector.as_deref(),
                fields: None,
            };
            api.list(&Kind::pods(), Some(namespace), filter).await?
        }
    };
    if pods.is_empty() {
        output::note(&format!("No resources found in {} namespace.", namespace));
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
    let usual = args.selector.as_ref().map(|_| TAIL_BY_LABEL);
    if let Some(lines) = args.tail.or(usual).filter(|lines| *lines >= 0) {
        query.push_str(&format!("&tailLines={lines}"));
    }
    if let Some(bytes) = args.limit_bytes {
        query.push_str(&format!("&limitBytes={bytes}"));
    }
    if let Some(time) = args.since_time {
        query.push_str(&format!("&sinceTime={}", escape(&time.to_string())));
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
async fn follow_all(
    api: &Api,
    paths: Vec<(String, String)>,
    ignore_errors: bool,
) -> Result<ExitCode> {
    let (sender, mut printed) = mpsc::channel::<Result<Vec<u8>>>(QUEUE);
    for (path, prefix) in paths {
        let (api, sender) = (api.clone(), sender.clone());
        // task: follows one container's log; ends with the log or the program
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
        match line.context("a container's log broke off") {
            Ok(line) => output::emit_bytes(&line),
            Err(error) if ignore_errors => output::note(&output::failure(&error)),
            Err(error) => return Err(error),
        }
    }
    Ok(ExitCode::SUCCESS)
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

    #[test]
    fn flags_become_parameters() {
        for (line, expected) in [
            ("a", ""),
            (
                "a -f --tail=5 --timestamps",
                "&follow=true&timestamps=true&tailLines=5",
            ),
            ("a --tail=-1 -p", "&previous=true"),
            ("-l app=a", "&tailLines=10"),
            ("-l app=a --tail -1", ""),
            (
                "a --since=2m --limit-bytes=9",
                "&limitBytes=9&sinceSeconds=120",
            ),
            (
                "a --since-time=2026-01-02T15:04:05Z",
                "&sinceTime=2026-01-02T15%3A04%3A05Z",
            ),
        ] {
            let args = Line::parse_from(std::iter::once("logs").chain(line.split(' '))).args;
            assert_eq!(query(&args).expect(line), expected, "{line}");
        }
        let bad = Line::parse_from(["logs", "a", "--since", "abc"]).args;
        assert!(
            query(&bad)
                .expect_err("refused")
                .to_string()
                .contains("30s, 5m or 1h")
        );
    }
}
