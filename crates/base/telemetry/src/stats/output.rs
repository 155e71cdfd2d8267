//! Text of the statistics: Envoy's plain, JSON and Prometheus answers.
//!
//! A scrape first collects what is shown (filter, matcher, same names added up), then prints.
//! Orders are Envoy's: texts, then counters and gauges by name, then histograms; for Prometheus by
//! kind, then name without tags.

use std::collections::BTreeMap;
use std::fmt::Write;

use regex::Regex;
use serde_json::json;

use super::cells::gauge_value;
use super::histogram::{HistogramSummary, QUANTILES};
use super::tags::{TagRules, Tags, prometheus_name};
use super::{Node, Settings, Store};
use crate::Error;

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
    Prometheus,
}

/// Which kinds are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kinds {
    #[default]
    All,
    Counters,
    Gauges,
    Histograms,
    TextReadouts,
}

/// What a reader of `/stats` asks for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Names must contain a match.
    pub filter: Option<Regex>,
    /// Only what was written since the start.
    pub used_only: bool,
    pub format: Format,
    /// Which kinds.
    pub kinds: Kinds,
    /// Prometheus: texts as gauges with a label `text_value`.
    pub text_readouts: bool,
}

impl Query {
    /// From a URL's query part:
    /// `filter=…&usedonly&format=json|prometheus|text&type=Counters&text_readouts`. Unknown
    /// parameters are ignored, as in Envoy.
    ///
    /// # Errors
    /// `filter` is not a regular expression; `format` or `type` is unknown.
    pub fn parse(query: &str) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "filter" => parsed.filter = filter(&percent_decode(value))?,
                "usedonly" => parsed.used_only = true,
                "text_readouts" => parsed.text_readouts = true,
                "format" => {
                    parsed.format = match value {
                        "json" => Format::Json,
                        "prometheus" => Format::Prometheus,
                        "text" | "" => Format::Text,
                        _ => return Err(Error::Unsupported(format!("stats format `{value}`"))),
                    }
                }
                "type" => {
                    parsed.kinds = match value {
                        "All" => Kinds::All,
                        "Counters" => Kinds::Counters,
                        "Gauges" => Kinds::Gauges,
                        "Histograms" => Kinds::Histograms,
                        "TextReadouts" => Kinds::TextReadouts,
                        _ => return Err(Error::Unsupported(format!("stats type `{value}`"))),
                    }
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Whether a name passes the filter.
    pub fn wants(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.is_match(name))
    }

    fn wants_kind(&self, kind: Kinds) -> bool {
        self.kinds == Kinds::All || self.kinds == kind
    }
}

fn filter(pattern: &str) -> Result<Option<Regex>, Error> {
    if pattern.is_empty() {
        return Ok(None);
    }
    let regex = Regex::new(pattern);
    regex.map(Some).map_err(|error| Error::Regex {
        pattern: pattern.to_string(),
        problem: error.to_string(),
    })
}

