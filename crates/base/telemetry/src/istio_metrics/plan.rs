//! What one filter's configuration changes: metrics dropped, labels removed, replaced or added by
//! expressions.
//!
//! The Telemetry API reaches the proxy as `stats.PluginConfig.metrics`; [`Plan::parse`] takes that
//! as data. An expression that fails for a request gives the value `unknown`, as in Istio.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Metric;
use super::labels::{Edge, RequestLabels, STANDARD};
use crate::Error;
use crate::cel::Expression;
use crate::record::Record;

static NEXT_PLAN: AtomicU64 = AtomicU64::new(1);

/// One entry of the configuration's `metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricConfig {
    /// Without `istio_`, for example `requests_total`; empty: all metrics.
    pub name: String,
    pub drop: bool,
    pub tags_to_remove: Vec<String>,
    /// Label → CEL expression. A standard label is replaced, another is added.
    pub dimensions: BTreeMap<String, String>,
}

/// The compiled configuration. `Plan::default()` changes nothing.
#[derive(Debug, Default)]
pub struct Plan {
    id: u64,
    dropped: Vec<Metric>,
    expressions: Vec<Expression>,
    /// Standard labels that are removed (`None`) or replaced by an expression's value.
    changes: HashMap<(Metric, &'static str), Option<usize>>,
    /// Further labels in the order they are printed.
    additions: Vec<(Metric, String, usize)>,
}

impl Plan {
    /// Compiles the entries in order. What cannot be followed is left out and reported.
    pub fn parse(entries: &[MetricConfig]) -> (Self, Vec<Error>) {
        let mut plan = Self {
            id: NEXT_PLAN.fetch_add(1, Ordering::Relaxed),
            ..Self::default()
        };
        let mut problems = Vec::new();
        let mut known = HashMap::new();
        for entry in entries {
            let metrics: Vec<Metric> = match entry.name.as_str() {
                "" => Metric::ALL.to_vec(),
                name => match Metric::from_config_name(name) {
                    Some(metric) => vec![metric],
                    None => {
                        problems.push(Error::Unsupported(format!("metric `{name}`")));
                        continue;
                    }
                },
            };
            if entry.drop {
                plan.dropped.extend(metrics);
                continue;
            }
            for tag in &entry.tags_to_remove {
                match standard(tag) {
                    Some(label) => plan
                        .changes
                        .extend(metrics.iter().map(|metric| ((*metric, label), None))),
                    None => problems.push(Error::Unsupported(format!(
                        "removing `{tag}`, which is not a standard label"
                    ))),
                }
            }
            for (tag, expression) in &entry.dimensions {
                let index = match plan.expression(expression, &mut known) {
                    Ok(index) => index,
                    Err(error) => {
                        problems.push(error);
                        continue;
                    }
                };
                match standard(tag) {
                    Some(label) => plan
                        .changes
                        .extend(metrics.iter().map(|metric| ((*metric, label), Some(index)))),
                    None => plan.additions.extend(
                        metrics
                            .iter()
                            .map(|metric| (*metric, crate::stats::prometheus_name(tag), index)),
                    ),
                }
            }
        }
        (plan, problems)
    }

    fn expression(
        &mut self,
        text: &str,
        known: &mut HashMap<String, usize>,
    ) -> Result<usize, Error> {
        if let Some(index) = known.get(text) {
            return Ok(*index);
        }
        self.expressions.push(Expression::parse(text)?);
        let index = self.expressions.len() - 1;
        known.insert(text.to_string(), index);
        Ok(index)
    }

    /// The header names that its expressions read.
    pub fn needs(&self) -> crate::needs::Needs {
        let mut needs = crate::needs::Needs::default();
        self.expressions
            .iter()
            .for_each(|expression| expression.add_needs(&mut needs));
        needs
    }

    /// Whether the metric is not reported.
    pub fn drops(&self, metric: Metric) -> bool {
        self.dropped.contains(&metric)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The expressions' values for one record; empty when there are none.
    pub(super) fn values(&self, record: &Record) -> Box<[String]> {
        let value = |expression: &Expression| match expression.evaluate(record) {
            Ok(value) => value.to_text(),
            Err(_) => "unknown".to_string(),
        };
        self.expressions.iter().map(value).collect()
    }

    /// The labels of a series as Prometheus prints them.
    pub(super) fn label_text(
        &self,
        metric: Metric,
        edge: &Edge,
        request: RequestLabels,
        values: &[String],
    ) -> String {
        let mut text = String::with_capacity(1024);
        let mut push = |name: &str, value: &str| {
            let separator = if text.is_empty() { "" } else { "," };
            text.push_str(&format!(
                "{separator}{name}=\"{}\"",
                crate::stats::escape_label(value)
            ));
        };
        let of_request = request.labels(edge);
        let of_edge = edge.labels().iter().map(|(name, value)| (*name, &**value));
        for (name, value) in of_edge.chain(
            of_request
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        ) {
            match self.changes.get(&(metric, name)) {
                None => push(name, value),
                Some(None) => {}
                Some(Some(index)) => {
                    push(name, values.get(*index).map_or("unknown", String::as_str))
                }
            }
        }
        for (_, name, index) in self.additions.iter().filter(|(of, ..)| *of == metric) {
            push(name, values.get(*index).map_or("unknown", String::as_str));
        }
        text
    }
}

fn standard(tag: &str) -> Option<&'static str> {
    STANDARD.into_iter().find(|label| *label == tag)
}
