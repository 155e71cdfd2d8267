//! `tanbark proxy-status [POD]`: which proxies have the newest configuration, from the control plane's `/debug/syncz`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::admin;
use crate::api::Api;
use crate::object::{self, list, text};
use crate::output::{self, Cell, Report, Table, Tone};
use crate::scope::Scope;
use crate::session::Session;
use crate::target::find_pod;

/// The types in the order of the table.
const TYPES: [(&str, &str); 4] = [
    ("CDS", "cluster"),
    ("LDS", "listener"),
    ("EDS", "endpoint"),
    ("RDS", "route"),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this proxy: POD, POD.NAMESPACE, or KIND/NAME for one of its pods
    pod: Option<String>,
    #[command(flatten)]
    pub scope: Scope,
    #[arg(short, long, value_enum)]
    output: Option<Report>,
}

/// How far a proxy is with a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    Synced,
    /// Sent and not answered yet.
    Stale,
    /// Not asked for.
    NotSent,
    /// Refused; the proxy keeps what it had.
    Rejected,
}

impl Sync {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "SYNCED",
            Self::Stale => "STALE",
            Self::NotSent => "NOT SENT",
            Self::Rejected => "NACK",
        }
    }

    fn cell(self) -> Cell {
        let tone = match self {
            Self::Synced => Tone::Good,
            Self::NotSent => Tone::Faint,
            Self::Stale => Tone::Doubtful,
            Self::Rejected => Tone::Bad,
        };
        Cell(self.as_str().into(), tone)
    }
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRow {
    pub name: String,
    pub cluster: String,
    /// The control plane's pod that it is connected to.
    pub istiod: String,
    pub version: String,
    /// In the order of CDS, LDS, EDS, RDS.
    pub types: [Sync; 4],
    /// What it refused: the type and its words.
    pub rejections: Vec<(String, String)>,
}

impl ProxyRow {
    pub fn is_good(&self) -> bool {
        self.types
            .iter()
            .all(|sync| matches!(sync, Sync::Synced | Sync::NotSent))
            && self.rejections.is_empty()
    }

    fn namespace(&self) -> &str {
        self.name
            .rsplit_once('.')
            .map_or("", |(_, namespace)| namespace)
    }

    pub fn json(&self) -> Value {
        let types: serde_json::Map<String, Value> = TYPES
            .iter()
            .zip(self.types)
            .map(|((name, _), sync)| ((*name).to_owned(), sync.as_str().into()))
            .collect();
        let rejections: Vec<Value> = self
            .rejections
            .iter()
            .map(|(kind, detail)| json!({"type": kind, "detail": detail}))
            .collect();
        json!({"proxy": self.name, "cluster": self.cluster, "istiod": self.istiod, "version": self.version, "types": types, "rejections": rejections})
    }
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let mut rows = rows(&api).await?;
    match &args.pod {
        Some(pod) => {
            let found = find_pod(&api, args.scope.namespace(), pod).await?;
            let name = format!("{}.{}", object::name(&found), object::namespace(&found));
            rows.retain(|row| row.name == name);
            match (rows.is_empty(), object::has_proxy(&found)) {
                (true, true) => bail!("proxy {name} is not connected to the control plane"),
                (true, false) => bail!("pod {name} has no proxy"),
                (false, _) => {}
            }
        }
        None => rows.retain(|row| {
            args.scope
                .chosen()
                .is_none_or(|wanted| row.namespace() == wanted)
        }),
    }
    let report = || Value::Array(rows.iter().map(ProxyRow::json).collect());
    match args.output {
        Some(Report::Json) => output::emit(&output::json(&report())?),
        Some(Report::Yaml) => output::emit(&output::yaml(&report())?),
        Some(Report::Table) | None => print(&rows),
    }
    Ok(ExitCode::SUCCESS)
}

