//! `tanbark status`: the mesh at a glance. Exit code 1 with `--exit-code` when something is wrong.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::proxy_status::{self, ProxyRow};
use crate::admin;
use crate::api::{Api, Filter};
use crate::commands::up::pages::{self, Page};
use crate::commands::up::report;
use crate::kind::Kind;
use crate::object::{self, list, text};
use crate::output::{self, Colour, Report, Tone};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum)]
    output: Option<Report>,
    /// End with code 1 when something is wrong
    #[arg(long)]
    exit_code: bool,
}

/// Everything that is shown.
struct Status {
    /// Name and readiness of each of its pods.
    control_plane: Vec<(String, bool)>,
    summary: Value,
    pages: Vec<Page>,
    proxies: Result<Vec<ProxyRow>>,
    /// Pods with a proxy that is not connected.
    disconnected: Vec<String>,
    /// Objects that say of themselves that something is wrong with them.
    complaints: Vec<Complaint>,
}

struct Complaint {
    subject: String,
    level: String,
    message: String,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let status = gather(&api).await?;
    match args.output {
        Some(Report::Json) => output::emit(&output::json(&status.json())?),
        Some(Report::Yaml) => output::emit(&output::yaml(&status.json())?),
        Some(Report::Table) | None => status.print(),
    }
    let failed = args.exit_code && !status.is_good();
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn gather(api: &Api) -> Result<Status> {
    let summary = api.client().summary().await?;
    let control = admin::control_plane(api).await?;
    let proxies = proxy_status::rows(api).await;
    let pods = api.list(&Kind::pods(), None, Filter::default()).await?;
    let connected: Vec<&str> = proxies
        .as_ref()
        .map(|rows| rows.iter().map(|row| row.name.as_str()).collect())
        .unwrap_or_default();
    let runs = |pod: &&Value| {
        object::has_proxy(pod) && !object::deleting(pod) && text(pod, "/status/phase") == "Running"
    };
    let names = pods
        .iter()
        .filter(runs)
        .map(|pod| format!("{}.{}", object::name(pod), object::namespace(pod)));
    let disconnected = names
        .filter(|name| !connected.contains(&name.as_str()))
        .collect();
    Ok(Status {
        control_plane: control
            .iter()
            .map(|pod| (object::name(pod).to_owned(), object::ready(pod)))
            .collect(),
        disconnected,
        complaints: complaints(api, &summary).await?,
        pages: pages::find(api, &summary).await?,
        summary,
        proxies,
    })
}

/// What the control plane wrote into objects, where the runtime's list of problems does not say it already with a place.
async fn complaints(api: &Api, summary: &Value) -> Result<Vec<Complaint>> {
    let placed: Vec<&str> = list(summary, "/problems")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut complaints = Vec::new();
    for kind in machine::store::kinds::ALL
        .iter()
        .filter(|kind| kind.group.ends_with("istio.io"))
    {
        let kind = Kind::from(kind);
        for each in api.list(&kind, None, Filter::default()).await? {
            let subject = format!(
                "{} {}/{}",
                kind.kind,
                object::namespace(&each),
                object::name(&each)
            );
            for message in list(&each, "/status/validationMessages") {
                let words = text(message, "/message");
                if text(message, "/level") != "INFO"
                    && !placed
                        .iter()
                        .any(|problem| problem.contains(&subject) && problem.contains(words))
                {
                    complaints.push(Complaint {
                        subject: subject.clone(),
                        level: text(message, "/level").into(),
                        message: words.into(),
                    });
                }
            }
        }
    }
    Ok(complaints)
}

impl Status {
    fn is_good(&self) -> bool {
        let count = |pointer: &str| {
            self.summary
                .pointer(pointer)
                .and_then(Value::as_u64)
                .unwrap_or(0)
        };
        self.control_plane.iter().all(|(_, ready)| *ready)
            && count("/pods/ready") == count("/pods/total")
            && !list(&self.summary, "/problems")
                .iter()
                .filter_map(Value::as_str)
                .any(report::is_error)
            && self.disconnected.is_empty()
            && self
                .complaints
                .iter()
                .all(|complaint| complaint.level != "ERROR")
            && self
                .proxies
                .as_ref()
                .is_ok_and(|rows| rows.iter().all(ProxyRow::is_good))
    }

    fn json(&self) -> Value {
        let control: Vec<Value> = self
            .control_plane
            .iter()
            .map(|(name, ready)| json!({"pod": name, "ready": ready}))
            .collect();
        let complaints: Vec<Value> = self.complaints.iter().map(|complaint| json!({"object": complaint.subject, "level": complaint.level, "message": complaint.message})).collect();
        let (proxies, error) = match &self.proxies {
            Ok(rows) => (rows.iter().map(ProxyRow::json).collect(), Value::Null),
            Err(error) => (Vec::new(), format!("{error:#}").into()),
        };
        json!({
            "good": self.is_good(), "controlPlane": control, "pods": self.summary.get("pods"), "notReady": self.summary.get("notReady"),
            "urls": self.pages.iter().map(|page| json!({"url": page.url, "what": page.what})).collect::<Vec<_>>(),
            "proxies": proxies, "proxiesError": error, "disconnected": self.disconnected,
            "problems": self.summary.get("problems"), "objects": complaints,
        })
    }

    fn print(&self) {
        let colour = Colour::of(&std::io::stdout());
        if self.control_plane.is_empty() {
            output::say("control plane: none runs");
        }
        for (name, ready) in &self.control_plane {
            let (word, tone) = if *ready {
                ("ready", Tone::Good)
            } else {
                ("not ready", Tone::Bad)
            };
            output::say(&format!(
                "control plane: {name} {}",
                colour.paint(word, tone)
            ));
        }
        output::emit(&report::text(&self.summary, &self.pages, colour));
        match &self.proxies {
            Err(error) => output::say(&format!(
                "proxies: {}",
                colour.paint(&format!("{error:#}"), Tone::Bad)
            )),
            Ok(rows) => self.print_proxies(rows, colour),
        }
        for complaint in &self.complaints {
            let (word, tone) = if complaint.level == "ERROR" {
                ("problem:", Tone::Bad)
            } else {
                ("warning:", Tone::Doubtful)
            };
            output::say(&format!(
                "{} {}: {}",
                colour.paint(word, tone),
                complaint.subject,
                complaint.message
            ));
        }
    }

    fn print_proxies(&self, rows: &[ProxyRow], colour: Colour) {
        let synced = rows.iter().filter(|row| row.is_good()).count();
        let total = rows.len() + self.disconnected.len();
        let tone = if synced == total {
            Tone::Good
        } else {
            Tone::Doubtful
        };
        output::say(&colour.paint(&format!("{synced}/{total} proxies in sync"), tone));
        let late: Vec<ProxyRow> = rows.iter().filter(|row| !row.is_good()).cloned().collect();
        if !late.is_empty() {
            output::emit(&proxy_status::table(&late).render(colour));
        }
        for row in &late {
            for (kind, detail) in &row.rejections {
                output::say(&format!(
                    "{} {} refused {kind}: {detail}",
                    colour.paint("NACK:", Tone::Bad),
                    row.name
                ));
            }
        }
        for name in &self.disconnected {
            output::say(&format!(
                "{} {name} is not connected to the control plane",
                colour.paint("proxy:", Tone::Bad)
            ));
        }
    }
}
