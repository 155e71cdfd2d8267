//! Routes: a line for each match of each virtual host.

use serde_json::Value;

use super::dump::{Dump, config_of, field, list, nothing, text};
use super::source::Source;
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
    // Ports by their number, then what has a name.
    tables.sort_by_key(|table| {
        let name = text(table, "name");
        (
            name.parse::<u16>().map_err(|_| name.to_owned()),
            name.is_empty(),
        )
    });
    let mut out = Table::new(["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    for table in tables {
        for host in list(table, "virtual_hosts") {
            if list(host, "routes").is_empty() {
                out.row(
                    [
                        text(table, "name"),
                        text(host, "name"),
                        &domains(host),
                        "/*",
                        "404",
                    ]
                    .map(Cell::from),
                );
            }
            // What every sidecar does with unknown hosts is not repeated in each table.
            let shown = |route: &&Value| text(route, "route.cluster") != "PassthroughCluster";
            for route in list(host, "routes").iter().filter(shown) {
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
    // Further spellings of a host (with its port, with a dot at the end, with more of the cluster's domain) say nothing new.
    let respelt = |domain: &&str| {
        all.iter().any(|other| {
            domain.strip_prefix(other).is_some_and(|rest| {
                [".", ".svc", ".svc.cluster.local", ".svc.cluster.local."].contains(&rest)
                    || rest.starts_with(':')
                    || rest.starts_with(".:")
            })
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

/// What a route matches: its path, and the names of headers.
pub fn rule(route: &Value) -> String {
    let nothing = nothing();
    let rule = field(route, "match").unwrap_or(&nothing);
    let path = ["prefix", "path", "path_separated_prefix"]
        .iter()
        .map(|name| (*name, text(rule, name)))
        .find(|(_, value)| !value.is_empty());
    let regex = text(rule, "safe_regex.regex");
    let path = match path {
        Some(("path", value)) => value.to_owned(),
        Some(("path_separated_prefix", value)) => format!("PathPrefix:{value}"),
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
    fn tables_are_in_order_of_ports_without_what_all_have() {
        let to = |cluster: &str| json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
        let tables = [
            json!({"name": "named", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": []}]}),
            json!({"name": "9080", "virtual_hosts": [{"name": "a", "domains": ["a"], "routes": [to("outbound|9080||a")]}, {"name": "allow_any", "domains": ["*"], "routes": [to("PassthroughCluster")]}]}),
            json!({"name": "80", "virtual_hosts": [{"name": "b", "domains": ["b"], "routes": [to("outbound|80||b")]}]}),
        ];
        let text = table(&tables).render(crate::output::Colour::Off);
        let lines: Vec<String> = text
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines, ["80 b b /*", "9080 a a /*", "named v * /* 404"]);
    }

    #[test]
    fn matches_and_domains_are_short() {
        assert_eq!(
            rule(&json!({"match": {"prefix": "/a", "headers": [{"name": "end-user"}]}})),
            "/a* (end-user)"
        );
        assert_eq!(rule(&json!({"match": {"path": "/b"}})), "/b");
        assert_eq!(
            domains(
                &json!({"domains": ["a.n.svc.cluster.local", "a.n.svc.cluster.local.", "a", "a:80", "a.n.svc", "a.n", "10.0.0.1"]})
            ),
            "a, a.n + 1 more..."
        );
        assert_eq!(
            rule(&json!({"match": {"path_separated_prefix": "/c"}})),
            "PathPrefix:/c"
        );
    }
}
