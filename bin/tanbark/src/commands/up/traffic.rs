//! Who calls whom, from the Istio metrics of every proxy: differences between two scrapes become rates. Pure but for [`scrape`].
//!
//! An edge is counted at its source where the source has a proxy, since that one sees what never arrived; otherwise at its destination. Whether
//! it is encrypted only the destination knows.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::Value;

use crate::admin::STATISTICS;
use crate::api::{Api, Filter, Port};
use crate::kind::Kind;
use crate::prometheus::{Sample, samples};
use crate::{object, output};

/// Requests and connections since the proxies began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    edges: BTreeMap<Edge, Counts>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    source: String,
    destination: String,
    /// `http`, `grpc`, `tcp`
    protocol: String,
    reporter: Reporter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reporter {
    Source,
    Destination,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Counts {
    requests: f64,
    failed: f64,
    encrypted: f64,
    plain: f64,
    connections: f64,
    /// Upper bounds in milliseconds and requests up to there.
    buckets: BTreeMap<u64, f64>,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    pub source: String,
    pub destination: String,
    pub protocol: String,
    /// Requests (TCP: connections) a second.
    pub rate: f64,
    /// 0 to 100; `None` for TCP.
    pub success: Option<f64>,
    /// Milliseconds.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub encryption: Encryption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    MutualTls,
    Plaintext,
    Unknown,
}

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

impl Totals {
    /// Adds one proxy's statistics.
    pub fn add(&mut self, page: &str) {
        for sample in samples(page, "istio_") {
            match sample.name.as_str() {
                "istio_requests_total" => self.request(&sample),
                "istio_request_duration_milliseconds_bucket" => self.bucket(&sample),
                "istio_tcp_connections_opened_total" => self.connection(&sample),
                _ => {}
            }
        }
    }

    fn counts(&mut self, sample: &Sample) -> &mut Counts {
        let reporter = if sample.label("reporter") == "destination" {
            Reporter::Destination
        } else {
            Reporter::Source
        };
        let destination = match sample.label("destination_workload") {
            // What never reached a workload is named by what was asked for.
            "" | "unknown" => sample.label("destination_service_name").to_owned(),
            workload => in_namespace(workload, sample.label("destination_workload_namespace")),
        };
        let source = in_namespace(
            sample.label("source_workload"),
            sample.label("source_workload_namespace"),
        );
        let edge = Edge {
            source,
            destination,
            protocol: sample.label("request_protocol").to_owned(),
            reporter,
        };
        self.edges.entry(edge).or_default()
    }

    fn request(&mut self, sample: &Sample) {
        let security = encryption(sample);
        let bad = is_failure(sample);
        let counts = self.counts(sample);
        counts.requests += sample.value;
        if bad {
            counts.failed += sample.value;
        }
        counts.secure(security, sample.value);
    }

    fn bucket(&mut self, sample: &Sample) {
        let bound = match sample.label("le") {
            "+Inf" => u64::MAX,
            // Bounds are half milliseconds at the smallest; microseconds keep them apart.
            text => text
                .parse::<f64>()
                .map_or(u64::MAX, |bound| (bound * 1_000.0) as u64),
        };
        *self.counts(sample).buckets.entry(bound).or_default() += sample.value;
    }

    fn connection(&mut self, sample: &Sample) {
        let security = encryption(sample);
        let counts = self.counts(sample);
        counts.connections += sample.value;
        counts.secure(security, sample.value);
    }

    /// What happened between an earlier scrape and this one.
    pub fn since(&self, before: &Totals, elapsed: Duration) -> Vec<Flow> {
        let seconds = elapsed.as_secs_f64().max(0.001);
        let changes: BTreeMap<&Edge, Counts> = self
            .edges
            .iter()
            .map(|(edge, counts)| (edge, counts.minus(before.edges.get(edge))))
            .collect();
        let of = |edge: &Edge, reporter: Reporter| {
            changes.get(&Edge {
                reporter,
                ..edge.clone()
            })
        };
        let mut flows: Vec<Flow> = Vec::new();
        for edge in changes.keys() {
            let source = of(edge, Reporter::Source);
            if edge.reporter == Reporter::Destination
                && source.is_some_and(|counts| counts.requests + counts.connections > 0.0)
            {
                continue;
            }
            let counts = &changes[*edge];
            if counts.requests + counts.connections <= 0.0 {
                continue;
            }
            let security = of(edge, Reporter::Destination).unwrap_or(counts);
            flows.push(counts.flow(edge, security, seconds));
        }
        flows.sort_by(|a, b| {
            b.rate
                .total_cmp(&a.rate)
                .then_with(|| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)))
        });
        flows
    }
}

impl Counts {
    fn secure(&mut self, encryption: Encryption, value: f64) {
        match encryption {
            Encryption::MutualTls => self.encrypted += value,
            Encryption::Plaintext => self.plain += value,
            Encryption::Unknown => {}
        }
    }

