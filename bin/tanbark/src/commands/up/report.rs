//! The summary of a mesh in words: URLs first, then what is wrong. Pure.

use serde_json::Value;

use crate::object::{self, list};
use crate::output::{Cell, Colour, Table, Tone};

/// What people open in a browser, from the runtime's summary.
pub fn urls(summary: &Value) -> Vec<(String, String)> {
    let mut urls: Vec<(String, String)> = list(summary, "/urls")
        .iter()
        .filter(|entry| !is_status_port(entry))
        .map(|entry| {
            let (name, address) = (object::text(entry, "/name"), object::text(entry, "/address"));
            let port = entry.get("port").and_then(Value::as_u64).unwrap_or(0);
            let what = if name.is_empty() { port.to_string() } else { name.to_owned() };
            (format!("{} ({what})", object::text(entry, "/service")), format!("{}{address}", scheme(name, port)))
        })
        .collect();
    urls.sort();
    urls
}

/// The gateway's own health: of no interest to people.
fn is_status_port(entry: &Value) -> bool {
    entry.get("port").and_then(Value::as_u64) == Some(15_021) || object::text(entry, "/name") == "status-port"
}

fn scheme(name: &str, port: u64) -> &'static str {
    let protocol = name.split('-').next().unwrap_or_default();
    match (protocol, port) {
        ("https", _) | (_, 443) => "https://",
        ("http" | "http2" | "grpc", _) | (_, 80 | 8080) => "http://",
        _ => "tcp://",
    }
}

/// URLs, pods that are not ready, problems of files.
pub fn text(summary: &Value, colour: Colour) -> String {
    let mut out = String::new();
    let count = |pointer: &str| summary.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let (ready, total) = (count("/pods/ready"), count("/pods/total"));
    let tone = if ready == total { Tone::Good } else { Tone::Doubtful };
    out.push_str(&colour.paint(&format!("{ready}/{total} pods ready"), tone));
    out.push('\n');
    let mut table = Table::default();
    for (service, url) in urls(summary) {
        table.row([Cell(format!("  {url}"), Tone::Strong), Cell(service, Tone::Faint)]);
    }
    out.push_str(&table.render(colour));
    for pod in list(summary, "/notReady") {
        out.push_str(&format!("{} {}: {}\n", colour.paint("not ready:", Tone::Doubtful), text_of_pod(pod), object::text(pod, "/reason")));
        let message = object::text(pod, "/message");
        if !message.is_empty() {
            out.push_str(&format!("  {}\n", message.trim_end().replace('\n', "\n  ")));
        }
    }
    for problem in list(summary, "/problems").iter().filter_map(Value::as_str) {
        out.push_str(&format!("{} {problem}\n", colour.paint("problem:", Tone::Bad)));
    }
    out
}

fn text_of_pod(pod: &Value) -> &str {
    object::text(pod, "/pod")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_have_the_scheme_of_their_port() {
        let entry = |port: u64, name: &str| json!({"service": "istio-system/istio-ingressgateway", "port": port, "name": name, "address": format!("127.0.0.1:{port}")});
        let summary = json!({"urls": [entry(80, "http2"), entry(443, "https"), entry(15_021, "status-port"), entry(31_400, "tcp"), entry(8080, "")]});
        let found: Vec<String> = urls(&summary).into_iter().map(|(_, url)| url).collect();
        assert_eq!(found, ["http://127.0.0.1:8080", "http://127.0.0.1:80", "https://127.0.0.1:443", "tcp://127.0.0.1:31400"]);
    }

    #[test]
    fn the_summary_names_what_is_wrong() {
        let summary = json!({"pods": {"total": 2, "ready": 1}, "notReady": [{"pod": "a/p", "reason": "ErrImagePull", "message": "no entry\nadd it"}], "problems": ["f.yaml:1:2: bad"]});
        assert_eq!(text_plain(&summary), "1/2 pods ready\nnot ready: a/p: ErrImagePull\n  no entry\n  add it\nproblem: f.yaml:1:2: bad\n");
    }

    fn text_plain(summary: &Value) -> String {
        super::text(summary, Colour::Off)
    }
}
