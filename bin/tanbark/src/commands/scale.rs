//! `tanbark scale KIND/NAME --replicas N`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use http::Method;
use serde_json::json;

use crate::api::Payload;
use crate::kind::Kind;
use crate::output::{self, Format};
use crate::scope::Scope;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// `deploy/NAME`, `rs/NAME` or `sts/NAME`
    #[arg(required = true, value_name = "KIND/NAME")]
    targets: Vec<String>,
    #[command(flatten)]
    pub scope: Scope,
    /// Number of pods
    #[arg(long)]
    replicas: u32,
    /// One of json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_parser = Format::parse)]
    output: Option<Format>,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    for (kind, name) in named(&args.targets)? {
        if !["Deployment", "ReplicaSet", "StatefulSet"].contains(&kind.kind.as_str()) {
            bail!("cannot scale a {}", kind.kind);
        }
        let path = format!(
            "{}/scale",
            kind.path(Some(args.scope.namespace()), Some(&name))
        );
        api.json(
            Method::PATCH,
            &path,
            Payload::merge_patch(&json!({"spec": {"replicas": args.replicas}})),
        )
        .await?;
        match &args.output {
            None => output::say(&format!("{}/{name} scaled", kind.singular())),
            Some(format) => {
                let object = api.get(&kind, args.scope.namespace(), &name).await?;
                output::emit(&output::one_of_many(format, &kind, &object)?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `KIND/NAME…` or `KIND NAME…`.
pub fn named(words: &[String]) -> Result<Vec<(Kind, String)>> {
    if let Some((kind, names)) = words.split_first()
        && !kind.contains('/')
        && !names.is_empty()
    {
        let kind = Kind::typed(kind)?;
        return Ok(names
            .iter()
            .map(|name| (kind.clone(), name.clone()))
            .collect());
    }
    words
        .iter()
        .map(|word| match word.split_once('/') {
            Some((kind, name)) if !name.is_empty() => Ok((Kind::typed(kind)?, name.to_owned())),
            _ => bail!("`{word}` names no object: write KIND/NAME"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_with_their_kind_or_after_it() {
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            named(&words).map(|all| {
                all.into_iter()
                    .map(|(kind, name)| format!("{}/{name}", kind.kind))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            names(&["deploy/a", "sts/b"]).expect("names"),
            ["Deployment/a", "StatefulSet/b"]
        );
        assert_eq!(
            names(&["deploy", "a", "b"]).expect("names"),
            ["Deployment/a", "Deployment/b"]
        );
        assert!(names(&["deploy"]).is_err());
        assert!(names(&["deploy/"]).is_err());
    }
}