/// The text of a URL's query: `%41` and `+` decoded, what is malformed as it is.
pub fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |digit: u8| (digit as char).to_digit(16);
        let mut ahead = rest.clone();
        match (byte, ahead.next().and_then(hex), ahead.next().and_then(hex)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = ahead;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Everything that is shown, by full name.
#[derive(Default)]
struct Snapshot {
    texts: BTreeMap<String, String>,
    numbers: BTreeMap<String, (Number, u64)>,
    histograms: BTreeMap<String, Distribution>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Counter,
    Gauge,
}

#[derive(Default)]
struct Distribution {
    interval: HistogramSummary,
    cumulative: HistogramSummary,
}

pub(super) fn render(store: &Store, query: &Query) -> String {
    let settings = store.0.settings.read();
    let mut snapshot = Snapshot::default();
    for node in store.nodes() {
        snapshot.collect(&node, query, &settings);
    }
    match query.format {
        Format::Text => text(&snapshot),
        Format::Json => json(&snapshot),
        Format::Prometheus => prometheus(&snapshot, query, &settings),
    }
}

impl Snapshot {
    fn collect(&mut self, node: &Node, query: &Query, settings: &Settings) {
        let mut full = String::with_capacity(96);
        let mut wanted = |name: &str| {
            full.clear();
            full.push_str(&node.prefix);
            full.push_str(name);
            (query.wants(&full) && settings.matcher.shows(&full)).then(|| full.clone())
        };
        let members = node.members.lock();
        if query.wants_kind(Kinds::Counters) {
            for cells in members
                .counters
                .values()
                .chain(members.counter_blocks.values())
            {
                for index in (0..cells.len()).filter(|index| !query.used_only || cells.used(*index))
                {
                    if let Some(name) = wanted(cells.name(index)) {
                        self.numbers.entry(name).or_insert((Number::Counter, 0)).1 +=
                            cells.value(index);
                    }
                }
            }
        }
        if query.wants_kind(Kinds::Gauges) {
            for cells in members.gauges.values().chain(members.gauge_blocks.values()) {
                for index in (0..cells.len()).filter(|index| !query.used_only || cells.used(*index))
                {
                    if let Some(name) = wanted(cells.name(index)) {
                        self.numbers.entry(name).or_insert((Number::Gauge, 0)).1 +=
                            gauge_value(cells, index);
                    }
                }
            }
        }
        if query.wants_kind(Kinds::Histograms) {
            for (name, recorder) in &members.histograms {
                let cumulative = recorder.cumulative();
                if query.used_only && cumulative.count == 0 {
                    continue;
                }
                if let Some(name) = wanted(name) {
                    let shown = self.histograms.entry(name).or_default();
                    shown.cumulative.merge(&cumulative);
                    shown.interval.merge(&recorder.interval());
                }
            }
        }
        if query.wants_kind(Kinds::TextReadouts) {
            for (name, text) in &members.texts {
                let text = text.value();
                if query.used_only && text.is_empty() {
                    continue;
                }
                if let Some(name) = wanted(name) {
                    self.texts.insert(name, text);
                }
            }
        }
    }
}

fn text(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for (name, text) in &snapshot.texts {
        let _ = writeln!(out, "{name}: \"{}\"", html_escape(text));
    }
    for (name, (_, value)) in &snapshot.numbers {
        let _ = writeln!(out, "{name}: {value}");
    }
    for (name, distribution) in &snapshot.histograms {
        let _ = write!(out, "{name}:");
        if distribution.cumulative.count == 0 {
            out.push_str(" No recorded values");
        } else {
            for quantile in QUANTILES {
                let [interval, cumulative] = [&distribution.interval, &distribution.cumulative]
                    .map(|summary| {
                        summary
                            .quantile(quantile)
                            .map_or("nan".to_string(), |value| value.to_string())
                    });
                let _ = write!(out, " P{}({interval},{cumulative})", percent(quantile));
            }
        }
        out.push('\n');
    }
    out
}

fn html_escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// 0.995 as 99.5, without the binary fraction's tail.
fn percent(quantile: f64) -> f64 {
    (quantile * 1000.0).round() / 10.0
}

fn json(snapshot: &Snapshot) -> String {
    let texts = snapshot
        .texts
        .iter()
        .map(|(name, text)| json!({"name": name, "value": text}));
    let numbers = snapshot
        .numbers
        .iter()
        .map(|(name, (_, value))| json!({"name": name, "value": value}));
    let mut stats: Vec<serde_json::Value> = texts.chain(numbers).collect();
    if !snapshot.histograms.is_empty() {
        let computed: Vec<_> = snapshot
            .histograms
            .iter()
            .map(|(name, distribution)| {
                let values = QUANTILES.iter().map(|quantile| {
                    json!({
                        "interval": distribution.interval.quantile(*quantile),
                        "cumulative": distribution.cumulative.quantile(*quantile),
                    })
                });
                json!({"name": name, "values": values.collect::<Vec<_>>()})
            })
            .collect();
        let supported: Vec<f64> = QUANTILES
            .iter()
            .map(|quantile| percent(*quantile))
            .collect();
        stats.push(json!({"histograms": {"supported_quantiles": supported, "computed_quantiles": computed}}));
    }
    json!({ "stats": stats }).to_string()
}

/// Series of one Prometheus name: label text → value.
type Groups<T> = BTreeMap<String, Vec<(String, T)>>;

fn prometheus(snapshot: &Snapshot, query: &Query, settings: &Settings) -> String {
    let mut out = String::new();
    for (kind, type_name) in [(Number::Counter, "counter"), (Number::Gauge, "gauge")] {
        let numbers = snapshot
            .numbers
            .iter()
            .filter(|(_, (number, _))| *number == kind);
        let groups = grouped(
            numbers.map(|(name, (_, value))| (name.as_str(), Tags::new(), *value)),
            &settings.tags,
        );
        write_numbers(&mut out, type_name, &groups);
    }
    if query.text_readouts {
        let texts = snapshot.texts.iter();
        let texts = texts.map(|(name, text)| {
            (
                name.as_str(),
                vec![("text_value".to_string(), text.clone())],
                0,
            )
        });
        write_numbers(&mut out, "gauge", &grouped(texts, &settings.tags));
    }
    let histograms = snapshot
        .histograms
        .iter()
        .map(|(name, shown)| (name.as_str(), Tags::new(), (name, shown)));
    for (name, series) in grouped(histograms, &settings.tags) {
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (labels, (full_name, shown)) in series {
            let counts = |bound: f64| shown.cumulative.count_up_to(bound);
            let totals = (shown.cumulative.sum as f64, shown.cumulative.count);
            write_histogram(
                &mut out,
                &name,
                &labels,
                settings.buckets.bounds(full_name),
                counts,
                totals,
            );
        }
        out.push('\n');
    }
    out
}

fn grouped<'a, T>(series: impl Iterator<Item = (&'a str, Tags, T)>, rules: &TagRules) -> Groups<T> {
    let mut groups = Groups::new();
    for (name, more_tags, value) in series {
        let (base, mut tags) = rules.extract(name);
        tags.extend(more_tags);
        let labels: Vec<String> = tags
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escape_label(value)))
            .collect();
        groups
            .entry(series_name(&base))
            .or_default()
            .push((labels.join(","), value));
    }
    groups
}