    /// A counter that went back began anew.
    fn minus(&self, before: Option<&Counts>) -> Counts {
        let Some(before) = before else {
            return self.clone();
        };
        let less = |now: f64, before: f64| if now < before { now } else { now - before };
        Counts {
            requests: less(self.requests, before.requests),
            failed: less(self.failed, before.failed),
            encrypted: less(self.encrypted, before.encrypted),
            plain: less(self.plain, before.plain),
            connections: less(self.connections, before.connections),
            buckets: self
                .buckets
                .iter()
                .map(|(bound, count)| {
                    (
                        *bound,
                        less(*count, before.buckets.get(bound).copied().unwrap_or(0.0)),
                    )
                })
                .collect(),
        }
    }

    fn flow(&self, edge: &Edge, security: &Counts, seconds: f64) -> Flow {
        let http = self.requests > 0.0;
        Flow {
            source: edge.source.clone(),
            destination: edge.destination.clone(),
            protocol: edge.protocol.clone(),
            rate: (self.requests + self.connections) / seconds,
            success: http.then(|| 100.0 * (self.requests - self.failed) / self.requests),
            p50: http.then(|| self.quantile(0.5)).flatten(),
            p99: http.then(|| self.quantile(0.99)).flatten(),
            encryption: match (security.encrypted > 0.0, security.plain > 0.0) {
                (_, true) => Encryption::Plaintext,
                (true, false) => Encryption::MutualTls,
                (false, false) => Encryption::Unknown,
            },
        }
    }

    /// Milliseconds, interpolated within a bucket as Prometheus does it.
    fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.buckets.values().copied().fold(0.0, f64::max);
        if total <= 0.0 {
            return None;
        }
        let rank = share * total;
        let (mut below, mut low) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *bound == u64::MAX {
                break;
            }
            let high = *bound as f64 / 1_000.0;
            if *count >= rank {
                let within = *count - below;
                return Some(if within > 0.0 {
                    low + (high - low) * (rank - below) / within
                } else {
                    high
                });
            }
            (below, low) = (*count, high);
        }
        Some(low)
    }
}

fn encryption(sample: &Sample) -> Encryption {
    match sample.label("connection_security_policy") {
        "mutual_tls" => Encryption::MutualTls,
        "none" => Encryption::Plaintext,
        _ => Encryption::Unknown,
    }
}

/// No answer, a server's error, or gRPC's equal of one.
fn is_failure(sample: &Sample) -> bool {
    let code = sample.label("response_code");
    let grpc = sample.label("grpc_response_status");
    code == "0" || code.starts_with('5') || ["2", "4", "12", "13", "14", "15"].contains(&grpc)
}

fn in_namespace(workload: &str, namespace: &str) -> String {
    match namespace {
        "" | "unknown" | "default" => workload.to_owned(),
        namespace => format!("{workload}.{namespace}"),
    }
}

/// The table, or a hint when nothing moves.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(reporter: &str, policy: &str, ok: u32, bad: u32) -> String {
        let labels = format!(
            "reporter=\"{reporter}\",source_workload=\"a\",source_workload_namespace=\"default\",destination_workload=\"b\",destination_workload_namespace=\"shop\",request_protocol=\"http\",connection_security_policy=\"{policy}\""
        );
        format!(
            "istio_requests_total{{{labels},response_code=\"200\"}} {ok}\nistio_requests_total{{{labels},response_code=\"503\"}} {bad}\n\
             istio_request_duration_milliseconds_bucket{{{labels},le=\"5\"}} {}\nistio_request_duration_milliseconds_bucket{{{labels},le=\"10\"}} {}\nistio_request_duration_milliseconds_bucket{{{labels},le=\"+Inf\"}} {}\n",
            ok / 2,
            ok,
            ok + bad
        )
    }

    fn totals(pages: &[String]) -> Totals {
        let mut totals = Totals::default();
        pages.iter().for_each(|page| totals.add(page));
        totals
    }

    #[test]
    fn an_edge_is_counted_once_and_knows_its_encryption_from_its_end() {
        let before = totals(&[
            page("source", "unknown", 10, 0),
            page("destination", "mutual_tls", 10, 0),
        ]);
        let after = totals(&[
            page("source", "unknown", 108, 2),
            page("destination", "mutual_tls", 108, 0),
        ]);
        let flows = after.since(&before, Duration::from_secs(2));
        assert_eq!(flows.len(), 1);
        let flow = &flows[0];
        assert_eq!(
            (flow.source.as_str(), flow.destination.as_str()),
            ("a", "b.shop")
        );
        assert!((flow.rate - 50.0).abs() < 1e-9, "{flow:?}");
        assert!((flow.success.expect("HTTP") - 98.0).abs() < 1e-9);
        assert_eq!(flow.encryption, Encryption::MutualTls);
        assert!(flow.p50.expect("a quantile") > 4.0 && flow.p50.expect("a quantile") < 6.0);
        assert!((flow.p99.expect("a quantile") - 10.0).abs() < 1e-9);
    }

    #[test]
    fn plaintext_from_outside_of_the_mesh_is_shown_by_its_destination() {
        let after = totals(&[page("destination", "none", 4, 0)]);
        let flows = after.since(&Totals::default(), Duration::from_secs(2));
        assert_eq!(flows[0].encryption, Encryption::Plaintext);
        assert!(after.since(&after, Duration::from_secs(2)).is_empty());
    }
}
