//! Listeners: a line for each filter chain.

use serde_json::Value;

use super::chain;
use super::dump::{Dump, field, list, number, path, text};
use super::source::Source;
use crate::output::{Cell, Table};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub source: Source,
    /// Port that is listened on
    #[arg(long)]
    port: Option<u64>,
    /// Address that is listened on, such as 0.0.0.0
    #[arg(long)]
    address: Option<String>,
    /// `HTTP`, `TCP` or `HTTP+TCP`
    #[arg(long = "type")]
    kind: Option<String>,
    /// Name of the listener, such as virtualInbound
    #[arg(long)]
    name: Option<String>,
}

pub fn select(dump: &Dump, args: &Args) -> Vec<Value> {
    let wanted = |listener: &Value| {
        args.port.is_none_or(|port| port_of(listener) == port)
            && args
                .address
                .as_deref()
                .is_none_or(|address| addresses(listener).split(',').any(|own| own == address))
            && args
                .name
                .as_deref()
                .is_none_or(|name| text(listener, "name") == name)
            && args
                .kind
                .as_deref()
                .is_none_or(|kind| kind_of(listener).eq_ignore_ascii_case(kind))
    };
    dump.listeners().into_iter().filter(wanted).collect()
}

fn port_of(listener: &Value) -> u64 {
    number(listener, "address.socket_address.port_value").unwrap_or(0)
}

fn addresses(listener: &Value) -> String {
    let first = text(listener, "address.socket_address.address");
    let more = list(listener, "additional_addresses")
        .iter()
        .map(|address| text(address, "address.socket_address.address"));
    let all: Vec<&str> = std::iter::once(first)
        .chain(more)
        .filter(|address| !address.is_empty())
        .collect();
    all.join(",")
}

fn chains(listener: &Value) -> Vec<&Value> {
    let default = field(listener, "default_filter_chain").into_iter();
    list(listener, "filter_chains")
        .iter()
        .chain(default)
        .collect()
}

fn kind_of(listener: &Value) -> &'static str {
    let destinations: Vec<String> = chains(listener)
        .into_iter()
        .map(chain::destination)
        .collect();
    let http = destinations
        .iter()
        .any(|text| text.contains("Route") || text.starts_with("HTTP"));
    let tcp = destinations
        .iter()
        .any(|text| text.starts_with("Cluster") || text.ends_with("PassthroughCluster"));
    match (http, tcp) {
        (true, true) => "HTTP+TCP",
        (true, false) => "HTTP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
}

pub fn table(listeners: &[Value]) -> Table {
    let mut listeners: Vec<&Value> = listeners.iter().collect();
    listeners.sort_by_key(|listener| (port_of(listener), addresses(listener)));
    let mut table = Table::new(["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    for listener in listeners {
        let (address, port) = match addresses(listener) {
            empty if empty.is_empty() => (
                path(listener, "name")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                String::new(),
            ),
            addresses => (addresses, port_of(listener).to_string()),
        };
        let mut lines: Vec<[String; 2]> = chains(listener)
            .into_iter()
            .map(|chain| [chain::matches(chain), chain::destination(chain)])
            .collect();
        lines.sort_by(|[_, a], [_, b]| b.cmp(a));
        for [matches, destination] in lines {
            table.row([address.clone(), port.clone(), matches, destination].map(Cell::from));
        }
    }
    table
}