/// `envoy_` and the name; names of the custom namespace of Istio and Wasm filters go without the prefix.
fn series_name(base: &str) -> String {
    match base
        .strip_prefix("istiocustom.")
        .or_else(|| base.strip_prefix("wasmcustom."))
    {
        Some(custom) => prometheus_name(custom),
        None => format!("envoy_{}", prometheus_name(base)),
    }
}

/// A label value with backslash, quote and line feed escaped.
pub(crate) fn escape_label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn write_numbers(out: &mut String, type_name: &str, groups: &Groups<u64>) {
    for (name, series) in groups {
        let _ = writeln!(out, "# TYPE {name} {type_name}");
        for (labels, value) in series {
            let _ = writeln!(out, "{name}{{{labels}}} {value}");
        }
        out.push('\n');
    }
}

/// One histogram's lines. `counts(bound)` is the number of values up to the bound; `totals` are sum
/// and count.
pub(crate) fn write_histogram(
    out: &mut String,
    name: &str,
    labels: &str,
    bounds: &[f64],
    counts: impl Fn(f64) -> u64,
    totals: (f64, u64),
) {
    let separator = if labels.is_empty() { "" } else { "," };
    for bound in bounds {
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {}",
            counts(*bound)
        );
    }
    let (sum, count) = totals;
    let _ = writeln!(
        out,
        "{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {count}"
    );
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}
