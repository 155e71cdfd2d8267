//! Traffic on the terminal: scrapes of all proxies, and the table of what [`graph`] makes of them.

use futures_util::future::join_all;
use graph::{Encryption, Flow, Totals};
use http::Method;
use serde_json::Value;

use crate::admin::STATISTICS;
use crate::api::{Api, Filter, Port};
use crate::kind::Kind;
use crate::{object, output};

/// Scrapes all proxies of the mesh; one that does not answer is left out.
pub async fn scrape(api: &Api) -> anyhow::Result<Totals> {
    let pods = api.list(&Kind::pods(), None, Filter::default()).await?;
    let proxied: Vec<&Value> = pods
        .iter()
        .filter(|pod| object::has_proxy(pod) && !object::deleting(pod))
        .collect();
    let pages = join_all(proxied.iter().map(|pod| {
        let to = Port {
            namespace: object::namespace(pod),
            pod: object::name(pod),
            port: STATISTICS,
        };
        api.pod(Method::GET, to, "/stats/prometheus")
    }));
    let mut totals = Totals::default();
    for page in pages.await.into_iter().flatten() {
        totals.add(&String::from_utf8_lossy(&page));
    }
    Ok(totals)
}

/// One row for each edge.
pub fn table(flows: &[Flow]) -> output::Table {
    use output::{Cell, Tone};
    let mut table = output::Table::new([
        "",
        "SOURCE",
        "DESTINATION",
        "PROTOCOL",
        "REQ/S",
        "SUCCESS",
        "P50",
        "P99",
    ]);
    let milliseconds = |value: Option<f64>| {
        value.map_or_else(
            || "-".into(),
            |value| {
                if value < 10.0 {
                    format!("{value:.1}ms")
                } else {
                    format!("{value:.0}ms")
                }
            },
        )
    };
    for flow in flows {
        let (sign, tone) = match flow.encryption {
            Encryption::MutualTls => ("🔒", Tone::Good),
            Encryption::Plaintext => ("⚠", Tone::Doubtful),
            Encryption::Unknown => (" ", Tone::Faint),
        };
        let (success, success_tone) = match flow.success {
            None => ("-".to_owned(), Tone::Faint),
            Some(share) if share >= 99.95 => ("100%".to_owned(), Tone::Good),
            Some(share) => (
                format!("{share:.1}%"),
                if share >= 99.0 {
                    Tone::Doubtful
                } else {
                    Tone::Bad
                },
            ),
        };
        table.row([
            Cell(sign.into(), tone),
            flow.source.as_str().into(),
            flow.destination.as_str().into(),
            flow.protocol.as_str().into(),
            format!("{:.1}", flow.rate).into(),
            Cell(success, success_tone),
            milliseconds(flow.p50).into(),
            milliseconds(flow.p99).into(),
        ]);
    }
    table
}
