//! `tanbark events`: what happened, the oldest first, as `kubectl events` has it; the rows are
//! those of `get events`.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::get;
use crate::kind::Kind;
use crate::output::Format;
use crate::scope::Scope;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub scope: Scope,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those about one object
    #[arg(long = "for", value_name = "KIND/NAME")]
    about: Option<String>,
    /// Only those of these types (`Normal`, `Warning`)
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Print what happens until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Without the line of titles
    #[arg(long)]
    no_headers: bool,
    /// One of wide, json, yaml, name, jsonpath=TEMPLATE, custom-columns=TITLE:PATH,…
    #[arg(short, long, value_parser = Format::parse)]
    output: Option<Format>,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let field_selector = selector(args.about.as_deref(), &args.types)?;
    let Args {
        scope,
        all_namespaces,
        about: _,
        types: _,
        watch,
        no_headers,
        output,
    } = args;
    let get = get::Args {
        what: Some("events".into()),
        scope,
        all_namespaces,
        field_selector,
        output,
        watch,
        no_headers,
        ..get::Args::default()
    };
    get::run(get, session).await
}

/// The field selector of events about an object and of a type.
fn selector(about: Option<&str>, types: &[String]) -> Result<Option<String>> {
    let mut parts = Vec::new();
    if let Some(about) = about {
        let Some((kind, name)) = about.split_once('/').filter(|(_, name)| !name.is_empty()) else {
            bail!("--for must be KIND/NAME, and `{about}` is not");
        };
        let kind = Kind::typed(kind)?.kind;
        parts.push(format!(
            "involvedObject.kind={kind},involvedObject.name={name}"
        ));
    }
    let known = ["Normal", "Warning"];
    let mut wanted = Vec::new();
    for given in types {
        match known.iter().find(|known| known.eq_ignore_ascii_case(given)) {
            Some(known) => wanted.push(*known),
            None => bail!("valid --types are Normal or Warning, and `{given}` is neither"),
        }
    }
    wanted.dedup();
    if let [one] = wanted.as_slice() {
        parts.push(format!("type={one}"));
    }
    Ok((!parts.is_empty()).then(|| parts.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_chosen_by_object_and_type() {
        let chosen = |about: Option<&str>, types: &[&str]| {
            let types: Vec<String> = types.iter().map(|&name| name.into()).collect();
            selector(about, &types)
        };
        assert_eq!(chosen(None, &[]).expect("understood"), None);
        assert_eq!(
            chosen(Some("po/a"), &["warning"])
                .expect("understood")
                .as_deref(),
            Some("involvedObject.kind=Pod,involvedObject.name=a,type=Warning")
        );
        assert_eq!(
            chosen(None, &["Normal", "Warning"]).expect("understood"),
            None
        );
        for (about, types) in [(Some("a"), &[][..]), (Some("po/"), &[]), (None, &["Odd"])] {
            assert!(chosen(about, types).is_err(), "{about:?} {types:?}");
        }
    }
}
