//! A case: what `cases/NAME.yaml` says.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// By name; requests go to `in` unless they say otherwise.
    pub listeners: BTreeMap<String, ListenerSketch>,
    #[serde(default)]
    pub clusters: BTreeMap<String, Value>,
    /// Servers that the clusters name: `http`, `raw` or `closed` (nobody listens).
    #[serde(default)]
    pub backends: BTreeMap<String, BackendKind>,
    /// Counters that are compared at the end.
    #[serde(default)]
    pub stats: Vec<String>,
    pub steps: Vec<StepSketch>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSketch {
    /// Fields of the connection manager, over the usual ones.
    #[serde(default)]
    pub hcm: Value,
    /// HTTP filters before the router.
    #[serde(default)]
    pub filters: Vec<Value>,
    /// Routes of the virtual host `*`.
    #[serde(default)]
    pub routes: Vec<Value>,
    /// Instead of `routes`.
    #[serde(default)]
    pub virtual_hosts: Vec<Value>,
    /// Fields of the route table.
    #[serde(default)]
    pub table: Value,
    /// Instead of all of the above: filter chains as they are.
    #[serde(default)]
    pub filter_chains: Vec<Value>,
    /// Of the one chain, where there are no `filter_chains`.
    pub transport_socket: Option<Value>,
    /// Fields of the listener.
    #[serde(default)]
    pub listener: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// HTTP/1.1 and HTTP/2, obeying the header `x-do`.
    Http,
    /// The same behind TLS.
    Https,
    /// Writes down what comes and echoes it in capitals.
    Echo,
    Closed,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum StepSketch {
    Short(String),
    Long(Box<Step>),
}

/// One or several requests on one connection.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What is tried, for whoever reads a difference.
    #[serde(default)]
    pub name: String,
    #[serde(default = "default_listener")]
    pub to: String,
    /// HTTP/1 requests, one after the other on one connection.
    #[serde(default)]
    pub send: Vec<String>,
    /// Bytes as they are; `responses` are read afterwards.
    pub raw: Option<String>,
    /// HTTP/2: pseudo headers and headers.
    pub h2: Option<Http2>,
    #[serde(default = "one")]
    pub responses: usize,
    /// Sent before anything else, also before a TLS handshake.
    #[serde(default)]
    pub prefix: String,
    pub tls: Option<TlsSketch>,
    /// Waits for the proxy to close the connection.
    #[serde(default)]
    pub close: bool,
    /// Bytes that come after a 101 or a CONNECT: sent then, and as many are read.
    pub tunnel: Option<String>,
    /// Sent as it is on a TCP connection; everything that comes until the end is the answer.
    pub tcp: Option<String>,
    /// Lines of the access log to wait for; as many as there are requests, unless said otherwise.
    pub logs: Option<usize>,
    /// Requests to wait for that upstreams see (a mirror's come late).
    #[serde(default)]
    pub seen: usize,
    /// Repeats the step and counts equal answers (lines that start with one of these words only).
    #[serde(default)]
    pub times: usize,
    /// Sends that many at once and counts equal answers.
    #[serde(default)]
    pub parallel: usize,
    /// Why it is known to differ.
    pub differs: Option<String>,
    /// What in the text is not compared: regular expressions, whose matches are left out.
    #[serde(default)]
    pub mask: Vec<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http2 {
    pub headers: Vec<String>,
    pub body: Option<String>,
    #[serde(default)]
    pub trailers: Vec<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSketch {
    pub sni: Option<String>,
    #[serde(default)]
    pub alpn: Vec<String>,
    /// Shows a workload's certificate.
    #[serde(default)]
    pub certificate: bool,
}

fn default_listener() -> String {
    "in".into()
}

fn one() -> usize {
    1
}

impl StepSketch {
    pub fn into_step(self) -> Step {
        match self {
            Self::Long(step) => *step,
            Self::Short(text) => Step {
                to: default_listener(),
                send: vec![text],
                responses: 1,
                ..Step::default()
            },
        }
    }
}

impl Step {
    pub fn title(&self) -> String {
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        if !self.name.is_empty() {
            return self.name.clone();
        }
        match (&self.send.first(), &self.raw, &self.h2, &self.tcp) {
            (Some(send), ..) => first(send),
            (_, Some(raw), ..) | (.., Some(raw)) => first(raw),
            (.., Some(h2), _) => h2.headers.join(" "),
            _ => String::new(),
        }
    }

    /// Lines of the access log that it makes.
    pub fn log_lines(&self) -> usize {
        let requests = if self.send.is_empty() {
            1
        } else {
            self.send.len()
        };
        self.logs.unwrap_or(requests) * self.times.max(self.parallel).max(1)
    }
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/envoy/cases")
}

pub fn read(name: &str) -> Case {
    let file = folder().join(name).with_extension("yaml");
    let text = std::fs::read_to_string(&file).expect("a case");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