/// Every connected proxy.
pub async fn rows(api: &Api) -> Result<Vec<ProxyRow>> {
    let pod = admin::control_pod(api).await?;
    let page = admin::control_page_of(api, &pod, "/debug/syncz").await?;
    let mut rows = rows_of(&page, object::name(&pod));
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn row(entry: &Value, istiod: &str) -> ProxyRow {
    let resources = entry.get("resources").and_then(Value::as_object);
    let rejections: Vec<(String, String)> = resources
        .into_iter()
        .flatten()
        .filter_map(|(kind, status)| {
            Some((
                short(kind),
                status.get("lastRejection")?.as_str()?.to_owned(),
            ))
        })
        .collect();
    let types = TYPES.map(|(short_name, field)| {
        let (sent, acked) = (
            text(entry, &format!("/{field}_sent")),
            text(entry, &format!("/{field}_acked")),
        );
        match (
            rejections.iter().any(|(kind, _)| kind == short_name),
            sent,
            acked,
        ) {
            (true, _, _) => Sync::Rejected,
            (false, "", _) => Sync::NotSent,
            (false, sent, acked) if sent == acked => Sync::Synced,
            (false, _, _) => Sync::Stale,
        }
    });
    ProxyRow {
        name: text(entry, "/proxy").into(),
        cluster: text(entry, "/cluster_id").into(),
        istiod: istiod.into(),
        version: text(entry, "/istio_version").into(),
        types,
        rejections,
    }
}

/// `CDS` for a type URL.
fn short(type_url: &str) -> String {
    let name = type_url.rsplit('.').next().unwrap_or(type_url);
    match name {
        "Cluster" => "CDS".into(),
        "Listener" => "LDS".into(),
        "RouteConfiguration" => "RDS".into(),
        "ClusterLoadAssignment" => "EDS".into(),
        "Secret" => "SDS".into(),
        "NameTable" => "NDS".into(),
        other => other.into(),
    }
}

pub fn table(rows: &[ProxyRow]) -> Table {
    let mut table = Table::new([
        "NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ISTIOD", "VERSION",
    ]);
    for row in rows {
        let mut cells: Vec<Cell> = vec![row.name.as_str().into(), row.cluster.as_str().into()];
        cells.extend(row.types.iter().map(|sync| sync.cell()));
        cells.push(row.istiod.as_str().into());
        cells.push(row.version.as_str().into());
        table.row(cells);
    }
    table
}

fn print(rows: &[ProxyRow]) {
    if rows.is_empty() {
        output::note("no proxy is connected to the control plane");
        return;
    }
    table(rows).print();
    for row in rows {
        for (kind, detail) in &row.rejections {
            output::say(&format!("{} refused {kind}: {detail}", row.name));
        }
    }
}

fn rows_of(page: &Value, istiod: &str) -> Vec<ProxyRow> {
    list(page, "")
        .iter()
        .map(|entry| row(entry, istiod))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_synced_stale_refusing_or_not_asking() {
        let page = json!([{
            "proxy": "a.default", "cluster_id": "Kubernetes", "istio_version": "1.31.0",
            "cluster_sent": "1", "cluster_acked": "1", "listener_sent": "2", "listener_acked": "1", "endpoint_sent": "", "endpoint_acked": "",
            "route_sent": "3", "route_acked": "1",
            "resources": {"type.googleapis.com/envoy.config.route.v3.RouteConfiguration": {"lastRejection": "bad route"}, "type.googleapis.com/envoy.config.cluster.v3.Cluster": {"lastRejection": null}},
        }]);
        let rows = rows_of(&page, "istiod-1");
        assert_eq!(
            rows[0].types,
            [Sync::Synced, Sync::Stale, Sync::NotSent, Sync::Rejected]
        );
        assert_eq!(
            rows[0].rejections,
            [("RDS".to_owned(), "bad route".to_owned())]
        );
        assert!(!rows[0].is_good());
        assert_eq!(rows[0].namespace(), "default");
        let text = table(&rows).render(crate::output::Colour::Off);
        let line = text.lines().nth(1).expect("a row");
        let cells: Vec<&str> = line
            .split("   ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(
            cells,
            [
                "a.default",
                "Kubernetes",
                "SYNCED",
                "STALE",
                "NOT SENT",
                "NACK",
                "istiod-1",
                "1.31.0"
            ]
        );
    }
}
