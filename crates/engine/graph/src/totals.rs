//! The counters of all proxies, by edge.
//!
//! Several proxies of one workload (replicas) add up to one edge. The view of the source and that
//! of the destination are kept apart until [`Totals::since`] chooses between them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::counts::Counts;
use crate::exposition::{Sample, samples};
use crate::flow::{Encryption, Flow};

/// Requests and connections of all proxies that were added, since each of them began.
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

impl Totals {
    /// Adds one proxy's page of `/stats/prometheus`.
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

    /// What happened between an earlier scrape and this one, `elapsed` before it; the busiest edge
    /// first.
    pub fn since(&self, before: &Totals, elapsed: Duration) -> Vec<Flow> {
        let seconds = elapsed.as_secs_f64().max(0.001);
        let changes: BTreeMap<&Edge, Counts> = self
            .edges
            .iter()
            .map(|(edge, counts)| (edge, counts.minus(before.edges.get(edge))))
            .collect();
        let mut flows: Vec<Flow> = changes
            .iter()
            .filter(|(edge, counts)| !counts.is_empty() && !is_counted_at_source(edge, &changes))
            .map(|(edge, counts)| {
                let at_destination = changes.get(&edge.seen_by(Reporter::Destination));
                flow(edge, counts, at_destination.unwrap_or(counts), seconds)
            })
            .collect();
        flows.sort_by(|a, b| {
            b.rate
                .total_cmp(&a.rate)
                .then_with(|| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)))
        });
        flows
    }
}

impl Edge {
    fn seen_by(&self, reporter: Reporter) -> Self {
        Self {
            reporter,
            ..self.clone()
        }
    }
}

/// Is this the destination's view of an edge whose source counted it too?
fn is_counted_at_source(edge: &Edge, changes: &BTreeMap<&Edge, Counts>) -> bool {
    edge.reporter == Reporter::Destination
        && changes
            .get(&edge.seen_by(Reporter::Source))
            .is_some_and(|counts| !counts.is_empty())
}

/// One edge's traffic over so many seconds. `at_destination` tells its encryption.
fn flow(edge: &Edge, counts: &Counts, at_destination: &Counts, seconds: f64) -> Flow {
    let http = counts.requests > 0.0;
    Flow {
        source: edge.source.clone(),
        destination: edge.destination.clone(),
        protocol: edge.protocol.clone(),
        rate: (counts.requests + counts.connections) / seconds,
        success: http.then(|| 100.0 * (counts.requests - counts.failed) / counts.requests),
        p50: http.then(|| counts.quantile(0.5)).flatten(),
        p99: http.then(|| counts.quantile(0.99)).flatten(),
        encryption: at_destination.encryption(),
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
