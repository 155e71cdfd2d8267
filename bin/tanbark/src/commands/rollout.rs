//! `tanbark rollout restart|status KIND/NAME`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};

use super::scale::named;
use crate::api::{Api, Payload};
use crate::kind::Kind;
use crate::object;
use crate::output::{self, Format};
use crate::scope::Scope;
use crate::session::Session;

/// How often the state of a rollout is looked at.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Replace the pods of workloads, a few at a time
    Restart(Restart),
    /// Wait until workloads run as they are to
    Status(Status),
}

#[derive(Debug, clap::Args)]
pub struct Restart {
    /// `deploy/NAME`, `sts/NAME` or `ds/NAME`
    #[arg(required = true, value_name = "KIND/NAME")]
    targets: Vec<String>,
    #[command(flatten)]
    pub scope: Scope,
    /// One of json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_parser = Format::parse)]
    output: Option<Format>,
}

#[derive(Debug, clap::Args)]
pub struct Status {
    /// `deploy/NAME`, `sts/NAME` or `ds/NAME`
    #[arg(required = true, value_name = "KIND/NAME")]
    targets: Vec<String>,
    #[command(flatten)]
    pub scope: Scope,
    /// How long to wait; 0 waits for ever
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    timeout: String,
    /// `false`: say how far it is and end
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    watch: bool,
}

/// Where the command looks.
pub fn scope_mut(command: &mut Command) -> &mut Scope {
    match command {
        Command::Restart(args) => &mut args.scope,
        Command::Status(args) => &mut args.scope,
    }
}

pub async fn run(command: Command, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    match command {
        Command::Restart(args) => restart(&api, &args).await,
        Command::Status(args) => status(&api, &args).await,
    }
}

async fn restart(api: &Api, args: &Restart) -> Result<ExitCode> {
    for (kind, name) in named(&args.targets)? {
        if !["Deployment", "StatefulSet", "DaemonSet"].contains(&kind.kind.as_str()) {
            bail!("{} restarting is not supported", kind.plural);
        }
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
        let path = kind.path(Some(args.scope.namespace()), Some(&name));
        let object = api
            .json(Method::PATCH, &path, Payload::merge_patch(&patch))
            .await?;
        match &args.output {
            None => output::say(&format!("{}/{name} restarted", kind.singular())),
            Some(format) => output::emit(&output::one_of_many(format, &kind, &object)?),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(api: &Api, args: &Status) -> Result<ExitCode> {
    let timeout = wire_kube::duration::parse(&args.timeout)
        .map_err(|why| anyhow::anyhow!("--timeout: {} {why}", args.timeout))?;
    let deadline = (!timeout.is_zero()).then(|| Instant::now() + timeout);
    for (kind, name) in named(&args.targets)? {
        let mut told = String::new();
        loop {
            let workload = api.get(&kind, args.scope.namespace(), &name).await?;
            let waiting = unfinished(&kind, &workload)?;
            let Some(waiting) = waiting else {
                output::say(&format!(
                    "{} \"{name}\" successfully rolled out",
                    noun(&kind)
                ));
                break;
            };
            if told != waiting {
                output::say(&format!(
                    "Waiting for {} \"{name}\" rollout to finish: {waiting}...",
                    noun(&kind)
                ));
                told = waiting;
            }
            if !args.watch {
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                bail!("timed out waiting for the condition");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The kind in kubectl's sentences.
fn noun(kind: &Kind) -> String {
    match kind.kind.as_str() {
        "DaemonSet" => "daemon set".into(),
        other => other.to_lowercase(),
    }
}

/// What a rollout still waits for; `None` when it is done.
fn unfinished(kind: &Kind, workload: &Value) -> Result<Option<String>> {
    let count = |pointer: &str| object::number(workload, pointer);
    if count("/status/observedGeneration") < count("/metadata/generation") {
        return Ok(Some("the change has not been taken up yet".into()));
    }
    let wanted = workload
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1);
    Ok(match kind.kind.as_str() {
        "Deployment" => {
            let (updated, all, available) = (
                count("/status/updatedReplicas"),
                count("/status/replicas"),
                count("/status/availableReplicas"),
            );
            if updated < wanted {
                Some(format!(
                    "{updated} out of {wanted} new replicas have been updated"
                ))
            } else if all > updated {
                Some(format!(
                    "{} old replicas are pending termination",
                    all - updated
                ))
            } else if available < updated {
                Some(format!(
                    "{available} of {updated} updated replicas are available"
                ))
            } else {
                None
            }
        }
        "StatefulSet" => {
            let (updated, ready) = (
                count("/status/updatedReplicas"),
                count("/status/readyReplicas"),
            );
            (updated < wanted || ready < wanted)
                .then(|| format!("{ready} of {wanted} pods are ready"))
        }
        "DaemonSet" => {
            let (wanted, available) = (
                count("/status/desiredNumberScheduled"),
                count("/status/numberAvailable"),
            );
            (available < wanted)
                .then(|| format!("{available} of {wanted} updated pods are available"))
        }
        other => bail!("no status of a rollout for a {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_done_when_only_new_pods_are_there_and_available() {
        let kind = Kind::typed("deploy").expect("known");
        let state = |updated: i64, all: i64, available: i64| {
            let workload = json!({"metadata": {"generation": 2}, "spec": {"replicas": 3},
                "status": {"observedGeneration": 2, "updatedReplicas": updated, "replicas": all, "availableReplicas": available}});
            unfinished(&kind, &workload).expect("a Deployment")
        };
        assert_eq!(
            state(1, 4, 3).as_deref(),
            Some("1 out of 3 new replicas have been updated")
        );
        assert_eq!(
            state(3, 4, 3).as_deref(),
            Some("1 old replicas are pending termination")
        );
        assert_eq!(
            state(3, 3, 2).as_deref(),
            Some("2 of 3 updated replicas are available")
        );
        assert_eq!(state(3, 3, 3), None);
    }
}
