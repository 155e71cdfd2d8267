//! Routes: a line for each match of each virtual host.

use serde_json::Value;

use super::Source;
use super::clusters::config_of;
use super::dump::{Dump, field, list, text};
use crate::output::{Cell, Table};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub source: Source,
    /// Name of the route table (`9080`)
    #[arg(long)]
    name: Option<String>,
}

/// Domains that are shown of a virtual host.
const MAX_DOMAINS: usize = 2;

pub fn select(dump: &Dump, args: &Args) -> Vec<Value> {
    dump.routes()
        .into_iter()
        .filter(|table| {
            args.name
                .as_deref()
                .is_none_or(|name| text(table, "name") == name)
        })
        .collect()
}

pub fn table(tables: &[Value]) -> Table {
    let mut tables: Vec<&Value> = tables.iter().collect();
    tables.sort_by_key(|table| text(table, "name").to_owned());
    let mut out = Table::new(["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    for table in tables {
        for host in list(table, "virtual_hosts") {
            for route in list(host, "routes") {
                out.row(
                    [
                        text(table, "name").to_owned(),
                        text(host, "name").to_owned(),
                        domains(host),
                        rule(route),
                        object(route),
                    ]
                    .map(Cell::from),
                );
            }
        }
    }
    out
}

fn domains(host: &Value) -> String {
    let all: Vec<&str> = list(host, "domains")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    // Further spellings of a host (with its port, with a dot at the end) say nothing new.
    let respelt = |domain: &&str| {
        all.iter().any(|other| {
            domain
                .strip_prefix(other)
                .is_some_and(|rest| rest == "." || rest.starts_with(':') || rest.starts_with(".:"))
        })
    };
    let mut plain: Vec<&str> = all
        .iter()
        .filter(|domain| !respelt(domain))
        .copied()
        .collect();
    plain.sort_by_key(|domain| (domain.parse::<std::net::IpAddr>().is_ok(), domain.len()));
    let shown = plain
        .iter()
        .take(MAX_DOMAINS)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match plain.len().saturating_sub(MAX_DOMAINS) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn rule(route: &Value) -> String {
    let nothing = super::nothing();
    let rule = field(route, "match").unwrap_or(&nothing);
    let path = ["prefix", "path", "path_separated_prefix"]
        .iter()
        .map(|name| (*name, text(rule, name)))
        .find(|(_, value)| !value.is_empty());
    let regex = text(rule, "safe_regex.regex");
    let path = match path {
        Some(("path", value)) => value.to_owned(),
        Some((_, value)) => format!("{value}*"),
        None if !regex.is_empty() => format!("regex {regex}"),
        None => "/*".to_owned(),
    };
    let headers: Vec<String> = list(rule, "headers")
        .iter()
        .map(|header| text(header, "name").to_owned())
        .collect();
    if headers.is_empty() {
        path
    } else {
        format!("{path} ({})", headers.join(", "))
    }
}

/// `name.namespace` of the VirtualService; a 404 where there is no destination.
fn object(route: &Value) -> String {
    config_of(route).unwrap_or_else(|| {
        if field(route, "direct_response").is_some() {
            format!(
                "{}",
                field(route, "direct_response")
                    .and_then(|response| response.get("status"))
                    .unwrap_or(&Value::Null)
            )
        } else {
            String::new()
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn matches_and_domains_are_short() {
        assert_eq!(
            rule(&json!({"match": {"prefix": "/a", "headers": [{"name": "end-user"}]}})),
            "/a* (end-user)"
        );
        assert_eq!(rule(&json!({"match": {"path": "/b"}})), "/b");
        assert_eq!(
            domains(&json!({"domains": ["a.n.svc", "a.n.svc.", "a.n.svc:80", "a", "a:80", "a.n"]})),
            "a, a.n + 1 more..."
        );
    }
}
